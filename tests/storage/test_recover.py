"""What can be read of a damaged database comes into a new one in which everything fits."""

import asyncio
import errno
import os
import random
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import migrate
from storage import recover as module
from storage.database import (
    DatabaseCorrupt,
    DatabaseForeign,
    DatabaseLocked,
    DatabaseNewer,
    DatabaseUnwritable,
    StorageError,
)
from storage.doctor import check
from storage.recover import Recovery, recover
from storage.sqlite import APPLICATION_ID, SqliteDatabase, open_database
from tests.databases import opened
from tests.served import ROOT
from tests.storage.calls import body, checkpoint, end, spoken, start, text_of, write
from tests.storage.seeds import seeds

pytestmark = pytest.mark.sqlite_only("a damaged PostgreSQL is restored from a backup")

# ruff: noqa: S608 (the SQL below is put together from names of tables)

PAGE = 4096
ASKED = ["s:be brief", "u:hello world"]


async def filled(path: Path, calls: int = 120) -> None:
    """Make a database with conversations in and out of sessions, bodies, and a running call."""
    db = opened(path)
    said = list(ASKED)
    for n in range(1, calls + 1):
        session = f"s{n % 7}" if n % 3 else None
        write(db, [spoken(start(n, session_id=session), said, [f"a:answer {n}"])])
        said = [*said, f"a:answer {n}", f"u:question {n}"] if n % 10 else list(ASKED)
    for n in range(calls + 1, calls + 20):
        write(db, [end(start(n, session_id="big"), request=body(os.urandom(20_000)))])
    running = start(calls + 20, project_id=2, session_id="s1")
    write(db, [running])
    write(db, [checkpoint(running, b"half")])
    with db.transaction() as tx:
        tx.execute(
            "UPDATE sessions SET name = 'mine', starred = 1"
            " WHERE project_id = 1 AND session_id = 's1'",
            {},
        )
        tx.execute("INSERT INTO session_budgets VALUES (1, 's1', 5)", {})
        tx.execute("INSERT INTO reservations VALUES (1, x'00', x'00', 's1', 1)", {})
        tx.execute(
            "INSERT INTO api_keys (project_id, name, scope, sha256, last_four, created_at_us)"
            " VALUES (1, 'k', 'admin', x'01', 'abcd', 1)",
            {},
        )
        tx.execute("INSERT INTO projects (id, name) VALUES (2, 'team')", {})
    await db.close()


async def recovering(source: Path, target: Path) -> Recovery:
    return await asyncio.to_thread(recover, source, target)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix != ".lock"}


def all_of(path: Path, sql: str) -> list[Any]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def pages_of(path: Path, name: str) -> list[int]:
    """Give the numbers of the pages of a table or an index, leaves last."""
    root = all_of(path, f"SELECT rootpage FROM sqlite_schema WHERE name = '{name}'")[0][0]
    data = path.read_bytes()
    found, todo = [], [root]
    while todo:
        number = todo.pop()
        found.append(number)
        page = data[(number - 1) * PAGE : number * PAGE]
        if page[0] in (2, 5):  # an interior page: pointers to those below it
            cells = int.from_bytes(page[3:5], "big")
            for cell in range(cells):
                at = int.from_bytes(page[12 + 2 * cell : 14 + 2 * cell], "big")
                todo.append(int.from_bytes(page[at : at + 4], "big"))
            todo.append(int.from_bytes(page[8:12], "big"))
    return found


def damage(path: Path, pages: list[int], how: bytes | None = None) -> None:
    with path.open("r+b") as file:
        for number in pages:
            file.seek((number - 1) * PAGE)
            file.write(how or b"\xff" * PAGE)


async def recovered(folder: Path) -> Recovery:
    """Recover, look at the result, and at what must be as it was."""
    before = files(folder)
    result = await recovering(folder / "a.db", folder / "new.db")
    after = files(folder)
    assert after.pop("new.db")
    assert after == before
    db = open_database(folder / "new.db")
    assert await check(db, text_of) == []
    # It goes on.
    write(db, [spoken(start(900, session_id="s1"), ASKED, ["a:more"])])
    assert await check(db, text_of) == []
    await db.close()
    return result


def lost(result: Recovery) -> dict[str, int | None]:
    return {saved.table: saved.lost for saved in result.tables if saved.lost != 0}


