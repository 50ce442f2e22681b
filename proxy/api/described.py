"""What the description of an operation is made of: its parameters, its answers, who may ask it.

Owns the words that several operations share. Invariant: a bound, a choice or a default stands here
as the constant that the code itself reads. The operations themselves are in operations.py.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from proxy.access import READ, Need
from proxy.api import params
from proxy.api.about import Schema
from storage.clauses import Rows
from storage.listing import ORDERS
from storage.search import MAX_CHARS

JSON: Final = "application/json"
BYTES: Final = "*/*"
EVENTS: Final = "text/event-stream"
TEXT: Final = "text/plain"
# Of an answer without a body.
NO_BODY: Final = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of a request, and what its schema says; one of a path is always required."""

    name: str
    meaning: str
    place: Literal["query", "path", "header"] = "query"
    required: bool = False
    schema: Schema = field(default_factory=lambda: {"type": "string"})
    example: object = None
    # Of a list: whether it is one value with commas between, or the parameter several times.
    commas: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer that is no error: what its body is, and headers that say more about it.

    `example` is for a body that has none by its type.
    """

    meaning: str
    body: object = None
    media_type: str = JSON
    example: object = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What a method does at a path, or with `*` all methods do.

    `answers` are by status, `body` is the type of a request's JSON, which may be left out where it
    is `optional`. `codes` are those of errors that not all operations have.
    """

    method: str
    path: str
    id: str
    tag: str
    summary: str
    answers: Mapping[str, Answer]
    need: Need = READ
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: object = None
    optional: bool = False
    # Media types of the body and of all answers beside JSON, and the shape of errors if not ours.
    also: tuple[str, ...] = ()
    failure: type | None = None
    codes: tuple[str, ...] = ()
    # What an example of curl has beside what all have.
    curl: str = ""
    # The ways to say who one is; see openapi.py.
    security: tuple[str, ...] = ("bearer", "header", "cookie")


def number(least: int, most: int, default: int | None = None) -> Schema:
    """Give the schema of a whole number."""
    schema: Schema = {"type": "integer", "minimum": least, "maximum": most}
    return schema if default is None else schema | {"default": default}


def choice(values: Iterable[str], default: str) -> Schema:
    """Give the schema of one of some words."""
    return {"type": "string", "enum": list(values), "default": default}


def hex_id(what: str, digits: int, example: str) -> Parameter:
    """Give the id in the path of what has an id of so many hex digits."""
    return Parameter(
        name="id",
        place="path",
        meaning=f"the {what}'s id: {digits} lower-case hex digits; anything else names nothing",
        schema={"type": "string", "pattern": f"^[0-9a-f]{{{digits}}}$"},
        example=example,
    )


def ids(what: str, digits: int) -> Parameter:
    """Give the parameter that picks rows of a list by their ids."""
    one = {"type": "string", "pattern": f"^[0-9a-f]{{{digits}}}$"}
    return Parameter(
        name="id",
        meaning=f"only these {what}, as far as they fulfil `q`: ids with commas between",
        schema={"type": "array", "items": one, "minItems": 1, "maxItems": params.MAX_IDS},
    )


def limit(default: int, most: int) -> Parameter:
    """Give the parameter that bounds a page."""
    meaning = "the most rows of one page"
    return Parameter(name="limit", meaning=meaning, schema=number(1, most, default), example=20)


def lists(rows: Rows) -> tuple[Parameter, ...]:
    """Give what every list takes."""
    orders = list(ORDERS[rows])
    return (
        Q,
        Parameter(
            name="sort_by",
            meaning="what the rows are sorted by",
            schema=choice(orders, orders[0]),
        ),
        Parameter(
            name="sort_order",
            meaning="the largest or the smallest first",
            schema=choice(["desc", "asc"], "desc"),
        ),
        limit(params.DEFAULT_LIMIT, params.MAX_LIMIT),
        CURSOR,
    )


def ok(meaning: str, body: object, example: object = None) -> dict[str, Answer]:
    """Give the only answer that is no error, with JSON."""
    return {"200": Answer(meaning=meaning, body=body, example=example)}


Q: Final = Parameter(
    name="q",
    meaning="only rows that fulfil a query (docs/search.md)",
    schema={"type": "string", "maxLength": MAX_CHARS},
    example="cost:>0.50 since:24h",
)
CURSOR: Final = Parameter(
    name="cursor", meaning="goes on behind an earlier page of the same list, which gave it"
)
SESSION_PATH: Final = Parameter(
    name="id",
    place="path",
    meaning="the session's id, percent-encoded; `.`, `..`, `totals` and `by-id` go to the routes"
    " with `by-id`",
    schema={"type": "string", "minLength": 1},
    example="user_123:conv_456",
)
SESSION_QUERY: Final = Parameter(
    name="id", required=True, meaning="the session's id", example="user_123:conv_456"
)
