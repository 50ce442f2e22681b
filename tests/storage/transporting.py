"""Databases to move, and PostgreSQL databases to move them into.

One server of PostgreSQL for all tests of a process: out of a wheel, on a socket in a folder.
"""

import asyncio
import itertools
import os
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from storage import api_keys, budgets
from storage.grants import SealedKey, SignIn
from storage.proof import Line, prove
from storage.provider_keys import put
from storage.spending import Reservation
from storage.sqlite import SqliteDatabase
from storage.transport import Moved, move
from storage.transport_source import open_source
from storage.transport_target import open_target
from tests import postgres
from tests.databases import opened_file
from tests.storage.calls import span_id, spoken, start, trace_id, write
from tests.storage.handing import done, hand_in
from tests.storage.mixed import mixed as calls
from tests.storage.test_any_history import History
from tests.storage.test_any_intake import item, other

_numbers = itertools.count()


@cache
def _server() -> postgres.Server:
    return postgres.Server()


@pytest.fixture(scope="session", autouse=True)
def ended() -> Iterator[None]:
    """Stop the server; test files import this beside what they use."""
    yield
    if _server.cache_info().currsize:
        _server().end()
        _server.cache_clear()


async def new_target() -> str:
    """Make an empty database; give its address."""
    server = await asyncio.to_thread(_server)
    name = f"move_{os.getpid()}_{next(_numbers)}"
    await run(server.url(), f"CREATE DATABASE {name}")
    return server.url(name)


async def run(url: str, *texts: str) -> None:
    """Run statements there."""
    connection = await asyncpg.connect(url)
    try:
        for text in texts:
            await connection.execute(text)
    finally:
        await connection.close()


async def read(url: str, text: str) -> Any:
    """Give the one value that a SELECT has."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(text)
    finally:
        await connection.close()


def untold(_what: str, _done: int = 0, _of: int = 0) -> None:
    """Be told how far it is, and do nothing."""


async def moved(path: Path, url: str) -> Moved:
    """Move a database, or go on with it."""
    with open_source(path) as source:
        target = await open_target(url)
        try:
            return await move(source, target, untold)
        finally:
            await target.close()


async def proved(path: Path, url: str) -> list[Line]:
    """Compare both."""
    with open_source(path) as source:
        target = await open_target(url)
        try:
            return [line async for line in prove(source, target, untold)]
        finally:
            await target.close()


def differing(lines: list[Line]) -> list[str]:
    """Give what is not equal."""
    assert len(lines) > 100
    return [line.what for line in lines if not line.is_equal]


async def mixed(path: Path) -> None:
    """Make a database with something in every table: calls, deletions, keys, what is open yet."""
    database = opened_file(path)
    try:
        _fill(database)
    finally:
        await database.close()


def _fill(db: SqliteDatabase) -> None:
    source = random.Random(8)  # noqa: S311
    write(db, calls(8))
    told = History(db)
    told.n = 200
    kinds = ("new", "go on", "go on", "retry", "edit", "previous", "loop", "delete trace")
    for _ in range(40):
        told.do(source.choice(kinds), *(source.randrange(1000) for _ in range(3)))
    for n in range(8):
        hand_in(db, [item(kind, n) for kind in ("open", "begin", "end")])
    other(db, "talk", 3, 2)
    # An end before its start, a call that runs, and messages that no search has yet.
    hand_in(db, [done(77)])
    running = start(500, session_id="running")
    write(db, [running])
    write(db, [spoken(start(501, session_id="é\n☃"), ["u:waits"], ["a:yet"])], indexed=False)
    with db.transaction() as tx:
        project = api_keys.create_project(tx, "other", 5)
        assert isinstance(project, int)
        api_keys.set_session_budget(tx, project, 1_000_000)
        key = api_keys.create_key(
            tx,
            project_id=project,
            name="k",
            scope="admin",
            sha256=b"h" * 32,
            last_four="abcd",
            now_us=7,
        )
        assert isinstance(key, int)
        one = SignIn(sha256=b"s" * 32, key_id=key, project_id=project, expires_at_us=10**17)
        api_keys.sign_in(tx, one, 8)
        sealed = SealedKey(
            project_id=project,
            upstream="openai",
            sealed=b"\x01sealed\x00",
            last_four="wxyz",
            created_at_us=9,
        )
        put(tx, sealed)
        asked = Reservation(
            project_id=1,
            trace_id=trace_id(500),
            span_id=span_id(500),
            session_id="running",
            limit_nusd=10_000,
            amount_nusd=70,
        )
        assert budgets.reserve(tx, asked).fits(70)
        tx.execute(
            "INSERT INTO erasures (project_id, id, kind, extent, given, with_starred, state,"
            " before_seq, asked_at_us) VALUES (1, :id, 'user', 'all', 'u', 0, 'open', 9, 1)",
            {"id": tx.take_numbers("erasure", 1)[0]},
        )
        tx.execute("INSERT INTO erasure_targets VALUES (1, 1, 1, 's', NULL)", {})
