"""docs/robustness.md: every requirement names tests, and every test that it names is there."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.differential.cases import CASES, GROUPS
from tests.differential.run import DOCUMENT, MARKS

TESTS = Path(__file__).parent


@cache
def all_tests() -> frozenset[str]:
    """Give the name of every test there is."""
    texts = [path.read_text() for path in TESTS.rglob("test_*.py")]
    return frozenset(re.findall(r"^(?:async )?def (test_\w+)", "\n".join(texts), re.MULTILINE))


def requirements() -> list[str]:
    """Give the text of each requirement, in order."""
    _, _, rest = DOCUMENT.read_text().partition("## The requirements and their tests\n")
    return re.split(r"^\d+\. ", rest.partition("\n## ")[0], flags=re.MULTILINE)[1:]


def test_there_are_twenty_requirements() -> None:
    assert len(requirements()) == 20


@pytest.mark.parametrize("number", range(1, 21))
def test_a_requirement_has_tests_or_cases_that_are_there(number: int) -> None:
    text = requirements()[number - 1]
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named or any(case.id in text for case in CASES), "nothing proves it"
    assert named <= all_tests()


def test_no_other_test_that_the_document_names_is_missing() -> None:
    assert set(re.findall(r"`(test_\w+)`", DOCUMENT.read_text())) <= all_tests()


def test_the_table_has_every_case_once() -> None:
    assert len({case.id for case in CASES}) == len(CASES) >= 120
    table = DOCUMENT.read_text().partition(MARKS[0])[2].partition(MARKS[1])[0]
    for title, cases in GROUPS:
        part = table.partition(f"### {title}\n")[2].partition("\n### ")[0]
        assert len(re.findall(r"\| (?:pass|\*\*fails\*\*).*\|$", part, re.MULTILINE)) == len(cases)
