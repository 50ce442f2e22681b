"""The doctor finds each kind of damage, and nothing where there is none."""

import pytest

from storage.database import Database
from storage.doctor import check
from tests.databases import kind
from tests.storage.calls import (
    body,
    checkpoint,
    end,
    give_back,
    rows,
    span_id,
    spoken,
    start,
    text_of,
    write,
)
from tests.storage.handing import begun, closed, done, hand_in, opened

ASKED = ["s:be brief", "u:hello world"]


def fill(db: Database) -> None:
    """Write some of everything: bodies, conversations in and out of sessions, a running call."""
    write(db, [spoken(start(1), ASKED, ["a:hi"], tools=b'["t"]' * 9_000)])
    write(db, [spoken(start(2), [*ASKED, "a:hi;1", "u:2"], ["a:yes"], tools=b'["t"]' * 9_000)])
    write(db, [spoken(start(3, session_id="s"), ["u:alone"], ["r:hm", "a:sure"])])
    write(db, [end(start(4), request=body(b"q" * 50_000), response=body(b"a"))])
    running = start(5, project_id=2, session_id="s")
    write(db, [running])
    write(db, [checkpoint(running, b"half")])


async def test_nothing_is_found_where_nothing_is_wrong(db: Database) -> None:
    assert await check(db, text_of) == []
    fill(db)
    assert await check(db, text_of) == []


DAMAGE = {
    "contents that nothing holds": "UPDATE spans SET request_content_id = NULL",
    "nodes that no call holds": "UPDATE spans SET output_node_id = NULL WHERE seq = 2",
    "nodes without their content, message or parent": "DELETE FROM nodes WHERE depth = 1",
    "messages that stand nowhere": "INSERT INTO messages VALUES (999, 'user', x'00')",
    "holes without their content or span": "INSERT INTO holes VALUES (1, 999)",
    "calls of which a body or a message is missing": "DELETE FROM contents WHERE size = 50000",
    "calls that go on from where no other call stands": (
        "UPDATE spans SET base_meaning = x'00' WHERE base_meaning IS NOT NULL"
    ),
    "calls without their trace, and traces without calls": (
        "DELETE FROM traces WHERE session_id IS NULL"
    ),
    "budgets of sessions that are not there": "INSERT INTO session_budgets VALUES (1, 'gone', 5)",
    "reservations of calls whose cost is known": (
        "INSERT INTO reservations SELECT project_id, trace_id, span_id, 's', 1 FROM spans"
        " WHERE seq = 3"
    ),
    "reservations of calls that are not there": (
        "INSERT INTO reservations VALUES (1, x'00', x'00', 's', 1)"
    ),
    "sessions without traces": "UPDATE traces SET session_id = NULL WHERE session_id = 's'",
    "contents that are not of their hash": (
        "UPDATE contents SET data = x'00' WHERE encoding = '' AND size = 1"
    ),
    "nodes that are not of their hash": "UPDATE nodes SET lead = x'20' WHERE depth = 2",
    "calls whose bodies do not rebuild": (
        "UPDATE spans SET request_envelope = response_envelope WHERE seq = 1"
    ),
    "holes that do not fit their envelopes": "DELETE FROM holes WHERE span_seq = 1",
    "messages that sessions mention wrongly": (
        "DELETE FROM mentions WHERE content_id IN (SELECT content_id FROM mentions LIMIT 1)"
    ),
    "messages that full text has wrongly": (
        "INSERT INTO messages_fts_1 (rowid, scope, text) VALUES (999, 'p1', 'a')"
        if kind() == "sqlite"
        else "INSERT INTO messages_fts VALUES (999, CAST('''p 1''' AS tsvector))"
    ),
    "traces that are not the sum of their calls": (
        "UPDATE traces SET stored_bytes = stored_bytes + 1 WHERE session_id = 's'"
    ),
    "sessions that are not the sum of their traces": "UPDATE sessions SET received_bytes = 1",
    "projects that are not the sum of their traces": "UPDATE project_totals SET stored_bytes = 1",
}


