"""Each field of the API has one line that says what it means, and each line a field."""

from dataclasses import dataclass, fields
from typing import Any

import pytest

from proxy.api.about import About
from proxy.api.fields import FIELDS, about
from proxy.api.ingest_bodies import Handed
from tests.api.described import described


@dataclass
class SessionView:
    id: str
    at: str


@dataclass
class Longer(SessionView):
    total: int


def schemas() -> dict[str, Any]:
    return dict(described()["components"]["schemas"])


def test_a_field_is_looked_up_with_its_class_then_with_its_bases_then_alone() -> None:
    assert about(SessionView, "id") is FIELDS["Session.id"]
    assert about(Longer, "id") is FIELDS["Session.id"]
    assert about(Longer, "total") is FIELDS["total"]


def test_a_field_that_nobody_explained_is_refused() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        about(SessionView, "nonsense")


def test_each_line_is_of_a_field_that_is_there() -> None:
    names = {name for schema in schemas().values() for name in schema.get("properties", {})}
    owned = {
        f"{owner}.{name}"
        for owner, schema in schemas().items()
        for name in schema.get("properties", {})
    }
    owned |= {
        f"Handed.{name}"
        for kind in Handed.__subclasses__()
        for name in schemas()[kind.__name__]["properties"]
    }
    assert {key for key in FIELDS if key not in names | owned} == set()


def test_each_field_is_explained_in_words() -> None:
    for owner, schema in schemas().items():
        for name, field in schema.get("properties", {}).items():
            assert len(field["description"]) > 2, (owner, name)
    assert {field.name for field in fields(About)} == {"meaning", "example", "schema"}
