"""The page of the API: up to date, about every operation, and what its examples show is JSON."""

import json
import re
from pathlib import Path

import pytest

from proxy.api.failures import FAILURES
from proxy.api.operations import OPERATIONS
from proxy.api.reference import WIDTH, page, written
from tests.api.described import described

FILE = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_page_is_up_to_date() -> None:
    assert FILE.read_text() == page(), "run `make docs`"


def test_each_operation_object_and_error_has_its_place() -> None:
    text = page()
    for one in OPERATIONS:
        method = "ANY" if one.method == "*" else one.method
        by_id = "/api/sessions/by-id"
        if one.path.startswith(by_id):
            assert f"`{method} {one.path}?id=...`" in text
        else:
            assert f"### {method} {one.path}\n" in text
    for name in described()["components"]["schemas"]:
        assert f"### {name}\n" in text
    for failure in FAILURES:
        assert f"| {failure.status} | `{failure.code}` |" in text


def test_each_link_within_the_page_leads_somewhere() -> None:
    text = page()
    heads = {
        re.sub(r"[^a-z0-9 -]", "", line[4:].lower())
        for line in text.splitlines()
        if line.startswith("### ")
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= heads


def test_each_other_page_that_it_names_is_there() -> None:
    named = set(re.findall(r"\]\(([^#)]*)\)", page()))
    assert "search.md" in named
    assert [name for name in named if not (FILE.parent / name).is_file()] == []


def test_each_example_is_json_that_reads() -> None:
    examples = re.findall(r"```json\n(.*?)```", page(), re.DOTALL)
    assert len(examples) > 20
    for example in examples:
        json.loads(example)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": 1, "b": [None, True]}, '{"a": 1, "b": [null, true]}'),
        ([], "[]"),
        (
            {"a": "x" * 60, "b": "y" * 60, "c": [{"d": 1}]},
            '{\n  "a": "' + "x" * 60 + '",\n  "b": "' + "y" * 60 + '", "c": [{"d": 1}]\n}',
        ),
    ],
)
def test_json_stands_on_as_few_lines_as_there_is_room_for(value: object, text: str) -> None:
    assert written(value) == text
    assert json.loads(text) == value
    assert all(len(line) <= WIDTH for line in text.splitlines())
