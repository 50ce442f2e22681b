"""`traceway keys create | list | revoke`: who may come in.

Invariant: a key that was just made stands alone on stdout, once, and nowhere else.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from proxy.api.keys import KeyView, MadeKeyView, SelfView
from proxy.cli.client import Client, Refused
from proxy.cli.command import Add, add_project, count, note, words
from proxy.cli.terminal import Column, Screen, safe, safe_json, table
from proxy.keyring import KEY_PREFIX
from proxy.ui import view

SCOPES = ("read", "write", "admin")


@dataclass(frozen=True, slots=True)
class _Keys:
    """All keys, each in the very bytes of the API."""

    keys: list[msgspec.Raw]


def add_commands(add: Add) -> None:
    """Add the commands, with what they take."""
    making = add("create", "make a key and print it", create)
    making.add_argument("--name", required=True, type=words, help="whose key it is, or what for")
    making.add_argument("--scope", required=True, choices=SCOPES, help="what it lets one do")
    making.add_argument(
        "--calls-per-minute", type=count, metavar="N", help="proxied calls (as configured)"
    )
    add_project(making, "the project that the key is for (the first, `default`)")
    add("list", "list all keys, also those that were revoked", show)
    ending = add("revoke", "let nobody in with a key any more", revoke)
    ending.add_argument("id", type=_id, metavar="ID", help="the key's number in `keys list`")


def _id(text: str) -> int:
    if text.startswith(KEY_PREFIX):  # argparse would say it again
        raise argparse.ArgumentTypeError(
            "a key has no place on a command line; give its number in `traceway keys list`"
        )
    return count(text)


async def create(client: Client, options: argparse.Namespace, _: Screen) -> None:
    """Make a key, print it, and say beside it what it is for."""
    were_on = (await client.read(SelfView, "/api/self", {})).keys_are_on
    asked = {
        "name": options.name,
        "scope": options.scope,
        "calls_per_minute": options.calls_per_minute,
    }
    answer = await client.send("POST", "/api/keys", asked)
    made = client.decode(MadeKeyView, answer)
    print(safe_json(answer) if options.json else made.key)
    sys.stdout.flush()
    if not options.json:
        note(
            f"key {made.id}, {made.name}, of scope {made.scope} in project {made.project};"
            " it is shown this once"
        )
    if not were_on and await _are_on(client):
        note("it is the first: from now on every call and every page needs a key (docs/keys.md)")


async def _are_on(client: Client) -> bool:
    try:
        return (await client.read(SelfView, "/api/self", {})).keys_are_on
    except Refused:  # whoever came without a key, a moment ago, needs one now
        return True


async def show(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    """List all keys, newest first."""
    rows = (await client.read(_Keys, "/api/keys", {})).keys
    if options.json:
        for row in rows:
            print(safe_json(bytes(row)))
        return
    found = [client.decode(KeyView, bytes(row)) for row in rows]
    if found:
        print("\n".join(table(_columns(found, datetime.now(UTC)), screen)))
    else:
        note("no keys yet: `traceway keys create --name NAME --scope admin` makes the first")


async def revoke(client: Client, options: argparse.Namespace, _: Screen) -> None:
    """Revoke a key."""
    answer = await client.send("DELETE", f"/api/keys/{options.id}")
    ended = client.decode(KeyView, answer)
    if options.json:
        print(safe_json(answer))
    else:
        print(f"key {ended.id}, {safe(ended.name)}, lets nobody in any more")
    sys.stdout.flush()
    try:
        keys = (await client.read(_Keys, "/api/keys", {})).keys
    except Refused:  # it was the key of whoever asked
        return
    if all(client.decode(KeyView, bytes(key)).revoked_at is not None for key in keys):
        note("it was the last: nobody has a good key now")


def _columns(keys: Sequence[KeyView], now: datetime) -> list[Column]:
    return [
        Column("ID", [str(key.id) for key in keys], 9, right=True),
        Column("NAME", [safe(key.name) for key in keys], 8, least=12),
        Column("PROJECT", [key.project for key in keys], 7, least=8),
        Column("SCOPE", [key.scope for key in keys], 6),
        Column("KEY", [f"{KEY_PREFIX}…{key.last_four}" for key in keys], 5),
        Column("CALLS/MIN", [_calls(key) for key in keys], 1, right=True),
        Column("CREATED", [str(view.ago(key.created_at, now)) for key in keys], 2),
        Column("LAST USED", [_ago(key.last_used_at, now, "never") for key in keys], 4),
        Column("REVOKED", [_ago(key.revoked_at, now, "") for key in keys], 8),
    ]


def _calls(key: KeyView) -> str:
    return "" if key.calls_per_minute is None else f"{key.calls_per_minute:,}"


def _ago(at: str | None, now: datetime, never: str) -> str:
    return never if at is None else str(view.ago(at, now))
