"""What is kept of a call's bodies, by capture mode, size and kind; and that no secret is in it."""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import brotli
import orjson
import pytest
import zstandard

from proxy.call import CallEnd
from proxy.capture import TAIL_BYTES
from proxy.pricing import Prices
from proxy.providers.messages import text_of
from proxy.settle import Settler
from storage.chain import Message
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
from tests.shaped import filled

EMBEDDINGS = b"/api/proxy/openai/v1/embeddings"
KEY = b"sk-canary-0123456789-abcdefghij"
AUTHORIZED = (*JSON, (b"Authorization", b"Bearer " + KEY))
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


PRICES = Prices()


@pytest.fixture
def settler() -> Settler:
    return Settler(PRICES)


def request_of(row: SpanEnd) -> bytes | None:
    """Give the request as it would be read back."""
    return kept(row.request, row.conversation.messages if row.conversation else ())


def response_of(row: SpanEnd) -> bytes | None:
    """Give the answer as it would be read back."""
    return kept(row.response, row.conversation.answer if row.conversation else ())


def kept(body: Body | None, messages: Sequence[Message] = ()) -> bytes | None:
    """Put together what is stored of a body."""
    if body is None or (body.content is None and body.envelope is None):
        return None
    if body.content is not None:
        assert body.envelope is None
        return body.content.data
    assert body.envelope is not None
    return filled(body.envelope, b"".join(message.lead + message.data for message in messages))


def everything(row: SpanEnd) -> bytes:
    """Give all that would be stored, as text."""
    texts = (
        [text_of(m.data) for m in (*row.conversation.messages, *row.conversation.answer)]
        if (row.conversation)
        else []
    )
    return repr((row, texts)).encode() + (request_of(row) or b"") + (response_of(row) or b"")


# Capture modes.


def test_in_full_mode_both_bodies_are_kept_as_they_were(settler: Settler) -> None:
    row = settler.end(answered(a_call(), ANSWER))
    assert (request_of(row), response_of(row)) == (QUESTION, ANSWER)
    assert row.response is not None
    assert row.response.sha256 == hashlib.sha256(ANSWER).digest()
    assert not row.response.truncated
    assert not row.response.redacted


def test_in_preview_mode_the_first_bytes_are_kept_and_the_previews_show_no_more(
    settler: Settler,
) -> None:
    row = settler.end(answered(a_call(capture="preview(3)"), ANSWER))
    assert (request_of(row), response_of(row)) == (QUESTION[:3], ANSWER[:3])
    assert (row.input_preview, row.output_preview) == ("How", "Fin")
    assert row.response is not None
    assert (row.response.size, row.response.truncated) == (len(ANSWER), True)
    assert row.response.sha256 == hashlib.sha256(ANSWER).digest()
    assert row.tokens.total == 11


def test_a_preview_that_a_body_fits_in_is_the_body(settler: Settler) -> None:
    row = settler.end(answered(a_call(capture="preview"), ANSWER))
    assert response_of(row) == ANSWER
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
    assert request_of(row) is None
    assert row.request is not None
    assert (row.request.size, row.request.truncated) == (0, False)


# Bodies over the cap.


def test_of_a_body_over_the_cap_the_first_part_is_kept_and_its_usage_is_found_in_its_end(
    settler: Settler,
) -> None:
    vectors = b",".join(b'{"embedding":[%b0.1]}' % (b"0.123," * 50) for _ in range(1000))
    answer = b'{"model":"text-embedding-3-small","data":[%b],' % vectors
    answer += b'"usage":{"prompt_tokens":1234,"total_tokens":1234}}'
    call = a_call(target=EMBEDDINGS, body_bytes=100_000)
    row = settler.end(answered(call, answer[:50_000], answer[50_000:]))
    assert response_of(row) == answer[:100_000]
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
def test_a_compressed_answer_of_a_conversation_is_kept_plain_by_its_message(
    settler: Settler, coding: str
) -> None:
    packed = CODINGS[coding](ANSWER)
    headers = (*JSON, (b"Content-Encoding", coding.encode()))
    row = settler.end(answered(a_call(), packed, headers=headers))
    assert (row.state, row.tokens.total, row.output_preview) == ("completed", 11, "Fine.")
    assert response_of(row) == ANSWER
    assert said(row) == [b'{"role":"assistant","content":"Fine."}']
    assert row.response is not None
    assert (row.response.content_encoding, row.response.truncated) == (None, False)
    assert row.response.sha256 == hashlib.sha256(packed).digest()
    assert row.response.size == len(packed)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_stream_is_read_and_put_together(settler: Settler, coding: str) -> None:
    packed = CODINGS[coding](delta("Fi") + delta("ne.") + USAGE + DONE)
    headers = (*EVENTS, (b"Content-Encoding", coding.encode()))
    row = settler.end(answered(a_call(), packed, headers=headers))
    assert (row.state, row.tokens.total, row.output_preview) == ("completed", 11, "Fine.")
    assert orjson.loads(response_of(row) or b"")["content"] == "Fine."


