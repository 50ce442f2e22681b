"""What is kept of an ended call's bodies, by capture mode and size; and that no secret is in it."""

import gzip
import hashlib
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import orjson
import pytest
import zstandard

from proxy.call import CallEnd
from proxy.capture import TAIL_BYTES
from proxy.pricing import Prices
from proxy.settle import Settler
from storage.records import Body, SpanEnd
from tests.calling import (
    ANSWER,
    DONE,
    EVENTS,
    JSON,
    LEFT,
    QUESTION,
    USAGE,
    a_call,
    answered,
    delta,
)

KEY = b"sk-canary-0123456789-abcdefghij"
AUTHORIZED = (*JSON, (b"Authorization", b"Bearer " + KEY))
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


@pytest.fixture(scope="module")
def settler() -> Settler:
    return Settler(Prices())


def kept(body: Body | None) -> bytes | None:
    """Give what is stored of a body."""
    return body.content.data if body is not None and body.content is not None else None


def everything(row: SpanEnd) -> bytes:
    """Give all that would be stored, as text."""
    return repr(row).encode() + (kept(row.request) or b"") + (kept(row.response) or b"")


# Capture modes.


def test_in_full_mode_both_bodies_are_kept_as_they_were(settler: Settler) -> None:
    row = settler.end(answered(a_call(), ANSWER))
    assert (kept(row.request), kept(row.response)) == (QUESTION, ANSWER)
    assert row.response is not None
    assert row.response.sha256 == hashlib.sha256(ANSWER).digest()
    assert not row.response.truncated
    assert not row.response.redacted


def test_in_preview_mode_the_first_bytes_are_kept_and_the_previews_show_no_more(
    settler: Settler,
) -> None:
    row = settler.end(answered(a_call(capture="preview(3)"), ANSWER))
    assert (kept(row.request), kept(row.response)) == (QUESTION[:3], ANSWER[:3])
    assert (row.input_preview, row.output_preview) == ("How", "Fin")
    assert row.response is not None
    assert (row.response.size, row.response.truncated) == (len(ANSWER), True)
    assert row.response.sha256 == hashlib.sha256(ANSWER).digest()
    assert row.tokens.total == 11


def test_a_preview_that_a_body_fits_in_is_the_body(settler: Settler) -> None:
    row = settler.end(answered(a_call(capture="preview"), ANSWER))
    assert kept(row.response) == ANSWER
    assert row.response is not None
    assert not row.response.truncated


def test_with_capture_off_only_figures_are_kept(settler: Settler) -> None:
    request = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"CANARY"}]}'
    answers = [
        (ANSWER.replace(b"Fine.", b"CANARY"), 200),
        (b'{"error":{"message":"you wrote CANARY"}}', 400),
        (b'{"id":"r","status":"failed","error":{"message":"CANARY"}}', 200),
    ]
    for answer, status in answers:
        row = settler.end(answered(a_call(capture="off", request=request), answer, status=status))
        assert b"CANARY" not in everything(row)
        assert row.request is not None
        assert (row.request.size, row.model_requested) == (len(request), "gpt-4o-mini")
    assert settler.end(answered(a_call(capture="off"), ANSWER)).tokens.total == 11


def test_with_capture_off_a_checkpoint_keeps_only_the_length(settler: Settler) -> None:
    call = a_call(capture="off")
    call.answered(200, EVENTS, edited=False)
    call.relayed(delta("CANARY"), delta("CANARY"))
    progress = call.progress()
    assert progress is not None
    checkpoint = settler.progress(progress)
    assert kept(checkpoint.response) is None
    assert checkpoint.response.size == len(delta("CANARY"))


def test_no_body_is_kept_of_what_was_never_answered(settler: Settler) -> None:
    row = settler.end(a_call(request=b"").finish(LEFT))
    assert row.response is None
    assert kept(row.request) is None
    assert row.request is not None
    assert (row.request.size, row.request.truncated) == (0, False)


# Bodies over the cap.


