"""The table of operations says of each what the server does: bounds and choices."""

from typing import Any

import pytest

from proxy.api.operations import OPERATIONS, TAGS
from tests.api.asking import ask
from tests.running import Running


def parameters(bound: str) -> list[tuple[str, str, Any]]:
    """Give the parameters in queries of GETs whose schema has this: path, name and schema."""
    return [
        (operation.path.replace("{id}", "x"), one.name, one.schema)
        for operation in OPERATIONS
        for one in operation.parameters
        if operation.method == "GET" and one.place == "query" and bound in one.schema
    ]


async def status(tw: Running, path: str, **query: object) -> int:
    """Ask with what the path needs beside a parameter; of a stream only the head is read."""
    given = {"id": "x"} if path.startswith("/api/sessions/by-id") else {}
    given |= {"q": "since:1h"} if path in ("/api/traces", "/api/spans") else {}
    text = "&".join(f"{name}={value}" for name, value in {**given, **query}.items())
    async with tw.client.get(f"{tw.url}{path}?{text}") as answer:
        return answer.status


@pytest.mark.parametrize(("path", "name", "schema"), parameters("maximum"))
async def test_a_number_is_taken_up_to_its_bounds_and_not_beyond(
    tw: Running, path: str, name: str, schema: Any
) -> None:
    least, most = schema["minimum"], schema["maximum"]
    more = {"q": "x" * most} if name == "at" else {}
    for value in (least, most):
        assert await status(tw, path, **{name: value}, **more) in (200, 404), value
    for value in (least - 1, most + 1):
        assert await status(tw, path, **{name: value}, **more) == 400, value


@pytest.mark.parametrize(("path", "name", "schema"), parameters("enum"))
async def test_each_choice_is_taken_and_no_other(
    tw: Running, path: str, name: str, schema: Any
) -> None:
    taken = (200, 404) if path.startswith("/api/sessions/") and name == "format" else (200,)
    for value in schema["enum"]:
        assert await status(tw, path, **{name: value}) in taken, value
    assert await status(tw, path, **{name: f"{schema['enum'][0]}x"}) == 400


@pytest.mark.parametrize(("path", "name", "schema"), parameters("maxLength"))
async def test_a_text_is_taken_up_to_its_length_and_not_beyond(
    tw: Running, path: str, name: str, schema: Any
) -> None:
    assert await status(tw, path, **{name: "x" * schema["maxLength"]}) == 200
    assert await status(tw, path, **{name: "x" * (schema["maxLength"] + 1)}) == 400


async def test_a_list_of_ids_is_taken_up_to_its_length_and_not_beyond(tw: Running) -> None:
    for path, name, schema in parameters("maxItems"):
        one = "0" * (32 if path == "/api/traces" else 16)
        most = schema["maxItems"]
        assert (await ask(tw, f"{path}?{name}={','.join([one] * most)}")).status == 200
        assert (await ask(tw, f"{path}?{name}={','.join([one] * (most + 1))}")).status == 400


def test_each_tag_has_operations() -> None:
    assert {operation.tag for operation in OPERATIONS} == set(TAGS)
