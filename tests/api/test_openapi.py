"""The description: what OpenAPI demands, every route, and what each says of who may call it."""

import inspect
import re
from typing import Any

import orjson
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from proxy import assembly
from proxy.access import Need
from proxy.api.openapi import METHODS, document
from tests.api.described import METHODS as ALL_METHODS
from tests.api.described import described, validator
from tests.running import Running

Described = tuple[str, str]


def operations() -> dict[Described, Any]:
    """Give all operations that are described, by method and path."""
    return {
        (method.upper(), path): operation
        for path, item in described()["paths"].items()
        for method, operation in item.items()
    }


def own_parameters(operation: Any) -> list[Any]:
    return [one for one in operation.get("parameters", []) if "$ref" not in one]


def routes() -> dict[Described, Need]:
    """Give what each route of the API and the proxy needs, by method and path as described."""
    handlers = [_Handlers() for _ in inspect.signature(assembly.routes).parameters]
    found = {}
    for route in assembly.routes(*handlers):  # type: ignore[arg-type]
        path = re.sub(r"\{target:.*?\}", "{upstream}/{path}", route.path)
        path = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path)
        methods = [m.upper() for m in METHODS] if route.method == "*" else [route.method]
        found |= {(method, path): route.need for method in methods}
    return found


class _Handlers:
    def __getattr__(self, name: str) -> object:
        return name


def test_it_is_what_openapi_3_1_demands() -> None:
    errors = OpenAPIV31SpecValidator(document()).iter_errors()
    assert [error.message for error in errors] == []


def test_every_route_is_described_and_everything_that_is_described_is_a_route() -> None:
    assert set(operations()) == set(routes())


def test_what_an_operation_needs_is_what_its_route_needs() -> None:
    needs = {name: need and sorted(need) for name, need in routes().items()}
    found = {name: one.get("x-traceway-scopes") for name, one in operations().items()}
    assert found == needs


def test_each_operation_has_an_id_of_its_own_a_summary_and_a_tag_that_is_explained() -> None:
    found = list(operations().values())
    assert len({operation["operationId"] for operation in found}) == len(found)
    assert all(operation["summary"] for operation in found)
    tags = {tag["name"] for tag in document()["tags"]}  # type: ignore[attr-defined]
    assert {tag for operation in found for tag in operation["tags"]} == tags


def test_each_parameter_of_a_path_is_described() -> None:
    for (method, path), operation in operations().items():
        given = [p["name"] for p in own_parameters(operation) if p["in"] == "path"]
        assert given == re.findall(r"\{(\w+)\}", path), (method, path)


def test_only_the_probes_need_no_key() -> None:
    open_paths = {path for (_, path), one in operations().items() if one["security"] == []}
    assert open_paths == {"/api/live", "/api/ready"}


def test_an_operation_that_needs_a_key_says_what_happens_without_it() -> None:
    for name, operation in operations().items():
        keyed = operation["security"] != []
        assert ("401" in operation["responses"]) == keyed, name
        scopes = operation.get("x-traceway-scopes")
        words = operation["responses"]["403"]["description"]
        assert ("`forbidden`" in words) == (scopes is not None and len(scopes) < 3), name


@pytest.mark.parametrize("name", sorted({(m, p) for m, p in operations()}))
def test_each_example_fits_its_schema(name: Described) -> None:
    operation = operations()[name]
    holders = own_parameters(operation)
    holders += operation.get("requestBody", {"content": {}})["content"].values()
    for response in operation["responses"].values():
        holders += response.get("content", {}).values()
    for holder in holders:
        if "example" in holder:
            assert [
                e.message for e in validator(holder["schema"]).iter_errors(holder["example"])
            ] == []


async def test_it_is_served_as_it_is(tw: Running) -> None:
    async with tw.client.get(tw.url + "/api/openapi.json") as answer:
        assert answer.status == 200
        assert answer.content_type == "application/json"
        assert orjson.loads(await answer.read()) == orjson.loads(orjson.dumps(document()))


def test_any_method_is_every_method_that_a_call_may_have() -> None:
    assert set(ALL_METHODS) - set(METHODS) == {"trace"}
