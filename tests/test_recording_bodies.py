"""Bodies end to end: how much is kept, in which mode, and what lies in the database's files."""

import gzip
import hashlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from tests.calling import DONE, USAGE, delta
from tests.conftest import Serve
from tests.databases import kept
from tests.running import CHAT, Running
from tests.wire import ScriptedUpstream

CANARY = "zq-canary-7361"
REQUEST = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"%b"}]}' % CANARY.encode()
ANSWER = (
    b'{"id":"c","model":"gpt-4o-mini","choices":[{"message":{"content":"%b"}}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}' % CANARY.encode()
)
STREAM = delta(CANARY) + USAGE + DONE
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


def files(tw: Running) -> bytes:
    """Give the raw bytes of the database and of all that lies beside it."""
    return kept(tw.config.database.path)


async def call(tw: Running, capture: bytes | None = None) -> None:
    header = b"X-Traceway-Capture: %b\r\n" % capture if capture is not None else b""
    await tw.raw(CHAT.encode(), headers=b"Content-Type: application/json\r\n" + header,
                 body=REQUEST)  # fmt: skip


async def test_in_full_mode_both_bodies_are_shown_as_they_were(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(ANSWER)
    await call(tw)
    span = await tw.span()
    assert span["input"]["messages"][0]["content"] == CANARY
    assert span["output"]["choices"][0]["message"]["content"] == CANARY
    body = span["metadata"]["response"]
    assert (body["size"], body["sha256"]) == (len(ANSWER), hashlib.sha256(ANSWER).hexdigest())
    assert (body["stored"], body["truncated"], body["redacted"]) == (True, False, False)


@pytest.mark.parametrize("how", ["configuration", "request"])
async def test_in_preview_mode_only_the_first_bytes_are_kept(
    serve: Serve, upstream: ScriptedUpstream, how: str
) -> None:
    tw = await serve({"recording.capture": "preview(20)"} if how == "configuration" else None)
    upstream.answers(ANSWER)
    await call(tw, b"preview(20)" if how == "request" else None)
    span = await tw.span()
    assert (span["input"], span["output"]) == (REQUEST[:20].decode(), ANSWER[:20].decode())
    assert span["metadata"]["response"]["truncated"] is True
    assert span["metadata"]["response"]["size"] == len(ANSWER)
    assert span["kind"]["input_tokens"] == 9


ANSWERS = {
    "an answer": (ANSWER, {}),
    "a stream": (STREAM, {"content_type": b"text/event-stream"}),
    "an error that quotes": (b'{"error":{"message":"%b"}}' % CANARY.encode(),
                             {"status": b"400 Bad"}),
    "an error event": (b'data: {"error":{"message":"%b"}}\n\n' % CANARY.encode(),
                       {"content_type": b"text/event-stream"}),
}  # fmt: skip


@pytest.mark.parametrize("what", ANSWERS)
@pytest.mark.parametrize("how", ["configuration", "request"])
async def test_with_capture_off_nothing_of_the_content_is_in_the_files(
    serve: Serve, upstream: ScriptedUpstream, what: str, how: str
) -> None:
    tw = await serve({"recording.capture": "off"} if how == "configuration" else None)
    answer, said = ANSWERS[what]
    upstream.answers(answer, **said)
    await call(tw, b"off" if how == "request" else None)
    span = await tw.span()
    assert (span["input"], span["output"]) == (None, None)
    assert span["metadata"]["request"]["size"] == len(REQUEST)
    assert span["kind"]["model"] == "gpt-4o-mini"
    assert CANARY.encode() not in files(tw)


async def test_the_search_of_the_files_finds_what_is_there(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(ANSWER)
    await call(tw)
    await tw.saved()
    assert CANARY.encode() in files(tw)


async def test_the_request_decides_over_the_configuration(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    tw = await serve({"recording.capture": "off"})
    upstream.answers(ANSWER)
    await call(tw, b"Full")
    assert (await tw.span())["input"] is not None


async def test_a_capture_mode_that_there_is_not_is_refused_before_anything_is_sent(
    tw: Running,
) -> None:
    got = await tw.raw(headers=b"X-Traceway-Capture: some\r\n", body=REQUEST)
    assert (got.status, got.get(b"X-Traceway-Error")) == (400, b"bad_capture")
    assert await tw.spans() == []


async def test_of_a_20_mb_answer_the_first_part_is_kept_and_its_usage_is_known(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    vector = b'{"object":"embedding","embedding":[%b0.5]}' % (b"-0.0123456789," * 1535)
    answer = b'{"object":"list","data":[%b],' % b",".join([vector] * 980)
    answer += b'"model":"text-embedding-3-small",'
    answer += b'"usage":{"prompt_tokens":4321,"total_tokens":4321}}'
    assert len(answer) > 20_000_000
    upstream.answers(answer)

    got = await tw.raw(b"/api/proxy/openai/v1/embeddings",
                       body=b'{"model":"text-embedding-3-small","input":"x"}')  # fmt: skip

    assert got.body == answer
    span = await tw.span()
    body = span["metadata"]["response"]
    assert (body["size"], body["truncated"], body["stored"]) == (len(answer), True, True)
    assert body["sha256"] == hashlib.sha256(answer).hexdigest()
    ((stored_bytes,),) = await tw.database.read("SELECT max(size) FROM contents", {})
    assert stored_bytes == tw.config.recording.body_bytes == 8 << 20
    kind = span["kind"]
    assert (kind["input_tokens"], kind["usage_source"]) == (4321, "provider")
    assert kind["cost"] == pytest.approx(4321 * 0.02e-6, abs=1e-9)
    assert tw.server.recorder.queued_bytes == 0


async def test_of_a_large_request_the_first_part_its_length_and_its_hash_are_kept(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    tw = await serve({"recording.body_bytes": "1000"})
    upstream.answers(b"{}")
    body = bytes(range(256)) * 4000
    await tw.raw(b"/api/proxy/openai/v1/files", body=body)
    assert upstream.requests[0].body == body
    kept = (await tw.span())["metadata"]["request"]
    assert (kept["size"], kept["truncated"]) == (len(body), True)
    assert kept["sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_compressed_answer_arrives_as_it_was_and_is_read(
    serve: Serve, upstream: ScriptedUpstream, coding: str, streamed: bool
) -> None:
    tw = await serve({"upstreams.openai.inject_usage": "never"})
    packed = CODINGS[coding](STREAM if streamed else ANSWER)
    upstream.answers(
        packed,
        content_type=b"text/event-stream" if streamed else b"application/json",
        headers=b"Content-Encoding: %b\r\n" % coding.encode(),
    )

    got = await tw.raw(headers=b"Accept-Encoding: gzip, br, zstd\r\n", body=REQUEST)

    assert (got.body, got.get(b"Content-Encoding")) == (packed, coding.encode())
    span = await tw.span()
    assert (span["status"], span["kind"]["input_tokens"]) == ("completed", 9)
    assert CANARY in str(span["output"])
    body = span["metadata"]["response"]
    # Its message is kept, and that is plain.
    assert (body["size"], body["content_encoding"]) == (len(packed), None)
    assert body["truncated"] is False


async def test_nothing_is_held_in_memory_when_all_is_saved(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(ANSWER)
    for _ in range(5):
        await call(tw)
    health = await tw.api("/api/health")
    assert (health["held_bytes"], health["queued_bytes"], health["calls_in_flight"]) == (0, 0, 0)
    # What was late is a matter of the machine's time, and is saved all the same.
    lost = {name: n for name, n in health["counters"].items() if not name.startswith("late_")}
    assert set(lost.values()) == {0}
