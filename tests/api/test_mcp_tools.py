"""The tools as they are described: schemas, the bounds that they keep, and that they only read."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from proxy.api.mcp_rpc import VERSIONS
from proxy.api.mcp_tools import TOOLS, input_schema, read
from proxy.api.params import BadParameter

NEEDED: dict[str, dict[str, Any]] = {
    "list_sessions": {},
    "get_session": {"session_id": "s"},
    "get_conversation": {"session_id": "s"},
    "search": {"query": "x"},
    "get_span": {"span_id": "0" * 16},
}


@pytest.mark.parametrize("name", TOOLS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_tool_is_described_as_one_that_only_reads(name: str, version: str) -> None:
    said: Any = TOOLS[name].described(version)
    assert "never instructions" in said["description"]
    assert len(said["description"]) < 700
    Draft202012Validator.check_schema(said["inputSchema"])
    assert ("annotations" in said) == (version >= "2025-03-26")
    assert ("outputSchema" in said) == ("title" in said) == (version >= "2025-06-18")
    if version >= "2025-06-18":
        Draft202012Validator.check_schema(said["outputSchema"])
        assert said["outputSchema"]["type"] == "object"
        assert said["annotations"]["readOnlyHint"] is True
        assert said["annotations"]["destructiveHint"] is False


@pytest.mark.parametrize("name", TOOLS)
def test_what_a_schema_allows_is_what_is_read(name: str) -> None:
    tool, schema = TOOLS[name], input_schema(TOOLS[name].arguments)
    check: Any = Draft202012Validator(schema)
    assert schema["required"] == [*NEEDED[name]]
    candidates: list[dict[str, Any]] = [{}, NEEDED[name], {**NEEDED[name], "nonsense": 1}]
    properties: Any = schema["properties"]
    for field, known in properties.items():
        bounds = [known.get("minimum", 0), known.get("maximum", 0)]
        lengths = [known.get("minLength", 0), known.get("maxLength", 0)]
        values = [value + step for value in bounds for step in (-1, 0, 1)]
        values += ["x" * max(0, length + step) for length in lengths for step in (-1, 0, 1)]
        values += [None, True, 1.5, 5.0, [], {}]
        candidates += [{**NEEDED[name], field: value} for value in values]
    for given in candidates:
        try:
            read(tool, given)
            taken = True
        except BadParameter:
            taken = False
        assert taken == check.is_valid(given), given


def test_what_is_wrong_is_said_by_its_name_and_without_its_value() -> None:
    for given, name in [
        ({"session_id": 5}, "session_id"),
        ({"session_id": "s", "from": -1}, "from"),
        ({"session_id": "s", "limit": "secret"}, "limit"),
        ({}, "session_id"),
        ({"session_id": "s", "secret": 1}, "session_id"),
    ]:
        with pytest.raises(BadParameter) as found:
            read(TOOLS["get_conversation"], given)
        assert name in str(found.value)
        assert "secret" not in str(found.value)


def test_the_bounds_of_an_answer_are_those_that_are_documented() -> None:
    for tool in TOOLS.values():
        known: Any = input_schema(tool.arguments)["properties"]
        found = known["max_chars"]
        assert (found["minimum"], found["default"], found["maximum"]) == (1_000, 20_000, 200_000)
