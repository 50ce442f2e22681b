"""Spans in the order of their tree, whatever they say of their parents."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.api.span_views import SpanView, span_view
from proxy.ui.spans import MAX_DEPTH, state, tree
from tests.api.records import span


def one(name: int, parent: int | None = None) -> SpanView:
    view = span_view(span(span_id=name.to_bytes(8, "big")), None, None)
    return replace(view, parent_id=None if parent is None else f"{parent:016x}")


def shown(*spans: SpanView) -> list[tuple[int, int]]:
    return [(int(branch.span.id, 16), branch.depth) for branch in tree(spans)]


def test_children_follow_their_parent_in_the_order_in_which_they_came() -> None:
    spans = [one(1), one(2, 1), one(3), one(4, 2), one(5, 1)]
    assert shown(*spans) == [(1, 0), (2, 1), (4, 2), (5, 1), (3, 0)]
    assert [branch.place for branch in tree(spans)] == [0, 1, 3, 4, 2]


def test_a_span_whose_parent_is_elsewhere_is_a_root() -> None:
    assert shown(one(1, 99), one(2, 1)) == [(1, 0), (2, 1)]


def test_spans_in_a_circle_begin_with_the_oldest() -> None:
    assert shown(one(1), one(2, 3), one(3, 2), one(4, 4)) == [(1, 0), (2, 0), (3, 1), (4, 0)]


def test_depth_has_an_end() -> None:
    chain = [one(n, n - 1) for n in range(1, 40)]
    assert max(depth for _, depth in shown(*chain)) == MAX_DEPTH


@settings(deadline=None)
@given(st.lists(st.integers(0, 9) | st.none(), max_size=10))
def test_every_span_is_there_once(parents: list[int | None]) -> None:
    spans = [one(n, parent) for n, parent in enumerate(parents)]
    assert sorted(number for number, _ in shown(*spans)) == list(range(len(spans)))


def test_a_state_is_a_word_or_a_key() -> None:
    assert state(one(1)) == "failed"
    assert state(replace(one(1), status="running")) == "running"
