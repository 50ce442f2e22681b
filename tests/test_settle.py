"""How an ended call becomes a row: its state, its tokens and their source, its cost.

What is kept of the bodies, and the secrets in them, are in test_bodies.py.
"""

from decimal import Decimal
from typing import Any

import orjson
import pytest

from proxy.call import COMPLETE, CallEnd, Ending
from proxy.estimate import tokens_of
from proxy.pricing import CustomPrice, Prices
from proxy.settle import Settler
from storage.records import SpanEnd, Tokens
from tests.calling import (
    ANSWER,
    CUT,
    DONE,
    EVENTS,
    JSON,
    LEFT,
    QUESTION,
    STOPPED,
    USAGE,
    a_call,
    answered,
    delta,
)

EMBEDDINGS = b"/api/proxy/openai/v1/embeddings"
RESPONSES = b"/api/proxy/openai/v1/responses"
HEADERS = Ending(ended_by="upstream", phase="headers", code="upstream_timeout", error="silence")
LEFT_EARLY = Ending(ended_by="client", phase="headers", code="client_left", error="it left")
CONNECT = Ending(ended_by="upstream", phase="connect", code="upstream_unreachable", error="refused")
REFUSED = Ending(ended_by="proxy", phase="request", code="unknown_upstream", error="no such one")
BROKEN = Ending(ended_by="client", phase="request", code="request_body_broken", error="broken")
STOPPED_EARLY = Ending(ended_by="proxy", phase="headers", code="server_stopped", error="stopped")


@pytest.fixture(scope="module")
def settler() -> Settler:
    price = CustomPrice(
        model="house-model",
        input_per_million_usd=Decimal(2),
        output_per_million_usd=Decimal(10),
    )
    return Settler(Prices([price]))


def plain(ending: Ending = COMPLETE, status: int = 200, answer: bytes = ANSWER) -> CallEnd:
    return answered(a_call(), answer, status=status, ending=ending)


def stream(*events: bytes, ending: Ending = COMPLETE, **how: Any) -> CallEnd:
    return answered(a_call(**how), *events, headers=EVENTS, ending=ending)


def unanswered(ending: Ending) -> CallEnd:
    return a_call().finish(ending)


FAILED_EVENT = b'data: {"error":{"message":"overloaded"}}\n\n'

STATES: list[tuple[str, CallEnd, str, str | None]] = [
    ("a whole answer", plain(), "completed", None),
    ("created", plain(status=201), "completed", None),
    ("no content", plain(status=204, answer=b""), "completed", None),
    ("a refusal", plain(status=429, answer=b'{"error":{"message":"slow down"}}'), "failed", "slow"),
    ("a page of a gateway", plain(status=502, answer=b"<title>Bad</title>"), "failed", "Bad"),
    ("a bare error", plain(status=500, answer=b""), "failed", "HTTP 500"),
    ("a redirect", plain(status=307, answer=b""), "failed", "HTTP 307"),
    ("an error whose client left", plain(LEFT, status=400, answer=b""), "failed", "HTTP 400"),
    ("an object that failed", answered(
        a_call(target=RESPONSES),
        b'{"id":"r","status":"failed","error":{"message":"no luck"}}',
    ), "failed", "no luck"),
    ("a whole stream", stream(delta("Hi"), USAGE, DONE), "completed", None),
    ("an error event", stream(delta("Hi"), FAILED_EVENT), "failed", "overloaded"),
    ("an error event, then cut", stream(FAILED_EVENT, ending=CUT), "failed", "overloaded"),
    ("an error event, the client left", stream(FAILED_EVENT, ending=LEFT), "failed", "overloaded"),
    ("a stream without its end", stream(delta("Hi")), "truncated", "before its end"),
    ("an empty stream", stream(), "truncated", "before its end"),
    ("a stream that was cut", stream(delta("Hi"), ending=CUT), "truncated", "it closed"),
    ("a body that was cut", plain(CUT, answer=ANSWER[:50]), "truncated", "it closed"),
    ("cut after the stream's own end", stream(delta("Hi"), DONE, ending=CUT), "completed", None),
    ("a stream whose client left", stream(delta("Hi"), ending=LEFT), "cancelled", "client left"),
    ("left after the stream's own end", stream(DONE, ending=LEFT), "completed", None),
    ("left in a body", plain(LEFT, answer=b"{"), "cancelled", "client left"),
    ("left before an answer", unanswered(LEFT_EARLY), "cancelled", "it left"),
    ("stopped in a stream", stream(delta("Hi"), ending=STOPPED), "interrupted", "stopped"),
    ("stopped after its end", stream(delta("Hi"), DONE, ending=STOPPED), "completed", None),
    ("stopped before an answer", unanswered(STOPPED_EARLY), "interrupted", "stopped"),
    ("unreachable", unanswered(CONNECT), "failed", "refused"),
    ("silent", unanswered(HEADERS), "failed", "silence"),
    ("refused by us", unanswered(REFUSED), "failed", "no such one"),
    ("a broken request", unanswered(BROKEN), "failed", "broken"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "state", "error"), [row[1:] for row in STATES], ids=[row[0] for row in STATES]
)
def test_the_state_of_a_call(
    settler: Settler, call: CallEnd, state: str, error: str | None
) -> None:
    row = settler.end(call)
    assert row.state == state
    assert (row.error is None) == (error is None)
    assert (error or "") in (row.error or "")
    assert (row.ended_by, row.phase) == (call.ending.ended_by, call.ending.phase)


