"""Fixtures that most tests share: a scripted upstream, and servers in front of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import uvloop

from proxy.dial import trust
from storage.postgres_address import is_address
from tests import databases, postgres, tls
from tests.databases import opened
from tests.keyed import Keyed, keyed
from tests.recorders import Begin, Recording, recording
from tests.running import Running, running
from tests.sharing import join, postgresql, url  # noqa: F401 (fixtures)
from tests.wire import ScriptedUpstream

# A machine that is busy with something else makes no test fail.
hypothesis.settings.register_profile("traceway", deadline=None)
hypothesis.settings.load_profile("traceway")

POSTGRES = pytest.StashKey[str]()

Serve = Callable[..., Awaitable[Running]]
ServeKeyed = Callable[..., Awaitable[Keyed]]


# They start whole servers by the dozen, or play long histories: `make test-slow`, with whatever
# opens a browser.
SLOW = (
    *("tests/acceptance/test_canary.py", "tests/acceptance/test_examples.py"),
    *("tests/acceptance/test_seed_curl.py", "tests/acceptance/test_separation.py"),
    *("tests/cli/test_command.py", "tests/cli/test_provider_keys.py", "tests/cli/test_reach.py"),
    *("tests/cli/test_tail.py", "tests/storage/test_any_archive.py", "tests/test_backing_up.py"),
    *("tests/test_database_away.py", "tests/test_faults_at_each_step.py"),
    *("tests/test_forward_proxied.py", "tests/test_forward_streams.py", "tests/test_kill.py"),
    *("tests/test_main.py", "tests/test_recording_exact.py", "tests/test_recording_sessions.py"),
    "tests/test_transporting.py",
)


# What opens a browser.
BROWSERS = frozenset({"browser", "attackers"})
# What makes a database, by which it is known whether a test is one of both kinds.
MAKES_DATABASES = frozenset({"db", "tw", "serve", "serve_keyed", "team", "begin"})
MAKERS = (opened, running, keyed, recording)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say what databases the tests are to run on."""
    known = ("sqlite", "postgresql")
    text = "the kind of database; with postgresql only what uses one is run"
    parser.addoption("--database", choices=known, default="sqlite", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Have one server of PostgreSQL for all workers, where it is wanted."""
    if config.getoption("--database") != "postgresql":
        return
    if hasattr(config, "workerinput"):
        url = config.workerinput["postgres"]
    elif not is_address(url := postgres.GIVEN):
        server = postgres.Server()
        config.add_cleanup(server.end)
        url = server.url()
    config.stash[POSTGRES] = url
    databases.use("postgresql", url)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker where the server is."""
    node.workerinput["postgres"] = node.config.stash.get(POSTGRES, "")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what takes long by its file, and take out what the databases are not for."""
    for item in items:
        if item.nodeid.startswith(SLOW) or BROWSERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    is_wanted = _runs_on_sqlite if databases.kind() == "sqlite" else _runs_on_postgres
    if others := [item for item in items if not is_wanted(item)]:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if is_wanted(item)]


def _runs_on_sqlite(item: pytest.Item) -> bool:
    return item.get_closest_marker("postgres_only") is None


def _runs_on_postgres(item: pytest.Item) -> bool:
    if item.get_closest_marker("sqlite_only"):
        return False
    if item.get_closest_marker("postgres_only"):
        return True
    named = vars(item.module).values() if isinstance(item, pytest.Function) else ()
    makes = any(one is maker for one in named for maker in MAKERS)
    return makes or bool(MAKES_DATABASES & set(getattr(item, "fixturenames", ())))


@pytest.fixture(autouse=True)
def _given_back() -> Iterator[None]:
    of_others = databases.taken()
    yield
    databases.give_back(of_others)


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run what is marked so on both event loops: the one we serve with, and Python's own."""
    loops = {"asyncio": asyncio.new_event_loop}
    if item.get_closest_marker("both_loops"):
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """An upstream that fails the test unless it is given a script."""
    scripted = ScriptedUpstream()
    await scripted.start()
    yield scripted
    await scripted.stop()


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the servers of `tests.tls` trusted, in the way in which a company adds its own."""
    file = tmp_path / "authority.pem"
    file.write_bytes(tls.authority().pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    trust.cache_clear()
    yield
    trust.cache_clear()


@pytest.fixture
async def serve(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Serve]:
    """Start a server before the upstream: `await serve({"recording.durability": "strict"})`."""
    async with AsyncExitStack() as stack:

        async def start(settings: dict[str, str] | None = None) -> Running:
            return await stack.enter_async_context(running(tmp_path, upstream.url, settings))

        yield start


@pytest.fixture
async def tw(serve: Serve) -> Running:
    """A server with the default settings, in front of the upstream."""
    return await serve()


@pytest.fixture
async def serve_keyed(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[ServeKeyed]:
    """Start a server with keys on before the upstream: `await serve_keyed({"auth.mode": ...})`."""
    async with AsyncExitStack() as stack:

        async def start(settings: dict[str, str] | None = None) -> Keyed:
            return await stack.enter_async_context(keyed(tmp_path, upstream.url, settings))

        yield start


@pytest.fixture
async def team(serve_keyed: ServeKeyed) -> Keyed:
    """A server with keys on, in front of the upstream."""
    return await serve_keyed()


@pytest.fixture
async def begin(tmp_path: Path) -> AsyncIterator[Begin]:
    """Start a recorder without a server: `await begin(durability="strict")`."""
    async with AsyncExitStack() as stack:

        async def start(**how: Any) -> Recording:
            return await stack.enter_async_context(recording(tmp_path, **how))

        yield start