def test_a_compressed_answer_that_is_no_conversation_is_kept_compressed(settler: Settler) -> None:
    packed = gzip.compress(b'{"data":[],"usage":{"prompt_tokens":3,"total_tokens":3}}')
    call = a_call(target=EMBEDDINGS, request=b'{"input":"a"}')
    row = settler.end(answered(call, packed, headers=(*JSON, (b"Content-Encoding", b"gzip"))))
    assert (response_of(row), row.tokens.input) == (packed, 3)
    assert row.response is not None
    assert row.response.content_encoding == "gzip"
    assert row.conversation is None


def test_what_only_says_that_it_is_compressed_is_kept_as_it_came(settler: Settler) -> None:
    headers = (*JSON, (b"Content-Encoding", b"gzip"))
    row = settler.end(answered(a_call(), ANSWER, headers=headers))
    assert response_of(row) == ANSWER
    assert row.response is not None
    assert (row.response.content_encoding, row.response.truncated) == ("gzip", False)


# Conversations.


def said(row: SpanEnd) -> list[bytes]:
    """Give the messages of a call's answer."""
    assert row.conversation is not None
    return [message.data for message in row.conversation.answer]


def test_a_request_and_its_answer_are_kept_by_their_messages(settler: Settler) -> None:
    row = settler.end(answered(a_call(), ANSWER))
    assert row.conversation is not None
    assert [m.data for m in row.conversation.messages] == [
        b'{"role":"user","content":"How are you today?"}'
    ]
    assert said(row) == [b'{"role":"assistant","content":"Fine."}']
    assert row.conversation.output_meaning is not None
    assert (row.request and row.request.content, row.response and row.response.content) == (
        None,
        None,
    )
    assert row.request is not None
    assert row.request.sha256 == hashlib.sha256(QUESTION).digest()
    assert row.request.content_type == "application/json"


def test_the_next_call_of_a_conversation_gives_its_new_messages_only(settler: Settler) -> None:
    first = settler.end(answered(a_call(), ANSWER)).conversation
    messages = orjson.loads(QUESTION)["messages"]
    messages += [{"role": "assistant", "content": "Fine."}, {"role": "user", "content": "And?"}]
    request = orjson.dumps({"model": "gpt-4o-mini", "messages": messages})
    second = settler.end(answered(a_call(request=request), ANSWER)).conversation
    assert first is not None
    assert second is not None
    assert second.known == first.messages[-1].node
    assert len(second.messages) == 2
    assert second.points[1].meaning == first.output_meaning
    settler.forget()
    whole = settler.end(answered(a_call(request=request), ANSWER)).conversation
    assert whole is not None
    assert (whole.known, len(whole.messages)) == (None, 3)


@pytest.mark.parametrize("how", [{"session": "other"}, {"headers": AUTHORIZED}])
def test_what_another_caller_or_session_sent_is_not_taken_over(
    settler: Settler, how: dict[str, Any]
) -> None:
    settler.end(answered(a_call(), ANSWER))
    row = settler.end(answered(a_call(**how), ANSWER))
    assert row.conversation is not None
    assert row.conversation.known is None


def test_a_stream_is_kept_as_the_message_that_it_is(settler: Settler) -> None:
    events = (delta("Fi"), delta("ne."), USAGE, DONE)
    row = settler.end(answered(a_call(), *events, headers=EVENTS))
    assert [orjson.loads(message)["content"] for message in said(row)] == ["Fine."]
    assert row.response is not None
    assert (row.response.assembled, row.response.truncated) == (True, False)
    assert row.response.content_type == "application/json"
    assert row.response.size == len(b"".join(events))
    assert row.response.sha256 == hashlib.sha256(b"".join(events)).digest()
    assert row.conversation is not None
    plain = settler.end(answered(a_call(), ANSWER)).conversation
    assert plain is not None
    assert row.conversation.output_meaning == plain.output_meaning


