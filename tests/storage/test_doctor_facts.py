"""Versions, figures and limits: what is said of them, and from where on they are findings."""

import os
import resource
import shutil
from pathlib import Path

import pytest

from storage import doctor_facts as module
from storage.doctor_facts import examine, facts, has_wal_reset_bug
from storage.sqlite import SqliteDatabase
from tests.databases import opened
from tests.storage.calls import start, write

pytestmark = pytest.mark.sqlite_only("the file is SQLite's own")


def value(path: Path, what: str) -> str:
    return next(fact.value for fact in facts(path) if fact.what == what)


async def test_the_figures_are_those_of_the_file_and_its_machine(db: SqliteDatabase) -> None:
    write(db, [start(1)])
    wal = db.path.with_name(f"{db.path.name}-wal")
    assert value(db.path, "write-ahead log") == f"{wal.stat().st_size:,} bytes"
    assert value(db.path, "database") == f"{db.path.stat().st_size:,} bytes"
    assert value(db.path, "held by") == f"the process with pid {os.getpid()}"
    assert examine(db.path) == []


async def test_a_lock_that_nobody_holds_is_told_from_one_that_is_held(tmp_path: Path) -> None:
    db = opened(tmp_path / "a.db")
    assert value(db.path, "held by") == f"the process with pid {os.getpid()}"
    await db.close()
    assert value(db.path, "held by") == "nobody"
    (tmp_path / "a.db.lock").unlink()
    assert value(db.path, "held by") == "nobody"
    assert not (tmp_path / "a.db.lock").exists()


@pytest.mark.parametrize(
    ("version", "has"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 3), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_versions_with_the_wal_reset_bug_are_known(version: tuple[int, ...], has: bool) -> None:
    assert has_wal_reset_bug(version) is has


async def test_the_bug_of_this_sqlite_is_a_note_and_no_finding(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.sqlite3, "sqlite_version_info", (3, 40, 1))
    (note,) = (fact.note for fact in facts(db.path) if fact.what == "SQLite")
    assert "let no other program write" in note
    assert examine(db.path) == []


async def test_a_large_log_little_space_few_files_and_wide_modes_are_findings(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(db, [start(1)])
    monkeypatch.setattr(module, "LARGE_WAL_BYTES", 100)
    usage = shutil.disk_usage(db.path.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    db.path.chmod(0o640)
    found = {finding.what: finding for finding in examine(db.path)}
    assert list(found) == [
        "bytes in the write-ahead log",
        "bytes free on the disk of the database",
        "files that a process may have open",
        f"{db.path} is not its owner's alone",
    ]
    assert all(finding.remedy for finding in found.values())
    assert found["files that a process may have open"].count == 1024
