"""No statement of ours reads all that a project has in SQLite, but for those that are to.

SQLite knows no sizes here (nobody runs ANALYZE), and takes the index of a project's calls by their
ids for a good way in, whatever else is asked for. So the page of a session, the figures above every
list and the recount of a session once read all calls of their project: a second at 1,000,000.
"""

import importlib
import pkgutil
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

import storage
from tests.databases import opened

LARGE: Final = (
    *("sessions", "traces", "spans", "contents", "nodes", "messages", "mentions"),
    "erasure_targets",
)
# What a step reads all of: a project, or an order to erase.
WHOLE: Final = re.compile(r"project_id=\?( AND erasure_id=\?( AND n[<>]\?)?)?$")
NAMED: Final = re.compile(
    rf"\b(?:FROM|JOIN|UPDATE|INTO)\s+({'|'.join(LARGE)})\b(?:\s+(?:AS\s+)?(\w+))?"
)
STEP: Final = re.compile(
    r"(SEARCH|SCAN) (\w+)(?: USING .*?(?:INDEX|KEY) ?(\w*))?(?: \((.*?)\))?(?: LEFT-JOIN| EXISTS)?$"
)
STATEMENT: Final = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH)\b")
# They look at everything, and no call waits for them.
READ_ALL: Final = frozenset(("doctor", "doctor_erasures", "mend", "proof"))
# Beginnings of statements, which say later which rows they want.
BEGINNINGS: Final = frozenset(
    (
        *("archive.HASHES", "archive.NUMBERED_SPANS", "archive.READ_TRACES", "archive.SIZES"),
        *("archive.CONTENTS", "archive_spans.SELECT_SPANS", "breakdown.SELECT_OUTLINES"),
        *("breakdown.SELECT_TRACES", "exports._COLUMNS", "queries.SELECT_SESSIONS"),
        *("rebuild._REQUEST", "rebuild._RESPONSE", "same_call._NAMED"),
    )
)


def statements() -> dict[str, list[str]]:
    """Give the texts of the package that are statements, each with the names that it has."""
    found: dict[str, list[str]] = {}
    for module in pkgutil.iter_modules(storage.__path__):
        for name, value in vars(importlib.import_module(f"storage.{module.name}")).items():
            several = tuple(value.values()) if isinstance(value, dict) else value
            for text in several if isinstance(several, tuple) else (several,):
                if isinstance(text, str) and STATEMENT.match(text):
                    found.setdefault(text, []).append(f"{module.name}.{name}")
    return found


def waits(names: list[str]) -> bool:
    """Tell whether somebody waits for a statement that has these names."""
    return not BEGINNINGS.intersection(names) and any(
        name.partition(".")[0] not in READ_ALL for name in names
    )


def wide_steps(database: sqlite3.Connection, sql: str) -> list[str]:
    """Give the steps of a plan that read all of a table, of a project's part or of an order's."""
    text = sql.replace("IN (:keys)", "IN (SELECT value FROM json_each(:keys))")
    plan = database.execute(
        f"EXPLAIN QUERY PLAN {text}", dict.fromkeys(re.findall(r":(\w+)", text))
    ).fetchall()
    tables = {alias or table for table, alias in NAMED.findall(sql)} | set(LARGE)
    found = []
    for *_, detail in plan:
        step = STEP.match(detail)
        if step is None:
            is_of_a_table = detail.startswith(("SEARCH", "SCAN")) and "VIRTUAL TABLE" not in detail
            assert "CONSTANT ROW" in detail or not is_of_a_table, detail
            continue
        if step[2] not in tables or step[3] in of_few(database):
            continue
        if step[1] == "SCAN" or WHOLE.match(step[4] or ""):
            found.append(detail)
    return found


def of_few(database: sqlite3.Connection) -> set[str]:
    """Give the indexes that have only some rows of their tables."""
    sql = "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql LIKE '% WHERE %'"
    return {name for (name,) in database.execute(sql)}


@pytest.mark.sqlite_only("PostgreSQL knows the sizes; `make bench-databases` looks at its plans")
async def test_no_statement_reads_all_of_a_project(tmp_path: Path) -> None:
    path = tmp_path / "traceway.db"
    await opened(path).close()
    planned, found = 0, {}
    with closing(sqlite3.connect(path)) as database:
        for sql, names in statements().items():
            if "LIMIT" in sql or not waits(names):
                continue
            try:
                steps = wide_steps(database, sql)
            except sqlite3.Error:  # a part of one, or of PostgreSQL alone
                continue
            planned += 1
            if steps:
                found[names[0]] = steps
    assert found == {
        # The number of its sessions, by an index: 1 ms for 20,000.
        "queries.GET_STATS": [
            "SEARCH sessions USING COVERING INDEX sessions_by_tokens (project_id=?)"
        ],
        # All of them, where an order failed and so did its clean-up.
        "order_targets.DROP_ALL": [
            "SEARCH erasure_targets USING COVERING INDEX erasure_targets_found"
            " (project_id=? AND erasure_id=?)"
        ],
    }
    assert planned > 100
