"""The bodies of a call over HTTP: the bytes that passed, what they are, nothing active."""

import gzip
import hashlib
import threading
from typing import Any

import orjson
import pytest

from proxy.api import bodies
from storage.rebuild import StoredBody
from tests.api.asking import ask, save
from tests.conftest import Serve
from tests.running import CHAT, Running
from tests.storage.calls import body as a_body
from tests.storage.calls import end, start
from tests.wire import Received, ScriptedUpstream

KEY = b"sk-canary-0123456789abcdef"
QUESTION = (
    b'{ "model":"gpt-4o-mini",\n "messages" : [ {"role":"user","content":"h\\u00e9llo"} , '
    b'{"content":"twice","content":"no, 1e400","role":"user"}\t], "n":18446744073709551617}'
)
ANSWER = (
    b'{"id":"chatcmpl-1","model":"gpt-4o-mini","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant", "content":"hi \\/ there"}}],\r\n"usage":null}\n'
)


def stored(data: bytes, *, sha_of: bytes | None = None, **fields: Any) -> StoredBody:
    given: dict[str, Any] = {
        "content_type": "application/json",
        "content_encoding": None,
        "assembled": False,
        "truncated": False,
        "redacted": False,
        "sha256": None if sha_of is None else hashlib.sha256(sha_of).digest(),
    }
    return StoredBody(data=data, **{**given, **fields})


async def called(
    tw: Running, body: bytes = QUESTION, headers: bytes = b"Content-Type: application/json\r\n"
) -> str:
    """Make one call, and give the path of its span."""
    await tw.raw(CHAT.encode(), headers=headers, body=body)
    return f"/api/spans/{(await tw.ended())['id']}"


async def read(tw: Running, path: str, method: bytes = b"GET") -> Received:
    return await tw.raw(path.encode(), method=method)


async def test_a_request_and_its_answer_come_back_byte_for_byte(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(ANSWER)
    path = await called(tw)

    asked, answered = await read(tw, f"{path}/request"), await read(tw, f"{path}/response")

    assert (asked.status, asked.body) == (200, QUESTION)
    assert (answered.status, answered.body) == (200, ANSWER)
    for got in (asked, answered):
        assert got.get(b"Content-Type") == b"application/json"
        assert got.get(b"X-Traceway-Body") == b"exact"
        assert got.get(b"Content-Disposition") is None


async def test_a_span_gives_both_as_json_as_they_were_written(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(ANSWER)
    got = await read(tw, await called(tw))
    assert b'"input":' + QUESTION in got.body
    assert b'"output":' + ANSWER.strip() in got.body


async def test_head_says_the_size_and_gives_no_body(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(ANSWER)
    path = await called(tw)
    got = await read(tw, f"{path}/response", b"HEAD")
    assert (got.status, got.body) == (200, b"")
    assert got.get(b"Content-Length") == b"%d" % len(ANSWER)
    assert got.get(b"X-Traceway-Body") == b"exact"


EVENTS = (
    b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"h"}}]}\n\n'
    b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"i"},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


