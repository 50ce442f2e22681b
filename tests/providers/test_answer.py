"""What an answer says: whole and cut bodies, errors, whose usage it is, hostile values."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.facts import AnswerFacts, Bill
from proxy.providers.lenient import MAX_COMMAS
from proxy.providers.openai import operation_of, read_answer
from storage.records import Tokens

CHAT = operation_of("POST", "/v1/chat/completions")
RESPONSES = operation_of("POST", "/v1/responses")
POLL = operation_of("GET", "/v1/responses/resp_1")
EMBEDDINGS = operation_of("POST", "/v1/embeddings")

ANSWER = (
    b'{"id":"resp_1","status":"completed","model":"gpt-5-mini","metadata":{"usage":{"input_tokens":1}},'
    b'"output":[{"type":"message","content":[{"type":"output_text","text":"%b"}]}],'
    b'"service_tier":"flex","usage":{"input_tokens":30,"output_tokens":20,"total_tokens":50},'
    b'"user":"usage","extra":{"usage":"none"}}'
)


def test_a_cut_body_gives_what_its_two_ends_prove() -> None:
    body = ANSWER % (b'say \\"usage\\":{' * 9000)
    facts = read_answer(RESPONSES, 200, body[:70_000], body[-65_536:])
    assert facts.tokens == Tokens(input=30, output=20)
    assert (facts.model, facts.response_id, facts.service_tier) == ("gpt-5-mini", "resp_1", "flex")
    assert (facts.state, facts.text) == ("completed", "")


def test_of_an_answer_of_very_many_numbers_the_usage_is_read() -> None:
    numbers = b"1," * MAX_COMMAS
    body = b'{"data":[%b1],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}' % numbers
    facts = read_answer(EMBEDDINGS, 200, body)
    assert (facts.reported, facts.tokens.input, facts.model) == (True, 3, "m")


def test_a_background_answer_is_pending_and_its_poll_settles_it() -> None:
    queued = read_answer(RESPONSES, 200, b'{"id":"resp_1","status":"queued","usage":null}')
    assert (queued.pending, queued.response_id, queued.settles_id) == (True, "resp_1", None)
    done = b'{"id":"resp_1","status":"completed","usage":{"input_tokens":3,"output_tokens":2}}'
    poll = read_answer(POLL, 200, done)
    assert (poll.settles_id, poll.response_id, poll.pending) == ("resp_1", None, False)
    assert (poll.reported, poll.tokens) == (True, Tokens(input=3, output=2))


def test_a_poll_before_the_end_settles_nothing() -> None:
    body = b'{"id":"resp_1","status":"in_progress","usage":{"input_tokens":3,"output_tokens":2}}'
    facts = read_answer(POLL, 200, body)
    assert (facts.settles_id, facts.reported, facts.tokens) == (None, False, Tokens())


def test_a_poll_that_tells_of_a_failure_has_itself_succeeded() -> None:
    body = b'{"id":"resp_1","status":"failed","error":{"message":"It broke."}}'
    assert (read_answer(POLL, 200, body).state, read_answer(POLL, 200, body).error) == (
        "completed",
        None,
    )
    assert read_answer(RESPONSES, 200, body).error == "It broke."


def test_an_image_tools_tokens_are_apart_and_in_the_sum() -> None:
    facts = read_answer(
        RESPONSES,
        200,
        b'{"usage":{"input_tokens":3,"output_tokens":2},"tools":[{"type":"image_generation",'
        b'"model":"gpt-image-1"}],"tool_usage":{"image_gen":{"input_tokens":10,"output_tokens":5,'
        b'"cached_tokens":4}}}',
    )
    assert facts.main == Tokens(input=3, output=2)
    assert facts.apart == (Bill("gpt-image-1", Tokens(input=10, output=5, cached_input=4)),)
    assert facts.tokens == Tokens(input=13, output=7, cached_input=4)


@pytest.mark.parametrize("depth", [100, 200_000])
def test_deep_nesting_is_survived(depth: int) -> None:
    body = b'{"model":"m","x":' + b"[" * depth + b"]" * depth + b"}"
    facts = read_answer(CHAT, 200, body)
    assert facts.model == ("m" if depth == 100 else None)
    assert facts.state == "completed"


def test_an_unreadable_answer_is_complete_and_noted() -> None:
    facts = read_answer(CHAT, 200, b"\xff\xfe")
    assert (facts.state, facts.notes) == ("completed", ("answer is not a JSON object",))


def test_embeddings_are_not_built_to_find_their_usage() -> None:
    numbers = b",".join([b"0.123456789"] * 300_000)
    body = b'{"data":[%b],"model":"m","usage":{"prompt_tokens":8,"total_tokens":8}}' % numbers
    assert read_answer(EMBEDDINGS, 200, body).tokens == Tokens(input=8, output=0)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"error":{"message":"No."}}', "HTTP 400: No."),
        (b'{"error":"No."}', "HTTP 400: No."),
        (b'{"error":{"message":null,"code":"bad"}}', "HTTP 400: bad"),
        (b'{"error":{}}', "HTTP 400"),
        (b'{"error":[1]}', "HTTP 400: error without a message"),
        (b'{"message":"a\\n b"}', "HTTP 400: a b"),
        (b'{"error":{"message":"\\ud800\\u0000"}}', "HTTP 400: \ufffd\ufffd"),
        (b"<title>A &amp; B</title>", "HTTP 400: A & B"),
        (b"<style>p{}</style><p>Not <b>here</b></p>", "HTTP 400: Not here"),
        (b"plain", "HTTP 400: plain"),
        (b" \r\n", "HTTP 400"),
        (b"", "HTTP 400"),
    ],
)
def test_an_error_is_one_sentence(body: bytes, error: str) -> None:
    facts = read_answer(CHAT, 400, body)
    assert (facts.state, facts.error) == ("failed", error)


def test_of_an_error_page_only_the_beginning_is_searched() -> None:
    assert read_answer(CHAT, 502, b" " * 4096 + b"<title>Far</title>").error == "HTTP 502"
    assert read_answer(CHAT, 502, b" " * 4070 + b"<title>Near</title>").error == "HTTP 502: Near"


def test_a_hostile_usage_costs_its_own_count_and_leaves_a_note() -> None:
    body = b'{"usage":{"prompt_tokens":1180591620717411303424,"completion_tokens":2}}'
    facts = read_answer(CHAT, 200, body)
    assert (facts.tokens, facts.reported) == (Tokens(output=2), True)
    assert facts.notes == ("prompt_tokens out of range",)


def test_the_error_of_a_failed_call_bills_nothing() -> None:
    body = b'{"error":{"message":"No."},"usage":{"prompt_tokens":5,"completion_tokens":1}}'
    assert read_answer(CHAT, 500, body).reported is False


FIELDS = ["id", "model", "status", "usage", "choices", "message", "content", "output", "error"]
FIELDS += ["prompt_tokens", "prompt_tokens_details", "cached_tokens", "tool_usage", "image_gen"]
FIELDS += ["text", "type", "tool_calls", "function", "arguments", "tools", "svg_usage", "index"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5)
    ),
    max_leaves=25,
)


def storable(facts: AnswerFacts) -> None:
    text = "".join(
        value or "" for value in (facts.text, facts.error, facts.model, facts.response_id)
    )
    assert "\0" not in text
    text.encode()


@given(json_values, st.sampled_from([200, 400]))
def test_no_json_makes_it_raise(value: object, status: int) -> None:
    body = json.dumps(value).encode()
    for one in (CHAT, RESPONSES, POLL):
        storable(read_answer(one, status, body))
        storable(read_answer(one, status, body[:20], body[-20:] or b"x"))


@given(st.binary(), st.binary(), st.integers(100, 599))
def test_no_bytes_make_it_raise(body: bytes, tail: bytes, status: int) -> None:
    storable(read_answer(CHAT, status, body, tail))
    storable(read_answer(RESPONSES, status, b'{"id":"' + body, tail))
    storable(read_answer(operation_of("POST", "/audio/translations"), status, body))


@given(json_values)
def test_a_tail_never_tells_another_usage_than_the_whole_body(value: object) -> None:
    body = json.dumps({"model": "m", "output": value, "usage": {"prompt_tokens": 3}}).encode()
    whole = read_answer(CHAT, 200, body)
    for at in range(0, len(body), 5):
        cut = read_answer(CHAT, 200, body[:at], body[at // 2 :])
        assert cut.tokens in (whole.tokens, Tokens())
