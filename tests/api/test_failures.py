"""The table of errors has every code of the source, and no other."""

import ast
import re
from pathlib import Path

import pytest

from proxy.access import ANY, OPEN, READ, Need
from proxy.api.described import Operation
from proxy.api.failures import FAILURES, failures_of

ROOT = Path(__file__).parents[2] / "proxy"
# What makes an answer of ours, and at which place it takes the code.
MAKERS = {
    "error_response": 1,
    "Denied": 1,
    "Refused": 1,
    "Refusal": 1,
    "UpstreamFault": 0,
    "ClientFault": 0,
}


def codes_in_the_source() -> set[str]:
    found = set()
    for path in ROOT.rglob("*.py"):
        if path.is_relative_to(ROOT / "cli"):
            continue
        text = path.read_text()
        constants = dict(re.findall(r'^([A-Z_]+): Final = "(\w+)"$', text, re.MULTILINE))
        constants |= {"CLIENT_LEFT": "client_left"}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                if name in MAKERS and len(node.args) > MAKERS[name]:
                    code = node.args[MAKERS[name]]
                    if isinstance(code, ast.Constant):
                        found.add(str(code.value))
                    elif isinstance(code, ast.Name):
                        found.add(constants[code.id])
    return found


def operation(need: Need, *codes: str) -> Operation:
    return Operation(
        method="GET", path="/", id="x", tag="x", summary="x", answers={}, need=need, codes=codes
    )


def test_each_code_of_the_source_is_in_the_table_and_the_other_way_round() -> None:
    assert {failure.code for failure in FAILURES} == codes_in_the_source()


def test_what_may_go_wrong_depends_on_what_an_operation_needs() -> None:
    def codes(need: Need) -> set[str]:
        return {failure.code for failure in failures_of(operation(need))}

    assert codes(READ) - codes(ANY) == {"forbidden"}
    assert codes(ANY) - codes(OPEN) == {"unauthorized", "other_project", "unknown_project"}
    assert "foreign_host" in codes(OPEN)


def test_they_come_by_status_with_the_operations_own_among_them() -> None:
    found = failures_of(operation(READ, "not_found"))
    assert "not_found" in {failure.code for failure in found}
    statuses = [failure.status for failure in found]
    assert statuses == sorted(statuses)


def test_a_code_that_nobody_explained_is_refused() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        failures_of(operation(READ, "nonsense"))