@pytest.mark.parametrize(("what", "damage"), DAMAGE.items())
async def test_each_kind_of_damage_is_found(db: Database, what: str, damage: str) -> None:
    fill(db)
    rows(db, damage)
    assert what in {finding.what for finding in await check(db, text_of)}


@pytest.mark.parametrize(
    "damage",
    [
        "INSERT INTO mentions SELECT content_id, session_key + 1, span_seq FROM mentions LIMIT 1",
        "UPDATE mentions SET span_seq = 4",
        "UPDATE spans SET fresh_count = fresh_count + 1 WHERE seq = 2",
    ],
)
async def test_a_message_that_is_mentioned_where_it_was_not_said_is_found(
    db: Database, damage: str
) -> None:
    fill(db)
    rows(db, damage)
    assert [f.what for f in await check(db, text_of)] == ["messages that sessions mention wrongly"]


async def test_words_that_are_not_those_of_the_message_are_found(db: Database) -> None:
    fill(db)
    found = await check(db, lambda data: text_of(data).replace("world", "moon"))
    assert [(f.what, f.count) for f in found] == [("messages that full text has wrongly", 1)]


def fill_handed_in(db: Database) -> None:
    """Write what applications hand in: a trace without spans, and one that saw a call as well."""
    write(db, [end(start(1))])
    hand_in(db, [opened(7, name="alone", session_id="h", tags=("a",)), closed(7)])
    hand_in(db, [opened(8, user_id="u"), begun(8), done(8), begun(9, trace=8)])
    hand_in(db, [done(10), opened(11)])
    rows(db, "UPDATE spans SET same_call = :call WHERE owner IS NULL", call=span_id(1))


async def test_what_is_handed_in_fits(db: Database) -> None:
    fill_handed_in(db)
    assert await check(db, text_of) == []


@pytest.mark.parametrize(
    ("what", "damage"),
    [
        (
            "spans that saw a call as well which is not there",
            "UPDATE spans SET same_call = x'00' WHERE same_call IS NOT NULL",
        ),
        (
            "spans that saw a call as well which is not there",
            "UPDATE spans SET owner = NULL",
        ),
        (
            "calls without their trace, and traces without calls",
            "UPDATE traces SET opened_seq = NULL",
        ),
        ("traces that are not the sum of their calls", "UPDATE traces SET closed_at_us = 1"),
        ("traces that are not the sum of their calls", "UPDATE traces SET heard_at_us = NULL"),
        ("traces that are not the sum of their calls", "UPDATE traces SET tally = x'00'"),
    ],
)
async def test_damage_to_what_is_handed_in_is_found(db: Database, what: str, damage: str) -> None:
    fill_handed_in(db)
    rows(db, damage)
    assert what in {finding.what for finding in await check(db, text_of)}


async def test_a_model_that_is_counted_wrongly_is_found(db: Database) -> None:
    fill(db)
    rows(db, "UPDATE session_models SET n = n + 1")
    (found,) = await check(db, text_of)
    assert (found.what, found.count) == ("sessions that are not the sum of their traces", 2)


@pytest.mark.parametrize(
    "damage",
    [
        # An index that lacks rows, and one that is no index.
        "sql = replace(sql, 'WHERE response_id IS NOT NULL', '') WHERE name = 'spans_by_response'",
        "rootpage = 3 WHERE name = 'spans_by_seq'",
    ],
)
@pytest.mark.sqlite_only("looks at the file")
async def test_a_damaged_file_is_found_before_all_else(db: Database, damage: str) -> None:
    fill(db)
    rows(db, "PRAGMA writable_schema = ON")
    rows(db, f"UPDATE sqlite_schema SET {damage}")  # noqa: S608 (damage of this file)
    (found,) = await check(db, text_of)
    assert found.what.startswith("damage in the file")


@pytest.mark.sqlite_only("looks at the file")
async def test_the_doctor_writes_nothing(db: Database) -> None:
    fill(db)
    give_back(db)
    before = db.path.read_bytes()
    await check(db, text_of)
    give_back(db)
    assert db.path.read_bytes() == before