def test_what_an_unknown_call_costs_is_unknown_where_it_names_a_model(settler: Settler) -> None:
    answer = b'{"id":"msg_1","usage":{"input_tokens":5,"output_tokens":7}}'
    row = settler.end(answered(a_call(target=b"/api/proxy/anthropic/v1/messages"), answer))
    assert (row.cost_status, row.cost_nusd) == ("unpriced", None)
    call = a_call(target=b"/api/proxy/openai/v1/threads", request=b"{}")
    assert settler.end(answered(call, b'{"id":"thread_1"}')).cost_status == "free"


def test_a_stream_of_an_unknown_kind_may_just_stop(settler: Settler) -> None:
    call = a_call(target=b"/api/proxy/openai/v1/new/thing")
    assert settler.end(answered(call, b"data: 1\n\n", headers=EVENTS)).state == "completed"


def test_a_stream_that_cannot_be_decoded_is_completed_and_its_usage_is_unknown(
    settler: Settler,
) -> None:
    call = a_call()
    headers = (*EVENTS, (b"Content-Encoding", b"gzip"))
    row = settler.end(answered(call, b"not gzip at all", headers=headers))
    assert row.state == "completed"
    assert row.notes == ("the stream could not be decoded",)


# Tokens and where they come from.

IN = tokens_of("How are you today?", "gpt-4o-mini")
OUT = tokens_of("Fine, thank you.", "gpt-4o-mini")
FINE = (delta("Fine, "), delta("thank you."))


def injected() -> CallEnd:
    call = a_call()
    call.injected = True
    return answered(call, *FINE, USAGE, DONE, headers=EVENTS)


