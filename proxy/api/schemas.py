"""JSON Schemas and examples of the dataclasses that the API answers with and reads. Pure.

Invariant: what a schema says of a field is what its type says, with the words and the bounds that
fields.py has for it. Nothing is written by hand that a type knows already.
"""

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    TypeGuard,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
import orjson

from proxy.api.about import NULL, About, Schema
from proxy.api.fields import about

T = TypeVar("T")

# Marks a field that is left out where it says nothing.
ABSENT: Final = "absent"
Maybe = Annotated[T, ABSENT]

REF: Final = "#/components/schemas/"
_SCALARS: Final[Mapping[object, str]] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
}


def name_of(cls: type) -> str:
    """Name a dataclass as the description does."""
    return cls.__name__.removesuffix("View")


def schema_of(hint: object) -> Schema:
    """Give the schema of a type; a dataclass is referred to by its name."""
    options, nullable = _options(hint)
    found = [_plain(option) for option in options]
    if len(found) > 1:
        return {"anyOf": [*found, *([{"type": "null"}] if nullable else [])]}
    (schema,) = found
    if not nullable or not schema:
        return schema
    if "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    schema["type"] = [schema["type"], "null"]
    return _with_null(schema)


def object_schema(cls: type) -> Schema:
    """Give the schema of a dataclass's or a struct's JSON, with what is known of each field."""
    if issubclass(cls, msgspec.Struct):
        return _struct_schema(cls)
    hints = get_type_hints(cls, include_extras=True)
    properties: dict[str, Schema] = {}
    for name, known in _known_fields(cls):
        schema = schema_of(hints[name]) | known.schema
        if isinstance(schema.get("type"), list):
            schema = _with_null(schema)
        properties[name] = schema | {"description": known.meaning}
    required = [name for name in properties if not _may_be_absent(hints[name])]
    schema = {"type": "object", "description": _text_of(cls), "properties": properties}
    return schema | ({"required": required} if required else {})


def _text_of(cls: type) -> str:
    return " ".join((cls.__doc__ or "").split()).replace("``", "`")


def _struct_schema(cls: type[msgspec.Struct]) -> Schema:
    """Give the schema by which a body is read: msgspec's own, with the meanings."""
    _, components = msgspec.json.schema_components([cls], ref_template=REF + "{name}")
    schema: Schema = components[cls.__name__]
    # What tells the items of a batch apart need not stand in a body of its own.
    tag = cls.__struct_config__.tag_field
    properties = {}
    for name, field in components[cls.__name__]["properties"].items():
        if name != tag:
            known = about(cls, name)
            # Where the code looks closer than the type does, the table has the whole schema.
            is_whole = not known.schema.keys().isdisjoint(("type", "anyOf"))
            written = known.schema if is_whole else field
            properties[name] = _plain_patterns(written) | {"description": known.meaning}
    required = [name for name in components[cls.__name__]["required"] if name != tag]
    del schema["title"], schema["required"]
    schema["additionalProperties"] = not cls.__struct_config__.forbid_unknown_fields
    schema["description"] = _text_of(cls)
    return schema | {"properties": properties} | ({"required": required} if required else {})


def _plain_patterns(schema: Schema) -> Schema:
    """Leave out of patterns what only Python's `$` needs, and not every engine knows."""
    options = schema.get("anyOf")
    if isinstance(options, list):
        return schema | {"anyOf": [_plain_patterns(one) for one in options]}
    pattern = schema.get("pattern")
    return (
        schema | {"pattern": pattern.replace(r"(?!\n)$", "$")}
        if isinstance(pattern, str)
        else schema
    )


def example_of(hint: object) -> object:
    """Give an example of a type's JSON; of one that needs words of its own, null."""
    options, _ = _options(hint)
    option = options[0]
    if _is_object(option):
        hints = get_type_hints(option, include_extras=True)
        optional = _optional(option)
        return {
            name: _example(known, hints[name])
            for name, known in _known_fields(option)
            if known.example is not None or not (_may_be_absent(hints[name]) or name in optional)
        }
    if _is_list(option):
        return [example_of(get_args(option)[0])]
    return None


def _example(known: About, hint: object) -> object:
    if known.example is NULL:
        return None
    return example_of(hint) if known.example is None else known.example


def named_in(hints: Sequence[object]) -> dict[str, Schema]:
    """Give the schemas of all dataclasses that types refer to, by name."""
    found: dict[str, type] = {}
    waiting = list(hints)
    while waiting:
        hint = waiting.pop()
        if _is_object(hint):
            name = name_of(hint)
            if found.setdefault(name, hint) is not hint:
                raise ValueError(f"two dataclasses have the name {name}")
            waiting += [
                one
                for one in get_type_hints(hint, include_extras=True).values()
                if one not in found.values()
            ]
        else:
            waiting += get_args(hint)
    return {name: object_schema(found[name]) for name in sorted(found)}


def _known_fields(cls: type) -> Iterator[tuple[str, About]]:
    if issubclass(cls, msgspec.Struct):
        names = [field.name for field in msgspec.structs.fields(cls)]
    else:
        names = [field.name for field in fields(cast(Any, cls))]
    for name in names:
        yield name, about(cls, name)


def _optional(cls: type) -> set[str]:
    """Name the fields that a body may leave out."""
    if not issubclass(cls, msgspec.Struct):
        return set()
    return {field.name for field in msgspec.structs.fields(cls) if not field.required}


def _options(hint: object) -> tuple[list[object], bool]:
    """Split a union into its members, and tell whether null is one of them."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) not in (Union, types.UnionType):
        return [hint], False
    members = list(get_args(hint))
    return [member for member in members if member is not types.NoneType], types.NoneType in members


def _plain(hint: object) -> Schema:
    if hint in _SCALARS:
        # Every whole number of the API counts something.
        return {"type": _SCALARS[hint], **({"minimum": 0} if hint is int else {})}
    if hint is object or hint is orjson.Fragment:
        return {}
    if _is_object(hint):
        return {"$ref": REF + name_of(hint)}
    if get_origin(hint) is Literal:
        return {"type": "string", "enum": list(get_args(hint))}
    if _is_list(hint):
        return {"type": "array", "items": schema_of(get_args(hint)[0])}
    if get_origin(hint) is dict:
        return {"type": "object", "additionalProperties": schema_of(get_args(hint)[1])}
    raise TypeError(f"no JSON is known for {hint!r}")


def _is_object(hint: object) -> TypeGuard[type]:
    return isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, msgspec.Struct))


def _is_list(hint: object) -> bool:
    origin = get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Sequence)


def _may_be_absent(hint: object) -> bool:
    return get_origin(hint) is Annotated and ABSENT in get_args(hint)[1:]


def _with_null(schema: Schema) -> Schema:
    values = schema.get("enum")
    if isinstance(values, list) and None not in values:
        return schema | {"enum": [*values, None]}
    return schema
