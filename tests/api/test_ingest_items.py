"""What is said over HTTP becomes the records that storage takes, value by value."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.ingest_items import (
    read_batch,
    read_completion,
    read_failure,
    read_span,
    read_trace,
    read_trace_end,
)
from proxy.api.params import BadParameter
from proxy.handed_values import MAX_ATTRIBUTES_BYTES
from storage.handed import Said, SpanClosed, SpanOpened, TraceClosed, TraceOpened
from storage.records import Tokens

TRACE = "019ac8f0a1b27c3d8e4f5a6b7c8d9e0f"
SPAN = "5a6b7c8d9e0f1a2b"
AT_US = 1_795_683_600_000_000
AT = "2026-11-26T09:00:00Z"


def said(kind: object = None, **fields: object) -> Said:
    body = {"kind": kind, **fields} if kind is not None else fields
    return read_span(orjson.dumps(body), 1).said


def mistake(body: object) -> tuple[str, str | None]:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    with pytest.raises(BadParameter) as caught:
        read_span(data, 1)
    return str(caught.value), caught.value.name


def test_a_trace_is_what_its_body_says() -> None:
    body = {
        "id": TRACE,
        "name": " chat-turn ",
        "session_id": "  s ",
        "user_id": "u",
        "tags": ["a", "", "b", "a"],
        "started_at": AT,
    }
    assert read_trace(orjson.dumps(body), 7) == TraceOpened(
        project_id=7,
        trace_id=bytes.fromhex(TRACE),
        name="chat-turn",
        session_id="s",
        session_source="api",
        user_id="u",
        tags=("a", "b"),
        started_at_us=AT_US,
    )
    bare = read_trace(b'{"session_id":" "}', 7)
    assert (bare.session_id, bare.session_source, bare.tags, bare.name) == (None, None, (), None)
    assert bare.trace_id != read_trace(b"{}", 7).trace_id


def test_a_span_is_what_its_body_says() -> None:
    body = {
        "id": SPAN,
        "trace_id": TRACE,
        "parent_id": "6b7c8d9e0f1a2b3c",
        "name": "search",
        "kind": "retrieval",
        "input": {"q": 1},
        "output": [2],
        "metadata": {"host": "a1"},
        "started_at": AT,
        "session_id": "s",
        "user_id": "u",
    }
    assert read_span(orjson.dumps(body), 7) == SpanOpened(
        project_id=7,
        trace_id=bytes.fromhex(TRACE),
        span_id=bytes.fromhex(SPAN),
        name="search",
        parent_id=bytes.fromhex("6b7c8d9e0f1a2b3c"),
        started_at_us=AT_US,
        session_id="s",
        session_source="api",
        user_id="u",
        said=Said(
            kind="retrieval",
            input=b'{"q":1}',
            output=b"[2]",
            attributes=b'{"metadata":{"host":"a1"}}',
        ),
    )


def test_what_ends_is_what_its_body_says() -> None:
    one = bytes.fromhex(SPAN)
    done = b'{"output":null,"duration_ms":1.5,"trace_id":"%b"}' % TRACE.encode()
    assert read_completion(done, 7, SPAN) == SpanClosed(
        project_id=7,
        span_id=one,
        state="completed",
        trace_id=bytes.fromhex(TRACE),
        duration_us=1_500,
    )
    failed = read_failure(b'{"error":"%b","ended_at":"%b"}' % (b"x" * 5_000, AT.encode()), 7, SPAN)
    assert (failed.state, failed.error, failed.ended_at_us) == ("failed", "x" * 4_000, AT_US)
    assert read_failure(b'{"error":" "}', 7, SPAN).error == "it failed"
    assert read_trace_end(b"", 7, TRACE) == TraceClosed(project_id=7, trace_id=bytes.fromhex(TRACE))
    for read in (read_completion, read_trace_end):
        with pytest.raises(BadParameter, match="id: expected"):
            read(b"{}", 7, "x")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (None, "custom"),
        ("tool_call", "tool_call"),
        ({"type": "llm_call", "model": "gpt-4o"}, "gpt-4o"),
        ({"type": "custom", "kind": "reranker"}, "reranker"),
    ],
)
def test_a_span_without_a_name_is_called_after_what_it_is(kind: object, name: str) -> None:
    assert read_span(orjson.dumps({"kind": kind}), 1).name == name
    assert read_span(orjson.dumps({"kind": kind, "name": "x" * 600}), 1).name == "x" * 512


def test_a_model_call_has_its_model_tokens_and_cost_in_fields_of_their_own() -> None:
    kind = {
        "type": "llm_call",
        "model": "gpt-4o",
        "provider": "openai",
        "response_id": "c1",
        "input_tokens": 10.0,
        "output_tokens": 5,
        "cached_input_tokens": 4,
        "cache_write_tokens": 0,
        "reasoning_tokens": 6,
        "cost": 0.000123,
        "temperature": 0.5,
        "attributes": {"a": 1, "temperature": 0},
    }
    assert said(kind) == Said(
        kind="llm_call",
        model="gpt-4o",
        provider="openai",
        response_id="c1",
        # More reasoning than output is none that anybody knows.
        tokens=Tokens(input=10, output=5, cached_input=4, cache_write=0),
        cost_nusd=123_000,
        attributes=b'{"kind":{"a":1,"temperature":0.5}}',
    )
    assert said({**kind, "type": "embedding"}).tokens.input == 10
    # Of any other kind they are its own words.
    other = said({"type": "tool_call", "model": 5, "kind": "x"})
    assert (other.model, other.label) == (None, None)
    assert other.attributes == b'{"kind":{"model":5,"kind":"x"}}'


def test_a_custom_kind_has_a_label() -> None:
    custom = said({"type": "custom", "kind": "reranker", "attributes": {"k": 1.50}})
    assert (custom.kind, custom.label) == ("custom", "reranker")
    assert custom.attributes == b'{"kind":{"k":1.5}}'
    assert said({"kind": "reranker"}) == Said(kind="custom", label="reranker")
    assert said(None).kind is None
    assert said({"type": None, "attributes": None}) == Said(kind="custom")


def test_attributes_and_metadata_stay_as_they_were_written() -> None:
    body = b'{"kind":{"type":"tool_call","n": 1.500,"n\\"":[1e999]},"metadata": { "a" : null }}'
    assert read_span(body, 1).said.attributes == (
        b'{"kind":{"n":1.500,"n\\"":[1e999]},"metadata":{ "a" : null }}'
    )


@pytest.mark.parametrize(
    ("body", "says", "name"),
    [
        ({"id": "x"}, "id: expected 16 hex digits, not all zeros", "id"),
        ({"trace_id": "x"}, "trace_id: expected 32 hex digits, or a UUID", "trace_id"),
        ({"parent_id": "0" * 16}, "parent_id: expected 16 hex digits", "parent_id"),
        ({"session_id": "a\nb"}, "session_id: expected text without control", "session_id"),
        ({"started_at": "1969-12-31T23:59:59Z"}, "started_at: expected a time from", "started_at"),
        ({"ended_at": "9999-12-31T23:59:59Z"}, "ended_at: expected a time from 1970", "ended_at"),
        ({"duration_ms": -1}, "duration_ms: expected milliseconds from 0 to", "duration_ms"),
        ({"kind": 5}, "kind: expected an object with a type, or the type alone", "kind"),
        ({"kind": "llm"}, "kind: expected one of llm_call, custom, tool_call, ret", "kind"),
        ({"kind": {"type": "llm"}}, "kind.type: expected one of llm_call, custom,", "kind.type"),
        ({"kind": {"type": 5}}, "kind.type: Expected str | null, got int", "kind.type"),
        ({"kind": {"kind": 5}}, "kind.kind: Expected str | null, got int", "kind.kind"),
        ({"kind": {"attributes": []}}, "kind.attributes: expected an object", "kind.attributes"),
        (
            {"kind": {"type": "llm_call", "input_tokens": -1}},
            "kind.input_tokens: expected a whole number from 0 to 1000000000",
            "kind.input_tokens",
        ),
        (
            {"kind": {"type": "llm_call", "output_tokens": "5"}},
            "kind.output_tokens: Expected float | null, got str",
            "kind.output_tokens",
        ),
        ({"kind": {"type": "llm_call", "cost": -1}}, "kind.cost: expected USD from", "kind.cost"),
        ({"metadata": []}, "metadata: expected an object", "metadata"),
        (
            {"metadata": {"a": "x" * MAX_ATTRIBUTES_BYTES}},
            "metadata: expected at most 262144 bytes",
            "metadata",
        ),
        (
            b'{"metadata":{"a":%b}}' % (b"[" * 100 + b"]" * 100),
            "metadata: expected at most 100 levels",
            "metadata",
        ),
        ({"status": "running", "error": "x"}, "status: a span that runs has no end", "status"),
        ({"status": "running", "duration_ms": 1}, "status: a span that runs has no", "status"),
        ({"status": "completed", "error": "x"}, "error: a span that completed has none", "error"),
    ],
)
def test_what_cannot_be_is_named(body: object, says: str, name: str) -> None:
    message, at = mistake(body)
    assert message.startswith(says)
    assert at == name


def test_in_a_batch_the_item_is_named_as_well() -> None:
    body = {"items": [{"type": "span"}, {"type": "span", "kind": "llm"}, {"type": "complete"}, 5]}
    first, *wrong = read_batch(orjson.dumps(body), 1)
    assert isinstance(first, SpanOpened)
    assert [(str(one)[:24], getattr(one, "name", "")) for one in wrong] == [
        ("items[1].kind: expected ", "items[1].kind"),
        ("items[2].id: expected th", "items[2].id"),
        ("items[3]: Expected objec", "items[3]"),
    ]


ANY: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "kind", "attributes", "cost", "x"]), inner)
    ),
    max_leaves=5,
)
FIELDS = (
    *("id", "trace_id", "parent_id", "name", "kind", "input", "output", "metadata", "started_at"),
    *("ended_at", "duration_ms", "status", "error", "session_id", "user_id", "tags"),
)
ITEMS = st.fixed_dictionaries(
    {"type": st.sampled_from(["trace", "span", "complete", "fail", "end"])},
    optional={
        name: ANY | st.sampled_from([TRACE, SPAN, AT, "llm_call", "failed", 5]) for name in FIELDS
    },
)


@given(st.lists(ITEMS, max_size=3))
def test_any_item_is_a_record_or_a_mistake_with_a_place(items: list[dict[str, object]]) -> None:
    try:
        body = orjson.dumps({"items": items})
    except TypeError:  # an integer that orjson does not write
        return
    for number, one in enumerate(read_batch(body, 1)):
        if isinstance(one, BadParameter):
            assert str(one.name).startswith(f"items[{number}]")
            assert str(one).startswith(f"items[{number}]")
