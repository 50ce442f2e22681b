"""One text for one row or many, and what the database says against it."""

import pytest

from storage.database import StatementRefused
from storage.sqlite import SqliteDatabase
from tests.storage.calls import rows

pytestmark = pytest.mark.sqlite_only("statements are cut into parts for SQLite alone")


async def test_many_rows_are_one_statement(db: SqliteDatabase) -> None:
    sql = "INSERT INTO projects (id, name) VALUES (:id, :name)"
    with db.transaction() as tx:
        tx.execute_many(sql, ({"id": n, "name": f"p{n}"} for n in range(2, 5)))
    assert rows(db, "SELECT COUNT(*) FROM projects") == [(4,)]
    with pytest.raises(StatementRefused), db.transaction() as tx:
        tx.execute_many(sql, [{"id": 2, "name": "again"}])


@pytest.mark.parametrize("n", [0, 1, 2, 4, 63, 64, 65, 150])
async def test_any_number_of_rows_and_keys_takes_few_statements(db: SqliteDatabase, n: int) -> None:
    steps: list[str] = []
    with db.transaction() as tx:
        db._writer.set_trace_callback(steps.append)
        tx.insert_rows(
            "INSERT INTO projects (id, name) VALUES (:id, :name) ON CONFLICT (id) DO NOTHING",
            [{"id": k, "name": f"p{k}"} for k in range(2, n + 2)],
        )
        found = tx.look_up(
            "SELECT id FROM projects WHERE name <> :not AND id IN (:keys)",
            {"not": "p3"},
            list(range(2, 2 * n + 2)),
        )
        db._writer.set_trace_callback(None)
    assert sorted(found) == [(k,) for k in range(2, n + 2) if k != 3]
    assert len(steps) <= 13 + 3 * n // 64


async def test_a_row_that_is_refused_names_the_database(db: SqliteDatabase) -> None:
    with pytest.raises(StatementRefused, match=r"traceway\.db"), db.transaction() as tx:
        tx.insert_rows(
            "INSERT INTO projects (id, name) VALUES (:id, :name)", [{"id": 1, "name": "x"}]
        )
    with pytest.raises(StatementRefused, match=r"traceway\.db"), db.transaction() as tx:
        tx.look_up("SELECT 1 FROM nothing WHERE id IN (:keys)", {}, [1])