async def test_a_stream_comes_back_as_the_message_that_it_added_up_to(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(EVENTS, content_type=b"text/event-stream")
    path = await called(tw)
    got = await read(tw, f"{path}/response")
    assert orjson.loads(got.body) == {"role": "assistant", "content": "hi"}
    assert got.get(b"Content-Type") == b"application/json"
    assert got.get(b"X-Traceway-Body") == b"assembled"
    span = await tw.span()
    assert span["output"] == {"role": "assistant", "content": "hi"}
    assert span["metadata"]["response"]["assembled"] is True
    assert span["metadata"]["response"]["size"] == len(EVENTS)


async def test_a_stream_comes_back_byte_for_byte_where_it_was_kept_raw(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    tw = await serve({"recording.keep_raw_streams": "true"})
    upstream.answers(EVENTS, content_type=b"text/event-stream")
    got = await read(tw, f"{await called(tw)}/response")
    assert (got.body, got.get(b"X-Traceway-Body")) == (EVENTS, b"exact")
    assert got.get(b"Content-Type") == b"text/event-stream"


@pytest.mark.parametrize(
    "content_type",
    ["text/html", "image/svg+xml; x=y", "application/xhtml+xml", "text/event-stream", "a/b", ""],
)
async def test_what_is_neither_json_nor_plain_text_is_saved_and_never_run(
    tw: Running, upstream: ScriptedUpstream, content_type: str
) -> None:
    page = b"<script>alert(document.domain)</script>"
    upstream.answers(page, content_type=content_type.encode())
    path = await called(tw)

    got = await read(tw, f"{path}/response")

    assert got.body == page
    assert got.get(b"Content-Type") == (content_type or "application/octet-stream").encode()
    assert got.get(b"Content-Security-Policy") == b"sandbox; default-src 'none'"
    assert got.get(b"X-Content-Type-Options") == b"nosniff"
    name = path.rpartition("/")[2].encode()
    assert got.get(b"Content-Disposition") == b'attachment; filename="%b-response"' % name


@pytest.mark.parametrize("content_type", ["text/plain; charset=utf-8", "application/problem+json"])
async def test_json_and_plain_text_are_shown_but_sandboxed_too(
    tw: Running, upstream: ScriptedUpstream, content_type: str
) -> None:
    upstream.answers(b"{}", content_type=content_type.encode())
    got = await read(tw, f"{await called(tw)}/response")
    assert got.get(b"Content-Type") == content_type.encode()
    assert got.get(b"Content-Disposition") is None
    assert got.get(b"Content-Security-Policy") == b"sandbox; default-src 'none'"


async def test_a_compressed_answer_comes_back_plain_and_says_so(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(gzip.compress(ANSWER), headers=b"Content-Encoding: gzip\r\n")
    got = await read(tw, f"{await called(tw)}/response")
    plain = gzip.decompress(got.body) if got.get(b"Content-Encoding") else got.body
    assert plain == ANSWER
    assert got.get(b"X-Traceway-Body") == (b"exact" if got.get(b"Content-Encoding") else b"decoded")


async def test_a_body_without_its_secret_says_so_and_is_not_called_exact(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(ANSWER)
    headers = b"Content-Type: application/json\r\nAuthorization: Bearer %b\r\n" % KEY
    path = await called(tw, QUESTION.replace(b"twice", KEY), headers)
    got = await read(tw, f"{path}/request")
    assert got.body == QUESTION.replace(b"twice", b"[redacted]")
    assert got.get(b"X-Traceway-Body") == b"redacted"


async def test_a_body_of_which_only_the_beginning_was_kept_says_so(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(ANSWER)
    headers = b"Content-Type: application/json\r\nX-Traceway-Capture: preview(10)\r\n"
    got = await read(tw, f"{await called(tw, headers=headers)}/request")
    assert (got.body, got.get(b"X-Traceway-Body")) == (QUESTION[:10], b"truncated")


async def test_what_was_not_kept_is_404(tw: Running, upstream: ScriptedUpstream) -> None:
    upstream.answers(ANSWER)
    path = await called(tw, headers=b"X-Traceway-Capture: off\r\n")
    for which in ("request", "response"):
        assert (await ask(tw, f"{path}/{which}")).error == (404, "not_found")


@pytest.mark.parametrize("span_id", ["0" * 16, "1", "F" * 16, "zz"])
async def test_the_body_of_no_span_is_404(tw: Running, span_id: str) -> None:
    for which in ("request", "response"):
        assert (await ask(tw, f"/api/spans/{span_id}/{which}")).error == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (stored(b"a", sha_of=b"a"), "exact"),
        (stored(b"a", sha_of=b"zipped a"), "decoded"),
        (stored(b"a", sha_of=b"a and more", truncated=True), "truncated"),
        (stored(b"a", sha_of=b"events", assembled=True), "assembled"),
        (stored(b"a", sha_of=b"b", assembled=True, redacted=True), "assembled, redacted"),
        (stored(b"a", redacted=True, truncated=True), "redacted, truncated"),
        # A flag that proves wrong: what is sent is what passed.
        (stored(b"a", sha_of=b"a", redacted=True), "exact"),
    ],
)
def test_only_bytes_that_were_compared_are_called_exact(body: StoredBody, words: str) -> None:
    assert bodies.description(body) == words


@pytest.mark.parametrize("size", [10, 300_000])
async def test_a_body_of_any_size_is_described_and_shown_alike(size: int) -> None:
    data = orjson.dumps(["x" * size])
    value = await bodies.json_value(stored(gzip.compress(data), content_encoding="gzip"))
    assert orjson.dumps(value) == data
    assert await bodies.json_value(None) is None


async def test_of_a_body_that_is_not_unpacked_whole_its_beginning_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "SHOWN_BYTES", 1000)
    for size, is_shown in ((998, True), (999, False)):
        data = b'"%b"' % (b"x" * size)
        for text, is_packed in ((data, False), (gzip.compress(data), True)):
            given = stored(text, content_encoding="gzip" if is_packed else None)
            value = await bodies.json_value(given)
            assert (value is not None) is (is_shown or not is_packed)
            assert value is None or orjson.dumps(value) == data
    damaged = gzip.compress(b'"%b"' % (b"x" * 900))[:-8] + bytes(8)
    assert await bodies.json_value(stored(damaged, content_encoding="gzip")) is None
    assert await bodies.json_value(stored(b"{}", content_encoding="x-unknown")) is None


async def test_bytes_that_are_still_encoded_say_so(tw: Running) -> None:
    packed = gzip.compress(ANSWER)
    answer = a_body(packed, content_type="application/json", content_encoding="gzip")
    await save(tw, end(start(1), response=answer))
    got = await read(tw, f"/api/spans/{1:016x}/response")
    assert (got.body, got.get(b"Content-Encoding")) == (packed, b"gzip")
    assert got.get(b"X-Traceway-Body") == b"exact"


@pytest.mark.parametrize(
    ("body", "aside"),
    [
        (stored(b"{}"), False),
        (stored(b"x" * (bodies.INLINE_BYTES + 1)), True),
        (stored(b"{}", content_encoding="gzip"), True),
    ],
)
async def test_a_large_body_does_not_hold_up_others(
    monkeypatch: pytest.MonkeyPatch, body: StoredBody, aside: bool
) -> None:
    threads = []

    def decode(data: bytes, *_: object) -> tuple[bytes, bool]:
        threads.append(threading.current_thread())
        return data, True

    monkeypatch.setattr(bodies, "decode", decode)
    await bodies.json_value(body)
    assert [thread is not threading.main_thread() for thread in threads] == [aside]


async def test_a_body_that_is_too_large_to_put_together_is_an_error_and_not_sent(
    tw: Running, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.answers(ANSWER)
    path = await called(tw)
    monkeypatch.setattr("storage.rebuild.MAX_ENVELOPED_BYTES", 50)
    got = await read(tw, f"{path}/request")
    assert got.status == 503
    assert b"the parts of a body have more than 50 bytes" in got.body
