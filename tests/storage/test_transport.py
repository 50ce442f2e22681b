"""A moved database is the same in every row, wherever its move was interrupted."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from storage import postgres_address, transport_source
from storage.database import StorageError
from storage.doctor import check
from storage.postgres import open_postgres
from storage.queries import get_span
from storage.sqlite import open_database
from storage.transport import index_all, move
from storage.transport_source import Source, open_source
from storage.transport_target import LOCK, Target, open_target
from tests import postgres
from tests.databases import opened_file as opened
from tests.storage.calls import end, rows, span_id, start, text_of, write
from tests.storage.transporting import (
    differing,
    mixed,
    moved,
    new_target,
    proved,
    read,
    run,
    untold,
)
from tests.storage.transporting import (
    ended as ended,
)


class Killed(BaseException):
    """What `kill -9` is to a move: nothing of it runs any more."""


@pytest.fixture
async def source(tmp_path: Path) -> Path:
    path = tmp_path / "traceway.db"
    await mixed(path)
    return path


async def test_a_moved_database_is_the_same_in_every_row(source: Path) -> None:
    url = await new_target()
    result = await moved(source, url)
    assert differing(await proved(source, url)) == []
    with sqlite3.connect(source) as connection:
        for table in ("spans", "traces", "sessions", "contents", "nodes", "events", "early_ends"):
            ((n,),) = connection.execute(f"SELECT COUNT(*) FROM {table}")  # noqa: S608
            assert result.rows[table] == n > 0, table
    connection.close()
    assert not result.cut
    assert not result.without_nul


async def test_what_was_moved_is_whole_and_goes_on(source: Path) -> None:
    url = await new_target()
    await moved(source, url)
    db = open_postgres(url)
    try:
        assert index_all(db, text_of, untold) == 0
        assert [finding.what for finding in await check(db, text_of)] == []
        write(db, [end(start(900, session_id="new"))])
        assert await get_span(db, 1, span_id(900)) is not None
    finally:
        await db.close()


@pytest.mark.slow
async def test_a_move_that_is_killed_anywhere_goes_on(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_source, "PIECE_ROWS", 40)
    url = await new_target()
    n = 0
    with _killed_after(monkeypatch, lambda: n):
        while True:
            try:
                result = await moved(source, url)
                break
            except Killed:
                # Of each run the first piece stays, and the second does not.
                n += 1
    assert n > 20
    assert differing(await proved(source, url)) == []
    assert result.before > 500


@contextmanager
def _killed_after(monkeypatch: pytest.MonkeyPatch, n: Callable[[], int]) -> Any:
    """Have each run write one piece more, and die in the next: before or after its commit."""
    put, done = Target.put, 0
    begin = Target.begin

    async def begun(self: Target, *given: Any) -> Any:
        nonlocal done
        done = 0
        return await begin(self, *given)

    async def killed(self: Target, *given: Any) -> None:
        nonlocal done
        if done == 1:
            if n() % 2:
                await put(self, *given)
            raise Killed
        done += 1
        await put(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(Target, "begin", begun)
        patched.setattr(Target, "put", killed)
        yield


@pytest.mark.parametrize("step", ["CREATE INDEX", "VACUUM", "setval", "DROP TABLE moves"])
async def test_a_move_that_is_killed_at_its_end_goes_on(
    source: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    url = await new_target()
    names = ("run", "read") if step == "setval" else ("run",)
    with monkeypatch.context() as patched:
        if step == "DROP TABLE moves":
            patched.setattr(Target, "end", _dies)
        for name in names:
            patched.setattr(Target, name, _killed_in(getattr(Target, name), step))
        with pytest.raises(Killed):
            await moved(source, url)
    indexes = (
        "SELECT STRING_AGG(indexdef, ';' ORDER BY indexname) FROM pg_indexes"
        " WHERE schemaname = 'public'"
    )
    await moved(source, url)
    assert differing(await proved(source, url)) == []
    other = await new_target()
    await open_postgres(other).close()
    assert await read(url, indexes) == await read(other, indexes)


def _killed_in(whole: Any, step: str) -> Any:
    seen = 0

    async def ran(self: Target, text: str, *values: Any) -> Any:
        nonlocal seen
        seen += step in text
        if seen > 2:
            raise Killed
        return await whole(self, text, *values)

    return ran


async def _dies(_self: Target) -> None:
    raise Killed


async def test_numbers_go_on_behind_those_that_were_given(source: Path) -> None:
    url = await new_target()
    await moved(source, url)
    last = open_database(source)
    before = {
        table: rows(last, f"SELECT MAX({column}) FROM {table}")[0][0]  # noqa: S608
        for table, column in (("spans", "seq"), ("contents", "id"), ("api_keys", "id"))
    }
    await last.close()
    db = open_postgres(url)
    try:
        with db.transaction() as tx:
            assert tx.take_numbers("seq", 1)[0] > before["spans"]
            assert tx.take_numbers("id", 1)[0] > before["contents"]
            assert tx.take_numbers("erasure", 1)[0] == 2
            ((project,),) = tx.execute(
                "INSERT INTO projects (name) VALUES ('newer') RETURNING id", {}
            )
            assert project == 3
    finally:
        await db.close()


async def test_of_a_text_that_postgresql_refuses_the_rest_is_moved_and_counted(
    source: Path,
) -> None:
    long = "é" * 3_000
    _change(source, "UPDATE spans SET error = 'a' || CHAR(0) || 'b' WHERE seq % 7 = 3")
    _change(source, "UPDATE spans SET response_id = ? WHERE seq % 5 = 1", long)
    url = await new_target()
    result = await moved(source, url)
    assert result.without_nul["spans"] > 2
    assert result.cut["spans"] > 2
    lines = await proved(source, url)
    assert differing(lines) == []
    (note,) = [line.note for line in lines if line.what == "spans: digest of all columns"]
    assert f"{result.cut['spans']} texts cut" in note
    assert f"{result.without_nul['spans']} texts with U+FFFD for NUL" in note
    assert await read(url, "SELECT COUNT(*) FROM spans WHERE error = E'a\\uFFFDb'") > 2
    assert await read(url, "SELECT MAX(LENGTH(response_id)) FROM spans") == 512


async def test_keys_that_had_to_be_fitted_are_there_after_a_move_that_was_killed_at_each(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = "INSERT INTO session_models (project_id, session_id, model, n) VALUES (1, ?, 'm', 1)"
    for session_id in ("a\0b", "a!", "a~", "b"):
        _change(source, models, session_id)
    whole = await new_target()
    await moved(source, whole)
    assert differing(await proved(source, whole)) == []
    monkeypatch.setattr(transport_source, "PIECE_ROWS", 40)
    monkeypatch.setattr(Source, "pieces", _singly("session_models"))
    url = await new_target()
    n = 0
    with _killed_after(monkeypatch, lambda: n):
        while True:
            try:
                await moved(source, url)
                break
            except Killed:
                n += 1
    assert differing(await proved(source, url)) == []


def _singly(name: str) -> Any:
    """Have each row of a table be a piece."""
    pieces = Source.pieces

    def taken(self: Source, table: Any, after: Any = None) -> Any:
        for piece in pieces(self, table, after):
            yield from [[row] for row in piece] if table.name == name else [piece]

    return taken


def _change(path: Path, text: str, *values: Any) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(text, values)
    connection.close()


async def test_a_move_goes_on_from_a_copy_of_its_source_only(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await new_target()
    with monkeypatch.context() as patched:
        patched.setattr(Target, "end", _dies)
        with pytest.raises(Killed):
            await moved(source, url)
    other = tmp_path / "other.db"
    await opened(other).close()
    _change(other, "UPDATE migrations SET applied_at_us = 1")
    with pytest.raises(StorageError, match="a part of another database"):
        await moved(other, url)
    changed = tmp_path / "changed.db"
    shutil.copy(source, changed)
    _change(changed, "DELETE FROM early_ends")
    with pytest.raises(StorageError, match="a server has worked on the source since"):
        await moved(changed, url)
    copied = tmp_path / "copied.db"
    shutil.copy(source, copied)
    await moved(copied, url)
    assert differing(await proved(source, url)) == []


async def test_how_far_it_is_is_told(source: Path) -> None:
    url = await new_target()
    told: list[tuple[str, int, int]] = []
    with open_source(source) as opened_source:
        target = await open_target(url)
        try:
            result = await move(opened_source, target, lambda *how: told.append(how))
        finally:
            await target.close()
    of_rows = [how for how in told if how[0] not in ("indexes", "statistics")]
    assert of_rows[-1][1:] == (result.rows.total(), result.rows.total())
    assert [done for _, done, _ in of_rows] == sorted(done for _, done, _ in of_rows)
    assert {"indexes", "statistics"} < {what for what, *_ in told}


async def test_two_moves_into_one_database_do_not_run_at_once(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await new_target()
    monkeypatch.setattr("storage.transport_target.SETTINGS", {"lock_timeout": "50ms"})
    held = await open_target(url)
    await held.run(LOCK)
    try:
        with pytest.raises(StorageError, match="others use it"):
            await moved(source, url)
    finally:
        await held.close()


async def test_a_move_into_one_schema_stops_nobody_who_writes_to_another(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres_address._SETTINGS, "lock_timeout", "50")
    url = await new_target()
    await run(url, "CREATE SCHEMA team_b")
    team_b = postgres.in_schema(url, "team_b")
    db = open_postgres(url)
    told: list[str] = []

    def writes(what: str, _done: int, _of: int) -> None:
        if what not in told:
            told.append(what)
            write(db, [end(start(len(told), session_id="s"))])

    try:
        with open_source(source) as opened_source:
            target = await open_target(team_b)
            try:
                await move(opened_source, target, writes)
            finally:
                await target.close()
        assert {"spans", "indexes", "statistics"} <= set(told)
        assert rows(db, "SELECT span_count FROM sessions") == [(len(told),)]
    finally:
        await db.close()
    assert differing(await proved(source, team_b)) == []
