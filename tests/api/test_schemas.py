"""JSON Schemas are what the types of dataclasses say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import orjson
import pytest

from proxy.api.schemas import Maybe, example_of, name_of, named_in, object_schema, schema_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PartView:
    """A part of it,
    on two lines."""

    name: str
    size: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeView:
    """All of it."""

    count: int
    error: PartView | None
    parts: Sequence[PartView]
    cursor: Maybe[str]


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer", "minimum": 0}),
        (float | None, {"type": ["number", "null"]}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal["a"] | None, {"type": ["string", "null"], "enum": ["a", None]}),
        (list[bool], {"type": "array", "items": {"type": "boolean"}}),
        (tuple[str, ...], {"type": "array", "items": {"type": "string"}}),
        (dict[str, str], {"type": "object", "additionalProperties": {"type": "string"}}),
        (object, {}),
        (orjson.Fragment | None, {}),
        (PartView, {"$ref": "#/components/schemas/Part"}),
        (PartView | None, {"anyOf": [{"$ref": "#/components/schemas/Part"}, {"type": "null"}]}),
        (str | dict[str, bool] | None, None),
    ],
)
def test_a_type_has_the_schema_of_its_json(hint: object, schema: object) -> None:
    if schema is None:
        assert [one.get("type") for one in schema_of(hint)["anyOf"]] == [  # type: ignore[attr-defined]
            *("string", "object", "null")
        ]
    else:
        assert schema_of(hint) == schema


def test_a_type_without_json_is_refused() -> None:
    with pytest.raises(TypeError, match="bytes"):
        schema_of(bytes)


def test_an_object_says_what_its_fields_mean_and_which_it_always_has() -> None:
    schema = object_schema(WholeView)
    assert schema["description"] == "All of it."
    assert schema["required"] == ["count", "error", "parts"]
    assert schema["properties"]["count"] == {  # type: ignore[index]
        "type": "integer",
        "minimum": 0,
        "description": "rows of this page",
    }
    assert object_schema(PartView)["description"] == "A part of it, on two lines."


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """The body."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z]+(?!\n)$")] | None
    scope: Literal["read"] = "read"


def test_a_struct_has_the_schema_by_which_it_is_read_with_the_meanings() -> None:
    schema = object_schema(Asked)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["name"]
    name = {"anyOf": [{"type": "string", "pattern": "^[a-z]+$"}, {"type": "null"}]}
    assert schema["properties"]["name"] == name | {"description": "its name"}  # type: ignore[index]
    assert schema_of(Asked) == {"$ref": "#/components/schemas/Asked"}


class Told(msgspec.Struct, tag_field="type", tag="told", frozen=True):
    """One of several."""

    items: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    parent_id: str | None = None


def test_what_tells_structs_apart_is_no_field_and_what_is_any_json_is_described_by_the_table() -> (
    None
):
    schema = object_schema(Told)
    assert set(schema["properties"]) == {"items", "parent_id"}  # type: ignore[call-overload]
    assert schema["properties"]["items"]["maxItems"] == 1_000  # type: ignore[index]
    assert "required" not in schema
    assert schema["additionalProperties"] is True
    assert example_of(Told) == {
        "items": [{"type": "end", "id": "019ac8f0a1b27c3d8e4f5a6b7c8d9e0f"}]
    }


def test_all_dataclasses_that_types_lead_to_are_named_once() -> None:
    assert list(named_in([Sequence[WholeView], PartView])) == ["Part", "Whole"]


def test_two_dataclasses_of_one_name_are_refused() -> None:
    other = dataclass(type("Part", (), {"__annotations__": {"name": str}}))
    with pytest.raises(ValueError, match="Part"):
        named_in([PartView, other])


def test_an_example_has_a_value_for_each_field_but_those_that_may_be_absent() -> None:
    assert example_of(WholeView) == {
        "count": 1,
        "error": {"name": "invoice.pdf", "size": 312},
        "parts": [],
    }
    assert example_of(list[PartView]) == [{"name": "invoice.pdf", "size": 312}]


def test_a_view_is_named_without_that_word() -> None:
    assert (name_of(WholeView), name_of(type("Deleted", (), {}))) == ("Whole", "Deleted")
