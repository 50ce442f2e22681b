"""Each kind of span has a look of its own, and what nobody knows looks like `custom`."""

from typing import get_args

import pytest

from proxy.api.span_views import KindView, span_view
from proxy.ui.kinds import is_billed, look
from storage.handed import BILLED, Kind
from tests.api.records import span
from tests.ui.hostile import HOSTILE


def kind(name: str, label: str | None = None) -> KindView:
    return span_view(span(kind=name, label=label), None, None).kind


def test_no_two_kinds_look_alike() -> None:
    looks = [look(kind(name)) for name in get_args(Kind)]
    for field in ("name", "word", "path"):
        assert len({getattr(one, field) for one in looks}) == len(looks), field


def test_a_span_is_called_what_its_application_calls_it() -> None:
    assert look(kind("custom", "reranker")).word == "reranker"
    assert look(kind("tool_call")).word == "tool call"
    assert look(kind("custom", "")).word == "span"


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_stranger_is_more_than_a_word(text: str) -> None:
    for shown in (look(kind(text)), look(kind("custom", text))):
        assert (shown.name, shown.path) == ("custom", look(kind("custom")).path)
        assert 0 < len(shown.word) <= 24
        assert "\n" not in shown.word


@pytest.mark.parametrize("name", get_args(Kind))
def test_tokens_and_money_are_of_the_kinds_that_are_billed(name: str) -> None:
    assert is_billed(kind(name)) is (name in BILLED)


def test_money_of_any_other_kind_is_shown_too() -> None:
    assert is_billed(span_view(span(kind="tool_call", cost_nusd=5), None, None).kind)
