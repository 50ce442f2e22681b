"""`traceway erase`: have the calls of a session, a user or a query forgotten, and watch it done.

The work is the server's, and goes on there when whoever watches leaves. Invariant: what was asked
for is said back by nobody once it is done.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from proxy.api.erasing import ErasureView
from proxy.cli.client import Client
from proxy.cli.command import Undone, count, note
from proxy.cli.terminal import Column, Screen, safe, safe_json, table
from proxy.ui import view

# It is asked so often how far it is.
LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Erasures:
    """Orders, each in the very bytes of the API."""

    erasures: list[msgspec.Raw]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--session", metavar="ID", help="erase a session, also one with a star")
    which.add_argument(
        "--user",
        metavar="ID",
        help="erase all of a user: sessions that name no other user, and else the user's traces",
    )
    which.add_argument(
        "--query", metavar="QUERY", help="erase the sessions that a search finds (docs/search.md)"
    )
    which.add_argument(
        "--status", nargs="?", type=count, const=0, metavar="N", help="list orders, or show one"
    )
    which.add_argument(
        "--cancel", type=count, metavar="N", help="erase no more of an order than is erased"
    )
    parser.add_argument(
        "--content-only",
        action="store_true",
        help="forget what was said, and keep who called when, and what it cost",
    )
    parser.add_argument(
        "--include-starred",
        action="store_true",
        help="erase sessions with a star as well, of a user or a query",
    )


async def run(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    """Give an order and watch it, or say how far orders are.

    Raises:
        Undone: the order that was watched ended before all of it was done.
    """
    if options.status == 0:
        await _list(client, options, screen)
    elif options.status is not None:
        _say(client, await client.get(f"/api/erasures/{options.status}", {}), options)
    elif options.cancel is not None:
        _say(client, await client.send("DELETE", f"/api/erasures/{options.cancel}"), options)
    else:
        await _erase(client, options)


async def _erase(client: Client, options: argparse.Namespace) -> None:
    given = {"session": options.session, "user": options.user, "query": options.query}
    ((kind, text),) = ((kind, text) for kind, text in given.items() if text is not None)
    asked: dict[str, str | int | float | None] = {
        kind: text,
        "extent": "content" if options.content_only else "all",
        "include_starred": options.include_starred,
    }
    answer = await client.send("POST", "/api/erasures", asked)
    erasure = client.decode(ErasureView, answer)
    is_watched = sys.stderr.isatty()
    if not is_watched:
        note(f"order {erasure.id}; `traceway erase --status {erasure.id}` says how far it is")
    while erasure.ended_at is None:
        if is_watched:
            print(f"\r\x1b[K{_progress(erasure)}", end="", file=sys.stderr, flush=True)
        await asyncio.sleep(LOOK_S)
        answer = await client.get(f"/api/erasures/{erasure.id}", {})
        erasure = client.decode(ErasureView, answer)
    if is_watched:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    _say(client, answer, options)
    if erasure.state != "done":
        raise Undone


def _say(client: Client, answer: bytes, options: argparse.Namespace) -> None:
    if options.json:
        print(safe_json(answer))
        return
    erasure = client.decode(ErasureView, answer)
    print(_progress(erasure) if erasure.ended_at is None else _report(erasure))


def _progress(erasure: ErasureView) -> str:
    more = " so far" if erasure.state == "collecting" else ""
    return (
        f"order {erasure.id}: {erasure.state}, {erasure.done:,} of {erasure.found:,} sessions and"
        f" traces{more}, {erasure.spans:,} calls"
    )


_ENDS: Final = {"cancelled": "was cancelled", "failed": "failed", "incomplete": "is incomplete"}


def _report(erasure: ErasureView) -> str:
    did = "forgot the content of" if erasure.extent == "content" else "erased"
    ended = _ENDS.get(erasure.state, "is done")
    lines = [
        f"order {erasure.id} {ended}; it"
        f" {did} {erasure.sessions:,} sessions, {erasure.traces:,} traces, {erasure.spans:,} calls",
        f"{erasure.contents:,} messages and bodies of {erasure.content_bytes:,} bytes are gone",
    ]
    if erasure.kept_starred:
        lines.append(f"{erasure.kept_starred:,} sessions with a star are kept (--include-starred)")
    if erasure.reason is not None:
        lines.append(erasure.reason)
    return "\n".join(lines)


async def _list(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    rows = (await client.read(_Erasures, "/api/erasures", {})).erasures
    if options.json:
        for row in rows:
            print(safe_json(bytes(row)))
        return
    found = [client.decode(ErasureView, bytes(row)) for row in rows]
    if found:
        print("\n".join(table(_columns(found, datetime.now(UTC)), screen)))
    else:
        note("nothing was ordered to be erased yet")


def _columns(found: Sequence[ErasureView], now: datetime) -> list[Column]:
    return [
        Column("ORDER", [str(one.id) for one in found], 9, right=True),
        Column("OF", [f"{one.kind} {safe(one.given or '')}".strip() for one in found], 8, least=12),
        Column("EXTENT", [one.extent for one in found], 3),
        Column("STATE", [one.state for one in found], 7),
        Column("DONE", [f"{one.done:,} of {one.found:,}" for one in found], 6, right=True),
        Column("CALLS", [f"{one.spans:,}" for one in found], 5, right=True),
        Column("ASKED", [str(view.ago(one.asked_at, now)) for one in found], 2),
    ]
