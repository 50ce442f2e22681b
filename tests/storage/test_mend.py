"""Rows that do not fit together are made to, and what is lost for it is counted."""

import pytest

from storage import mend as module
from storage.collecting import collect
from storage.database import Database
from storage.doctor import check
from storage.erase import EVERY_CALL
from storage.erasures import Order, add_targets, ask, cancel, order_of, step
from storage.forgetting import forget_contents
from storage.mend import mend
from storage.order_targets import Target
from storage.sqlite import SqliteDatabase
from tests.storage.calls import end, rows, start, text_of, write
from tests.storage.test_doctor import DAMAGE, fill, fill_handed_in

pytestmark = pytest.mark.sqlite_only("a damaged PostgreSQL is restored from a backup")


async def mended(db: Database, *, lost_keys: bool = False) -> dict[str, int]:
    with db.transaction() as tx:
        lost = await mend(tx, now_us=7, lost_keys=lost_keys)
    assert await check(db, text_of) == []
    return lost


async def test_where_nothing_is_wrong_nothing_is_lost(db: Database) -> None:
    fill(db)
    kept = ("contents", "nodes", "messages", "holes", "mentions", "spans", "sessions", "traces")
    before = {table: rows(db, f"SELECT * FROM {table}") for table in kept}  # noqa: S608
    rows(db, "INSERT INTO projects (id, name) VALUES (2, 'b')")
    assert await mended(db) == {}
    for table, was in before.items():
        assert sorted(rows(db, f"SELECT * FROM {table}")) == sorted(was), table  # noqa: S608


async def test_what_was_said_of_traces_is_kept(db: Database) -> None:
    fill_handed_in(db)
    rows(db, "UPDATE traces SET linked_trace_id = x'07' WHERE session_id IS NULL")
    kept = ("spans", "traces", "sessions", "early_ends")
    before = {table: rows(db, f"SELECT * FROM {table}") for table in kept}  # noqa: S608
    assert await mended(db) == {}
    for table, was in before.items():
        assert sorted(rows(db, f"SELECT * FROM {table}")) == sorted(was), table  # noqa: S608


async def test_a_span_counts_itself_where_the_call_that_it_saw_is_lost(db: Database) -> None:
    fill_handed_in(db)
    rows(db, "DELETE FROM spans WHERE owner IS NOT NULL")
    await mended(db)
    assert rows(db, "SELECT COUNT(same_call) FROM spans") == [(0,)]


async def test_numbers_go_on_behind_those_of_traces_without_spans(db: Database) -> None:
    fill_handed_in(db)
    rows(db, "DELETE FROM spans")
    rows(db, "DELETE FROM counters")
    await mended(db)
    ((highest,),) = rows(db, "SELECT MAX(opened_seq) FROM traces")
    assert rows(db, "SELECT value FROM counters WHERE name = 'seq'") == [(highest,)]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
async def test_each_kind_of_damage_is_mended(db: Database, damage: str) -> None:
    fill(db)
    rows(db, damage)
    lost = await mended(db)
    assert ("reservations of calls that are lost" in lost) == ("VALUES (1, x'00', x'00'" in damage)


@pytest.mark.parametrize(
    ("table", "lost"),
    [
        ("contents", {"calls whose request is lost, in whole": 4}),
        ("nodes", {"calls whose request is lost, in whole": 3}),
        ("messages", {"calls whose request is lost, in whole": 3}),
        ("traces", {}),
        ("sessions", {}),
        ("holes", {}),
        ("projects", {"projects whose name is lost": 2}),
        ("counters", {}),
    ],
)
async def test_a_table_that_is_lost_costs_what_only_it_had(
    db: Database, table: str, lost: dict[str, int]
) -> None:
    fill(db)
    rows(db, f"DELETE FROM {table}")  # noqa: S608
    if table != "projects":
        rows(db, "INSERT INTO projects (id, name) VALUES (2, 'b')")
    found = await mended(db)
    assert {what: n for what, n in found.items() if "answer" not in what} == lost
    assert rows(db, "SELECT COUNT(*) FROM spans") == [(5,)]
    assert rows(db, "SELECT COUNT(*) FROM sessions") != [(0,)]


async def test_numbers_are_not_given_twice_after_their_counter_was_lost(
    db: Database,
) -> None:
    fill(db)
    rows(db, "DELETE FROM counters")
    await mended(db)
    found = dict(rows(db, "SELECT name, value FROM counters"))
    assert found == {
        "seq": rows(db, "SELECT MAX(seq) FROM spans")[0][0],
        "id": rows(db, "SELECT MAX(id) FROM contents")[0][0],
        "event": rows(db, "SELECT MAX(sequence) FROM events")[0][0],
        "pruned_event": 0,
        "erasure": 0,
        "grants": 0,
    }


async def test_what_was_forgotten_stays_so_and_orders_that_ended_say_nothing(
    db: Database,
) -> None:
    fill(db)
    ((first,),) = rows(db, "SELECT trace_id FROM traces ORDER BY seq LIMIT 1")
    with db.transaction() as tx:
        forget_contents(tx, [(1, first)], text_of, now_us=7, most_spans=99, before_seq=EVERY_CALL)
    rows(
        db,
        "INSERT INTO erasures (project_id, id, kind, extent, given, with_starred, state,"
        " before_seq, asked_at_us, ended_at_us)"
        " VALUES (1, 3, 'user', 'all', 'u', 0, 'done', 9, 1, 2)",
    )
    rows(db, "INSERT INTO erasure_targets VALUES (1, 3, 1, 's', NULL)")
    await mended(db)
    assert rows(db, "SELECT trace_id FROM traces WHERE forgotten_at_us = 7") == [(first,)]
    assert rows(db, "SELECT given FROM erasures") == [(None,)]
    assert rows(db, "SELECT * FROM erasure_targets") == []


