"""A session's row without some of its traces is what a fold over the others gives."""

import random
from typing import Any

import pytest

from storage.aggregates import TRACE_COLUMNS, TraceFacts
from storage.doctor import SUMMED
from storage.removal import remove_traces
from storage.rollup import recompute_session
from storage.sqlite import SqliteDatabase
from tests.storage.calls import end, rows, start, trace_id, unknown_usage, write

ROW = f"SELECT {', '.join(SUMMED)} FROM sessions"  # noqa: S608 (constants)
MODELS = "SELECT model, n FROM session_models ORDER BY model"


def remove(db: SqliteDatabase, *numbers: int) -> bool:
    """Take traces out of session s."""
    with db.transaction() as tx:
        traces = []
        models: dict[str, int] = {}
        for n in numbers:
            key = {"trace_id": trace_id(n)}
            for (model,) in tx.execute("SELECT model FROM spans WHERE trace_id = :trace_id", key):
                models[model] = models.get(model, 0) + 1
            tx.execute("DELETE FROM spans WHERE trace_id = :trace_id", key)
            columns = ", ".join(TRACE_COLUMNS)
            sql = f"DELETE FROM traces WHERE trace_id = :trace_id RETURNING {columns}"  # noqa: S608
            traces += [TraceFacts.of(row) for row in tx.execute(sql, key)]
        return remove_traces(tx, (1, "s"), traces, models)


@pytest.mark.parametrize("seed", range(12))
async def test_the_difference_is_what_a_fold_gives(db: SqliteDatabase, seed: int) -> None:
    source = random.Random(seed)  # noqa: S311
    numbers = list(range(1, 13))
    for n in numbers:
        fields: dict[str, Any] = {
            "model": source.choice(("a", "b")),
            "cost_nusd": source.choice((0, 5, None)),
            "duration_us": source.choice((1, 9_000_000)),
            "output_preview": source.choice((None, f"out {n}")),
            "state": source.choice(("completed", "failed")),
            "error": source.choice((None, f"error {n}")),
        }
        called = end(start(n, session_id="s", user_id=source.choice((None, "u", "v"))), **fields)
        write(db, [unknown_usage(called) if source.random() < 0.4 else called])
    rows(db, "UPDATE sessions SET name = 'mine', starred = 1")
    source.shuffle(numbers)
    while len(numbers) > 1:
        some, numbers = numbers[: source.randint(1, 3)], numbers[source.randint(1, 3) :]
        some = [n for n in some if n not in numbers]
        if not numbers:
            break
        assert remove(db, *some) is False
        found = rows(db, ROW), rows(db, MODELS)
        with db.transaction() as tx:
            recompute_session(tx, 1, "s")
        assert (rows(db, ROW), rows(db, MODELS)) == found
        assert rows(db, "SELECT name, starred FROM sessions") == [("mine", 1)]


async def test_a_session_goes_with_its_last_traces(db: SqliteDatabase) -> None:
    write(db, [end(start(n, session_id="s")) for n in (1, 2)])
    assert remove(db, 1, 2) is True
    assert rows(db, ROW) == []
    assert rows(db, MODELS) == []
    assert remove(db) is True  # of one that is not there
