"""The shapes of a conversation: what is cut, what is JSON, what changed."""

import orjson

from proxy.api.message_views import (
    MAX_CHANGES,
    TEXT_CHARS,
    ChangeView,
    changed_lines,
    changed_tools,
    outcome_view,
    part_view,
    tool_call_view,
)
from proxy.providers.reading import Part, ToolCall
from storage.records import Tokens
from tests.api.records import span


def shown(changes: list[ChangeView]) -> list[str]:
    signs = {"added": "+", "removed": "-", "changed": "~"}
    return [signs[change.change] + change.text for change in changes]


def test_a_part_is_cut_with_its_length_beside_it() -> None:
    view = part_view(Part("reasoning", "x" * (TEXT_CHARS + 1)))
    assert (len(view.text or ""), view.length, view.truncated) == (TEXT_CHARS, TEXT_CHARS + 1, True)
    whole = part_view(Part("reasoning", "x" * TEXT_CHARS))
    assert (whole.length, whole.truncated) == (TEXT_CHARS, False)
    assert part_view(Part("image", mime="image/png", size=3)).length is None


def test_arguments_are_json_as_it_was_written_where_they_are_any() -> None:
    call = ToolCall("c", "f", "function", '{"a": 1.00000000000000000001}')
    data = orjson.dumps(tool_call_view(call, "m", 3))
    assert b'"arguments_json":{"a": 1.00000000000000000001}' in data
    assert b'"result":"m","result_position":3' in data
    assert tool_call_view(ToolCall("c", "f", "custom", "ls -l"), None, None).arguments_json is None


def test_arguments_that_are_cut_are_no_json() -> None:
    text = orjson.dumps(["x" * TEXT_CHARS]).decode()
    view = tool_call_view(ToolCall("c", "f", "function", text), None, None)
    assert (view.arguments_json, view.truncated, view.length) == (None, True, len(text))
    assert view.arguments == text[:TEXT_CHARS]


def test_an_outcome_is_the_spans_in_the_units_of_the_api() -> None:
    view = outcome_view(
        span(
            state="completed",
            error=None,
            model="gpt-5",
            ended_at_us=1_500_000,
            duration_us=500_000,
            first_token_us=100_000,
            tokens=Tokens(input=7, output=5, cached_input=3),
            cost_nusd=2_000,
        ),
        2,
    )
    assert (view.state, view.model, view.repeats) == ("completed", "gpt-5", 2)
    assert not view.handed_in
    assert outcome_view(span(handed_in=True), 0).handed_in
    assert (view.duration_ms, view.ttft_ms, view.cost) == (500, 100, 0.000002)
    assert (view.input_tokens, view.cached_input_tokens, view.reasoning_tokens) == (7, 3, None)


def test_lines_that_changed_are_listed_in_the_order_of_the_text() -> None:
    old = "be brief\nbe kind\ntoday is monday\nend"
    new = "be brief\ntoday is tuesday\nend\nreally"
    assert shown(changed_lines(old, new)) == [
        *("-be kind", "-today is monday", "+today is tuesday", "+really"),
    ]
    assert changed_lines(old, old) == []
    assert shown(changed_lines("", "a\nb")) == ["+a", "+b"]


def test_a_line_in_a_long_text_is_found_without_comparing_all() -> None:
    lines = [f"line {n}" for n in range(100_000)]
    changed = [*lines]
    changed[50_000] = "other"
    assert shown(changed_lines("\n".join(lines), "\n".join(changed))) == [
        *("-line 50000", "+other"),
    ]


def test_texts_that_differ_all_over_are_listed_up_to_a_bound() -> None:
    old = "\n".join(f"a{n}" for n in range(5000))
    new = "\n".join(f"b{n}" for n in range(5000))
    changes = changed_lines(old, new)
    assert len(changes) == MAX_CHANGES
    assert len(changed_lines("", "x" * 10_000)[0].text) == 500


def test_tools_that_came_went_and_changed_are_listed_by_name() -> None:
    old = {"a": b"1", "b": b"1", "c": b"1"}
    new = {"a": b"1", "b": b"2", "d": b"1"}
    assert shown(changed_tools(old, new)) == ["+d", "-c", "~b"]
    assert changed_tools(old, old) == []
