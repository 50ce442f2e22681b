"""The parts of a description say what the code checks."""

from proxy.api import params
from proxy.api.described import choice, hex_id, ids, limit, lists, number, ok
from storage.listing import ORDERS


def test_a_lists_parameters_are_those_that_it_reads() -> None:
    found = {one.name: one.schema for one in lists("traces")}
    assert list(found) == ["q", "sort_by", "sort_order", "limit", "cursor"]
    assert found["sort_by"] == {"type": "string", "enum": [*ORDERS["traces"]], "default": "started"}
    assert found["limit"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": params.MAX_LIMIT,
        "default": params.DEFAULT_LIMIT,
    }


def test_numbers_choices_and_ids_have_their_bounds() -> None:
    assert number(0, 5) == {"type": "integer", "minimum": 0, "maximum": 5}
    assert choice(iter("ab"), "b") == {"type": "string", "enum": ["a", "b"], "default": "b"}
    assert hex_id("span", 16, "0" * 16).schema["pattern"] == "^[0-9a-f]{16}$"
    assert ids("spans", 16).schema["maxItems"] == params.MAX_IDS
    assert limit(2, 3).schema["maximum"] == 3


def test_an_answer_that_is_no_error_is_a_200() -> None:
    assert ok("It is.", int)["200"].body is int
