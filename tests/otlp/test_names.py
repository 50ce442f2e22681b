"""The table of names: without doubles, as documented, and of names that exist."""

import re
from pathlib import Path

import pytest

from proxy.otlp import names
from proxy.session import REGISTRY

DOCUMENT = Path(__file__).parent.parent.parent / "docs/opentelemetry.md"


def cells(first: str) -> list[list[str]]:
    """Give the rows of the document's table whose first column has this title."""
    lines = DOCUMENT.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


def test_the_documentation_has_the_table_of_names_as_it_is() -> None:
    assert cells("field") == [[row.field, row.name, row.convention] for row in names.TABLE]


def test_the_documentation_has_the_table_of_kinds_as_it_is() -> None:
    assert cells("attribute") == [
        [row.name, row.value, row.kind + (f" ({row.label})" if row.label else "")]
        for row in names.KINDS
    ]


def test_no_name_is_in_the_table_twice() -> None:
    told = [row.name for row in names.TABLE]
    assert len(told) == len(set(told))


def test_what_we_send_has_one_name_for_each_field() -> None:
    assert names.SENT["session"] == "gen_ai.conversation.id"
    assert names.SENT["input_tokens"] == "gen_ai.usage.input_tokens"
    assert names.SENT["model"] == "gen_ai.response.model"
    assert all(name.startswith("gen_ai.") for name in names.SENT.values())


@pytest.mark.parametrize(
    ("name", "billed", "is_told"),
    [
        ("session.id", False, True),
        ("gen_ai.usage.input_tokens", True, True),
        ("gen_ai.usage.input_tokens", False, False),
        ("gen_ai.prompt.0.content", False, True),
        ("gen_ai.prompt.name", True, False),
        ("llm.input_messages.12.message.role", True, True),
        ("gen_ai.request.model", True, False),
        ("anything", True, False),
    ],
)
def test_a_name_is_told_as_ours_or_kept(name: str, *, billed: bool, is_told: bool) -> None:
    assert names.is_told(name, billed=billed) == is_told


def test_every_name_is_one_that_an_attribute_can_have() -> None:
    for row in names.TABLE:
        assert re.fullmatch(r"[a-zA-Z_]+(\.[a-zA-Z_]+)*(\.\*)?", row.name), row.name


def test_the_registry_of_sessions_has_these_in_this_order() -> None:
    sources = [row.source for row in REGISTRY]
    known = [source for source in sources if source in names.SESSION_SOURCES]
    assert known == list(names.SESSION_SOURCES)