def test_of_a_stream_that_was_cut_the_messages_are_kept_and_nothing_goes_on_from_them(
    settler: Settler,
) -> None:
    row = settler.end(answered(a_call(), delta("Fi"), headers=EVENTS))
    assert row.state == "truncated"
    assert b"Fi" in said(row)[0]
    assert row.conversation is not None
    assert row.conversation.output_meaning is None


def test_nothing_goes_on_from_a_stream_of_which_not_all_was_kept(settler: Settler) -> None:
    events = delta("Fi") + delta("x" * 5000) + DONE
    call = a_call(body_bytes=len(QUESTION) + 50)
    row = settler.end(answered(call, events, headers=EVENTS))
    assert row.state == "completed"
    assert row.conversation is not None
    assert row.conversation.output_meaning is None
    assert row.response is not None
    assert (row.response.assembled, row.response.truncated) == (True, True)


def test_raw_streams_are_kept_where_that_is_asked_for_and_their_messages_too() -> None:
    settler = Settler(PRICES, keep_raw_streams=True)
    events = delta("Fi") + delta("ne.") + DONE
    row = settler.end(answered(a_call(), events, headers=EVENTS))
    assert row.response is not None
    assert row.response.content is not None
    assert row.response.content.data == events
    assert (row.response.assembled, row.response.content_type) == (False, "text/event-stream")
    assert [orjson.loads(message)["content"] for message in said(row)] == ["Fine."]


def test_a_stream_of_no_conversation_is_kept_as_it_came(settler: Settler) -> None:
    events = b'data: {"type":"transcript.text.done","text":"Hello"}\n\n'
    call = a_call(target=b"/api/proxy/openai/v1/audio/transcriptions", request=b"")
    row = settler.end(answered(call, events, headers=EVENTS))
    assert (response_of(row), row.output_preview, row.conversation) == (events, "Hello", None)
    assert row.response is not None
    assert not row.response.assembled


def test_items_of_a_response_are_kept_each_for_itself_and_large_echoes_once(
    settler: Settler,
) -> None:
    tools = orjson.dumps([{"type": "function", "name": "f", "description": "d" * 2000}])
    answer = b'{"id":"r","tools":%b,"output":[{"type":"reasoning","id":"rs","summary":[]},' % tools
    answer += b'{"type":"message","role":"assistant","content":[]}],"status":"completed"}'
    request = b'{"input":"Hi","tools":%b}' % tools
    call = a_call(target=b"/api/proxy/openai/v1/responses", request=request)
    row = settler.end(answered(call, answer))
    assert (response_of(row), request_of(row)) == (answer, request)
    assert len(said(row)) == 2
    assert row.request is not None
    assert row.response is not None
    assert row.request.envelope is not None
    assert row.response.envelope is not None
    assert {hole.data for hole in row.request.envelope.holes if hole} == {tools}
    assert {hole.data for hole in row.response.envelope.holes if hole} == {tools}


@pytest.mark.parametrize("status", [400, 500])
def test_what_is_no_success_answers_nothing(settler: Settler, status: int) -> None:
    row = settler.end(answered(a_call(), ANSWER, status=status))
    assert said(row) == []
    assert response_of(row) == ANSWER
    assert row.conversation is not None
    assert (len(row.conversation.messages), row.conversation.output_meaning) == (1, None)


@pytest.mark.parametrize("capture", ["off", "preview"])
def test_without_full_capture_there_is_no_conversation_but_what_names_its_place(
    settler: Settler, capture: str
) -> None:
    request = b'{"input":"Hi","previous_response_id":"resp_1","metadata":{"session_id":"s1"}}'
    for mode in (capture, "full"):
        call = a_call(target=b"/api/proxy/openai/v1/responses", request=request, capture=mode)
        row = settler.end(answered(call, b'{"id":"resp_2","output":[]}'))
        assert (row.conversation is None) == (mode != "full")
        assert row.previous_response_id == "resp_1"
        assert row.start.session_id == "s1"


def test_a_compressed_or_cut_request_is_no_conversation_and_its_answer_is_kept(
    settler: Settler,
) -> None:
    packed = gzip.compress(QUESTION)
    encoded = a_call(request=packed, headers=(*JSON, (b"Content-Encoding", b"gzip")))
    cut = a_call(body_bytes=len(ANSWER), request=QUESTION + b" " * len(ANSWER))
    for call, stored in ((encoded, packed), (cut, None)):
        row = settler.end(answered(call, ANSWER))
        assert row.conversation is not None
        assert (row.conversation.messages, row.conversation.output_meaning) == ((), None)
        assert len(said(row)) == 1
        assert stored is None or request_of(row) == stored
        assert row.model_requested == "gpt-4o-mini" or stored is None


