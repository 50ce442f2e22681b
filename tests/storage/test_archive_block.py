"""Hostile and damaged archives: a sentence that says what is wrong, and nothing that is taken."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from storage.archive_block import Block
from storage.archive_lines import BadArchive
from storage.sqlite import SqliteDatabase
from tests.storage.archives import exported
from tests.storage.calls import T0, spoken, start, write
from tests.storage.handing import begun, done, hand_in, opened
from tests.storage.lines import archive as by_hand
from tests.storage.lines import content, node, sha256_of, span

Lines = list[dict[str, Any]]


async def archive(db: SqliteDatabase) -> Lines:
    """Give the lines of a session with two calls, a tool and an opened trace."""
    write(db, [spoken(start(1, session_id="s"), ["s:be", "u:1"], ["a:1"], tools=b'["t"]')])
    asked = ["s:be", "u:1", "a:1", "u:2"]
    begun_at = start(2, session_id="s", started_at_us=T0 + 1)
    write(db, [spoken(begun_at, asked, ["a:2"], tools=b'["t"]')])
    hand_in(db, [opened(3, name="agent", session_id="s"), begun(4, trace=3, end=done(4))])
    return [json.loads(line) for line in (await exported(db)).splitlines()]


def written(lines: Lines) -> list[bytes]:
    """Write lines with an end that fits them, so that they alone are what is wrong."""
    body = [json.dumps(one).encode() + b"\n" for one in lines if one["type"] != "end"]
    digest = hashlib.sha256(b"".join(body)).hexdigest()
    end = {"type": "end", "lines": len(body), "sha256": digest}
    return [*body, json.dumps(end).encode() + b"\n"]


def read(lines: list[bytes]) -> Block:
    block = Block()
    try:
        for line in lines:
            block.add(line)
    except BadArchive:
        block.close()
        raise
    return block


def first(lines: Lines, kind: str, n: int = 0) -> dict[str, Any]:
    return [one for one in lines if one["type"] == kind][n]


async def test_a_whole_block_is_taken_and_its_contents_are_there(db: SqliteDatabase) -> None:
    block = read(written(await archive(db)))
    assert block.is_whole
    assert block.session is not None
    assert (block.session.id, len(block.spans), len(block.opened)) == ("s", 3, 1)
    for sha256 in block.contents:
        assert hashlib.sha256(block.content(sha256)).digest() == sha256
    block.close()


def _swap(lines: Lines, one: str, other: str) -> None:
    a = lines.index(first(lines, one))
    b = lines.index(first(lines, other))
    lines[a], lines[b] = lines[b], lines[a]


def _repeat(kind: str) -> Callable[[Lines], None]:
    return lambda lines: lines.insert(len(lines) - 1, first(lines, kind))


def _set(kind: str, n: int = 0, **fields: Any) -> Callable[[Lines], None]:
    return lambda lines: first(lines, kind, n).update(fields)


def _body(which: str, **fields: Any) -> Callable[[Lines], None]:
    return lambda lines: first(lines, "span")[which].update(fields)


def _drop(kind: str) -> Callable[[Lines], None]:
    return lambda lines: lines.remove(first(lines, kind))


def _chain(lines: Lines) -> dict[str, Any]:
    """Give where the first call stands: it brings one message behind the one that instructs it."""
    chain: dict[str, Any] = first(lines, "span")["chain"]
    assert chain["fresh_count"] == 1
    return chain


def _instruct_from_elsewhere(lines: Lines) -> None:
    side = node("side")
    at = lines.index(first(lines, "span"))
    lines[at:at] = [content("side"), side]
    _chain(lines).update(prelude=side["hash"])


HOSTILE: dict[str, tuple[Callable[[Lines], object], str]] = {
    "no header": (lambda lines: lines.pop(0), "no line that says what it is"),
    "a later version": (_set("traceway", version=2), "of version 2"),
    "no session": (_drop("session"), "the session stands behind"),
    "two sessions": (_repeat("session"), "the session stands behind"),
    "two headers": (_repeat("traceway"), "it was cut"),
    "a trace twice": (_repeat("trace"), "the trace .* comes twice"),
    "an opening twice": (_repeat("opened"), "what was said of the trace .* comes twice"),
    "a content twice": (_repeat("content"), "the content .* comes twice"),
    "a node twice": (_repeat("node"), "the node .* comes twice"),
    "a span twice": (_repeat("span"), "the span .* comes twice"),
    "a span before its trace": (lambda lines: _swap(lines, "trace", "span"), "is not before"),
    "no trace": (_drop("trace"), "is not before what is in it"),
    "a node before its content": (lambda lines: _swap(lines, "content", "node"), "is not before"),
    "no content": (_drop("content"), "is not before it"),
    "no node": (_drop("node"), "is not before it"),
    "another content": (_set("content", data="x"), "the content .* is not of its hash"),
    "another lead": (_set("node", lead=";"), "the node .* is not of its hash"),
    "another parent": (_set("node", 1, parent=None), "the node .* is not of its hash"),
    "no source": (_set("trace", source=None), "how its session was found"),
    "said nothing": (_set("opened", at_us=None), "neither opened nor closed"),
    "another request": (_body("request", sha256="0" * 64), "a request that is not of its hash"),
    "another answer": (_body("response", sha256="0" * 64), "a response that is not of its hash"),
    "a hole without content": (
        lambda lines: first(lines, "span")["request"]["envelope"].update(holes=[None, "0" * 64]),
        "lacks a part",
    ),
    "a hole too many": (
        lambda lines: first(lines, "span")["request"]["envelope"].update(holes=[None] * 3),
        "lacks a part",
    ),
    "whole and in parts": (_body("request", content="0" * 64), "lacks a part"),
    "a body that is not there": (
        lambda lines: first(lines, "span").update(request={"size": 1, "content": "0" * 64}),
        "lacks a part",
    ),
    "an assembled request": (_body("request", assembled=True), "a request that is not"),
    "a node that is not there": (
        lambda lines: first(lines, "span")["chain"].update(prelude="0" * 32),
        "names a node that is not before it",
    ),
    "an answer elsewhere": (
        lambda lines: first(lines, "span", 1)["chain"].update(
            output=first(lines, "span")["chain"]["output"]
        ),
        "an answer that does not follow its input",
    ),
    "instructed from elsewhere": (_instruct_from_elsewhere, "is instructed by what is not in"),
    "instructed by its answer": (
        lambda lines: _chain(lines).update(prelude=_chain(lines)["output"]),
        "is instructed by what is not in its input",
    ),
    "instructed without an input": (
        lambda lines: _chain(lines).pop("input"),
        "is instructed by what is not in its input",
    ),
    "more is new than there is": (
        lambda lines: _chain(lines).update(fresh_count=2),
        "brings more messages than its input has",
    ),
    "much more is new than there is": (
        lambda lines: _chain(lines).update(base_meaning="ab" * 16, fresh_count=1_000_000),
        "brings more messages than its input has",
    ),
    "a call that saw a call": (_set("span", same_call="0" * 16), "only spans say"),
    "a call with an early end": (
        _set("span", early_end={"arrived_at_us": 1, "state": "completed"}),
        "only spans say",
    ),
    "an early end that runs": (
        _set("span", 2, early_end={"arrived_at_us": 1, "state": "running"}),
        "Invalid enum value",
    ),
    "an early end of no kind": (
        _set(
            "span",
            2,
            early_end={"arrived_at_us": 1, "state": "completed", "said": {"kind": "nonsense"}},
        ),
        "an early end that cannot be",
    ),
    "the end of time": (_set("span", started_at_us=253_402_300_799_999_999), "the year 9999"),
    "a forgotten trace that knows": (_set("trace", forgotten_at_us=1), "were forgotten"),
    "a forgotten trace with an error": (
        lambda lines: (
            _set("trace", 2, forgotten_at_us=1)(lines),
            first(lines, "span", 2).update(error="words"),
        ),
        "were forgotten",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_what_does_not_fit_is_refused(db: SqliteDatabase, what: str) -> None:
    change, reason = HOSTILE[what]
    lines = await archive(db)
    change(lines)
    with pytest.raises(BadArchive, match=reason):
        read(written(lines))


async def test_a_block_with_a_changed_or_missing_line_is_not_whole(db: SqliteDatabase) -> None:
    lines = written(await archive(db))
    for n in range(len(lines) - 1):
        with pytest.raises(BadArchive):
            read([*lines[:n], *lines[n + 1 :]])
    named = [line.replace(b'"name": "agent"', b'"name": "agend"') for line in lines]
    assert named != lines
    with pytest.raises(BadArchive, match="not of the hash that it says"):
        read(named)
    with pytest.raises(BadArchive, match="no line that says what it is"):
        read(lines[-1:])


async def test_contents_are_read_from_the_file_when_they_left_the_memory(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.archive_block.CACHE_BYTES", 40)
    monkeypatch.setattr("storage.archive_block.SPOOL_BYTES", 100)
    block = read(written(await archive(db)))
    assert block.is_whole
    for sha256 in block.contents:
        assert hashlib.sha256(block.content(sha256)).digest() == sha256
    block.close()


BODIES: dict[str, dict[str, Any]] = {
    "whole": {"content": sha256_of("abc")},
    "in parts": {"envelope": {"pieces": ["x", "y"], "holes": [sha256_of("b")]}},
}


@pytest.mark.parametrize("how", BODIES)
@pytest.mark.parametrize(
    ("which", "headers", "is_taken"),
    [
        ("response", '[["Date","now"],["Content-Encoding","gzip"]]', True),
        ("response", '[["content-encoding","identity, br"]]', True),
        ("response", '[["content-encoding"," Identity "]]', False),
        ("response", '[["date","now"]]', False),
        ("response", '["content-encoding","gzip"]', False),
        ("response", None, False),
        ("request", '[["content-encoding","gzip"]]', False),
    ],
)
def test_an_answer_that_is_as_long_as_it_was_packed_is_taken_where_its_headers_say_that_it_was(
    how: str, which: str, headers: str | None, is_taken: bool
) -> None:
    body = {"size": 3, "sha256": "0" * 64, **BODIES[how]}
    fields = {which: body} if headers is None else {which: body, "response_headers": headers}
    lines = by_hand(content("abc"), content("b"), span(**fields))
    if is_taken:
        read(lines).close()
    else:
        with pytest.raises(BadArchive, match=f"a {which} that is not of its hash"):
            read(lines)
