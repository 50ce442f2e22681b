"""The doctor finds what was to be forgotten and is still there."""

import pytest

from storage.doctor import check
from storage.doctor_erasures import LEFT_BEHIND
from storage.sqlite import SqliteDatabase
from tests.storage.calls import end, rows, start, text_of, write


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE traces SET forgotten_at_us = 1", 0),
        (
            "INSERT INTO erasures (project_id, id, kind, extent, given, with_starred, state,"
            " before_seq, asked_at_us, ended_at_us)"
            " VALUES (1, 1, 'user', 'all', 'u', 0, 'done', 9, 1, 2)",
            1,
        ),
        ("INSERT INTO erasure_targets VALUES (1, 1, 1, 's', NULL)", 2),
    ],
)
async def test_what_is_left_is_found(db: SqliteDatabase, damage: str, found: int) -> None:
    write(db, [end(start(1, session_id="s"), input_preview="words")])
    assert await check(db, text_of) == []
    rows(db, damage)
    findings = await check(db, text_of)
    assert [finding.what for finding in findings] == [list(LEFT_BEHIND)[found]]
