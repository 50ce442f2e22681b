"""Writes blocks of archives into a project: rows as they were, and everything that is made of them.

Invariants: what is there already and is the same is passed over, so that whatever broke off can be
begun again; what is there and is something else is a conflict, found before anything is written.
After each transaction sums, mentions, full text and events are those of the rows that are there: a
call is not written before the one that it goes on from. One transaction writes a bounded part of a
block, and of what that order needs a bounded part as well.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from storage.additions import Node
from storage.aggregates import SpanFacts
from storage.archive_block import Block
from storage.archive_lines import (
    Chain,
    ContentLine,
    Line,
    NodeLine,
    OpenedLine,
    SpanLine,
    TraceLine,
    bytes_of,
    plain,
)
from storage.archive_places import Key
from storage.archive_spans import EARLY_ENDS, INSERT_SPAN, told_of, values_of
from storage.budgets import NOTE_LIMIT
from storage.chain import Message
from storage.continuation import UPROOTED, begin_anew
from storage.conversation import store_envelope
from storage.database import Params, Row, Transaction
from storage.events import log_changes
from storage.forgetting import HOLDS_STILL
from storage.fulltext import await_index
from storage.intake import KEEP_EARLY
from storage.keys import SessionKey, TraceKey
from storage.ledger import Ledger, TraceChange
from storage.mentions import mention_again
from storage.opened import NOT_OPENED
from storage.records import Content, Envelope
from storage.restore_conflicts import Conflict, key_of, known_spans, opening_of, trace_conflict
from storage.restore_marks import FORGET, FORGOTTEN, KNOWN_CALLS, Mark
from storage.rollup import roll_up
from storage.twins import to_mark

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

# Spans of one transaction, and bytes of lines: the recorder's own figures.
BATCH_SPANS: Final = 25
BATCH_BYTES: Final = 512 * 1024
# Spans of one transaction that waits for calls from which others go on: those are nearer.
MOST_SPANS: Final = 500


@dataclass(slots=True, kw_only=True)
class Written:
    """What became of a part of a block, and ``at``: where the next part begins; None at its end.

    ``marks`` are spans that saw a call, with its id, and are still to be marked with it; ``seen``
    those of which no archive says so, to be marked where it does not say another call.
    """

    at: int | None
    traces: int = 0
    spans: int = 0
    known_spans: int = 0
    marks: list[Mark] = field(default_factory=list)
    seen: list[Mark] = field(default_factory=list)
    conflict: Conflict | None = None


UPROOTED_OF: Final = f"""
SELECT s.seq, s.session_key FROM spans s
WHERE s.base_meaning IS NOT NULL AND {UPROOTED} AND s.seq IN (:keys)
"""


def write(tx: Transaction, project_id: int, block: Block, at: int) -> Written:
    """Write the next part of a block, from the place ``at`` on.

    Where a conflict came up since ``find_conflict``, nothing more is written.
    """
    done = Written(at=at)
    parts: list[_Part] = []
    lost: list[Row] = []
    while done.at is not None and done.conflict is None:
        part = _Part(tx, project_id, block, done.at)
        parts.append(part)
        part.write(done)
        # Whose place was found keeps it: nothing goes here.
        lost = tx.look_up(UPROOTED_OF, {}, [*(seq for seq, _ in lost), *part.seqs])
        if not lost or done.spans >= MOST_SPANS:
            break
    _root(tx, lost)
    for part in parts:  # last, as in writes.apply
        part.log()
    return done


def _root(tx: Transaction, lost: Sequence[Row]) -> None:
    """Have calls bring all of their input whose place nobody holds, at the end of what may."""
    begin_anew(tx, [seq for seq, _ in lost])
    for seq, session_key in lost:
        await_index(tx, mention_again(tx, session_key, (seq,)))


HAS_SESSION: Final = """
SELECT 1 FROM sessions WHERE project_id = :project_id AND session_id = :session_id
"""
NAME_SESSION: Final = """
UPDATE sessions SET name = :name, starred = :starred
WHERE project_id = :project_id AND session_id = :session_id
"""
KNOWN_EARLY: Final = f"{EARLY_ENDS} AND ended_id IN (:keys)"


class _Part:
    """A part of a block on its way into the database."""

    def __init__(self, tx: Transaction, project_id: int, block: Block, at: int) -> None:
        self.seqs: list[int] = []
        self._tx = tx
        self._project_id = project_id
        self._block = block
        self._key: Params = {"project_id": project_id}
        self._ledger = Ledger(tx)
        self._sessions: Iterable[SessionKey] = ()
        self._numbered: list[SpanLine | OpenedLine] = []
        self._contents: dict[bytes, bytes] = {}
        self._held_bytes = 0
        self._nodes: set[bytes] = set()
        self._at = self._read(at)
        self._spans = [one for one in self._numbered if isinstance(one, SpanLine)]

    def _read(self, start: int) -> int | None:
        """Read lines until there are enough for a transaction; give the place behind them."""
        for line, at in self._block.lines(start):
            self._take(line)
            is_numbered = isinstance(line, SpanLine | OpenedLine)
            is_full = len(self._numbered) >= BATCH_SPANS or at - start >= BATCH_BYTES
            if is_numbered and is_full:
                return at
        return None

    def _take(self, line: Line) -> None:
        match line:
            case ContentLine():
                self._hold(bytes.fromhex(line.sha256), plain(line.data))
            case NodeLine():
                self._nodes.add(bytes.fromhex(line.hash))
            case OpenedLine() | SpanLine():
                self._numbered.append(line)

    def _hold(self, sha256: bytes, data: bytes) -> None:
        """Keep the bytes of a content at hand, unless there are many: the block has them all."""
        if self._held_bytes + len(data) <= BATCH_BYTES:
            self._held_bytes += len(data)
            self._contents[sha256] = data

    def write(self, done: Written) -> None:
        """Write it, and add what became of it to what is done."""
        ledger = self._ledger
        traces = dict.fromkeys(self._trace_key(one.trace) for one in self._numbered)
        ledger.look_up_traces(traces)
        known, done.conflict = self._known()
        if done.conflict is not None:
            return
        had_session, forgotten = self._has_session(), self._forgotten(traces)
        new = [one for one in self._numbered if self._is_new(one, known)]
        ledger.take_seqs(len(new))
        spans = [one for one in new if isinstance(one, SpanLine)]
        self._look_up(spans)
        calls = self._calls(spans)
        rows: list[Params] = []
        for one in new:
            change = self._change(one.trace)
            if isinstance(one, OpenedLine):
                change.opening = opening_of(one)._replace(seq=ledger.take_seq())
            else:
                rows.append(self._row(one, change, calls, done.marks))
        ledger.additions.flush()
        self._tx.insert_rows(INSERT_SPAN, rows)
        self._keep_early(spans)
        self._sessions = roll_up(ledger)
        if not had_session:
            self._describe_session()
        self._forget(forgotten)
        self._mention()
        done.at = self._at
        # Of a trace whose calls are all known elsewhere nothing is written.
        done.traces += sum(
            change.old is None and change.touched for change in ledger.traces.values()
        )
        done.spans += len(rows)
        done.known_spans += len(known)
        done.marks += [
            self._mark(one) for one in self._spans if key_of(one) in known and one.same_call
        ]
        places = (known.get(key, key) for key in map(key_of, self._spans))
        done.seen += to_mark(self._tx, [(self._project_id, *key) for key in places])

    def log(self) -> None:
        """Log what it changed."""
        log_changes(self._ledger, self._sessions)

    def _look_up(self, spans: Iterable[SpanLine]) -> None:
        """Find out at once what is there of the messages of this part, and of bodies."""
        nodes: dict[bytes, None] = {}
        contents: dict[bytes, None] = {}
        for line in spans:
            chain = line.chain or Chain()
            for own in (bytes_of(chain.input), bytes_of(chain.output)):
                while own is not None and own in self._nodes and own not in nodes:
                    stored = self._block.nodes[own]
                    nodes[own] = contents[stored.sha256] = None
                    own = stored.parent
            for body in (line.request, line.response):
                if body is not None:
                    holes = () if body.envelope is None else body.envelope.holes
                    named = (one for one in (body.content, *holes) if one is not None)
                    contents.update((bytes.fromhex(one), None) for one in named)
        self._ledger.additions.look_up_contents(self._project_id, contents)
        self._ledger.additions.look_up_nodes(self._project_id, nodes)

    def _trace_key(self, text: str) -> TraceKey:
        return self._project_id, bytes.fromhex(text)

    def _known(self) -> tuple[dict[Key, Key], Conflict | None]:
        """Give where the spans are that are there already, or what is there and is not the same."""
        for change in self._ledger.traces.values():
            if change.old is not None:
                trace_id, session_id = change.key[1], change.session_id
                found = trace_conflict(self._block, trace_id, session_id, change.opening)
                if found is not None:
                    return {}, found
        return known_spans(self._tx, self._project_id, self._block, self._spans)

    def _is_new(self, one: SpanLine | OpenedLine, known: Collection[Key]) -> bool:
        if isinstance(one, SpanLine):
            return key_of(one) not in known
        return self._ledger.trace(self._trace_key(one.trace)).opening == NOT_OPENED

    def _has_session(self) -> bool:
        session = self._block.session
        if session is None:
            return True
        return bool(self._tx.execute(HAS_SESSION, {**self._key, "session_id": session.id}))

    def _change(self, trace: str) -> TraceChange:
        change = self._ledger.trace(self._trace_key(trace))
        if change.old is None:
            line = self._block.traces[change.key[1]]
            if self._block.session is not None:
                change.session_id = self._block.session.id
            change.session_source = line.source
            if line.linked is not None:
                self._ledger.links[change.key] = bytes.fromhex(line.linked)
        return change

    def _calls(self, spans: Sequence[SpanLine]) -> set[bytes]:
        """Give the calls that are there, or come now, of those that spans saw as well."""
        wanted = [bytes.fromhex(one.same_call) for one in spans if one.same_call is not None]
        found = {row[0] for row in self._tx.look_up(KNOWN_CALLS, self._key, wanted)}
        return found | {bytes.fromhex(one.id) for one in spans if not one.handed_in}

    def _row(
        self, line: SpanLine, change: TraceChange, calls: set[bytes], marks: list[Mark]
    ) -> Params:
        """Store what a span holds, and give its row."""
        ledger, values = self._ledger, values_of(self._project_id, line)
        seq = ledger.take_seq()
        stored = ledger.additions.stored_bytes
        before = stored[self._project_id]
        values["seq"], values["session_key"] = seq, change.session_key
        if line.same_call is not None and values["same_call"] not in calls:
            values["same_call"] = None
            marks.append(self._mark(line))
        if line.chain is not None:
            for name in ("input", "output", "prelude"):
                node = self._node(bytes_of(getattr(line.chain, name)))
                values[f"{name}_node_id"] = None if node is None else node.id
        for which, body in (("request", line.request), ("response", line.response)):
            if body is None:
                continue
            if body.content is not None:
                values[f"{which}_content_id"] = ledger.additions.content(
                    self._project_id, *self._content(bytes.fromhex(body.content))
                )
            if body.envelope is not None:
                holes = [bytes_of(hole) for hole in body.envelope.holes]
                envelope = Envelope(
                    tuple(map(plain, body.envelope.pieces)), tuple(map(self._hole, holes))
                )
                values[f"{which}_envelope"] = store_envelope(
                    ledger.additions, self._project_id, seq, envelope
                )
        values["stored_bytes"] = stored[self._project_id] - before
        facts = change.spans[bytes.fromhex(line.id)] = SpanFacts.of_end(values)
        change.inserted += 1
        if facts.model is not None:
            change.models[facts.model] += 1
        self.seqs.append(seq)
        return values

    def _content(self, sha256: bytes) -> tuple[bytes, bytes]:
        data = self._contents.get(sha256)
        return sha256, self._block.content(sha256) if data is None else data

    def _hole(self, sha256: bytes | None) -> Content | None:
        if sha256 is None:
            return None
        return Content(sha256=sha256, data=self._content(sha256)[1])

    def _node(self, own: bytes | None) -> Node | None:
        """Give a node, which is put in its place with those before it where it is not there."""
        additions, project_id = self._ledger.additions, self._project_id
        path: list[bytes] = []
        node: Node | None = None
        while own is not None and (node := additions.node(project_id, own)) is None:
            path.append(own)
            own = self._block.nodes[own].parent
        for one in reversed(path):
            stored = self._block.nodes[one]
            sha256, data = self._content(stored.sha256)
            message = Message(stored.lead, data, sha256, one, stored.role, stored.meaning)
            content_id = additions.message(project_id, message)
            node = additions.add_node(project_id, node, message, content_id)
        return node

    def _mark(self, line: SpanLine) -> Mark:
        return (self._project_id, *key_of(line)), bytes.fromhex(line.same_call or "")

    def _keep_early(self, spans: Iterable[SpanLine]) -> None:
        waiting = {bytes.fromhex(one.id): one for one in spans if one.early_end is not None}
        rows: Mapping[bytes, object] = {
            row[0]: row for row in self._tx.look_up(KNOWN_EARLY, self._key, [*waiting])
        }
        self._tx.insert_rows(
            KEEP_EARLY,
            [
                {
                    "project_id": self._project_id,
                    "ended_id": ended_id,
                    "at_us": line.early_end.arrived_at_us,
                    "told": told_of(self._project_id, line, line.early_end),
                }
                for ended_id, line in waiting.items()
                if line.early_end is not None and ended_id not in rows
            ],
        )

    def _describe_session(self) -> None:
        """Give a new session its name, star and budget; of one that is there they stay."""
        session = self._block.session
        if session is None or not self._has_session():
            return
        key: Params = {**self._key, "session_id": session.id}
        if session.name is not None or session.starred:
            self._tx.execute(
                NAME_SESSION, {**key, "name": session.name, "starred": int(session.starred)}
            )
        if session.budget_nusd is not None:
            self._tx.execute(NOTE_LIMIT, {**key, "limit_nusd": session.budget_nusd})

    def _forgotten(self, traces: Iterable[TraceKey]) -> set[bytes]:
        """Give those of these traces of which the content was forgotten there, and here as well."""
        told = [key[1] for key in traces if self._block.traces[key[1]].forgotten_at_us is not None]
        return {row[0] for row in self._tx.look_up(FORGOTTEN, self._key, told)}

    def _forget(self, forgotten: Collection[bytes]) -> None:
        """Note when the content of traces was forgotten, where no other span of them holds any.

        Such came here by another way, also between two parts. Where all was forgotten before this
        part nothing holds any: a long trace is not looked through with each part.
        """
        for key, change in self._ledger.traces.items():
            line: TraceLine = self._block.traces[key[1]]
            if line.forgotten_at_us is None or not change.touched:
                continue
            named: Params = {**self._key, "trace_id": key[1]}
            if key[1] in forgotten or not self._tx.execute(HOLDS_STILL, named):
                self._tx.execute(FORGET, {**named, "forgotten_at_us": line.forgotten_at_us})

    def _mention(self) -> None:
        """Note which session said what, and have full text hear of it."""
        unheard: list[int] = []
        spans = [
            (change.session_key, facts.seq)
            for change in self._ledger.traces.values()
            for facts in change.spans.values()
        ]
        for session_key, seq in sorted(spans, key=lambda one: one[1]):
            unheard += mention_again(self._tx, session_key, (seq,))
        await_index(self._tx, unheard)
