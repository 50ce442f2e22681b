"""Checks of answers against the description: what is asked, which operation it is, what it may be.

Stricter than the description: an object may have no field that the description does not name.
"""

import re
from functools import cache
from typing import Any

import orjson
from openapi_schema_validator import OAS31Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from proxy.api.openapi import document

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


@cache
def described() -> Any:
    """Give the description as a client reads it, but with closed objects."""
    read = orjson.loads(orjson.dumps(document()))
    for schema in read["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return read


def operation_at(method: str, path: str) -> Any:
    """Find the operation of a request, whose path is as in the request's line."""
    paths = described()["paths"]
    bare = path.partition("?")[0]
    for template in sorted(paths, key=lambda template: template.count("{")):
        pattern = re.escape(template).replace(r"\{path\}", ".+")
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", pattern)
        if re.fullmatch(pattern, bare) and method.lower() in paths[template]:
            return paths[template][method.lower()]
    raise AssertionError(f"{method} {bare} is not described")


def faults(method: str, path: str, status: int, headers: dict[str, str], body: Any) -> list[str]:
    """Give what is not as it is described of an answer in JSON."""
    responses = operation_at(method, path)["responses"]
    if str(status) not in responses:
        return [f"status {status} is not described"]
    response = responses[str(status)]
    media_type = headers["Content-Type"].partition(";")[0]
    content = response["content"].get(media_type) or response["content"].get("*/*")
    if content is None:
        return [f"type {media_type} is not described"]
    optional = {"Retry-After", "WWW-Authenticate"}
    found = [name for name in response.get("headers", {}) if name not in {*headers, *optional}]
    schema = content.get("schema", {})
    return found + [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        for error in validator(schema).iter_errors(body)
    ]


def validator(schema: Any) -> Any:
    """Give a validator of a schema that may refer to components."""
    root = Resource.from_contents(described(), default_specification=DRAFT202012)
    rooted = {"$id": "urn:description", **_absolute(schema)}
    registry = Registry().with_resource("urn:description-document", root)
    return OAS31Validator(rooted, registry=registry, format_checker=OAS31Validator.FORMAT_CHECKER)


def _absolute(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: "urn:description-document" + value if key == "$ref" else _absolute(value)
            for key, value in schema.items()
        }
    return [_absolute(one) for one in schema] if isinstance(schema, list) else schema
