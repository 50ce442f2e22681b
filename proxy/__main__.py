"""The command line: `traceway serve` and `traceway doctor`; proxy/cli has what asks a server.

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

import aiohttp
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from proxy import __version__, operator_socket
from proxy.app import Traceway
from proxy.call_log import JsonLines, TextLines
from proxy.cli import keys, projects, provider_keys, sessions, show, tail
from proxy.cli.client import KEY_VARIABLE, NoAnswer
from proxy.cli.command import Add, Before, Work, add_options, add_project, asking
from proxy.cli.reach import Taken
from proxy.config import Config, ConfigError, load
from proxy.keyring import Keyring
from proxy.listen import CannotListen, listen
from proxy.outlet import never_waiting
from proxy.providers.messages import text_of
from proxy.sealing import KeyFileError
from proxy.vault import BadKey
from storage import doctor, doctor_facts
from storage.database import DatabaseLocked, StorageError
from storage.provider_keys import delete_all
from storage.recover import recover
from storage.sqlite import SqliteDatabase, open_database, open_snapshot

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
        "database.path": options.db,
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
    database = _opened(config)
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


def _opened(config: Config) -> SqliteDatabase:
    strict = config.recording.durability == "strict"
    return open_database(
        config.database.path,
        synchronous="FULL" if strict else "NORMAL",
        query_timeout_s=config.database.query_timeout_s,
    )


@asynccontextmanager
async def _alone(config: Config) -> AsyncIterator[Path]:
    """Have the application for one command: it takes the database, and listens on a Unix socket.

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


def examine(config: Config, options: argparse.Namespace) -> int:
    """Look at everything that is stored, and say what does not fit; 1 where something does not.

    A server may go on with the database meanwhile; with `--vacuum` it must not, since the file is
    written anew first, without anything that was deleted; nor with `--forget-provider-keys` or
    `--recover-to`, after which it is the new database that is looked at.

    Raises:
        StorageError: the database cannot be used.
    """
    path = config.database.path.resolve()
    if options.recover_to is not None:
        path = _recover(path, options.recover_to)
    open_snapshot(path)  # refuses what is no database of ours before anything is written
    if options.forget_provider_keys:
        print(f"{path}: {asyncio.run(_forget_provider_keys(path))} provider keys forgotten")
    if options.vacuum:
        before_bytes = path.stat().st_size
        asyncio.run(_vacuum(path))
        print(f"{path}: {before_bytes:,} bytes before the vacuum, {path.stat().st_size:,} after")
    has_parser = HttpRequestParser is not HttpRequestParserPy
    for fact in (
        doctor_facts.Fact("Traceway", __version__),
        doctor_facts.Fact("aiohttp", aiohttp.__version__, "" if has_parser else _NO_PARSER),
        *doctor_facts.facts(path),
    ):
        print(f"{fact.what}: {fact.value}{fact.note and '; '}{fact.note}")
    findings = [*doctor_facts.examine(path), *asyncio.run(_check(path))]
    if not has_parser:
        findings.append(doctor.Finding("aiohttp without its C parser", 1, _NO_PARSER))
    for finding in findings:
        print(f"{finding.what}: {finding.count:,}; {finding.remedy}")
    print(f"{path}: {len(findings) or 'no'} findings")
    return 1 if findings else 0


_NO_PARSER: Final = "no server starts without its C parser: reinstall it from a wheel"


def _recover(path: Path, target: Path) -> Path:
    """Save what can be read of a damaged database, say what was lost, and give the new one."""
    recovery = recover(path, target)
    for table in recovery.tables:
        lost = "not known how many" if table.lost is None else f"{table.lost:,}"
        print(
            f"{table.table}: {table.rows:,} rows saved{'' if table.lost == 0 else f', {lost} lost'}"
        )
    for what, count in recovery.lost.items():
        print(f"{what}: {count:,}")
    print(f"{target}: made of what can be read of {path}, which is as it was")
    return target.resolve()


async def _forget_provider_keys(path: Path) -> int:
    database = open_database(path)
    try:
        with database.transaction() as transaction:
            return delete_all(transaction)
    finally:
        await database.close()


async def _vacuum(path: Path) -> None:
    database = open_database(path)
    try:
        database.vacuum()
    finally:
        await database.close()


async def _check(path: Path) -> list[doctor.Finding]:
    database = open_snapshot(path)
    try:
        return await doctor.check(database, text_of)
    finally:
        await database.close()


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
    print(f"  data       {config.database.path.resolve()}", flush=True)


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
    common.add_argument("--db", metavar="FILE", help="the database (traceway.db)")
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
    for name, group, what in (
        ("keys", keys, "make, list and revoke keys"),
        ("projects", projects, "make, list and change projects"),
        ("provider-keys", provider_keys, "store the keys with which projects call upstreams"),
    ):
        below = commands.add_parser(name, help=what).add_subparsers(
            required=True, metavar="COMMAND"
        )
        group.add_commands(_adding(below.add_parser, common))
    return parser


def _adding(
    add_parser: Callable[..., argparse.ArgumentParser], common: argparse.ArgumentParser
) -> Add:
    """Give what adds a command of a group: one that needs no server that runs."""

    def add(
        name: str, what: str, work: Work, before: Before | None = None
    ) -> argparse.ArgumentParser:
        command = add_parser(name, parents=[common], help=what)
        add_options(command)
        command.set_defaults(run=asking(work, _alone, before))
        return command

    return add


if __name__ == "__main__":
    sys.exit(main())
