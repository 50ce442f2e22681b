"""A watched stream: what is parsed, what is kept, when it began and ended; and its text."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers import lenient
from proxy.providers.facts import AnswerFacts, Operation
from proxy.providers.openai import StreamWatch, operation_of, stream_text
from proxy.providers.stream import MAX_PARSED_BYTES
from proxy.sse import Event, SseDecoder
from storage.records import Tokens

CHAT = operation_of("POST", "/v1/chat/completions")
RESPONSES = operation_of("POST", "/v1/responses")
RUNS = operation_of("POST", "/v1/threads/runs")
DELTA = '{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"hi"}}]%s}'


def event(data: str | bytes, name: str = "") -> Event:
    raw = data.encode() if isinstance(data, str) else data
    return Event(b"data: " + raw + b"\n\n", name, raw, 1)


def watch(operation: Operation, *events: Event) -> StreamWatch:
    watched = StreamWatch(operation)
    for one in events:
        watched.event(one)
    return watched


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was parsed as JSON, in order."""
    seen: list[bytes] = []

    def decode(decoder: msgspec.json.Decoder[object], body: bytes) -> object:
        seen.append(body)
        return lenient.decode(decoder, body)

    monkeypatch.setattr("proxy.providers.stream.decode", decode)
    return seen


@pytest.mark.parametrize("rest", ["", ',"usage":null', ',"service_tier":"default","x":"usage"'])
def test_after_the_first_token_an_ordinary_chunk_is_not_parsed(
    rest: str, parsed: list[bytes]
) -> None:
    chunk = event(DELTA % rest)
    watch(CHAT, chunk, *[chunk] * 10)
    if "usage" not in rest or "null" in rest:
        assert len(parsed) == 1
    else:
        assert len(parsed) == 11  # a value of just this word is the price of a simple test


def test_no_delta_of_a_response_is_parsed(parsed: list[bytes]) -> None:
    data = '{"type":"response.output_text.delta","delta":"hi"}'
    named, nameless = event(data, "response.output_text.delta"), event(data)
    assert watch(RESPONSES, named, nameless).first_token is True
    assert parsed == []


def test_usage_beside_a_null_is_found() -> None:
    data = '{"usage":{"prompt_tokens":3,"completion_tokens":2},"x":{"usage":null}}'
    assert watch(CHAT, event(DELTA % ""), event(data)).facts().tokens == Tokens(input=3, output=2)


def test_the_last_usage_is_kept_and_never_a_sum() -> None:
    chunks = [
        event(DELTA % f',"usage":{{"prompt_tokens":3,"completion_tokens":{n}}}') for n in (1, 2)
    ]
    facts = watch(
        CHAT, *chunks, event(DELTA % ',"usage":null'), event(DELTA % ',"usage":{}')
    ).facts()
    assert (facts.tokens, facts.reported) == (Tokens(input=3, output=2), True)


@pytest.mark.parametrize(
    ("delta", "is_token"),
    [
        ('{"role":"assistant","content":""}', False),
        ('{"role":"assistant","content":null}', False),
        ("{}", False),
        ('{"content":"a"}', True),
        ('{"reasoning_content":"a"}', True),
        ('{"refusal":"a"}', True),
        ('{"tool_calls":[{"index":0}]}', True),
        ('{"audio":{"data":"UklG"}}', True),
    ],
)
def test_the_first_token_is_the_first_delta_that_carries_something(
    delta: str, is_token: bool
) -> None:
    watched = watch(CHAT, event(f'{{"choices":[{{"delta":{delta}}}]}}'))
    assert watched.first_token is is_token


def test_a_picture_that_comes_whole_is_its_first_token() -> None:
    images = operation_of("POST", "/v1/images/generations")
    watched = watch(images, event('{"type":"image_generation.completed"}'))
    assert (watched.first_token, watched.ended) == (True, True)


def test_only_done_ends_a_chat() -> None:
    watched = watch(CHAT, event('{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}'))
    assert (watched.ended, watched.facts().state, watched.facts().expects_end) == (
        False,
        None,
        True,
    )
    watched.event(event("[DONE]"))
    assert (watched.ended, watched.facts().state) == (True, "completed")


def test_an_unknown_stream_may_just_stop() -> None:
    facts = watch(operation_of("POST", "/v1/unheard"), event("{}")).facts()
    assert (facts.state, facts.expects_end) == (None, False)


@pytest.mark.parametrize("rest", ["", ',"choices":[]'])
def test_an_error_inside_a_stream_fails_it_whatever_follows(rest: str) -> None:
    error = event(f'{{"error":{{"message":"It broke."}}{rest}}}')
    facts = watch(CHAT, event(DELTA % ""), error, event("[DONE]")).facts()
    assert (facts.state, facts.error) == ("failed", "It broke.")


def test_an_error_event_fails_a_chat_too() -> None:
    watched = watch(CHAT, event(DELTA % ""), event('{"message":"It broke."}', "error"))
    assert (watched.facts().error, watched.ended) == ("It broke.", True)


def test_a_null_error_is_none() -> None:
    watched = watch(CHAT, event(DELTA % ""), event(DELTA % ',"error":null'))
    assert (watched.facts().error, watched.ended) == (None, False)


def test_named_chat_events_are_read_like_nameless_ones() -> None:
    chunk = event('{"usage":{"prompt_tokens":3,"completion_tokens":2}}', "message")
    assert watch(CHAT, chunk).facts().reported is True


