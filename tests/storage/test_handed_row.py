"""The row of a span that was handed in, word by word."""

import json

import pytest

from proxy import handed_values
from storage.handed import Said
from storage.handed_row import MAX_ATTRIBUTES_BYTES, HandedSpan, blank, joined
from storage.records import INTERRUPTED, Tokens
from storage.squeeze import expand
from tests.storage.calls import T0
from tests.storage.handing import NOW_US, Words, begun, done


def span(said: Said | None = None) -> HandedSpan:
    made = HandedSpan(blank())
    made.begin(begun(1, said=said or Said()), NOW_US)
    return made


def test_a_word_that_stands_replaces_and_one_that_fills_does_not() -> None:
    made = span(Said(model="a", tokens=Tokens(input=1)))
    made.hear(Said(model="b", tokens=Tokens(input=2, output=3)), NOW_US, stands=False)
    assert [made.values[c] for c in ("model", "input_tokens", "output_tokens")] == ["a", 1, 3]
    made.hear(Said(model="b", tokens=Tokens(input=2)), NOW_US, stands=True)
    assert [made.values[c] for c in ("model", "input_tokens", "output_tokens")] == ["b", 2, 3]


def test_a_span_that_runs_says_when_its_last_word_came() -> None:
    made = span()
    assert made.values["checkpoint_us"] == NOW_US - T0 - 1_000_000
    made.end(done(1), NOW_US)
    assert made.values["checkpoint_us"] is None


@pytest.mark.parametrize(
    ("end", "began_us"),
    [
        ({"ended_at_us": None, "duration_us": 5_000}, NOW_US - 5_000),
        ({"ended_at_us": T0, "duration_us": None}, T0),
        ({"ended_at_us": None, "duration_us": None}, NOW_US),
    ],
)
def test_what_is_handed_in_ended_without_a_start_ends_when_it_says_and_not_later(
    end: dict[str, int | None], began_us: int
) -> None:
    made = HandedSpan(blank())
    item = begun(1, started_at_us=None, end=done(1, trace=1, **end))
    made.begin(item, NOW_US)
    made.values["seq"] = 1
    made.end(done(1, trace=1, **end), NOW_US)
    assert made.values["started_at_us"] == began_us
    assert made.facts().ended_at_us == began_us + (end["duration_us"] or 0)


def test_only_what_we_ended_for_want_of_an_end_may_still_end() -> None:
    made = span()
    assert not made.has_ended
    made.values.update(state=INTERRUPTED, ended_by="proxy")
    assert not made.has_ended
    made.values["owner"] = b"ours"
    assert made.has_ended


def test_what_no_column_holds_is_unknown() -> None:
    made = span(Said(tokens=Tokens(input=-1, output=10**13), cost_nusd=-5, model="a\0b"))
    assert [made.values[c] for c in ("input_tokens", "output_tokens", "cost_nusd")] == [None] * 3
    assert made.values["model"] == "a\ufffdb"


@pytest.mark.parametrize(
    ("kind", "tokens", "source", "status"),
    [
        ("llm_call", Tokens(), "missing", "unpriced"),
        ("llm_call", Tokens(input=1), "reported", "unpriced"),
        ("embedding", Tokens(input=1), "reported", "unpriced"),
        ("tool_call", Tokens(), None, None),
    ],
)
def test_only_what_is_billed_has_a_source_and_a_price(
    kind: str, tokens: Tokens, source: str | None, status: str | None
) -> None:
    made = span(Said(kind=kind, tokens=tokens))  # type: ignore[arg-type] # one of its kinds
    made.price(Words())
    assert made.values["cost_status"] is None
    made.end(done(1), NOW_US)
    made.price(Words())
    assert (made.values["usage_source"], made.values["cost_status"]) == (source, status)


def test_a_kind_that_nobody_says_is_custom() -> None:
    made = span()
    made.price(Words())
    assert made.values["kind"] == "custom"


def test_a_notice_is_set_once() -> None:
    made = span()
    made.note("b")
    made.note("a")
    made.note("b")
    assert made.values["notes"] == "a\nb"


def test_attributes_of_start_and_end_are_joined_key_by_key() -> None:
    first, later = b'{"kind":{"k":1},"metadata":{"a":1,"b":1}}', b'{"metadata":{"b":2,"c":[1.10]}}'
    assert json.loads(joined(first, later)) == {
        "kind": {"k": 1},
        "metadata": {"a": 1, "b": 2, "c": [1.1]},
    }
    assert b"1.10" in joined(first, later)
    assert joined(b"no JSON", later) == later
    assert json.loads(joined(b'{"a":1}', b'{"a":{"b":1}}')) == {"a": {"b": 1}}


def test_as_many_attributes_are_kept_as_a_start_and_an_end_may_bring() -> None:
    half = b'{"%b":"%b"}' % (b"a", b"x" * (handed_values.MAX_ATTRIBUTES_BYTES - 8))
    made = span(Said(attributes=half))
    made.hear(Said(attributes=half.replace(b'"a"', b'"b"')), NOW_US, stands=True)
    assert set(json.loads(expand(made.values["attributes"]))) == {"a", "b"}  # type: ignore[arg-type]
    assert made.values["notes"] is None


def test_attributes_that_are_too_large_together_are_those_of_the_end() -> None:
    half = b'{"%b":"%b"}' % (b"a", b"x" * (MAX_ATTRIBUTES_BYTES // 2))
    other = half.replace(b'"a"', b'"b"')
    for first, second, stands in ((half, other, True), (other, half, False)):
        made = span(Said(attributes=first))
        made.hear(Said(attributes=second), NOW_US, stands=stands)
        assert expand(made.values["attributes"]) == other  # type: ignore[arg-type]
        assert made.values["notes"] == "attributes_dropped"
