"""The relay end to end: what one side sent is what the other gets, and it is recorded once."""

from tests.running import CHAT, Running
from tests.wire import Peer, ScriptedUpstream


async def test_a_call_arrives_as_it_was_sent_and_its_answer_comes_back(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b'{"id": "x",  "usage": null}', headers=b"X-Odd: a\r\nx-odd: b\r\n")

    got = await tw.raw(
        headers=b"X-Mixed: 1\r\nx-MIXED: 2\r\nAuthorization: Bearer k\r\n", body=b"{}"
    )

    (sent,) = upstream.requests
    assert sent.start == b"POST /v1/chat/completions HTTP/1.1"
    assert sent.headers == [
        (b"Host", b"127.0.0.1:%d" % upstream.port),
        (b"Content-Length", b"2"),
        (b"X-Mixed", b"1"),
        (b"x-MIXED", b"2"),
        (b"Authorization", b"Bearer k"),
    ]
    assert sent.body == b"{}"
    assert got.start == b"HTTP/1.1 200 OK"
    assert got.body == b'{"id": "x",  "usage": null}'
    assert [pair for pair in got.headers if pair[0].lower() == b"x-odd"] == [
        (b"X-Odd", b"a"),
        (b"x-odd", b"b"),
    ]
    assert (await tw.span())["status"] == "completed"
