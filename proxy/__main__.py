"""The command line, and `traceway serve`; proxy/cli has what asks a server.

Turns mistakes into one clear line each and an exit code.
"""

import argparse
import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from proxy import __version__, operator_socket
from proxy.app import Traceway
from proxy.backing_up import back_up
from proxy.call_log import JsonLines, TextLines
from proxy.cli import erase, export, keys, projects, provider_keys, restore, sessions, show, tail
from proxy.cli.client import KEY_VARIABLE, NoAnswer
from proxy.cli.command import Add, Before, Work, add_options, add_project, asking
from proxy.cli.reach import Alone, Taken
from proxy.config import Config, ConfigError, load
from proxy.examining import examine
from proxy.keyring import Keyring
from proxy.listen import CannotListen, listen
from proxy.outlet import never_waiting
from proxy.sealing import KeyFileError
from proxy.vault import BadKey
from storage.database import Database, DatabaseLocked, StorageError
from storage.opening import WAIT_S, check_client, open_at, opened_within, shown
from storage.sqlite import open_snapshot

# The recorder's thread shares the interpreter with the event loop: half a millisecond is how long
# the loop may have to wait for it, where Python's own 5 ms would show in every first byte.
SWITCH_INTERVAL_S: Final = 0.0005
# glibc's mallopt: blocks of so many bytes come from the system and go back to it when they are
# freed. It begins with this bound, and raises it to the largest block that was freed, up to 32 MiB:
# from then on bodies are cut out of one heap, whose holes stay with the process for ever. 500
# requests of 500 KB at once left it with 200 MB too much. Bodies come in pieces of 32 KiB and more
# (read_ahead.py).
M_MMAP_THRESHOLD: Final = -3
MMAP_THRESHOLD_BYTES: Final = 16 * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:2] == ["sessions", "show"]:  # a command of two words
        given[:2] = ["sessions show"]
    options = _parser().parse_args(given)
    overrides, mistakes = _overrides(options)
    try:
        config = load(options.config, os.environ, overrides)
    except ConfigError as error:
        mistakes.append(str(error))
    if mistakes:
        lines = "\n".join(mistakes)
        print(f"traceway: the configuration has mistakes:\n{lines}", file=sys.stderr)
        return 2
    with never_waiting() if options.run is serve else contextlib.nullcontext():
        to_stderr = logging.StreamHandler(sys.stderr)
        to_stderr.setFormatter(JsonLines() if config.server.log_format == "json" else TextLines())
        logging.basicConfig(level=logging.INFO, handlers=[to_stderr])
        try:
            return int(options.run(config, options))
        except (BadKey, CannotListen, KeyFileError, StorageError) as error:
            print(f"traceway: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:  # before there was anything to stop
            return 130


def _overrides(options: argparse.Namespace) -> tuple[dict[str, str], list[str]]:
    """Give what the command line sets, by key, and what cannot be one."""
    texts = {
        "server.port": options.port,
        "server.log_format": options.log_format,
        **_database_of(options.db),
    }
    overrides = {key: text for key, text in texts.items() if text is not None}
    mistakes = []
    for upstream in options.upstream:
        name, equals, url = upstream.partition("=")
        if equals:
            overrides[f"upstreams.{name}.url"] = url
        else:
            mistakes.append(f"--upstream {upstream}: expected NAME=URL")
    return overrides, mistakes


def _database_of(text: str | None) -> dict[str, str | None]:
    """Give what `--db` sets: a file, or the address of a server, in place of the other."""
    if text is None or "://" in text:
        return {"database.url": text}
    return {"database.path": text, "database.url": ""}


def serve(config: Config, _options: argparse.Namespace) -> int:
    """Serve until a signal comes.

    Raises:
        BadKey: a provider key of the environment cannot be one.
        CannotListen: the port cannot be had.
        KeyFileError: the stored provider keys cannot be opened.
        StorageError: the database cannot be used.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with contextlib.suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(config))
    return 0


async def _serve(config: Config) -> None:
    stop, now = _signals()
    sockets = listen(config.server)
    database = await _opened_soon(config, stop)
    if database is None:
        return
    try:
        server = Traceway(config, database)
        port = await server.start(sockets)
        _print_start(config, port, server.keyring)
        gc.freeze()  # prices and tokenizer are here to stay: no collection need walk them again
        await stop.wait()
        print("stopping: calls in flight may end; a second signal cuts them", flush=True)
        await server.stop(config.server.drain_s, now)
    finally:
        await database.close()


def _opened(config: Config) -> Database:
    return open_at(
        config.database.path,
        config.database.url,
        durability=config.recording.durability,
        query_timeout_s=config.database.query_timeout_s,
    )


async def _opened_soon(config: Config, stop: asyncio.Event) -> Database | None:
    """Open the database, a server's as soon as it is there; None where we are to stop before."""
    if not config.database.url:
        return _opened(config)

    def say(text: str) -> None:
        print(f"traceway: {text}", file=sys.stderr, flush=True)

    return await opened_within(WAIT_S, lambda: _opened(config), say, stop)


@asynccontextmanager
async def _alone(config: Config) -> AsyncIterator[Path]:
    """Have the application for one command: it takes the database, and listens on a Unix socket.

    One of a PostgreSQL server it shares with the servers that run, which hear of what it changes.
    Not on the one beside the database, which others would use and lose with the command's end; and
    not every file system can have a socket.

    Raises:
        NoAnswer: there can be no socket.
        StorageError: the database cannot be used.
        Taken: another process has it.
    """
    try:
        database = _opened(config)
    except DatabaseLocked as error:
        raise Taken(
            f"{error}; or name its server with --url, and a key in {KEY_VARIABLE}"
        ) from None
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        try:
            folder = stack.enter_context(TemporaryDirectory(prefix="traceway-"))
            sock = operator_socket.listen(path := Path(folder, "sock"))
        except OSError as error:
            raise NoAnswer(f"there can be no socket in the temporary folder: {error}") from None
        server = Traceway(config, database)
        await server.start(private=sock)
        stack.push_async_callback(server.stop, 0, asyncio.Event())
        yield path


@asynccontextmanager
async def _alone_with_what_is_there(config: Config) -> AsyncIterator[Path]:
    """Do the same for a command that has nothing to do in a new database.

    One of SQLite is neither made nor brought up to date: an older one may be somebody's copy.

    Raises:
        StorageError: there is none, or one of an older version, too.
    """
    if not config.database.url:
        open_snapshot(config.database.path)  # refuses such before anything is made
    async with _alone(config) as path:
        yield path


def migrate(config: Config, options: argparse.Namespace) -> int:
    """Move a SQLite database to PostgreSQL; 1 where the two are not equal then.

    Raises:
        StorageError: one of them cannot be used, or the extra is not installed.
    """
    check_client()
    from proxy import transporting

    return transporting.migrate(config, options)


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Give the events that the first and the second SIGINT or SIGTERM set."""
    stop, now = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (now if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    return stop, now


def _print_start(config: Config, port: int, keyring: Keyring) -> None:
    host = f"[{config.server.host}]" if ":" in config.server.host else config.server.host
    print(f"Traceway {__version__} is ready")
    for name, upstream in config.upstreams.items():
        path = "/v1" if name == "openai" else ""
        hop = config.egress.hop(upstream.url)
        through = "" if hop is None else f"  through {hop}"
        at = f"http://{host}:{port}/api/proxy/{name}{path}"
        print(f"  base URL   {at}  ->  {upstream.url}{path}{through}")
    print("  sessions   send the header X-Traceway-Session-Id: any text")
    print(f"  read them  http://{host}:{port}/sessions")
    print(f"  keys       {_said(keyring)}")
    where = shown(config.database.path, config.database.url)
    print(f"  data       {where}", flush=True)


def _said(keyring: Keyring) -> str:
    """Say whether one needs a key, and how to have one."""
    if not keyring.keys_are_on:
        return "none needed: only this machine can call"
    if any(key.revoked_at_us is None for key in keyring.keys):
        return "needed: Authorization: Bearer tw_sk_..."
    return "needed, and nobody has one: traceway keys create --name NAME --scope admin"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # it does not install everywhere, and is only faster
        return None
    return uvloop.new_event_loop


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="traceway", description="A reverse proxy for LLM APIs that records calls as sessions."
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(port=None, db=None, log_format=None, upstream=[])
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, metavar="FILE", help="a TOML file")
    common.add_argument(
        "--db",
        metavar="FILE",
        help="the database: a file (traceway.db), or postgresql://user@host/name; a password is"
        " better in TRACEWAY_DATABASE_URL, since others see command lines",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve_command = commands.add_parser("serve", parents=[common], help="start the proxy")
    serve_command.set_defaults(run=serve)
    serve_command.add_argument("--port", help="the port to listen on (3000)")
    serve_command.add_argument(
        "--log-format", metavar="FORMAT", help="text, or json: an object a line"
    )
    serve_command.add_argument(
        "--upstream",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="where calls go, as openai=https://api.openai.com; may be repeated",
    )
    doctor_command = commands.add_parser(
        "doctor", parents=[common], help="look at everything that is stored for what does not fit"
    )
    doctor_command.set_defaults(run=examine)
    doctor_command.add_argument(
        "--vacuum",
        action="store_true",
        help="first write the file anew without what was deleted; the server must be stopped",
    )
    doctor_command.add_argument(
        "--forget-provider-keys",
        action="store_true",
        help="first delete all stored provider keys, where the key file is lost; the server must"
        " be stopped",
    )
    doctor_command.add_argument(
        "--recover-to",
        type=Path,
        metavar="FILE",
        help="first save what can be read of a damaged database into a new one, and look at that;"
        " the server must be stopped, and the damaged file stays as it is",
    )
    migrate_command = commands.add_parser(
        "migrate", help="move a SQLite database to PostgreSQL, and prove that both are equal"
    )
    migrate_command.set_defaults(run=migrate)
    migrate_command.add_argument("--config", type=Path, metavar="FILE", help="a TOML file")
    migrate_command.add_argument(
        "source", type=Path, metavar="SQLITE", help="the file; its server must be stopped"
    )
    migrate_command.add_argument(
        "target",
        metavar="postgresql://...",
        help="a database that is empty, or into which this one was being moved",
    )
    migrate_command.add_argument(
        "--proof-only", action="store_true", help="compare what was moved before, and move nothing"
    )
    migrate_command.add_argument("--json", action="store_true", help="one object, on stdout")
    backup_command = commands.add_parser(
        "backup", parents=[common], help="copy the database to a file, also while a server runs"
    )
    backup_command.set_defaults(run=back_up)
    backup_command.add_argument("file", type=Path, metavar="FILE", help="the copy: a new file")
    for archives, alone in ((export, _alone_with_what_is_there), (restore, _alone)):
        archives.add_commands(_adding(commands.add_parser, common, alone))
    for name, command, what in (
        ("sessions", sessions, "list sessions"),
        ("sessions show", show, "read a session: its metrics and its conversation"),
        ("tail", tail, "show calls as they end"),
    ):
        asking_command = commands.add_parser(name, parents=[common], help=what)
        command.add_arguments(asking_command)
        add_project(asking_command, "the project to look at, for admins (the key's own)")
        add_options(asking_command)
        asking_command.set_defaults(run=asking(command.run))
    erase_command = commands.add_parser(
        "erase", parents=[common], help="have a session, a user, or what a search finds forgotten"
    )
    erase.add_arguments(erase_command)
    add_project(erase_command, "the project to erase in, for admins (the key's own)")
    add_options(erase_command)
    erase_command.set_defaults(run=asking(erase.run, _alone_with_what_is_there))
    for name, group, what in (
        ("keys", keys, "make, list and revoke keys"),
        ("projects", projects, "make, list and change projects"),
        ("provider-keys", provider_keys, "store the keys with which projects call upstreams"),
    ):
        below = commands.add_parser(name, help=what).add_subparsers(
            required=True, metavar="COMMAND"
        )
        group.add_commands(_adding(below.add_parser, common, _alone))
    return parser


def _adding(
    add_parser: Callable[..., argparse.ArgumentParser],
    common: argparse.ArgumentParser,
    alone: Alone,
) -> Add:
    """Give what adds a command of a group: one that needs no server that runs."""

    def add(
        name: str, what: str, work: Work, before: Before | None = None
    ) -> argparse.ArgumentParser:
        command = add_parser(name, parents=[common], help=what)
        add_options(command)
        command.set_defaults(run=asking(work, alone, before))
        return command

    return add


if __name__ == "__main__":
    sys.exit(main())