SOURCES: list[tuple[str, CallEnd, str | None, int | None, int | None, str]] = [
    ("reported", plain(), "provider", 9, 2, "priced"),
    ("reported by a stream", stream(*FINE, USAGE, DONE), "provider", 9, 2, "priced"),
    ("asked for by us", injected(), "injected", 9, 2, "priced"),
    ("not reported", stream(*FINE, DONE), "estimated", IN, OUT, "priced"),
    ("not reported, its copy cut", stream(*FINE, DONE, body_bytes=100), "estimated", IN, None,
     "unpriced"),
    ("not reported, of too many values to be read", plain(
        answer=b'{"choices":[{"message":{"content":"Fine."}}],"x":[0%b]}' % (b",0" * 1_000_001)
    ), "estimated", IN, None, "unpriced"),
    ("reported, its copy cut", stream(*FINE, USAGE, DONE, body_bytes=100), "provider", 9, 2,
     "priced"),
    ("not reported, in a coding that nobody knows", answered(
        a_call(), b"x", headers=(*JSON, (b"Content-Encoding", b"x-backwards"))
    ), "estimated", IN, None, "unpriced"),
    ("cancelled", stream(*FINE, ending=LEFT), "estimated", IN, OUT, "priced"),
    ("cancelled, reported", stream(*FINE, USAGE, ending=LEFT), "provider", 9, 2, "priced"),
    ("truncated", stream(*FINE), "estimated", IN, OUT, "priced"),
    ("cut", stream(*FINE, ending=CUT), "estimated", IN, OUT, "priced"),
    ("stopped", stream(*FINE, ending=STOPPED), "estimated", IN, OUT, "priced"),
    ("left before the answer", unanswered(LEFT_EARLY), "estimated", IN, 0, "priced"),
    ("silent", unanswered(HEADERS), "missing", None, None, "unpriced"),
    ("stopped before the answer", unanswered(STOPPED_EARLY), "missing", None, None, "unpriced"),
    ("never left: unreachable", unanswered(CONNECT), "missing", 0, 0, "free"),
    ("never left: refused", unanswered(REFUSED), "missing", 0, 0, "free"),
    ("never left: broken", unanswered(BROKEN), "missing", 0, 0, "free"),
    ("an error", plain(status=500, answer=b"{}"), "missing", None, None, "free"),
    ("an answer that is no JSON", plain(answer=b"<html>"), "estimated", IN, 0, "priced"),
    ("sound", answered(
        a_call(target=b"/api/proxy/openai/v1/audio/speech"), b"\x00\x01"
    ), "missing", None, None, "unpriced"),
    ("a request that cannot be read", answered(a_call(request=b"{"), b"{}"),
     "missing", None, None, "unpriced"),
    ("nothing to bill", answered(
        a_call(target=b"/api/proxy/openai/v1/models", method="GET", request=b""), b"{}"
    ), None, None, None, "free"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "source", "tokens_in", "tokens_out", "cost_status"),
    [row[1:] for row in SOURCES],
    ids=[row[0] for row in SOURCES],
)
def test_the_tokens_of_a_call_and_their_source(
    settler: Settler,
    call: CallEnd,
    source: str | None,
    tokens_in: int | None,
    tokens_out: int | None,
    cost_status: str,
) -> None:
    row = settler.end(call)
    assert (row.usage_source, row.cost_status) == (source, cost_status)
    assert (row.tokens.input, row.tokens.output) == (tokens_in, tokens_out)
    assert (row.cost_nusd is None) == (cost_status == "unpriced")
    assert (row.cost_nusd == 0) == (cost_status == "free")


def test_an_embedding_whose_usage_is_missing_has_no_output_tokens(settler: Settler) -> None:
    request = b'{"model":"text-embedding-3-small","input":["one","two three"]}'
    call = a_call(target=EMBEDDINGS, request=request)
    row = settler.end(answered(call, b'{"data":[]}'))
    assert row.usage_source == "estimated"
    assert row.tokens == Tokens(
        input=tokens_of("one\ntwo three", "text-embedding-3-small"), output=0
    )


# Cost.


def priced(settler: Settler, model: str, usage: str, extra: str = "") -> SpanEnd:
    answer = f'{{"id":"x","model":"{model}","usage":{usage}{extra}}}'
    return settler.end(answered(a_call(target=RESPONSES), answer.encode()))


def test_a_price_of_the_configuration_is_used(settler: Settler) -> None:
    row = priced(settler, "house-model", '{"input_tokens":1000,"output_tokens":100}')
    assert (row.cost_nusd, row.cost_status) == (3_000_000, "priced")
    assert (row.price_version or "").startswith("custom ")


def test_an_unknown_model_has_no_cost_and_keeps_its_tokens(settler: Settler) -> None:
    row = priced(settler, "gpt-99-nobody-knows", '{"input_tokens":1000,"output_tokens":100}')
    assert (row.cost_nusd, row.cost_status) == (None, "unpriced")
    assert (row.tokens.input, row.usage_source) == (1000, "provider")


IMAGE_TOOL = (
    ',"tools":[{"type":"image_generation","model":"%s"}],'
    '"tool_usage":{"image_gen":{"input_tokens":50,"output_tokens":1000,"total_tokens":1050}}'
)


def test_what_is_billed_beside_the_model_is_priced_by_its_own_and_added(settler: Settler) -> None:
    usage = '{"input_tokens":1000,"output_tokens":100,"total_tokens":1100}'
    row = priced(settler, "house-model", usage, IMAGE_TOOL % "house-model")
    assert (row.tokens.input, row.tokens.output) == (1050, 1100)
    assert row.cost_nusd == 3_000_000 + 50 * 2000 + 1000 * 10_000


def test_where_one_part_has_no_price_the_whole_has_none(settler: Settler) -> None:
    row = priced(settler, "house-model", '{"input_tokens":1000,"output_tokens":100}',
                 IMAGE_TOOL % "nobody-knows")  # fmt: skip
    assert (row.cost_nusd, row.cost_status) == (None, "unpriced")
    assert (row.tokens.input, row.tokens.output) == (1050, 1100)


