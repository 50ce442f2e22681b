"""`traceway sessions [QUERY]`: the list of sessions, as a table or as the API's JSON."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from proxy.api.params import MAX_LIMIT
from proxy.api.views import SessionView
from proxy.cli.client import Client
from proxy.cli.command import count, note
from proxy.cli.terminal import Column, Screen, safe, safe_json, table
from proxy.ui import view


@dataclass(frozen=True, slots=True)
class _Page:
    """A page of the list, each session in the very bytes of the API."""

    sessions: list[msgspec.Raw]
    truncated: bool = False
    cursor: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        "query", nargs="?", default="", metavar="QUERY", help='as "cost:>0.50 model:gpt-5*"'
    )
    parser.add_argument("--limit", type=count, default=50, metavar="N", help="at most N (50)")
    parser.add_argument("--sort-by", metavar="COLUMN", help="last_active, cost, tokens, ...")
    parser.add_argument("--sort-order", metavar="ORDER", help="desc, or asc")


async def run(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    """Show the sessions that a query finds."""
    found: list[SessionView] = []
    cursor: str | None = None
    wanted = options.limit
    is_truncated = False
    while wanted:
        page = await client.read(
            _Page,
            "/api/sessions",
            {
                "q": options.query,
                "sort_by": options.sort_by,
                "sort_order": options.sort_order,
                "limit": min(wanted, MAX_LIMIT),
                "cursor": cursor,
            },
        )
        wanted -= len(page.sessions)
        for row in page.sessions:
            if options.json:
                print(safe_json(bytes(row)))
            else:
                found.append(client.decode(SessionView, bytes(row)))
        is_truncated |= page.truncated
        if (cursor := page.cursor) is None:
            break
    if found:
        print("\n".join(table(_columns(found, datetime.now(UTC)), screen)))
    elif not options.json:
        note("no session fulfils the query" if options.query.strip() else "no sessions yet")
    if is_truncated:
        note("a word is so common that only the newest messages with it were looked at")
    if cursor is not None and sys.stdout.isatty():
        note(f"these are the first {options.limit}; --limit N shows more")


def _columns(sessions: Sequence[SessionView], now: datetime) -> list[Column]:
    return [
        Column("ID", [safe(s.id) for s in sessions], 9, least=16),
        Column("TRACES", [f"{s.trace_count:,}" for s in sessions], 3, right=True),
        Column("SPANS", [f"{s.span_count:,}" for s in sessions], 1, right=True),
        Column(
            "TOKENS",
            [str(view.tokens(s.total_tokens, estimated=s.estimated_count)) for s in sessions],
            5,
            right=True,
        ),
        Column("COST", [_cost(s) for s in sessions], 7, right=True),
        Column("DURATION", [str(view.duration(s.duration_ms)) for s in sessions], 4, right=True),
        Column("LAST ACTIVE", [str(view.ago(s.last_active_at, now)) for s in sessions], 6),
        Column("STATUS", [s.status for s in sessions], 8, states=True),
        Column("FIRST INPUT", [_first_words(s) for s in sessions], 2, least=12),
    ]


def _cost(session: SessionView) -> str:
    return str(
        view.money(session.cost, unpriced=session.unpriced_count, estimated=session.estimated_count)
    )


def _first_words(session: SessionView) -> str:
    return safe(view.one_line(session.first_input)) or view.UNKNOWN