def test_a_repeated_end_changes_nothing() -> None:
    end = event(
        '{"type":"response.completed","response":{"id":"resp_1","status":"completed",'
        '"usage":{"input_tokens":3,"output_tokens":2}}}',
        "response.completed",
    )
    assert watch(RESPONSES, end, end).facts() == watch(RESPONSES, end).facts()


def test_the_usage_of_a_runs_step_is_part_of_the_runs() -> None:
    step = event(
        '{"id":"step_1","usage":{"prompt_tokens":9,"completion_tokens":9},"last_error":null,'
        '"error":null}',
        "thread.run.step.completed",
    )
    facts = watch(RUNS, event('{"id":"run_1"}', "thread.run.created"), step).facts()
    assert (facts.response_id, facts.reported) == ("run_1", False)


@pytest.mark.parametrize("status", ["failed", "expired"])
def test_a_run_that_did_not_end_well_failed(status: str) -> None:
    end = event(json.dumps({"status": status, "last_error": None}), f"thread.run.{status}")
    assert (watch(RUNS, end).facts().state, watch(RUNS, end).facts().error) == ("failed", status)


@pytest.mark.parametrize(
    ("rest", "seen"),
    [("", False), (',"usage":null', True), (',"usage":{"prompt_tokens":1}', True)],
)
def test_a_usage_field_is_seen_even_where_it_is_null(rest: str, seen: bool) -> None:
    word = event('{"choices":[{"delta":{"content":"usage"}}]}')
    assert watch(CHAT, word, event("[DONE]")).usage_field is False
    assert watch(CHAT, event(DELTA % rest)).usage_field is seen


def test_comments_are_nothing() -> None:
    watched = watch(CHAT, Event(b": ping\n\n", "", b"", 0))
    assert watched.facts() == AnswerFacts(expects_end=True)


def test_an_unreadable_event_leaves_a_note() -> None:
    facts = watch(CHAT, event("{"), event("{")).facts()
    assert facts.notes == ("2 unreadable events",)


LARGE = ["[]," * MAX_PARSED_BYTES, "x" * MAX_PARSED_BYTES]


@pytest.mark.parametrize("filling", [f'"x":[{LARGE[0]}0]', f'"x":"{LARGE[1]}"'])
def test_of_a_large_event_what_is_small_is_read_and_the_rest_is_passed_over(
    filling: str, parsed: list[bytes]
) -> None:
    usage = '"model":"m","usage":{"prompt_tokens":3,"completion_tokens":2}'
    watched = watch(CHAT, event(f"{{{filling},{usage}}}"))
    assert parsed == []
    assert watched.usage_field is True
    facts = watched.facts()
    assert (facts.tokens, facts.model) == (Tokens(input=3, output=2), "m")


def test_of_a_large_response_the_usage_is_read() -> None:
    usage = '"id":"r","usage":{"input_tokens":3,"output_tokens":2},"status":"completed"'
    data = f'{{"type":"response.completed","response":{{"output":[{LARGE[0]}0],{usage}}}}}'
    facts = watch(RESPONSES, event(data)).facts()
    assert (facts.tokens, facts.response_id) == (Tokens(input=3, output=2), "r")
    assert facts.state == "completed"


@pytest.mark.parametrize(
    ("error", "said"),
    [(f'{{"message":"It {LARGE[1]}"}}', "It xxx"), (f"[{LARGE[0]}0]", "error without a message")],
)
def test_a_large_error_fails_a_stream_too(error: str, said: str) -> None:
    facts = watch(CHAT, event(f'{{"error":{error}}}')).facts()
    assert facts.state == "failed"
    assert (facts.error or "").startswith(said)


def test_large_choices_are_a_token_and_a_large_usage_is_unknown() -> None:
    assert watch(CHAT, event(f'{{"choices":[{LARGE[0]}0]}}')).first_token is True
    watched = watch(CHAT, event(f'{{"usage":[{LARGE[0]}0]}}'))
    assert (watched.usage_field, watched.facts().reported) == (True, False)


@pytest.mark.parametrize("data", ['{"x":"%s', '{"response":1,"x":"%s"}', '{"id":"\\ud8","x":"%s"}'])
def test_a_large_event_that_is_no_json_makes_it_not_raise(data: str) -> None:
    watch(RESPONSES, event(data % LARGE[1], "response.completed")).facts()


FIELDS = ["id", "model", "type", "response", "usage", "choices", "delta", "content", "error"]
FIELDS += ["prompt_tokens", "output_index", "item", "name", "index", "tool_calls", "text", "status"]
KINDS = ["", "error", "response.completed", "response.created", "response.output_text.delta"]
KINDS += ["response.output_item.added", "thread.run.failed", "thread.message.delta"]
KINDS += ["response.function_call_arguments.delta", "transcript.text.done"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(KINDS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5)
    ),
    max_leaves=20,
)
json_bytes = json_values.map(lambda value: json.dumps(value).encode())
events = st.builds(event, json_bytes | st.binary(max_size=20), st.sampled_from(KINDS))


@given(st.lists(events, max_size=5), st.sampled_from([CHAT, RESPONSES, RUNS]))
def test_no_events_make_it_raise(stream_events: list[Event], operation: Operation) -> None:
    facts = watch(operation, *stream_events).facts()
    text = stream_text(operation, stream_events) + (facts.error or "") + (facts.model or "")
    assert "\0" not in text
    text.encode()


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(body: bytes) -> None:
    decoded = SseDecoder().feed(body + b"\n\ndata: " + body + b"\n\n")
    watch(CHAT, *decoded).facts()
    stream_text(CHAT, decoded)
