"""What is kept of a span by its own names, and how much."""

import json

from proxy.otlp import attributes
from proxy.otlp.received import Event, Received
from tests.otlp.spans import START_NS, received


def packed(span: Received, *, billed: bool = True) -> dict[str, dict[str, object]]:
    found = attributes.packed(span, span.attributes, billed=billed)
    assert found is not None
    assert len(found) <= attributes.MAX_BYTES + 2_000
    return json.loads(found)  # type: ignore[no-any-return]


def test_what_is_ours_is_not_kept_twice_and_all_else_is() -> None:
    told = {
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.prompt.0.content": "Hi",
        "gen_ai.prompt.name": "greeting",
        "gen_ai.request.temperature": 0.5,
        "session.id": "s",
        "mine": ["a", {"b": 1}],
    }
    span = received(told, resource={"service.name": "shop"}, links=(("ab", "cd"),))
    found = packed(span)
    assert found["kind"] == {
        "gen_ai.prompt.name": "greeting",
        "gen_ai.request.temperature": 0.5,
        "mine": ["a", {"b": 1}],
    }
    assert found["metadata"]["otel"] == {
        "scope": "a library",
        "span_kind": "client",
        "resource": {"service.name": "shop"},
        "links": [{"trace_id": "ab", "span_id": "cd"}],
    }


def test_tokens_of_what_is_no_call_are_kept_by_their_names() -> None:
    span = received({"gen_ai.usage.input_tokens": 20})
    assert packed(span, billed=False)["kind"] == {"gen_ai.usage.input_tokens": 20}


def test_events_are_kept_but_for_messages_and_pieces_of_answers() -> None:
    events = (
        Event("gen_ai.user.message", 0, {"content": "Hi"}),
        Event("gen_ai.content.completion.chunk", 0, {}),
        Event("exception", START_NS + 1_500_000, {"exception.type": "E"}),
    )
    about = packed(received(events=events))["metadata"]["otel"]
    assert about["events"] == [  # type: ignore[index]
        {"name": "exception", "offset_ms": 1.5, "attributes": {"exception.type": "E"}}
    ]


def test_a_long_text_is_cut_and_what_does_not_fit_is_counted() -> None:
    told: dict[str, object] = {"long": "x" * 20_000}
    told |= {f"n{number}": "y" * 8_000 for number in range(20)}
    found = packed(received(told))
    assert found["kind"]["long"] == "x" * 8_192 + "…"
    kept = len(found["kind"])
    assert 5 < kept < 21
    assert found["metadata"]["otel"]["left_out"] == 21 - kept  # type: ignore[index]


def test_many_events_and_links_are_cut() -> None:
    span = received(events=(Event("e", 0, {}),) * 100, links=(("a", "b"),) * 50)
    about = packed(span)["metadata"]["otel"]
    assert len(about["events"]) == 64  # type: ignore[index]
    assert len(about["links"]) == 32  # type: ignore[index]
    assert about["left_out"] == 36 + 18  # type: ignore[index]