async def test_of_a_database_without_damage_everything_is_saved(tmp_path: Path) -> None:
    await filled(tmp_path / "a.db")
    result = await recovered(tmp_path)
    assert lost(result) == {}
    assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600
    assert result.lost == {"reservations of calls that are lost": 1}
    for sql in (
        "SELECT * FROM contents ORDER BY id",
        "SELECT * FROM nodes ORDER BY id",
        "SELECT * FROM messages ORDER BY content_id",
        "SELECT * FROM holes ORDER BY content_id, span_seq",
        "SELECT * FROM spans ORDER BY seq",
        "SELECT * FROM api_keys",
        "SELECT * FROM session_budgets",
        "SELECT * FROM events ORDER BY sequence",
    ):
        new = all_of(tmp_path / "new.db", sql)
        old = all_of(tmp_path / "a.db", sql)
        assert new[: len(old)] == old, sql
    assert all_of(tmp_path / "new.db", "SELECT name, starred FROM sessions WHERE name <> ''") == [
        ("mine", 1)
    ]


@pytest.mark.parametrize("table", ["spans", "contents", "nodes", "messages", "traces"])
async def test_a_broken_page_costs_the_rows_on_it(tmp_path: Path, table: str) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    pages = pages_of(path, table)
    ((there,),) = all_of(path, f"SELECT COUNT(*) FROM {table}")
    damage(path, [pages[len(pages) // 2]])
    result = await recovered(tmp_path)
    (saved,) = (one for one in result.tables if one.table == table)
    assert saved.lost is None or 0 < saved.lost < there
    assert saved.rows > 0.5 * there
    assert set(lost(result)) == {table}


async def test_the_rows_between_two_broken_pages_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    leaves = pages_of(path, "spans")[1:]
    ((there,),) = all_of(path, "SELECT COUNT(*) FROM spans")
    data = files(tmp_path)["a.db"]
    on_them = sum(
        int.from_bytes(data[(number - 1) * PAGE + 3 : (number - 1) * PAGE + 5], "big")
        for number in leaves[2::2]
    )
    damage(path, leaves[2::2])
    result = await recovered(tmp_path)
    (saved,) = (one for one in result.tables if one.table == "spans")
    assert 10 < on_them < there - 10
    assert (saved.rows, saved.lost) == (there - on_them, on_them)


async def test_a_session_whose_row_and_whose_traces_are_lost_keeps_its_calls(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    ((spans,),) = all_of(path, "SELECT COUNT(*) FROM spans")
    damage(path, pages_of(path, "traces") + pages_of(path, "sessions"))
    result = await recovered(tmp_path)
    assert result.lost["traces of which nothing says to which session they belong"] > 0
    assert all_of(tmp_path / "new.db", "SELECT COUNT(*) FROM spans WHERE seq <= 140")[0][0] == (
        spans
    )


async def test_traces_that_are_lost_are_found_in_their_sessions_again(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    before = all_of(path, "SELECT session_id, trace_count FROM sessions WHERE project_id = 1")
    damage(path, pages_of(path, "traces"))
    await recovered(tmp_path)
    now = dict(all_of(tmp_path / "new.db", "SELECT session_id, trace_count FROM sessions"))
    for session, count in before:
        assert now[session] >= count


@pytest.mark.parametrize("name", ["spans_by_seq", "nodes_by_parent", "messages_fts_1_data"])
async def test_damage_in_what_is_derived_costs_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    damage(path, pages_of(path, name))
    assert lost(await recovered(tmp_path)) == {}


@pytest.mark.parametrize("table", ["spans", "contents", "events"])
async def test_a_page_that_is_zeros_behind_its_beginning_costs_the_rows_on_it(
    tmp_path: Path, table: str
) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    ((there,),) = all_of(path, f"SELECT COUNT(*) FROM {table}")
    leaves = pages_of(path, table)[1:]
    with path.open("r+b") as file:
        for number in (leaves[len(leaves) // 3], leaves[len(leaves) // 2]):
            file.seek((number - 1) * PAGE + 512)
            file.write(bytes(PAGE - 512))
    damage(path, [leaves[len(leaves) // 3 - 1], leaves[len(leaves) // 2 - 1]])  # those behind
    result = await recovered(tmp_path)
    (saved,) = (one for one in result.tables if one.table == table)
    assert 0.4 * there < saved.rows < there


async def test_a_row_with_too_high_a_number_hides_none_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    ((there,),) = all_of(path, "SELECT COUNT(*) FROM spans")
    leaves = pages_of(path, "spans")[1:]  # the last rows first
    data = path.read_bytes()
    page = (leaves[-3] - 1) * PAGE
    at = page + int.from_bytes(data[page + 8 : page + 10], "big")  # its first row
    while data[at] & 0x80:  # behind its length
        at += 1
    assert data[at + 1] < 100
    with path.open("r+b") as file:
        file.seek(at + 1)
        file.write(b"\x7f")
    damage(path, [leaves[-5]])
    result = await recovered(tmp_path)
    (saved,) = (one for one in result.tables if one.table == "spans")
    assert saved.rows > there - 20


async def test_a_file_that_is_cut_short_gives_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    os.truncate(path, path.stat().st_size * 2 // 3)
    result = await recovered(tmp_path)
    assert sum(saved.rows for saved in result.tables) > 100


async def test_a_value_that_is_changed_costs_the_bodies_that_it_is_part_of(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    data = path.read_bytes()
    at = data.index(b"question 13")
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"QUESTION")
    result = await recovered(tmp_path)
    assert result.lost["messages and bodies that are damaged"] == 1
    assert 0 < result.lost["calls whose request is lost, in whole"] < 10
    assert all_of(tmp_path / "new.db", "SELECT COUNT(*) FROM spans")[0][0] == 141


@pytest.mark.parametrize("seed", seeds(3, 8))
async def test_whatever_is_damaged_what_is_left_fits_together(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "a.db"
    await filled(path, calls=40)
    source = random.Random(seed)  # noqa: S311 (damage, not secrets)
    pages = path.stat().st_size // PAGE
    chosen = [n for n in range(6, pages + 1) if source.random() < 0.05 * seed]
    for number in chosen:
        damage(path, [number], source.randbytes(PAGE) if source.random() < 0.5 else None)
    with path.open("r+b") as file:  # and parts of pages, and single bits
        for number in range(6, pages + 1):
            if source.random() < 0.02 * seed:
                at, end = sorted(source.sample(range(0, PAGE + 1, 512), 2))
                file.seek((number - 1) * PAGE + at)
                file.write(bytes(end - at))
        for _ in range(20):
            at = source.randrange(6 * PAGE, pages * PAGE)
            file.seek(at)
            byte = file.read(1)[0] ^ (1 << source.randrange(8))
            file.seek(at)
            file.write(bytes([byte]))
    await recovered(tmp_path)


async def test_where_all_keys_are_lost_one_is_needed_still(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO sign_ins VALUES (x'02', 1, 1, 1)")
    connection.commit()
    connection.close()
    damage(path, pages_of(path, "api_keys"))
    result = await recovered(tmp_path)
    assert lost(result) == {"api_keys": 1}
    assert result.lost["browsers that have to sign in again"] == 1
    assert "sign_ins" not in {saved.table for saved in result.tables}
    assert all_of(tmp_path / "new.db", "SELECT revoked_at_us > 0 FROM api_keys") == [(1,)]
    assert all_of(tmp_path / "new.db", "SELECT * FROM sign_ins") == []


def failing(monkeypatch: pytest.MonkeyPatch, number: int, at: range) -> None:
    """Have reads of these bytes of a file fail."""
    read = os.pread

    def pread(file: int, length: int, start: int) -> bytes:
        if start < at.stop and start + length > at.start:
            raise OSError(number, os.strerror(number))
        return read(file, length, start)

    monkeypatch.setattr(module.os, "pread", pread)


async def test_a_part_that_the_disk_does_not_give_costs_what_is_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    ((there,),) = all_of(path, "SELECT COUNT(*) FROM spans")
    leaf = pages_of(path, "spans")[3]
    failing(monkeypatch, errno.EIO, range((leaf - 1) * PAGE + 512, (leaf - 1) * PAGE + 513))
    result = await recovered(tmp_path)
    assert result.lost["bytes of the damaged file that cannot be read"] == PAGE
    assert set(lost(result)) == {"spans"}
    assert next(saved.rows for saved in result.tables if saved.table == "spans") > there - 20


async def test_where_the_disk_gives_a_part_of_a_piece_all_else_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    data = os.urandom(3 * module.PIECE_BYTES + 700)
    path.write_bytes(data)
    bad = range(module.PIECE_BYTES + 2 * PAGE, module.PIECE_BYTES + 3 * PAGE)
    failing(monkeypatch, errno.EIO, bad)
    assert module._copy(path, tmp_path / "copy") == PAGE
    copied = (tmp_path / "copy").read_bytes()
    assert copied == data[: bad.start] + bytes(PAGE) + data[bad.stop :]


async def test_an_error_of_reading_names_what_was_read(
    untouched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(untouched / "a.db", 2)
    failing(monkeypatch, errno.ESTALE, range(PAGE))
    with pytest.raises(StorageError, match=r"a\.db: it cannot be used"):
        await recovering(untouched / "a.db", untouched / "new.db")


async def test_a_database_on_a_disk_that_only_reads_needs_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(tmp_path / "a.db", 2)

    def lock(path: Path) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), f"{path}.lock")

    monkeypatch.setattr(module, "lock", lock)
    assert lost(await recovering(tmp_path / "a.db", tmp_path / "new.db")) == {}


DIES = """
import os, signal, sys
from pathlib import Path
from storage import recover

def mend(*given, **more):
    os.kill(os.getpid(), signal.SIGKILL)

recover.mend = mend
recover.recover(*map(Path, sys.argv[1:]))
"""


async def test_a_recovery_that_is_killed_leaves_no_database_of_the_name(tmp_path: Path) -> None:
    await filled(tmp_path / "a.db")
    paths = (str(tmp_path / "a.db"), str(tmp_path / "new.db"))
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", DIES, *paths, cwd=ROOT)
    assert await killed.wait() == -signal.SIGKILL
    (left,) = [name for name in os.listdir(tmp_path) if name.startswith("new.db")]  # noqa: PTH208
    assert left.startswith("new.db.copy-")
    shutil.rmtree(tmp_path / left)
    assert lost(await recovered(tmp_path)) == {}


async def test_what_could_not_be_copied_out_of_the_log_at_its_close_is_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = SqliteDatabase.close

    async def leaving_its_log(database: SqliteDatabase) -> None:
        parts = [Path(f"{database.path}{part}") for part in ("", "-wal")]
        before = [part.read_bytes() for part in parts]
        await close(database)
        for part, data in zip(parts, before, strict=True):
            part.write_bytes(data)

    await filled(tmp_path / "a.db")
    monkeypatch.setattr(SqliteDatabase, "close", leaving_its_log)
    assert lost(await recovering(tmp_path / "a.db", tmp_path / "new.db")) == {}
    monkeypatch.undo()
    assert {name for name in files(tmp_path) if name.startswith("new.db")} == {"new.db"}
    db = open_database(tmp_path / "new.db")
    assert await check(db, text_of) == []
    await db.close()


async def test_what_is_still_in_the_wal_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    db = opened(path)
    write(db, [spoken(start(1, session_id="s1"), ASKED, ["a:hi"])])
    at_work = files(tmp_path)
    await db.close()
    for name in ("a.db", "a.db-wal"):
        (tmp_path / name).write_bytes(at_work[name])
    result = await recovered(tmp_path)
    assert next(saved.rows for saved in result.tables if saved.table == "spans") == 1


async def test_an_older_database_is_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    migrate.migrate(connection, path, 2)
    connection.execute("INSERT INTO projects (id, name) VALUES (7, 'old')")
    connection.close()
    result = await recovering(path, tmp_path / "new.db")
    assert lost(result) == {}
    assert all_of(tmp_path / "new.db", "SELECT id, name FROM projects ORDER BY id")[1] == (7, "old")
    assert all_of(tmp_path / "new.db", "PRAGMA user_version") == [(migrate.latest(),)]


# What is refused.


@pytest.fixture
def untouched(tmp_path: Path) -> Iterator[Path]:
    """Give a folder in which nothing may be left, or changed, but for a lock."""
    yield tmp_path
    assert {name for name in files(tmp_path) if name.startswith("new.db")} <= {"new.db"}
    assert not (tmp_path / "new.db").exists() or (tmp_path / "new.db").read_bytes() == b"mine"


async def test_a_database_that_a_server_has_is_refused(untouched: Path) -> None:
    db = opened(untouched / "a.db")
    with pytest.raises(DatabaseLocked, match=str(os.getpid())):
        await recovering(untouched / "a.db", untouched / "new.db")
    await db.close()


async def test_a_target_that_is_there_is_refused(untouched: Path) -> None:
    await filled(untouched / "a.db", 2)
    (untouched / "new.db").write_bytes(b"mine")
    with pytest.raises(StorageError, match="there is such a file already"):
        await recovering(untouched / "a.db", untouched / "new.db")


async def test_a_target_that_appeared_meanwhile_stays(
    untouched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(untouched / "a.db", 2)
    mend = module.mend

    async def mended(*given: Any, **more: Any) -> dict[str, int]:
        (untouched / "new.db").write_bytes(b"mine")
        return await mend(*given, **more)

    monkeypatch.setattr(module, "mend", mended)
    with pytest.raises(StorageError, match="there is such a file already"):
        await recovering(untouched / "a.db", untouched / "new.db")
    assert (untouched / "new.db").read_bytes() == b"mine"


async def test_a_damaged_database_whatever_its_name_is_as_it_was(tmp_path: Path) -> None:
    db = opened(tmp_path / "t.db")
    write(db, [spoken(start(1, session_id="s1"), ASKED, ["a:hi"])])
    at_work = files(tmp_path)
    await db.close()
    (tmp_path / "t.db").unlink()
    moved = tmp_path / "t.db.damaged"
    for part in ("", "-wal", "-shm"):
        (tmp_path / f"{moved.name}{part}").write_bytes(at_work[f"t.db{part}"])
    before = files(tmp_path)
    result = await recovering(moved, tmp_path / "t.db")
    assert next(saved.rows for saved in result.tables if saved.table == "spans") == 1
    after = files(tmp_path)
    assert after.pop("t.db")
    assert after == before
    # Nor where it ends with an error.
    (tmp_path / "t.db").unlink()
    moved.write_bytes(b"dear diary " * 1000)
    before = files(tmp_path)
    with pytest.raises(DatabaseCorrupt):
        await recovering(moved, tmp_path / "t.db")
    assert files(tmp_path) == before


@pytest.mark.parametrize("part", ["-wal", "-shm", "-journal"])
async def test_what_would_belong_to_the_new_database_is_refused(untouched: Path, part: str) -> None:
    await filled(untouched / "a.db", 2)
    beside = untouched / f"new.db{part}"
    beside.write_bytes(b"mine")
    with pytest.raises(StorageError, match=rf"new\.db{part}: it is there already"):
        await recovering(untouched / "a.db", untouched / "new.db")
    assert beside.read_bytes() == b"mine"
    beside.unlink()


@pytest.mark.parametrize(
    ("old", "new"), [("x.db.lock", "x.db"), ("x.db", "x.db-wal"), ("x.db", "x.db-journal")]
)
async def test_of_the_old_database_and_the_new_none_is_taken_for_a_part_of_the_other(
    tmp_path: Path, old: str, new: str
) -> None:
    await filled(tmp_path / "a.db", 2)
    before = (tmp_path / "a.db").rename(tmp_path / old).read_bytes()
    with pytest.raises(StorageError, match="would be taken for a part of the other"):
        await recovering(tmp_path / old, tmp_path / new)
    assert (tmp_path / old).read_bytes() == before
    assert not (tmp_path / new).exists()


async def test_what_is_no_database_of_ours_is_refused(untouched: Path) -> None:
    (untouched / "a.db").write_bytes(b"dear diary " * 1000)
    with pytest.raises(DatabaseCorrupt):
        await recovering(untouched / "a.db", untouched / "new.db")
    (untouched / "a.db").unlink()
    connection = sqlite3.connect(untouched / "a.db")
    connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(DatabaseForeign):
        await recovering(untouched / "a.db", untouched / "new.db")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(DatabaseNewer):
        await recovering(untouched / "a.db", untouched / "new.db")
    with pytest.raises(StorageError, match="No such file"):
        await recovering(untouched / "none.db", untouched / "new.db")


async def test_where_the_new_file_has_no_space_it_is_named(
    untouched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(untouched / "a.db")

    def migrated(new: sqlite3.Connection, place: Path, version: int) -> None:
        migrate.migrate(new, place, version)
        ((pages,),) = new.execute("PRAGMA page_count").fetchall()
        new.execute(f"PRAGMA max_page_count = {pages + 20}")

    monkeypatch.setattr(module, "migrate", migrated)
    with pytest.raises(DatabaseUnwritable, match=r"new\.db: it cannot be written .*is full"):
        await recovering(untouched / "a.db", untouched / "new.db")


async def test_a_directory_that_is_not_there_is_named(untouched: Path) -> None:
    await filled(untouched / "a.db", 2)
    with pytest.raises(StorageError, match=r"missing/new\.db"):
        await recovering(untouched / "a.db", untouched / "missing" / "new.db")


def test_steps_pass_over_no_row_that_a_page_could_hold() -> None:
    assert module.ONE_BY_ONE >= PAGE
