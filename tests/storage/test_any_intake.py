"""What is handed in, called, marked and deleted in any order: the sums hold, and the rows agree.

That the doctor finds what is wrong is the business of test_doctor.py.
"""

import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.aggregates import SPAN_FACTS, SpanFacts
from storage.database import Database
from storage.doctor import check
from storage.events import log_changes
from storage.forget import delete_session, delete_trace, interrupt_running
from storage.handed import Item, Said
from storage.ledger import Ledger
from storage.overdue import end_overdue
from storage.records import FAILED, Tokens
from storage.rollup import roll_up
from tests.databases import columns_of
from tests.databases import opened as database
from tests.storage.calls import T0, end, rows, span_id, spoken, start, trace_id, write
from tests.storage.handing import NOW_US, begun, closed, done, hand_in, opened, talk_said, text_of

SPANS = 8
TRACES = 3
# Calls have other ids than spans that are handed in.
FIRST_CALL = 100


def trace_of(n: int) -> int:
    return n % TRACES


def start_said(n: int) -> Said:
    """Give what the start of span ``n`` says: always the same."""
    match n % 4:
        case 0:
            asked = ["s:brief", "u:hi", *(f"a:{k}" for k in range(n // 4)), f"u:{n}"]
            return talk_said(asked, [f"a:{n}"], model="m", tokens=Tokens(input=n))
        case 1:
            return Said(kind="tool_call", input=b'{"say": "go %d"}' % (n // 3))
        case 2:
            return Said(kind="embedding", model="e", tokens=Tokens(input=3), cost_nusd=n)
    return Said(attributes=b'{"metadata":{"a":%d}}' % n, input=b'"same words"')


def end_said(n: int) -> Said:
    match n % 4:
        case 0:
            return Said(model="m-2", tokens=Tokens(output=2), response_id=f"r{n}")
        case 1:
            return Said(output=b'["went", "%d"]' % n)
        case 2:
            return Said(tokens=Tokens(input=4))
    return Said(attributes=b'{"metadata":{"b":1},"kind":{}}', output=b'"same words"')


def begun_of(n: int, **fields: Any) -> Item:
    given: dict[str, Any] = {
        "trace": trace_of(n),
        "parent_id": span_id(n % 3) if n % 3 != n else None,
        "user_id": "u" if n == 4 else None,
        "said": start_said(n),
    }
    return begun(n, **{**given, **fields})


def done_of(n: int, **fields: Any) -> Item:
    failed = {"state": FAILED, "error": f"e{n}"} if n == 5 else {}
    if n == 3:
        failed = {"ended_at_us": None, "duration_us": 9}
    return done(n, said=end_said(n), **failed, **fields)


def opened_of(n: int) -> Item:
    session = {"session_id": "s"} if n else {}
    return opened(n, name=f"trace {n}", tags=("t",) if n == 1 else (), **session)


def item(kind: str, n: int) -> Item:
    """Give what is handed in of span ``n``, or of its trace."""
    trace = n % TRACES
    return {
        "open": lambda: opened_of(trace),
        "close": lambda: closed(trace),
        "begin": lambda: begun_of(n),
        "end": lambda: done_of(n),
        "end in trace": lambda: done_of(n, trace=trace_of(n)),
        "whole": lambda: begun_of(n, end=done_of(n)),
    }[kind]()


kinds = st.sampled_from(["open", "close", "begin", "begin", "end", "end in trace", "whole"])
numbers = st.integers(0, SPANS - 1)
chunks = st.lists(st.tuples(kinds, numbers), min_size=1, max_size=6)
others = st.sampled_from(
    [
        *("call", "call", "talk", "talk", "begin call", "mark", "mark", "delete trace"),
        *("delete session", "overdue", "interrupt"),
    ]
)
steps = st.lists(st.one_of(chunks, chunks, st.tuples(others, numbers, numbers)), max_size=14)


def mark(db: Database, a: int, b: int) -> None:
    """Mark a span of the same call as a call that has ended, as who finds the two does."""
    spans = rows(db, "SELECT trace_id, span_id FROM spans WHERE owner IS NULL ORDER BY span_id")
    calls = rows(db, "SELECT span_id FROM spans WHERE owner IS NOT NULL ORDER BY span_id")
    if not spans or not calls:
        return
    trace, span = spans[a % len(spans)]
    sql = f"""
UPDATE spans SET same_call = :call WHERE trace_id = :trace AND span_id = :span
RETURNING {SPAN_FACTS}
"""  # noqa: S608 (a constant)
    with db.transaction() as tx:
        ledger = Ledger(tx)
        (call,) = calls[b % len(calls)]
        (facts,) = tx.execute(sql, {"call": call, "trace": trace, "span": span})
        ledger.trace((1, trace)).spans[span] = SpanFacts.of(facts)
        log_changes(ledger, roll_up(ledger))


def other(db: Database, kind: str, a: int, b: int) -> None:
    # In the trace that it names, or in its own and to move into that of its traceparent.
    names: dict[str, Any] = {"trace": a % TRACES}
    if b % 2:
        names = {"external_trace_id": trace_id(a % TRACES), "external_parent_id": span_id(a)}
    call = start(FIRST_CALL + a, **names)
    asked = ["s:brief", "u:hi", *(f"a:{k}" for k in range(b)), f"u:{b}"]
    match kind:
        case "begin call":
            write(db, [call])
        case "call":
            write(db, [end(call, model=["m", None][b % 2], response_id=f"r{b}")])
        case "talk":
            write(db, [spoken(call, asked, [f"a:{b}"])])
        case "mark":
            mark(db, a, b)
        case "delete trace":
            with db.transaction() as tx:
                delete_trace(tx, 1, trace_id(b % TRACES), text_of)
        case "delete session":
            sessions = rows(db, "SELECT session_id FROM sessions ORDER BY session_id")
            if sessions:
                with db.transaction() as tx:
                    delete_session(tx, 1, sessions[a % len(sessions)][0], text_of)
        case "overdue":
            with db.transaction() as tx:
                end_overdue(tx, NOW_US + 10, 5, 2 + a)
        case "interrupt":
            with db.transaction() as tx:
                interrupt_running(tx, None)


@settings(deadline=None, max_examples=60)
@given(steps, st.sampled_from([1, 2, 100]))
def test_the_doctor_finds_nothing_after_any_history(history: list[Any], long_trace: int) -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory() as folder:
            db = database(Path(folder) / "a.db")
            for step in history:
                if isinstance(step, list):
                    hand_in(db, [item(*one) for one in step])
                else:
                    other(db, *step)
                assert await check(db, text_of) == []
            for trace in rows(db, "SELECT trace_id FROM traces"):
                with db.transaction() as tx:
                    delete_trace(tx, 1, trace[0], text_of)
            assert await check(db, text_of) == []
            empty = ("contents", "nodes", "mentions", "holes", "spans", "traces", "sessions")
            for name in empty:
                assert rows(db, f"SELECT COUNT(*) FROM {name}") == [(0,)]  # noqa: S608
            await db.close()

    with patch("storage.rollup.LONG_TRACE", long_trace):
        asyncio.run(play())


# What says when a thing arrived, and what it then was the first to store.
ARRIVAL = ("seq", "opened_seq", "checkpoint_us", "heard_at_us", "stored_bytes")
ARRIVED = (*ARRIVAL, "first_seq", "last_seq", "user_seq", "output_seq", "error_seq")
# From where a call goes on is found when it arrives.
PLACE = ("base_meaning", "fresh_count")


def facts(db: Database) -> dict[str, Any]:
    """Give all rows, with the ids of contents and nodes replaced by what these are of."""
    contents = dict(rows(db, "SELECT id, sha256 FROM contents"))
    nodes = dict(rows(db, "SELECT id, hash FROM nodes"))
    found: dict[str, Any] = {"contents": sorted(contents.values()), "nodes": sorted(nodes.values())}
    for table in ("spans", "traces", "sessions", "session_models", "early_ends"):
        names = [name for (name,) in rows(db, columns_of(table))]
        told = []
        for row in rows(db, f"SELECT * FROM {table}"):  # noqa: S608
            values = dict(zip(names, row, strict=True))
            for name in values.keys() & {*ARRIVED, *PLACE}:
                del values[name]
            for name in values:
                if name.endswith("_content_id"):
                    values[name] = contents.get(values[name])
                elif name.endswith("_node_id"):
                    values[name] = nodes.get(values[name])
            told.append(values)
        found[table] = sorted(told, key=repr)
    mentions = rows(db, "SELECT content_id, session_key FROM mentions")
    found["mentions"] = sorted((contents[one], number) for one, number in mentions)
    return found


def all_items(rng: random.Random) -> list[Item]:
    items = [item(kind, n) for n in range(TRACES) for kind in ("open", "close")]
    for n in range(SPANS):
        match rng.randrange(4):
            case 0:
                items.append(item("whole", n))
            case 1:
                items += (item("begin", n), item("end", n))
            case 2:
                items += (item("begin", n), item("end in trace", n))
            case 3:
                items.append(item("begin", n))
    return items


@settings(deadline=None, max_examples=30)
@given(st.randoms(use_true_random=False))
def test_any_order_of_the_same_items_gives_the_same_rows(rng: random.Random) -> None:
    async def play() -> None:
        items = all_items(rng)
        mixed = [*items, *rng.choices(items, k=5)]
        rng.shuffle(mixed)
        with tempfile.TemporaryDirectory() as folder:
            one, other = database(Path(folder) / "a.db"), database(Path(folder) / "b.db")
            hand_in(one, items, now_us=T0 + 60_000_000)
            while mixed:
                n = rng.randint(1, 5)
                hand_in(other, mixed[:n], now_us=T0 + 60_000_000)
                del mixed[:n]
            assert facts(other) == facts(one)
            assert await check(other, text_of) == []
            await one.close()
            await other.close()

    asyncio.run(play())
