"""Calls, spans handed in of the same, and deletions in any order: one tree, counted once."""

import random
from typing import Any

import pytest

from storage.database import Database
from storage.doctor import check
from storage.forget import delete_session, delete_trace
from storage.handed import Item, Said
from storage.overdue import end_overdue
from storage.records import Tokens
from tests.storage.calls import trace_id
from tests.storage.handing import NOW_US, begun, closed, done, hand_in, opened, talk_said, text_of
from tests.storage.seeds import seeds
from tests.storage.test_any_joining import CALLS, KNOWN, World, a_call, a_step

SPANS = (61, 62, 63)


class Tree(World):
    """Calls, and an application that tells of them piece by piece."""

    def __init__(self, db: Database, source: random.Random) -> None:
        super().__init__(db, [a_call(source) for _ in range(CALLS)])
        self.source = source
        # What stands for a span's whole life.
        self.kinds = dict(zip(SPANS, ("llm_call", "embedding", "tool_call"), strict=True))
        self.responses = {n: source.choice([None, "r1", "r2"]) for n in SPANS}
        self.traces = {n: source.choice([*KNOWN, 50, 1]) for n in SPANS}

    def do(self, what: str, which: Any) -> None:
        """Take one step."""
        match what:
            case "hand in":
                items = [self._item() for _ in range(self.source.randint(1, 3))]
                hand_in(self.db, items, now_us=NOW_US)
            case "delete trace":
                with self.db.transaction() as tx:
                    delete_trace(tx, 1, trace_id(which), text_of)
            case "delete session":
                with self.db.transaction() as tx:
                    delete_session(tx, 1, which, text_of)
            case "overdue":
                with self.db.transaction() as tx:
                    end_overdue(tx, NOW_US + 10**10, 1, 100)
            case _:
                super().do(what, which)

    def _item(self) -> Item:
        choose = self.source.choice
        n = choose(SPANS)
        session = choose([None, None, "s", "t"])
        named: dict[str, Any] = {} if session is None else {"session_id": session}
        match choose(["open", "close", "begin", "begin", "end", "end", "whole"]):
            case "open":
                return opened(choose([*KNOWN, 1]), **named)
            case "close":
                return closed(choose(KNOWN))
            case "begin":
                return begun(n, trace=self.traces[n], said=Said(kind=self._kind(n)), **named)
            case "end":
                return done(n, trace=choose([None, self.traces[n]]), said=self._said(n))
        return begun(
            n, trace=self.traces[n], said=self._said(n), end=done(n, trace=self.traces[n]), **named
        )

    def _kind(self, n: int) -> Any:
        return self.kinds[n]

    def _said(self, n: int) -> Said:
        given: dict[str, Any] = {
            "response_id": self.responses[n],
            "tokens": Tokens(input=1000, output=10),
            "model": "m",
        }
        if self.kinds[n] == "llm_call" and self.source.random() < 0.5:
            return talk_said(["u:a"], [f"a:{n % 3}"], **given)
        return Said(kind=self._kind(n), **given)


@pytest.mark.parametrize("seed", seeds(12, 60))
async def test_one_tree_counts_each_call_once_after_any_history(db: Database, seed: int) -> None:
    source = random.Random(seed)  # noqa: S311
    tree = Tree(db, source)
    for n in range(30):
        what, which = a_step(source)
        tree.do("overdue" if what == "interrupt" and which % 2 else what, which)
        tree.check_places()
        tree.check_marks()
        if n % 3 == 2:
            assert await check(db, text_of) == []
