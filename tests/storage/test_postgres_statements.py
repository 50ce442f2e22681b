"""One text for one row or many in PostgreSQL, and what the database says against it."""

from pathlib import Path
from typing import Any

import pytest

from storage.database import StatementRefused, StorageError
from storage.postgres import PostgresDatabase
from storage.postgres_statements import PREPARED, for_many, translate
from tests import postgres
from tests.databases import url_of
from tests.storage.calls import rows, start, write

ONLY = pytest.mark.postgres_only("it runs statements")


@ONLY
@pytest.mark.parametrize("value", [2**63, "\ud800", "nul \0"])
async def test_what_no_column_can_hold_is_refused_and_the_next_write_works(
    db: PostgresDatabase, value: Any
) -> None:
    name = "id" if isinstance(value, int) else "name"
    with pytest.raises(StatementRefused):
        rows(db, f"SELECT 1 FROM projects WHERE {name} = :value", value=value)  # noqa: S608
    write(db, [start(1)])


@ONLY
async def test_the_writer_prepares_a_bounded_number_of_statements(db: PostgresDatabase) -> None:
    with db.transaction() as tx:
        for n in range(PREPARED + 10):
            tx.execute(f"SELECT CAST({n} AS BIGINT)", {})
        assert len(tx._prepared) == PREPARED


@ONLY
async def test_a_table_that_is_changed_meanwhile_is_read_as_it_is(
    db: PostgresDatabase, tmp_path: Path
) -> None:
    everything = "SELECT * FROM counters"
    rows(db, everything)
    url = url_of(tmp_path / "traceway.db")
    await postgres.execute(url, "ALTER TABLE counters ADD COLUMN more BIGINT", "SELECT 1")
    with pytest.raises(StorageError) as told:
        rows(db, everything)
    assert not isinstance(told.value, StatementRefused)  # it is tried again
    assert len(rows(db, everything)[0]) == 3
    await postgres.execute(url, "ALTER TABLE counters DROP COLUMN more", "SELECT 1")


def test_a_name_is_one_parameter_wherever_it_stands_and_a_list_is_one_too() -> None:
    sql = "SELECT :a::text FROM t WHERE b = :b AND c = :a AND d IN (:keys)"
    text = translate(sql)
    assert text.sql == "SELECT $1::text FROM t WHERE b = $2 AND c = $1 AND d = ANY($3)"
    assert text.values({"keys": (1, 2), "b": 5, "a": 4, "more": 0}) == (4, 5, (1, 2))
    assert translate("SELECT 1").values({}) == ()
    assert translate("SELECT :a").values({"a": 1}) == (1,)


def test_many_rows_are_a_list_for_each_column() -> None:
    sql = "INSERT INTO t (a, b, n) VALUES (:a, :b, 0) ON CONFLICT (a) DO NOTHING"
    assert for_many(sql, ["int8", "bytea"]) == (
        "INSERT INTO t (a, b, n) SELECT c1, c2, 0 FROM unnest($1::int8[], $2::bytea[])"
        " AS given (c1, c2) ON CONFLICT (a) DO NOTHING"
    )
