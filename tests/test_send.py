"""What leaves for an upstream, and how its answer is made what it would have been."""

import gzip
import sys
import zlib

import pytest

from proxy.connection import UpstreamFault
from proxy.decode import decoder
from proxy.send import Editor
from tests.conftest import Serve
from tests.running import Running
from tests.wire import Peer, ScriptedUpstream, connect

SENT = (
    b'data: {"choices":[{"index":0}],"usage":null}\r\n\r\n: comment\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\ndata: [DONE]\n\n'
)
RECEIVED = b'data: {"choices":[{"index":0}]}\r\n\r\n: comment\n\ndata: [DONE]\n\n'


def edited(coding: str, body: bytes, step: int) -> bytes:
    editor = Editor(decoder(coding, sys.maxsize))
    pieces = [editor.feed(body[at : at + step]) for at in range(0, len(body), step)]
    return b"".join(pieces) + editor.finish()


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("", SENT),
        ("identity", SENT),
        ("gzip", gzip.compress(SENT)),
        ("gzip", gzip.compress(SENT[:50]) + gzip.compress(SENT[50:])),
        ("deflate", zlib.compress(SENT)),
    ],
)
def test_a_stream_is_edited_whatever_its_coding_and_its_pieces(
    coding: str, body: bytes, step: int
) -> None:
    assert edited(coding, body, step) == RECEIVED


@pytest.mark.parametrize("step", [1, 10, 1000])
def test_a_stream_that_is_not_in_its_coding_is_a_fault_at_the_latest_at_its_end(step: int) -> None:
    body = gzip.compress(SENT)[:-8] + b"no such checksum"
    with pytest.raises(UpstreamFault) as raised:
        edited("gzip", body, step)
    assert (raised.value.code, raised.value.phase) == ("upstream_malformed", "body")


def test_a_stream_that_was_cut_in_an_event_gives_the_rest_as_it_is() -> None:
    assert edited("", SENT[:60], 7) == SENT[:44].replace(b',"usage":null', b"") + SENT[44:60]


async def test_a_request_goes_out_as_it_came_in(tw: Running, upstream: ScriptedUpstream) -> None:
    upstream.answers(b"{}")
    body = b'{"stream": true, "messages": [], "stream": true}'
    await tw.raw(headers=b"Content-Type: application/json\r\n", body=body)
    (sent,) = upstream.requests
    assert sent.body == body


async def test_a_body_right_behind_its_head_goes_out_with_it(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    """So that an idempotent call with a body can be sent again: a body in pieces cannot."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.respond(b"{}")
        await peer.head()
        peer.cut()

    upstream.script = script
    await tw.raw(b"/api/proxy/openai/x", method=b"GET")
    upstream.answers(b"{}")
    async with connect(tw.port) as client:
        client.writer.write(
            b"PUT /api/proxy/openai/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"
        )
        client.writer.write(b"hello")
        assert (await client.response()).body == b"{}"
    (sent,) = upstream.requests
    assert (sent.start, sent.body) == (b"PUT /x HTTP/1.1", b"hello")


@pytest.mark.parametrize(("size", "status"), [(10, 200), (11, 413)])
async def test_a_limit_on_request_bodies_counts_every_byte(
    serve: Serve, upstream: ScriptedUpstream, size: int, status: int
) -> None:
    upstream.answers(b"{}")
    tw = await serve({"server.max_request_bytes": "10"})
    assert (await tw.raw(body=b"x" * size)).status == status
    assert len(upstream.requests) == (status == 200)