def test_of_a_body_over_the_cap_the_first_part_is_kept_and_its_usage_is_found_in_its_end(
    settler: Settler,
) -> None:
    vectors = b",".join(b'{"embedding":[%b0.1]}' % (b"0.123," * 50) for _ in range(1000))
    answer = b'{"model":"text-embedding-3-small","data":[%b],' % vectors
    answer += b'"usage":{"prompt_tokens":1234,"total_tokens":1234}}'
    call = a_call(target=b"/api/proxy/openai/v1/embeddings", body_bytes=100_000)
    row = settler.end(answered(call, answer[:50_000], answer[50_000:]))
    assert kept(row.response) == answer[:100_000]
    assert row.response is not None
    assert (row.response.size, row.response.truncated) == (len(answer), True)
    assert row.response.sha256 == hashlib.sha256(answer).digest()
    assert (row.tokens.input, row.tokens.output) == (1234, 0)
    assert (row.usage_source, row.model) == ("provider", "text-embedding-3-small")
    assert len(answer) > 100_000 + TAIL_BYTES


def test_a_stream_over_the_cap_has_its_usage_all_the_same(settler: Settler) -> None:
    call = a_call(body_bytes=100)
    row = settler.end(answered(call, delta("x" * 5000), USAGE, DONE, headers=EVENTS))
    assert (row.state, row.tokens.total, row.usage_source) == ("completed", 11, "provider")
    assert row.response is not None
    assert row.response.truncated


# Compressed bodies.


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_compressed_answer_is_read_and_kept_compressed(
    settler: Settler, coding: str, streamed: bool
) -> None:
    plain = delta("Fine.") + USAGE + DONE if streamed else ANSWER
    packed = CODINGS[coding](plain)
    headers = (*(EVENTS if streamed else JSON), (b"Content-Encoding", coding.encode()))
    row = settler.end(answered(a_call(), packed, headers=headers))
    assert (row.state, row.tokens.total, row.output_preview) == ("completed", 11, "Fine.")
    assert kept(row.response) == packed
    assert row.response is not None
    assert row.response.content_encoding == coding


# Secrets.


def echo(answer: bytes, **how: Any) -> CallEnd:
    return answered(a_call(headers=AUTHORIZED), answer, **how)


ECHOES: dict[str, CallEnd] = {
    "an answer": echo(ANSWER.replace(b"Fine.", KEY)),
    "an error": echo(b'{"error":{"message":"bad key %b"}}' % KEY, status=401),
    "an error page": echo(b"<title>no %b</title>" % KEY, status=502),
    "a stream": echo(delta(KEY.decode()) + DONE, headers=EVENTS),
    "an error event": echo(b'data: {"error":{"message":"%b"}}\n\n' % KEY, headers=EVENTS),
    "the name of a model": echo(
        b'data: {"id":"%b","model":"%b","service_tier":"%b","choices":[]}\n\n' % (KEY, KEY, KEY),
        headers=EVENTS,
    ),
    "an escaped answer": echo(ANSWER.replace(b"Fine.", KEY.replace(b"-", b"\\u002d"))),
    "a plain answer that says it is compressed": echo(
        b"oops " + KEY, headers=(*JSON, (b"Content-Encoding", b"gzip"))
    ),
    "the request": answered(
        a_call(headers=AUTHORIZED, request=QUESTION.replace(b"How", KEY)), ANSWER
    ),
    "a form": answered(
        a_call(
            target=b"/api/proxy/openai/v1/audio/transcriptions",
            headers=(*AUTHORIZED[1:], (b"Content-Type", b"multipart/form-data; boundary=b")),
            request=b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n%b\r\n--b--\r\n'
            % KEY,
        ),
        b'{"text":"hi"}',
    ),
    "a header": echo(ANSWER, headers=((b"X-Request", KEY),)),
    "a query": answered(a_call(target=b"/api/proxy/openai/v1/x?key=%b" % KEY), b"so " + KEY),
    "a cookie": answered(a_call(headers=((b"Cookie", b"a=1; sid=" + KEY),)), b"so " + KEY),
    "a cookie that is set": answered(
        a_call(), b"so " + KEY, headers=((b"Set-Cookie", b"sid=%b; Path=/" % KEY),)
    ),
}


