"""The schema's versions."""

import sqlite3
from pathlib import Path

import pytest

from storage import migrate as module
from storage.database import DatabaseNewer
from storage.migrate import Migration, available, latest, migrate

pytestmark = pytest.mark.sqlite_only("PostgreSQL has migrations of its own")

PLACE = Path("a.db")


@pytest.fixture
def connection() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


def schema(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    return connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    assert [m.version for m in available()] == list(range(1, latest() + 1))


def test_the_schema_from_scratch_is_the_sum_of_the_migrations(
    connection: sqlite3.Connection,
) -> None:
    migrate(connection, PLACE)
    summed = sqlite3.connect(":memory:")
    for migration in available():
        summed.executescript(migration.sql)
    assert schema(connection) == schema(summed)
    summed.close()
    connection.close()


def test_each_migration_leaves_its_record_and_runs_once(connection: sqlite3.Connection) -> None:
    migrate(connection, PLACE)
    migrate(connection, PLACE)
    recorded = connection.execute("SELECT version, name FROM migrations").fetchall()
    assert recorded == [(m.version, m.name) for m in available()]
    assert connection.execute("PRAGMA user_version").fetchone() == (latest(),)
    connection.close()


@pytest.mark.parametrize("broken", ["SELECT 1 FROM nowhere;", "CREATE TABLE projects (x);"])
def test_a_migration_that_fails_leaves_nothing(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    migrate(connection, PLACE)
    before = schema(connection)
    bad = Migration(latest() + 1, "bad.sql", f"CREATE TABLE half (x); {broken}")
    monkeypatch.setattr(module, "available", lambda: [*available(), bad])
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, PLACE)
    assert schema(connection) == before
    assert connection.execute("PRAGMA user_version").fetchone() == (bad.version - 1,)
    assert not connection.in_transaction
    connection.close()


def test_a_newer_schema_is_left_alone(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA user_version = 99")
    with pytest.raises(DatabaseNewer, match=r"a\.db: its schema is version 99"):
        migrate(connection, PLACE)
    assert schema(connection) == []
    connection.close()


@pytest.mark.parametrize(("contents", "nodes", "newest"), [((), (), 0), ((7,), (9, 3), 9)])
def test_ids_go_on_behind_those_that_an_older_version_gave(
    connection: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    contents: tuple[int, ...],
    nodes: tuple[int, ...],
    newest: int,
) -> None:
    every = available()
    monkeypatch.setattr(module, "available", lambda: every[:2])
    migrate(connection, PLACE)
    for one in contents:
        connection.execute(
            "INSERT INTO contents VALUES (?, 1, ?, '', 1, x'61')", (one, b"%d" % one)
        )
    for one in nodes:
        connection.execute(
            "INSERT INTO nodes VALUES (?, 1, NULL, 7, 1, ?, x'')", (one, b"%d" % one)
        )
    monkeypatch.setattr(module, "available", lambda: every)
    migrate(connection, PLACE)
    found = connection.execute("SELECT value FROM counters WHERE name = 'id'").fetchall()
    assert found == [(newest,)]
    connection.close()


def test_every_table_is_strict_and_every_key_begins_with_the_project(
    connection: sqlite3.Connection,
) -> None:
    migrate(connection, PLACE)
    tables = connection.execute(
        "SELECT name, strict FROM pragma_table_list "
        "WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    ).fetchall()
    assert {name for name, strict in tables if not strict} == set()
    for name, _ in tables:
        # What is said of a content is of its project.
        of_content = ("messages", "mentions", "holes", "unindexed", "text_parts")
        # Who may come in is asked before there is a project.
        grants = ("projects", "api_keys", "sign_ins")
        if name in ("migrations", "counters", *grants, *of_content):
            continue
        columns = connection.execute(f"PRAGMA table_info({name})").fetchall()
        project = next(column for column in columns if column[1] == "project_id")
        assert project[5] == 1 or name in ("contents", "nodes", "events")
    connection.close()


def test_columns_that_lists_are_sorted_by_are_never_null(connection: sqlite3.Connection) -> None:
    migrate(connection, PLACE)
    for table, column in (
        ("sessions", "last_active_at_us"),
        ("sessions", "seq"),
        ("traces", "started_at_us"),
        ("traces", "seq"),
        ("spans", "started_at_us"),
        ("spans", "seq"),
    ):
        columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
        assert next(c for c in columns if c[1] == column)[3] == 1, (table, column)
    connection.close()
