"""The command line: `traceway serve`. Turns mistakes into one clear line each and an exit code."""

import argparse
import asyncio
import contextlib
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from proxy import __version__
from proxy.app import Traceway
from proxy.config import Config, ConfigError, load
from proxy.listen import CannotListen, listen
from storage.database import StorageError
from storage.sqlite import open_database

# The recorder's thread shares the interpreter with the event loop: half a millisecond is how long
# the loop may have to wait for it, where Python's own 5 ms would show in every first byte.
SWITCH_INTERVAL_S: Final = 0.0005


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    overrides, mistakes = _overrides(options)
    try:
        config = load(options.config, os.environ, overrides)
    except ConfigError as error:
        mistakes.append(str(error))
    if mistakes:
        lines = "\n".join(mistakes)
        print(f"traceway: the configuration has mistakes:\n{lines}", file=sys.stderr)
        return 2
    try:
        return serve(config)
    except (CannotListen, StorageError) as error:
        print(f"traceway: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before there was anything to stop
        return 130


def _overrides(options: argparse.Namespace) -> tuple[dict[str, str], list[str]]:
    """Give what the command line sets, by key, and what cannot be one."""
    texts = {"server.port": options.port, "database.path": options.db}
    overrides = {key: text for key, text in texts.items() if text is not None}
    mistakes = []
    for upstream in options.upstream:
        name, equals, url = upstream.partition("=")
        if equals:
            overrides[f"upstreams.{name}.url"] = url
        else:
            mistakes.append(f"--upstream {upstream}: expected NAME=URL")
    return overrides, mistakes


def serve(config: Config) -> int:
    """Serve until a signal comes.

    Raises:
        CannotListen: the port cannot be had.
        StorageError: the database cannot be used.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(config))
    return 0


async def _serve(config: Config) -> None:
    stop, now = _signals()
    sockets = listen(config.server)
    strict = config.recording.durability == "strict"
    database = open_database(config.database.path, synchronous="FULL" if strict else "NORMAL")
    try:
        server = Traceway(config, database)
        port = await server.start(sockets)
        _print_start(config, port)
        await stop.wait()
        print("stopping: calls in flight may end; a second signal cuts them", flush=True)
        await server.stop(config.server.drain_s, now)
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


def _print_start(config: Config, port: int) -> None:
    host = f"[{config.server.host}]" if ":" in config.server.host else config.server.host
    print(f"Traceway {__version__} is ready")
    for name, upstream in config.upstreams.items():
        path = "/v1" if name == "openai" else ""
        print(f"  base URL   http://{host}:{port}/api/proxy/{name}{path}  ->  {upstream.url}{path}")
    print("  sessions   send the header X-Traceway-Session-Id: any text")
    print(f"  read them  http://{host}:{port}/api/sessions")
    print(f"  data       {config.database.path.resolve()}", flush=True)


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
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve_command = commands.add_parser("serve", help="start the proxy")
    serve_command.add_argument("--config", type=Path, metavar="FILE", help="a TOML file")
    serve_command.add_argument("--port", help="the port to listen on (3000)")
    serve_command.add_argument("--db", metavar="FILE", help="the database (traceway.db)")
    serve_command.add_argument(
        "--upstream",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="where calls go, as openai=https://api.openai.com; may be repeated",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
