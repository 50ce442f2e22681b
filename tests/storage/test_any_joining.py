"""After any order of calls, spans handed in and deletions a call has one row and counts once."""

import random
from dataclasses import dataclass
from typing import Any

import pytest

from storage.database import Database
from storage.doctor import check
from storage.forget import delete_session, delete_trace, interrupt_running
from storage.records import SpanStart
from tests.storage.calls import checkpoint, rows, spoken, start, text_of, trace_id, write
from tests.storage.seeds import seeds
from tests.storage.seen_twice import Handed, hand_in

CALLS = 5
# Traces that applications know, and ids of what they hand in.
KNOWN = (50, 51)
PROJECTS = (1, 2)
STEPS = (
    *("start", "start", "checkpoint", "end", "end", "whole", "whole"),
    *("hand in", "hand in", "hand in", "delete trace", "delete session", "interrupt"),
)
ASKED = (["u:a"], ["u:a", "a:1", "u:b"], ["u:a", "a:1;1", "u:b", "a:2", "u:c"], ["s:x", "u:a"])


@dataclass(frozen=True)
class Named:
    """What a call says in its head."""

    project: int
    joins: int | None
    external: int | None
    parent: int | None
    session: str | None
    source: str
    response_id: str | None

    def start(self, n: int) -> SpanStart:
        fields: dict[str, Any] = {"project_id": self.project, "name": "call"}
        if self.joins is not None:
            fields |= {"joins": trace_id(self.joins)}
            if self.parent is not None:
                fields |= {"parent_id": self.parent.to_bytes(8, "big")}
        if self.external is not None:
            fields |= {
                "external_trace_id": trace_id(self.external),
                "external_parent_id": (self.parent or 99).to_bytes(8, "big"),
            }
        if self.session is not None:
            fields |= {"session_id": self.session, "session_source": self.source}
        return start(n, **fields)


def a_call(source: random.Random) -> Named:
    """Make a call that mostly names a trace, in one way or the other."""
    choose = source.choice
    return Named(
        project=choose([1, 1, 1, 1, 2]),
        joins=choose([None, None, 50, 51, 1]),
        external=choose([None, 50, 50, 51]),
        parent=choose([None, 61, 62]),
        session=choose([None, None, "s", "t"]),
        source=choose(["header", "metadata"]),
        response_id=choose([None, "r1", "r2"]),
    )


def handed(source: random.Random) -> Handed:
    """Make a span that an application hands in."""
    choose = source.choice
    return Handed(
        n=choose([61, 62, 63]),
        trace=choose([*KNOWN, *KNOWN, 52, 1]),
        project=choose([1, 1, 1, 1, 2]),
        kind=choose(["llm_call", "llm_call", "embedding", "custom"]),
        response_id=choose([None, "r1", "r2"]),
        session=choose([None, None, "s", "t"]),
    )


def a_step(source: random.Random) -> tuple[str, Any]:
    """Make what happens next."""
    match what := source.choice(STEPS):
        case "hand in":
            return what, [handed(source) for _ in range(source.randint(1, 2))]
        case "delete trace":
            return what, source.choice([*KNOWN, 1, 2, 3])
        case "delete session":
            return what, source.choice(["s", "t"])
    return what, source.randint(1, CALLS)


class World:
    """Calls of both projects, in whatever state they are."""

    def __init__(self, db: Database, named: list[Named]) -> None:
        self.db = db
        self.named = named

    def do(self, what: str, which: Any) -> None:
        """Take one step."""
        match what:
            case "hand in":
                hand_in(self.db, *which)
            case "delete trace":
                with self.db.transaction() as tx:
                    delete_trace(tx, 1, trace_id(which), text_of)
            case "delete session":
                with self.db.transaction() as tx:
                    delete_session(tx, 1, which, text_of)
            case "interrupt":
                with self.db.transaction() as tx:
                    interrupt_running(tx, None)
            case _:
                self._call(what, which)

    def _call(self, what: str, n: int) -> None:
        named = self.named[n - 1]
        begun = named.start(n)
        ended = spoken(
            begun, ASKED[n % 4], [f"a:{n % 3}"], response_id=named.response_id, reserved=True
        )
        if what == "start":
            write(self.db, [begun])
        elif what == "checkpoint":
            write(self.db, [checkpoint(begun, b"so far %d" % n)])
        else:
            write(self.db, [begun, ended] if what == "whole" else [ended])

    def check_places(self) -> None:
        """See that each call has one row, in the trace where it belongs, and nowhere twice."""
        known = set(rows(self.db, "SELECT project_id, trace_id FROM traces"))
        linked = {
            (project, trace): link
            for project, trace, link in rows(
                self.db, "SELECT project_id, trace_id, linked_trace_id FROM traces"
            )
        }
        found = rows(
            self.db, "SELECT project_id, span_id, trace_id FROM spans WHERE owner IS NOT NULL"
        )
        assert len({(project, span) for project, span, _ in found}) == len(found)
        for project, span, trace in found:
            n = int.from_bytes(span, "big")
            named = self.named[n - 1]
            assert project == named.project
            if trace == trace_id(n):
                wanted = named.joins if named.joins is not None else named.external
                if wanted is not None and wanted != n and (project, trace_id(wanted)) in known:
                    assert linked[project, trace] == trace_id(wanted)

    def check_marks(self) -> None:
        """See that a handed-in span is marked if and only if a call is known for it."""
        spans = rows(
            self.db,
            "SELECT project_id, trace_id, span_id, parent_id, response_id, kind, owner IS NOT NULL,"
            " usage_source, same_call, input_tokens FROM spans",
        )
        counted = {project: 0 for project in PROJECTS}
        calls = [span for span in spans if span[6] and span[7] is not None]
        for project, trace, span, _, response, kind, is_call, _, same_call, tokens in spans:
            saw = [
                call[2]
                for call in calls
                if call[0] == project
                and ((call[1], call[3]) == (trace, span) or (response and call[4] == response))
            ]
            if is_call or kind not in ("llm_call", "embedding"):
                assert same_call is None
            else:
                assert (same_call in saw) if saw else (same_call is None)
            if same_call is None:
                counted[project] += tokens or 0
        sums = dict(rows(self.db, "SELECT project_id, input_tokens FROM project_totals"))
        assert {project: sums.get(project, 0) for project in PROJECTS} == counted


@pytest.mark.parametrize("seed", seeds(12, 60))
async def test_each_call_has_one_row_and_counts_once_after_any_history(
    db: Database, seed: int
) -> None:
    source = random.Random(seed)  # noqa: S311
    world = World(db, [a_call(source) for _ in range(CALLS)])
    for n in range(30):
        world.do(*a_step(source))
        world.check_places()
        world.check_marks()
        if n % 3 == 2:
            assert await check(db, text_of) == []