async def test_no_id_of_a_project_of_which_anything_is_left_is_given_again(db: Database) -> None:
    for statement in (
        "INSERT INTO api_keys (project_id, name, scope, sha256, last_four, created_at_us)"
        " VALUES (3, 'k', 'write', x'01', 'abcd', 1)",
        "INSERT INTO provider_keys VALUES (4, 'openai', x'01', 'abcd', 1)",
        "INSERT INTO session_budgets VALUES (5, 's1', 5)",
        "INSERT INTO erasures (project_id, id, kind, extent, given, with_starred, state,"
        " before_seq, asked_at_us) VALUES (6, 1, 'user', 'all', 'u', 0, 'collecting', 9, 1)",
        "DELETE FROM projects",
    ):
        rows(db, statement)
    assert await mended(db) == {"projects whose name is lost": 5}
    assert rows(db, "SELECT id FROM projects ORDER BY id") == [(1,), (3,), (4,), (5,), (6,)]


async def test_an_order_to_erase_looks_anew_for_what_it_is_of_and_takes_nothing_newer(
    db: Database,
) -> None:
    fill_handed_in(db)
    with db.transaction() as tx:
        user, session = (
            ask(tx, 1, Order(kind=kind, given="u"), now_us=5)  # type: ignore[arg-type]
            for kind in ("user", "session")
        )
        found: list[Target] = [("s1", None), ("s2", None)]
        place = '{"where":"traces"}'
        add_targets(tx, 1, user.id, found, state="erasing", place=place, kept=["s3"])
        clean = ask(tx, 1, Order(kind="session", given="v"), now_us=5)
        cancel(tx, 1, clean.id)
    rows(db, "UPDATE erasures SET done_count = 1 WHERE kind = 'user'")
    rows(db, "DELETE FROM erasure_targets WHERE session_id = 's2'")
    rows(db, "DELETE FROM counters")
    await mended(db)
    assert rows(
        db, "SELECT state, place, target_count, kept_starred_count FROM erasures ORDER BY id"
    ) == [
        ("collecting", None, 1, 0),
        ("collecting", None, 0, 0),
        ("cancelled", None, 1, 0),
    ]
    assert rows(db, "SELECT erasure_id FROM erasure_targets") == [(clean.id,)]
    # A call that comes now is newer than each of them.
    ((highest,),) = rows(db, "SELECT value FROM counters WHERE name = 'seq'")
    assert highest == clean.before_seq > session.before_seq
    # And they find and erase it all.
    for order in (user, session):
        while (now := await order_of(db, 1, order.id)) and now.state in ("collecting", "erasing"):
            if now.state == "collecting":
                part = await collect(db, now)
                with db.transaction() as tx:
                    add_targets(tx, 1, now.id, part.targets, state=part.state, place=part.place)
                continue
            with db.transaction() as tx:
                step(tx, 1, now.id, text_of, most_spans=9, now_us=6)
        assert now is not None
        assert (now.state, now.target_count) == ("cleaning", now.done_count)


ADD_KEY = """
INSERT INTO api_keys (project_id, name, scope, sha256, last_four, created_at_us)
VALUES (1, 'k', 'write', randomblob(32), 'abcd', 1) RETURNING id
"""


async def test_where_no_key_is_lost_everybody_signs_in_again_and_that_is_all(
    db: Database,
) -> None:
    assert await mended(db) == {}
    assert rows(db, ADD_KEY) == [(1,)]
    rows(db, "INSERT INTO sign_ins VALUES (x'01', 1, 1, 10), (x'02', 1, 1, 10)")
    assert await mended(db) == {"browsers that have to sign in again": 2}
    assert rows(db, "SELECT * FROM sign_ins") == []
    assert rows(db, "SELECT id, revoked_at_us FROM api_keys") == [(1, None)]


@pytest.mark.parametrize("are_lost", [False, True])
async def test_a_revoked_key_stands_for_those_that_are_lost(db: Database, are_lost: bool) -> None:
    if not are_lost:  # but a browser that it let in tells of it
        rows(db, "INSERT INTO sign_ins VALUES (x'01', 12345, 1, 10)")
    await mended(db, lost_keys=are_lost)
    ((key, at_us),) = rows(db, "SELECT id, revoked_at_us FROM api_keys")
    assert (key, at_us) == (10_001 if are_lost else 12_346, 7)
    assert rows(db, ADD_KEY) == [(key + 1,)]
    await mended(db, lost_keys=True)  # it may happen once more
    assert rows(db, "SELECT MAX(id) FROM api_keys") == [(key + 2,)]


async def test_each_session_and_trace_costs_as_much_however_many_there_are(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = module.NEXT_TRACES.replace("LIMIT 500", "LIMIT 1")
    assert page != module.NEXT_TRACES
    monkeypatch.setattr(module, "NEXT_TRACES", page)

    async def steps() -> int:
        counted: list[None] = []
        db._writer.set_progress_handler(lambda: counted.append(None), 10)
        with db.transaction() as tx:
            await mend(tx, now_us=7)
        db._writer.set_progress_handler(None, 0)
        return len(counted)

    write(db, [end(start(n, session_id=f"s{n}")) for n in range(50)])
    few = await steps()
    write(db, [end(start(n, session_id=f"s{n}")) for n in range(50, 400)])
    many = await steps()
    assert many < 9 * few, (few, many)
