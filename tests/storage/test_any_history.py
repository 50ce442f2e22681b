"""After any history of conversations and deletions, in any order, the doctor finds nothing.

That the doctor finds what is wrong is the business of test_doctor.py.
"""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.database import Database, StatementRefused
from storage.doctor import check
from storage.forget import delete_session, delete_trace
from storage.parameters import prepare
from storage.records import SpanEnd
from storage.writes import apply
from tests.databases import opened
from tests.storage.calls import rows, spoken, start, text_of, trace_id, write

EMPTY = (
    *("contents", "nodes", "messages", "mentions", "holes"),
    *("spans", "traces", "sessions", "session_models"),
)


@dataclass
class Told:
    """A call as its client knows it."""

    n: int
    asked: list[str]
    answer: list[str]


class Stop(Exception):
    """What a crash is to a transaction."""


class History:
    """Clients that talk, and somebody who deletes."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.told: list[Told] = []
        self.n = 0

    def do(self, kind: str, a: int, b: int, c: int) -> None:
        """Take one step; the numbers choose what is said, by whom and on what it goes on."""
        if kind == "delete trace":
            with self.db.transaction() as tx:
                delete_trace(tx, 1, trace_id(1 + a % max(self.n, 1)), text_of)
            return
        if kind == "delete session":
            sessions = rows(self.db, "SELECT session_id FROM sessions ORDER BY session_id")
            if sessions:
                with self.db.transaction() as tx:
                    delete_session(tx, 1, sessions[a % len(sessions)][0], text_of)
            return
        self._speak(kind, a, b, c)

    def _speak(self, kind: str, a: int, b: int, c: int) -> None:
        # One of the newest, so that long conversations come about.
        newest = self.told[-3:] or [Told(0, ["s:1", "u:0"], ["a:0"])]
        before = newest[a % len(newest)]
        # The client may resend an answer in other bytes.
        said = [*before.asked, *(f"{words};1" if c % 2 else words for words in before.answer)]
        fields: dict[str, Any] = {}
        asked = {
            "new": [f"s:{b % 3}", "u:0"] if c % 2 else [f"u:{b % 2}"],
            "go on": [*said, f"u:{b % 3}"],
            "retry": before.asked,
            "edit": [*said[: 1 + b % len(said)], f"u:{b}"],
            "window": [*said[:1], *said[2 + b % 3 :], f"u:{b % 3}"],
            "instruct": [f"s:{b % 3}", *[one for one in said if one[0] != "s"], "r:hm", "u:2"],
            "previous": [f"u:{b % 3}"],
            "loop": [f"u:{b % 2}"] * (2 + c % 4),
        }[kind]
        if kind == "previous":
            fields["previous_response_id"] = f"resp_{before.n}"
        self._say(asked, b, c, fields)

    def _say(self, asked: list[str], b: int, c: int, fields: dict[str, Any]) -> None:
        self.n += 1
        named: dict[str, Any] = {"caller": b"key" if b % 9 == 0 else None}
        if c % 7 < 4:
            named["session_id"] = "t" if c % 7 == 0 else "s"
        begun = start(self.n, trace=self.n - (c % 5 == 0), **named)
        answer = [f"a:{b % 2}"] if c % 4 else ["r:so", f"a:{self.n}"]
        if c % 11 == 0:
            answer = []

        def ended(known: int) -> SpanEnd:
            return spoken(
                begun,
                asked,
                answer,
                known=known,
                tools=[b"", b'["t"]', b'"u"' * 9_000][b % 3],
                response_id=f"resp_{self.n}",
                **fields,
            )

        if c % 3 == 0:
            write(self.db, [begun])
        if c % 6 == 1:
            try:
                with self.db.transaction() as tx:
                    apply(tx, prepare([ended(0)]))
                    raise Stop
            except Stop:
                pass
        try:
            # As the settler does, which may take messages for stored that were deleted meanwhile.
            known = 0 if fields else b % (len(asked) + 1)
            write(self.db, [ended(known)])
        except StatementRefused:
            write(self.db, [ended(0)])
        self.told.append(Told(self.n, asked, answer))

    def delete_all(self) -> None:
        """Delete sessions, then the traces of none."""
        with self.db.transaction() as tx:
            for (session,) in tx.execute("SELECT session_id FROM sessions", {}):
                assert delete_session(tx, 1, session, text_of) is not None
            for (trace,) in tx.execute("SELECT trace_id FROM traces", {}):
                assert delete_trace(tx, 1, trace, text_of) is not None


kinds = st.sampled_from(
    [
        *("new", "go on", "go on", "go on", "retry", "retry", "edit", "window", "instruct"),
        *("previous", "loop", "delete trace", "delete trace", "delete session"),
    ]
)
numbers = st.integers(0, 1000)
steps = st.lists(st.tuples(kinds, numbers, numbers, numbers), max_size=20)


@settings(deadline=None, max_examples=50)
@given(steps)
def test_the_doctor_finds_nothing_after_any_history(
    history: list[tuple[str, int, int, int]],
) -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory() as folder:
            db = opened(Path(folder) / "a.db")
            told = History(db)
            for step in history:
                told.do(*step)
                if step[0].startswith("delete"):
                    assert await check(db, text_of) == []
            assert await check(db, text_of) == []
            told.delete_all()
            assert await check(db, text_of) == []
            left = {name: rows(db, f"SELECT COUNT(*) FROM {name}") for name in EMPTY}  # noqa: S608
            assert left == {name: [(0,)] for name in EMPTY}
            await db.close()

    asyncio.run(play())
