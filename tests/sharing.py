"""Servers that share a database of an embedded PostgreSQL, in one process or in several."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests import postgres
from tests.running import Running, running
from tests.wire import ScriptedUpstream

Join = Callable[..., Awaitable[Running]]

_numbers = count()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgres.Server]:
    """A server for all tests of this process that may share one."""
    server = postgres.Server()
    yield server
    server.end()


@pytest.fixture
def url(postgresql: postgres.Server) -> str:
    """The address of a new and empty database."""
    return new_database(postgresql)


def new_database(server: postgres.Server) -> str:
    name = f"shared_{next(_numbers)}"
    postgres.run(postgres.execute(server.url(), f"CREATE DATABASE {name}", "SELECT 1"))
    return server.url(name)


@pytest.fixture
async def join(url: str, tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Join]:
    """Start one more server on the database: `await join({"auth.mode": "keys"})`."""
    async with AsyncExitStack() as stack:
        yield starting(stack, url, tmp_path, upstream)


def starting(stack: AsyncExitStack, url: str, folder: Path, upstream: ScriptedUpstream) -> Join:
    """Give what starts one more server on a database; it is stopped with the stack."""

    async def start(settings: dict[str, str] | None = None) -> Running:
        given = {"database.url": url, **(settings or {})}
        return await stack.enter_async_context(running(folder, upstream.url, given))

    return start


async def soon(what: Callable[[], Awaitable[Any]], within_s: float = 10.0) -> Any:
    """Ask again and again until what comes is true, and give it."""
    async with asyncio.timeout(within_s):
        while not (found := await what()):
            pass
    return found


@asynccontextmanager
async def with_key(key: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Give a client that sends a key each time."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as client:
        yield client


async def ask_sql(url: str, *statements: str) -> list[Any]:
    """Run statements beside the servers; give the rows of the last."""
    return await postgres.execute(url, *statements)