@pytest.mark.parametrize("where", ECHOES)
def test_a_credential_that_is_echoed_is_in_nothing_that_is_stored(
    settler: Settler, where: str
) -> None:
    assert KEY not in everything(settler.end(ECHOES[where]))
    assert KEY not in everything(settler.bare(ECHOES[where]))


def test_a_body_with_a_secret_is_flagged_and_the_rest_of_it_is_exact(settler: Settler) -> None:
    row = settler.end(ECHOES["an answer"])
    assert row.response is not None
    assert row.response.redacted
    assert kept(row.response) == ANSWER.replace(b"Fine.", b"[redacted]")
    assert row.output_preview == "[redacted]"
    assert row.request is not None
    assert not row.request.redacted
    assert not row.response.truncated


@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_body_with_a_secret_is_kept_plain_and_without_it(
    settler: Settler, coding: str
) -> None:
    packed = CODINGS[coding](ANSWER.replace(b"Fine.", KEY))
    row = settler.end(echo(packed, headers=(*JSON, (b"Content-Encoding", coding.encode()))))
    assert kept(row.response) == ANSWER.replace(b"Fine.", b"[redacted]")
    assert row.response is not None
    assert (row.response.content_encoding, row.response.redacted) == (None, True)


def test_a_key_of_ours_is_cut_out_wherever_it_is(settler: Settler) -> None:
    ours = b"tw_sk_0123456789abcdef"
    call = a_call(request=QUESTION.replace(b"How", ours))
    row = settler.end(answered(call, gzip.compress(ours), headers=(
        (b"Content-Encoding", b"gzip"), (b"X-Back", ours))))  # fmt: skip
    assert b"tw_sk_" not in everything(row)
    assert row.input_preview == "[redacted] are you today?"


@pytest.mark.parametrize("kept_bytes", range(8, len(KEY)))
def test_the_beginning_of_a_secret_that_the_cap_cut_is_not_kept(
    settler: Settler, kept_bytes: int
) -> None:
    answer = b"it is " + KEY + b" indeed"
    call = a_call(headers=AUTHORIZED, body_bytes=6 + kept_bytes, request=b"")
    row = settler.end(answered(call, answer))
    assert kept(row.response) == b"it is [redacted]"


def test_a_checkpoint_that_ends_within_a_secret_keeps_none_of_it(settler: Settler) -> None:
    call = a_call(headers=AUTHORIZED)
    call.answered(200, EVENTS, edited=False)
    call.relayed(b"data: " + KEY[:20], b"data: " + KEY[:20])
    progress = call.progress()
    assert progress is not None
    assert kept(settler.progress(progress).response) == b"data: [redacted]"


def test_a_secret_that_a_stream_cut_in_two_is_not_in_the_preview(settler: Settler) -> None:
    call = a_call(headers=AUTHORIZED)
    events = delta("it is " + KEY[:10].decode()) + delta(KEY[10:].decode()) + DONE
    assert settler.end(answered(call, events, headers=EVENTS)).output_preview == "it is [redacted]"


@pytest.mark.parametrize("escaped", [b"ab\\/cd+0123456789==", b"ab/cd\\u002B0123456789=="])
def test_a_secret_is_known_as_encoders_of_json_write_it(settler: Settler, escaped: bytes) -> None:
    call = a_call(headers=((b"Api-Key", b"ab/cd+0123456789=="),))
    row = settler.end(answered(call, ANSWER.replace(b"Fine.", escaped)))
    assert kept(row.response) == ANSWER.replace(b"Fine.", b"[redacted]")


def test_a_secret_at_the_edge_of_a_preview_is_cut_out_first(settler: Settler) -> None:
    text = "x" * 490 + KEY.decode()
    row = settler.end(echo(delta(text) + DONE, headers=EVENTS))
    assert row.output_preview == ("x" * 490 + "[redacted]")[:500]


def test_ordinary_words_that_serve_as_keys_stay_in_texts(settler: Settler) -> None:
    call = a_call(headers=(*JSON, (b"Authorization", b"Bearer ollama")))
    row = settler.end(answered(call, ANSWER.replace(b"Fine.", b"I am ollama.")))
    assert row.output_preview == "I am ollama."
    assert "ollama" not in orjson.loads(row.request_headers or "[]")[1]