# Whose usage it is.


def test_a_queued_response_is_unpriced_until_it_is_settled(settler: Settler) -> None:
    answer = b'{"id":"resp_1","status":"queued","model":"gpt-5","usage":null}'
    row = settler.end(answered(a_call(target=RESPONSES), answer))
    assert (row.state, row.response_id) == ("completed", "resp_1")
    assert (row.usage_source, row.cost_status) == ("missing", "unpriced")
    assert row.settles is None


def test_who_fetches_a_response_settles_it_and_is_free(settler: Settler) -> None:
    answer = (
        b'{"id":"resp_1","status":"completed","model":"house-model",'
        b'"usage":{"input_tokens":1000,"output_tokens":100,"total_tokens":1100}}'
    )
    call = a_call(target=RESPONSES + b"/resp_1", method="GET", request=b"")
    row = settler.end(answered(call, answer))
    assert (row.usage_source, row.tokens, row.cost_status) == (None, Tokens(), "free")
    assert (row.cost_nusd, row.response_id) == (0, None)
    assert row.settles is not None
    assert (row.settles.response_id, row.settles.cost_nusd) == ("resp_1", 3_000_000)
    assert row.settles.tokens == Tokens(input=1000, output=100)


def test_the_row_of_a_call_that_could_not_be_read_says_how_it_ended(settler: Settler) -> None:
    for call, state in (
        (plain(), "completed"),
        (plain(status=500), "failed"),
        (stream(ending=CUT), "truncated"),
        (stream(delta("Hi"), ending=LEFT), "cancelled"),
        (stream(DONE, ending=LEFT), "completed"),
        (unanswered(CONNECT), "failed"),
    ):
        row = settler.bare(call)
        assert (row.state, row.start, row.http_status) == (state, call.start, call.status)
        assert (row.usage_source, row.cost_status) == ("missing", "unpriced")
        assert (row.request, row.response) == (None, None)


def test_names_and_previews_of_a_call(settler: Settler) -> None:
    row = settler.end(plain())
    assert (row.model_requested, row.model) == ("gpt-4o-mini", "gpt-4o-mini-2024-07-18")
    assert row.name == "gpt-4o-mini-2024-07-18"
    assert (row.input_preview, row.output_preview) == ("How are you today?", "Fine.")
    assert settler.end(unanswered(CONNECT)).name == "gpt-4o-mini"
    assert settler.end(a_call(request=b"").finish(CONNECT)).name is None
    assert settler.end(stream(*FINE, DONE)).output_preview == "Fine, thank you."
    assert len(QUESTION) == (row.request.size if row.request else 0)


# Sessions.


def test_a_session_that_only_the_body_names_is_the_calls(settler: Settler) -> None:
    request = QUESTION.replace(b"{", b'{"metadata":{"session_id":"s1","user_id":"u"},', 1)
    row = settler.end(answered(a_call(request=request), ANSWER))
    assert (row.start.session_id, row.start.session_source) == ("s1", "metadata")
    by_header = settler.end(answered(a_call(request=request, session="s2"), ANSWER))
    assert (by_header.start.session_id, by_header.start.session_source) == ("s2", "header")
    assert settler.end(plain()).start.session_id is None


def test_whether_a_session_may_be_inferred_is_the_operators_choice() -> None:
    assert Settler(Prices()).end(plain()).infer_session
    assert not Settler(Prices(), infer=False).end(plain()).infer_session


def test_what_the_provider_holds_of_a_conversation_is_told_to_storage(settler: Settler) -> None:
    request = b'{"input":"Hi","previous_response_id":"resp_1","conversation":"conv_1"}'
    row = settler.end(answered(a_call(target=RESPONSES, request=request), b'{"output":[]}'))
    assert (row.previous_response_id, row.keeps_state) == ("resp_1", True)
    assert (row.start.session_id, row.start.session_source) == ("conv_1", "conversation")


def test_the_input_of_a_long_conversation_is_estimated_in_full(settler: Settler) -> None:
    messages = [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}]
    for count in (1, 2):
        request = orjson.dumps({"model": "gpt-4o-mini", "messages": messages[:count]})
        row = settler.end(answered(a_call(request=request, session="long"), b"{}"))
        texts = [str(message["content"]) for message in messages[:count]]
        assert row.tokens.input == tokens_of("\n".join(texts), "gpt-4o-mini")
    assert row.conversation is not None
    assert row.conversation.known is not None
