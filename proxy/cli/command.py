"""What the commands have in common: where the server is, their exit codes, failures in a line.

Exit codes: 0; 1 no server answers, or it cannot; 2 what was asked is wrong; 130 interrupted; 141
whoever read the output has left, as a shell says of a program that ends by SIGPIPE.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Final

from proxy import config_values
from proxy.cli.client import Client, NoAnswer, Refused
from proxy.cli.terminal import Screen, columns, safe, screen
from proxy.config import Config

Work = Callable[[Client, argparse.Namespace, Screen], Awaitable[None]]
Run = Callable[[Config, argparse.Namespace], int]

BROKEN_PIPE: Final = 141
# Characters of a query that are shown on each side of what is wrong with it.
AROUND: Final = 36


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what every command takes that asks a server."""
    parser.add_argument("--port", help="the port of a server on this machine (3000)")
    parser.add_argument("--url", type=_url, help="the server, where it is not the configured one")
    parser.add_argument("--json", action="store_true", help="the API's JSON, one object a line")


def count(text: str) -> int:
    """Read an option that is a whole number from 1 on."""
    if text.isascii() and text.isdigit() and len(text) < 10 and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, not {text!r}")


def _url(text: str) -> str:
    try:
        return config_values.http_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected {error}") from None


def asking(work: Work) -> Run:
    """Make a command of what it does with a server."""

    def run(config: Config, options: argparse.Namespace) -> int:
        # A terminal of another encoding shows `?` for what it does not have.
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        try:
            asyncio.run(_work(work, options.url or _configured(config), options))
            sys.stdout.flush()
        except NoAnswer as failure:
            note(str(failure))
            return 1
        except Refused as refusal:
            _explain(refusal, getattr(options, "query", ""))
            return 2 if refusal.status < 500 else 1
        except BrokenPipeError:
            # What is still to be written goes nowhere, also at the interpreter's end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        return 0

    return run


async def _work(work: Work, url: str, options: argparse.Namespace) -> None:
    async with Client(url) as client:
        await work(client, options, screen())


def _configured(config: Config) -> str:
    host = config.server.host
    return f"http://{f'[{host}]' if ':' in host else host}:{config.server.port}"


def note(text: str) -> None:
    """Say something beside the output."""
    print(f"traceway: {safe(text)}", file=sys.stderr, flush=True)


def _explain(refusal: Refused, query: str) -> None:
    """Say what the server refuses, and point at the place in a query."""
    note(str(refusal))
    if (at := refusal.position) is not None:
        before = safe(query[max(at - AROUND, 0) : at])
        print(f"  {before}{safe(query[at : at + AROUND])}", file=sys.stderr)
        print(f"  {' ' * columns(before)}^", file=sys.stderr)
