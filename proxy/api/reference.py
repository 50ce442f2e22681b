"""The page of the API for people, docs/api.md: `python -m proxy.api.reference` prints it.

Owns the page's order and its words on what all operations share. Invariant: all else is out of the
tables that the description is made of (operations.py, fields.py, failures.py).
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from proxy.access import OUR_KEY_HEADER, PROJECT_HEADER
from proxy.api import params
from proxy.api.described import EVENTS, JSON, TEXT, Answer, Operation, Parameter
from proxy.api.failures import FAILURES, failures_of
from proxy.api.openapi import document
from proxy.api.operations import OPERATIONS, TAGS
from proxy.api.schemas import example_of, name_of
from storage.grants import SCOPES

# ruff: noqa: E501 (the lines of the page are as wide as those of other pages)

WIDTH: Final = 100
# The other pages stand beside this one.
_FILE: Final = re.compile(r"\bdocs/([a-z-]+\.md)")
_IN_PATH: Final = "/api/sessions/{id}"
_BY_ID: Final = "/api/sessions/by-id"
ROOT: Final = "http://127.0.0.1:3000"
INTRODUCTION: Final = f"""\
# The API

<!-- Made by `make docs` out of the tables in proxy/api. Change those. -->

`GET /api/openapi.json` describes the same as OpenAPI 3.1, for programs: clients can be made of it. Each operation below
has an example; `$KEY` is a key of your server.

## Who may ask

On a laptop there are no keys, and nobody needs one: the server listens on loopback only. Once a key was made, or with
`[auth] mode = "keys"`, every request but `/api/live` and `/api/ready` needs one:

- `Authorization: Bearer tw_sk_...`
- `{OUR_KEY_HEADER}: tw_sk_...`, where `Authorization` has the provider's own key

A key belongs to a project, and what it is let into is that project alone: what is another's is a 404, as what is not
there. Its scope says what it may do: `read` reads what is recorded, `write` makes calls and hands in traces, `admin` does
both, deletes, and manages keys and projects; admins name another project in `{PROJECT_HEADER}`. Every wrong key gets
the same 401, and after ten of them in a minute, the next ones wait a second.

Pages of a browser have a cookie instead, which opens all but the proxy. `/api/events?token=` takes a ticket.

## What all answers have

- JSON is UTF-8. Fields may be added; none is left out but those that are marked as such.
- Times are ISO 8601 in UTC, with `Z`. Durations are milliseconds, money is USD, sizes are bytes.
- What is unknown is `null`; 0 is zero. Sums say beside them how many calls they lack (`unpriced_count`) and how many
  are estimated (`estimated_count`).
- A list has {params.DEFAULT_LIMIT} rows unless `limit` says otherwise, at most {params.MAX_LIMIT:,}. `cursor`, absent at the
  end, goes on behind them; it belongs to its list and is a 400 with another `q`, `sort_by` or `sort_order`.
- An id in a path is percent-encoded. One that names nothing is a 404, whatever it looks like.
- Any other mistake in a parameter is a 400 whose `param` names it. Parameters that nobody knows are passed over.
- GET has HEAD beside it, but for `/api/events`.
- Nothing may be kept by a cache, and no page of another origin can read anything (no CORS), but for those of
  `[server] allowed_origins`: `/api/events`, and what the write API answers.

## Errors

Every error of the server itself has the shape of OpenAI's, so that its clients raise what they always raise, and its
code in `X-Traceway-Error`, which no upstream can forge. `x-should-retry: false` stands on those that would come again.

