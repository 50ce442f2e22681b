"""What the commands have in common: their options, their exit codes, failures in a line.

Exit codes: 0; 1 no server answers, or it cannot, or not all of it was done, or written; 2 what was
asked is wrong; 130 interrupted; 141 whoever read the output has left, as a shell says of a program
that ends by SIGPIPE.
"""

import argparse
import asyncio
import errno
import os
import re
import sys
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, get_args

from proxy import config_values
from proxy.api.keys import ProjectName
from proxy.cli.client import Client, NoAnswer, Refused
from proxy.cli.reach import Alone, reached
from proxy.cli.terminal import Screen, columns, safe, screen
from proxy.config import Config

Work = Callable[[Client, argparse.Namespace, Screen], Awaitable[None]]
Run = Callable[[Config, argparse.Namespace], int]
Before = Callable[[argparse.Namespace], None]


class Undone(Exception):
    """The work did not come to its end, or not all of it was done; the output says why."""


class Add(Protocol):
    """Adds one command of a group, by its name and what it does; `before` it reaches a server."""

    def __call__(
        self, name: str, what: str, work: Work, before: Before | None = None
    ) -> argparse.ArgumentParser: ...


BROKEN_PIPE: Final = 141
# What a disk says that takes no more of the output. What a network says is the client's business,
# and what other files say is said with their names.
TAKES_NO_MORE: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))
# Characters of a query that are shown on each side of what is wrong with it.
AROUND: Final = 36
_PROJECT: Final = re.compile(get_args(ProjectName)[1].pattern)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what every command takes that asks a server."""
    parser.add_argument("--port", help="the port of a server on this machine (3000)")
    parser.add_argument("--url", type=_url, help="the server, where it is not the configured one")
    parser.add_argument("--json", action="store_true", help="the API's JSON, one object a line")


def add_project(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the option that names a project."""
    parser.add_argument("--project", type=project, metavar="NAME", help=what)


def project(text: str) -> str:
    """Read an argument that is the name of a project."""
    if _PROJECT.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError(
        "a project's name is 1 to 64 out of a-z, 0-9, - and _, and begins with a letter or a digit"
    )


def words(text: str) -> str:
    """Read an argument that is text; not every sequence of bytes is."""
    if not text.isprintable():  # half a pair stands for a byte that is no UTF-8
        raise argparse.ArgumentTypeError("expected text that can be printed")
    return text


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


def asking(work: Work, alone: Alone | None = None, before: Before | None = None) -> Run:
    """Make a command of what it does with a server; with `alone`, it needs none that runs."""

    def run(config: Config, options: argparse.Namespace) -> int:
        # A terminal of another encoding shows `?` for what it does not have.
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        code = 0
        try:
            if before is not None:
                before(options)
            try:
                asyncio.run(_work(work, config, options, alone))
            except Undone:
                code = 1
            sys.stdout.flush()
        except NoAnswer as failure:
            note(str(failure))
            return 1
        except Refused as refusal:
            _explain(refusal, getattr(options, "query", ""))
            return 2 if refusal.status < 500 else 1
        except BrokenPipeError:
            _write_nowhere()
            return BROKEN_PIPE
        except OSError as error:
            if error.errno not in TAKES_NO_MORE or error.filename is not None:
                raise
            _write_nowhere()
            note(f"stdout cannot be written: {error.strerror}")
            return 1
        return code

    return run


def _write_nowhere() -> None:
    """Have what is still to be written go nowhere, also at the interpreter's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _work(
    work: Work, config: Config, options: argparse.Namespace, alone: Alone | None
) -> None:
    async with reached(config, options, alone) as client:
        await work(client, options, screen())


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