def test_a_checkpoint_is_what_the_stream_came_to_so_far() -> None:
    for keep_raw, expected in ((False, b'"Fin"'), (True, delta("Fi") + delta("n"))):
        call = a_call()
        call.answered(200, EVENTS, edited=False)
        for event in (delta("Fi"), delta("n")):
            call.relayed(event, event)
        progress = call.progress()
        assert progress is not None
        body = Settler(PRICES, keep_raw_streams=keep_raw).progress(progress).response
        assert expected in (kept(body) or b"")
        assert (body.assembled, body.size) == (not keep_raw, len(delta("Fi") + delta("n")))
        assert body.content is not None


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
    assert response_of(row) == ANSWER.replace(b"Fine.", b"[redacted]")
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
    assert response_of(row) == ANSWER.replace(b"Fine.", b"[redacted]")
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
    assert response_of(row) == b"it is [redacted]"


def test_a_checkpoint_that_ends_within_a_secret_keeps_none_of_it(settler: Settler) -> None:
    call = a_call(headers=AUTHORIZED)
    call.answered(200, EVENTS, edited=False)
    call.relayed(b"data: " + KEY[:20], b"data: " + KEY[:20])
    progress = call.progress()
    assert progress is not None
    assert kept(settler.progress(progress).response) == b"data: [redacted]"


def test_a_secret_that_a_stream_cut_in_two_is_in_nothing_that_is_stored(settler: Settler) -> None:
    call = a_call(headers=AUTHORIZED)
    events = delta("it is " + KEY[:10].decode()) + delta(KEY[10:].decode()) + DONE
    row = settler.end(answered(call, events, headers=EVENTS))
    assert row.output_preview == "it is [redacted]"
    assert KEY not in everything(row)
    assert row.response is not None
    assert row.response.redacted
    assert b'"it is [redacted]"' in said(row)[0]


def test_a_request_that_spells_a_secret_otherwise_is_not_taken_apart(settler: Settler) -> None:
    request = QUESTION.replace(b"How", KEY.replace(b"-", b"\\u002d"))
    row = settler.end(answered(a_call(headers=AUTHORIZED, request=request), ANSWER))
    assert KEY not in everything(row)
    assert row.conversation is not None
    assert row.conversation.messages == ()
    assert (request_of(row), row.input_preview) == (request, "[redacted] are you today?")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_secret_that_json_spells_otherwise_is_not_in_what_is_found_by_text(
    settler: Settler, streamed: bool
) -> None:
    spelled = KEY.replace(b"-", b"\\u002d")
    answer = b'data: {"type":"response.completed","response":%b}\n\n' if streamed else b"%b"
    response = b'{"output":[{"role":"assistant","content":"%b"}]}' % spelled
    call = a_call(
        target=b"/api/proxy/openai/v1/responses", headers=AUTHORIZED, request=b'{"input":"Hi"}'
    )
    row = settler.end(answered(call, answer % response, headers=EVENTS if streamed else JSON))
    assert KEY not in everything(row)
    assert said(row) == []
    assert orjson.loads(response_of(row) or b"") == orjson.loads(response)


@pytest.mark.parametrize("escaped", [b"ab\\/cd+0123456789==", b"ab/cd\\u002B0123456789=="])
def test_a_secret_is_known_as_encoders_of_json_write_it(settler: Settler, escaped: bytes) -> None:
    call = a_call(headers=((b"Api-Key", b"ab/cd+0123456789=="),))
    row = settler.end(answered(call, ANSWER.replace(b"Fine.", escaped)))
    assert response_of(row) == ANSWER.replace(b"Fine.", b"[redacted]")


def test_a_secret_at_the_edge_of_a_preview_is_cut_out_first(settler: Settler) -> None:
    text = "x" * 235 + KEY.decode()
    row = settler.end(echo(delta(text) + DONE, headers=EVENTS))
    assert row.output_preview == ("x" * 235 + "[redacted]")[:240]


def test_ordinary_words_that_serve_as_keys_stay_in_texts(settler: Settler) -> None:
    call = a_call(headers=(*JSON, (b"Authorization", b"Bearer ollama")))
    row = settler.end(answered(call, ANSWER.replace(b"Fine.", b"I am ollama.")))
    assert row.output_preview == "I am ollama."
    assert "ollama" not in orjson.loads(row.request_headers or "[]")[1]