```json
{{"error": {{"message": "limit must be an integer from 1 to 1000, not '0'", "type": "invalid_request_error",
           "param": "limit", "code": "bad_parameter"}}}}
```
"""


def page() -> str:
    """Give the page as Markdown."""
    parts = [INTRODUCTION, _errors()]
    for tag, text in TAGS.items():
        parts.append(f"## {tag}\n\n{text}\n")
        parts += [
            _operation(one)
            for one in OPERATIONS
            if one.tag == tag and not one.path.startswith(_BY_ID)
        ]
    parts.append("## Objects\n")
    parts += list(_objects())
    return _FILE.sub(r"[\1](\1)", "\n".join(parts))


def _errors() -> str:
    rows = sorted({(one.status, f"`{one.code}`", one.meaning) for one in FAILURES})
    return _table(("status", "code", "means"), rows)


def _operation(operation: Operation) -> str:
    method = "ANY" if operation.method == "*" else operation.method
    lines = [f"### {method} {operation.path}\n", f"{operation.summary}. {_need(operation)}\n"]
    if operation.description:
        lines.append(f"{operation.description}\n")
    if operation.path.startswith(_IN_PATH):
        other = operation.path.replace(_IN_PATH, _BY_ID)
        lines.append(f"For ids that a path cannot carry: `{method} {other}?id=...`.\n")
    if operation.parameters:
        rows = [(f"`{one.name}`", _kind(one), one.meaning) for one in operation.parameters]
        lines.append(_table(("parameter", "", "means"), rows))
    if isinstance(operation.body, type):
        lines.append(f"The body is a [{operation.body.__name__}]({_anchor(operation.body)}).\n")
    lines.append(f"```console\n{_curl(operation)}\n```\n")
    for status, answer in operation.answers.items():
        lines.append(_answer(status, answer))
    failures = failures_of(operation)
    own = dict.fromkeys(f"`{one.code}`" for one in failures if one.code in operation.codes)
    if own:
        lines.append(f"Errors of its own: {', '.join(own)}.\n")
    return "\n".join(lines)


def _need(operation: Operation) -> str:
    if operation.need is None:
        return "Needs no key."
    scopes = [f"`{scope}`" for scope in SCOPES if scope in operation.need]
    return "Needs any key." if len(scopes) == len(SCOPES) else f"Needs {' or '.join(scopes)}."


def _kind(parameter: Parameter) -> str:
    """Say where a parameter stands and what it may be."""
    schema: Mapping[str, Any] = parameter.schema
    words: list[str] = [] if parameter.place == "query" else [parameter.place]
    if parameter.required:
        words.append("required")
    if "enum" in schema:
        words.append(", ".join(f"`{one}`" for one in schema["enum"]))
    elif "maximum" in schema:
        words.append(f"{schema['minimum']} to {schema['maximum']:,}")
    elif "maxLength" in schema:
        words.append(f"up to {schema['maxLength']:,} characters")
    elif "maxItems" in schema:
        words.append(f"up to {schema['maxItems']}")
    if "default" in schema and "enum" not in schema:
        words.append(f"{schema['default']:,} by default")
    elif "default" in schema:
        words.append(f"`{schema['default']}` by default")
    return "; ".join(words)


def _curl(operation: Operation) -> str:
    path = operation.path
    query: dict[str, object] = {}
    headers = []
    for one in operation.parameters:
        if one.example is None:
            continue
        if one.place == "path":
            safe = "/" if one.name == "path" else ""
            path = path.replace(f"{{{one.name}}}", quote(str(one.example), safe=safe))
        elif one.place == "header":
            headers.append(f"{one.name}: {one.example}")
        else:
            query[one.name] = one.example
    words = ["curl", operation.curl] if operation.curl.startswith("-N") else ["curl"]
    if operation.method not in ("GET", "*"):
        words.append(f"-X {operation.method}")
    if operation.need is not None:
        words.append('-H "Authorization: Bearer $KEY"')
    words += [f"-H '{header}'" for header in headers]
    if operation.body is not None:
        body = json.dumps(example_of(operation.body))
        words.append(f"-H 'Content-Type: application/json' -d '{body}'")
    elif operation.curl and not operation.curl.startswith("-N"):
        words.append(operation.curl)
    address = ROOT + path + (f"?{urlencode(query)}" if query else "")
    words.append(f"'{address}'" if query else address)
    return "$ " + _wrapped(words)


def _wrapped(words: Sequence[str]) -> str:
    """Break a command into lines where it is long."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) < WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(f"    {word}")
    return " \\\n".join(lines)


def _answer(status: str, answer: Answer) -> str:
    known = status if status.isdigit() else "Any status"
    lines = [f"{known}: {answer.meaning}"]
    if isinstance(answer.body, type) and answer.body is not object:
        lines[0] += f" A [{name_of(answer.body)}]({_anchor(answer.body)})."
    lines[0] += "\n"
    example = answer.example or example_of(answer.body)
    if answer.media_type == JSON:
        lines.append(f"```json\n{written(example)}\n```\n")
    elif answer.media_type in (EVENTS, TEXT):
        lines.append(f"```\n{str(example).rstrip()}\n```\n")
    rows = [(f"`{name}`", meaning) for name, meaning in answer.headers.items()]
    if rows:
        lines.append(_table(("header of the answer", "says"), rows))
    return "\n".join(lines)


def _objects() -> Iterator[str]:
    components: Any = document()["components"]
    for name, schema in components["schemas"].items():
        required = schema.get("required", ())
        rows = [
            (f"`{field}`", _type(one), one["description"] + ("" if field in required else _ABSENT))
            for field, one in schema["properties"].items()
        ]
        yield f"### {name}\n\n{schema['description']}\n"
        yield _table(("field", "type", "means"), rows)


_ABSENT: Final = " *(may be absent)*"


def _type(schema: Mapping[str, Any]) -> str:
    """Say in a word or two what a field holds."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join("null" if one is None else f"`{one}`" for one in schema["enum"])
    kinds = schema.get("type", "any JSON")
    words = kinds if isinstance(kinds, str) else " or ".join(kinds)
    if schema.get("format") == "date-time":
        return words.replace("string", "time")
    if kinds == "array":
        return f"list of {_type(schema['items'])}"
    if kinds == "object" and isinstance(schema.get("properties"), dict):
        return f"object with one of {', '.join(f'`{one}`' for one in schema['properties'])}"
    return words


def written(value: object, indent: int = 0) -> str:
    """Write JSON for people: as much on a line as there is room for."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) + indent <= WIDTH or not isinstance(value, dict | list) or not value:
        return text
    inner = indent + 2
    if isinstance(value, list):
        items: Iterable[str] = [written(one, inner) for one in value]
        opening, closing = "[]"
    else:
        items = [f"{json.dumps(k)}: {written(one, inner)}" for k, one in value.items()]
        opening, closing = "{}"
    lines = [""]
    for item in items:
        is_short = "\n" not in item and len(lines[-1]) + len(item) + inner + 2 <= WIDTH
        if lines[-1] and is_short and "\n" not in lines[-1]:
            lines[-1] += f" {item},"
        else:
            lines.append(f"{item},")
    body = ("\n" + " " * inner).join(line for line in lines if line)
    return f"{opening}\n{' ' * inner}{body.removesuffix(',')}\n{' ' * indent}{closing}"


def _anchor(body: type) -> str:
    return f"#{name_of(body).lower()}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    for row in rows:
        cells = [str(cell).replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
