"""`traceway provider-keys set | list | delete`: the keys with which a project calls upstreams.

Invariant: a provider key comes from a terminal that does not show it, or from a pipe, and goes to
the server; it stands in no argument, no message and no output.
"""

import argparse
import getpass
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import msgspec

from proxy.api.provider_keys import ProviderKeyView
from proxy.cli.client import Client, Refused
from proxy.cli.command import Add, add_project, note, words
from proxy.cli.terminal import Column, Screen, safe, safe_json, table
from proxy.ui import view

PATH: Final = "/api/provider-keys"
# Far more than any key has: what is piped by mistake is not read to its end.
MAX_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class _ProviderKeys:
    """All of a project, each in the very bytes of the API."""

    provider_keys: list[msgspec.Raw]


def add_commands(add: Add) -> None:
    """Add the commands, with what they take."""
    setting = add("set", "store a key: it is asked for, or read from a pipe", store, ask_for_key)
    ending = add("delete", "delete a stored key; what the environment has, stays", delete)
    for command in (setting, ending):
        command.add_argument("upstream_name", type=words, metavar="UPSTREAM", help="as openai")
    for command in (setting, ending, add("list", "list the keys that there are", show)):
        add_project(command, "the project whose key it is (the first, `default`)")


def ask_for_key(options: argparse.Namespace) -> None:
    """Read the key, before a server is asked for or started.

    Raises:
        Refused: there is none.
    """
    if sys.stdin.isatty():
        try:
            text = getpass.getpass(f"provider key for {safe(options.upstream_name)} (not shown): ")
        except EOFError:
            text = ""
    else:
        text = sys.stdin.buffer.read(MAX_BYTES).decode("utf-8", "replace")
    options.key = text.strip()
    if not options.key:
        raise Refused(400, "no key was given: type it, or pipe it in")


async def store(client: Client, options: argparse.Namespace, _: Screen) -> None:
    """Store a key."""
    answer = await client.send("PUT", _at(options), {"key": options.key})
    if options.json:
        print(safe_json(answer))
        return
    stored = client.decode(ProviderKeyView, answer)
    print(f"the key for {safe(stored.upstream)} is stored: {_shown(stored)}")


async def show(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    """List the keys of a project, by upstream."""
    rows = (await client.read(_ProviderKeys, PATH, {})).provider_keys
    if options.json:
        for row in rows:
            print(safe_json(bytes(row)))
        return
    found = [client.decode(ProviderKeyView, bytes(row)) for row in rows]
    if found:
        print("\n".join(table(_columns(found, datetime.now(UTC)), screen)))
    else:
        note("no provider keys yet: `traceway provider-keys set UPSTREAM` stores one")


async def delete(client: Client, options: argparse.Namespace, _: Screen) -> None:
    """Delete a stored key."""
    answer = await client.send("DELETE", _at(options))
    if options.json:
        print(safe_json(answer))
        return
    deleted = client.decode(ProviderKeyView, answer)
    print(f"the key for {safe(deleted.upstream)} is deleted: {_shown(deleted)}")


def _at(options: argparse.Namespace) -> str:
    return f"{PATH}/{quote(options.upstream_name, safe='')}"


def _shown(key: ProviderKeyView) -> str:
    return f"…{safe(key.last_four or '')}"


def _columns(keys: Sequence[ProviderKeyView], now: datetime) -> list[Column]:
    return [
        Column("UPSTREAM", [safe(key.upstream) for key in keys], 9, least=12),
        Column("SOURCE", [key.source for key in keys], 8),
        Column("KEY", [_shown(key) for key in keys], 7),
        Column("STORED", [_stored(key, now) for key in keys], 5),
    ]


def _stored(key: ProviderKeyView, now: datetime) -> str:
    return "" if key.created_at is None else str(view.ago(key.created_at, now))
