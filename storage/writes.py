"""What the recorder does in one transaction: spans, their bodies, and who settles whose usage.

Invariant: the first end of a span is the only one; a start or a checkpoint after it changes
nothing, so a batch can be written twice. A body is stored only where a span's row names it. An
end finds its row or makes it, so a call that was in flight when its trace was deleted comes back
whole, as a call that ended after the deletion; its checkpoints and its start do not come back.
Sums are rollup.py's, deletion is forget.py's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from storage import budgets
from storage.aggregates import SPAN_FACTS, SpanFacts
from storage.chain import Conversation
from storage.columns import (
    CHECKPOINT_COLUMNS,
    CONVERSATION_COLUMNS,
    END_COLUMNS,
    START_COLUMNS,
    TOKEN_COLUMNS,
)
from storage.contents import drop_contents
from storage.continuation import answer_before, find_session, join, place_of
from storage.conversation import brought_in, look_up, store_chain, store_envelope
from storage.database import Transaction, Value
from storage.events import log_changes
from storage.fulltext import await_index
from storage.keys import SessionKey, SpanKey, TraceKey
from storage.ledger import Ledger
from storage.mentions import mention
from storage.moving import adopt
from storage.parameters import UNKNOWN_SOURCE, Batch, SpanWrite, clean_key
from storage.placing import Found, Places
from storage.records import RUNNING, SpanEnd, SpanStart, Taken
from storage.rollup import roll_up
from storage.twins import Seen, match, match_calls

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)


@dataclass(frozen=True, slots=True)
class Written:
    """What a batch changed.

    ``late`` counts the changes that came too late to change anything, ``unindexed`` the messages
    that are to come into full text (``fulltext.index``). ``taken`` are the traces of calls that are
    not in their own, by the keys that the calls know themselves by.
    """

    spans: tuple[SpanKey, ...]
    traces: tuple[TraceKey, ...]
    sessions: tuple[SessionKey, ...]
    late: int
    unindexed: int
    taken: Mapping[SpanKey, Taken] = field(default_factory=dict)


def apply(tx: Transaction, batch: Batch) -> Written:
    """Write a batch that ``prepare`` made.

    Raises StatementRefused where a call's messages follow one that is not there (any more).
    """
    n = len(batch.spans)
    if not n:
        return Written((), (), (), batch.late, 0)
    ledger = Ledger(tx, late=batch.late)
    ledger.take_seqs(n)  # for all at once; one that no row takes is a gap, which orders as well
    places = _look_up(ledger, batch.spans)
    for write in batch.spans:
        _write_span(ledger, write, places.find(write))
    _insert_started(ledger)
    ledger.flush()
    _drop_replaced(ledger)
    # After all ends, so that a call is settled by another of its batch in whatever order they are.
    written = set(ledger.spans)
    settled = [
        _settle(ledger, write.key, write.settles)
        for write in batch.spans
        if write.settles is not None and write.key in written
    ]
    ended = ((write.key, write.end) for write in batch.spans if write.key in written)
    match_calls(ledger, [_seen(key, end) for key, end in ended if end is not None])
    if settled:
        match(ledger, [key for key in settled if key is not None])
    if ledger.named:
        adopt(ledger, ledger.named)
    sessions = roll_up(ledger)
    await_index(tx, ledger.unheard)
    log_changes(ledger, sessions)  # last: it has all other writers of events wait for the commit
    traces = tuple(
        key for key, change in ledger.traces.items() if change.touched and not change.emptied
    )
    taken = _taken(ledger, batch.spans)
    return Written(tuple(ledger.spans), traces, sessions, ledger.late, len(ledger.unheard), taken)


def _seen(key: SpanKey, end: dict[str, Value]) -> Seen:
    """Give what a call that ended may have in common with a span that was handed in."""
    # What only asked for a response has no usage; what has no owner was handed in itself.
    has_usage = end["usage_source"] is not None and end["owner"] is not None
    parent_id, response_id = end["parent_id"], end["response_id"]
    return Seen(
        key,
        parent_id if has_usage and isinstance(parent_id, bytes) else None,
        response_id if has_usage and isinstance(response_id, str) else None,
    )


def _taken(ledger: Ledger, spans: Sequence[SpanWrite]) -> dict[SpanKey, Taken]:
    """Say of the calls that are not in traces of their own, in which they are."""
    taken = {}
    for write in spans:
        key = ledger.went.get(write.key, write.key)
        if key != write.own:
            change = ledger.traces[key[:2]]
            taken[write.own] = Taken(key[1], change.session_id, change.session_source)
    return taken


def _insert(columns: Iterable[str]) -> str:
    columns = tuple(columns)
    return f"""
INSERT INTO spans ({", ".join(columns)}) VALUES ({", ".join(f":{c}" for c in columns)})
"""


ONE_SPAN: Final = "project_id = :project_id AND trace_id = :trace_id AND span_id = :span_id"
INSERT_START: Final = _insert(START_COLUMNS)
INSERT_END: Final = _insert(dict.fromkeys((*START_COLUMNS, *END_COLUMNS)))
UPDATE_END: Final = f"""
UPDATE spans SET {", ".join(f"{c} = :{c}" for c in END_COLUMNS)} WHERE {ONE_SPAN}
"""
UPDATE_CHECKPOINT: Final = f"""
UPDATE spans SET {", ".join(f"{c} = :{c}" for c in CHECKPOINT_COLUMNS)} WHERE {ONE_SPAN}
"""


def _look_up(ledger: Ledger, spans: Sequence[SpanWrite]) -> Places:
    """Read what is there already of these spans, and of what they bring."""
    places = Places(ledger, spans)
    conversations: dict[int, list[Conversation]] = {}
    bodies: dict[int, list[bytes]] = {}
    for write in spans:
        project_id = write.key[0]
        if write.ended is not None and write.ended.conversation is not None:
            conversations.setdefault(project_id, []).append(write.ended.conversation)
        for body in write.bodies.values():
            holes = () if body.envelope is None else body.envelope.holes
            bodies.setdefault(project_id, []).extend(
                content.sha256 for content in (body.content, *holes) if content is not None
            )
    for project_id, hashes in bodies.items():
        ledger.additions.look_up_contents(project_id, hashes)
    for project_id, those in conversations.items():
        look_up(ledger.additions, project_id, those)
    return places


def _write_span(ledger: Ledger, write: SpanWrite, found: Found | None) -> None:
    if write.start is not None:
        if found is None:
            found = _start(ledger, write, write.start)
        else:
            ledger.late += 1
    is_running = found is not None and found.state == RUNNING
    if write.checkpoint is not None:
        if found is not None and is_running:
            _save_progress(ledger, write, write.checkpoint, found)
        else:
            ledger.late += 1
    if write.end is not None and write.ended is not None:
        if found is None or is_running:
            _end(ledger, write, write.end, write.ended, found)
        else:
            ledger.late += 1


def _start(ledger: Ledger, write: SpanWrite, values: dict[str, Value]) -> Found:
    values["seq"] = ledger.take_seq()
    _name_session(ledger, write)
    span = SpanFacts.of_start(values)
    _changed(ledger, write.key, span, inserted=1)
    ledger.started.append(values)
    return Found(None, RUNNING, span.seq, span.started_at_us, None, None)


def _insert_started(ledger: Ledger) -> None:
    ledger.tx.insert_rows(INSERT_START, ledger.started)
    ledger.started.clear()


def _save_progress(
    ledger: Ledger, write: SpanWrite, checkpoint: dict[str, Value], found: Found
) -> None:
    _insert_started(ledger)  # it may be of this batch
    values = {**checkpoint, **_params(write.key)}
    stored = ledger.additions.stored_bytes
    before = stored[write.key[0]]
    _store_bodies(ledger, write, values, found.seq)
    values["stored_bytes"] = stored[write.key[0]] - before + _carried(values, found)
    ledger.tx.execute(UPDATE_CHECKPOINT, values)
    _replaced(ledger, write.key[0], values, found)
    # The sums stay, but who watches the call wants to know.
    ledger.spans.append(write.key)


def _end(
    ledger: Ledger,
    write: SpanWrite,
    values: dict[str, Value],
    ended: SpanEnd,
    found: Found | None,
) -> None:
    project_id = write.key[0]
    seq = values["seq"] = ledger.take_seq() if found is None else found.seq
    change = ledger.trace(write.key[:2])
    _write_what_it_follows(ledger, project_id, ended)
    previous = answer_before(ledger.tx, project_id, seq, ended)
    # Who names a trace has the session that this has, or none.
    if write.session_id is None and change.session_id is None and write.key == write.own:
        find_session(ledger, change, ended, previous)
    _name_session(ledger, write)
    values["session_key"] = change.session_key
    stored = ledger.additions.stored_bytes
    before = stored[project_id]
    _store_bodies(ledger, write, values, seq)
    values.update(_NO_CONVERSATION)
    if ended.conversation is not None:
        if ledger.ends_hold(_places(change.session_key, ended)):
            ledger.write_ends()
        chain = store_chain(ledger.additions, project_id, ended.conversation)
        place = place_of(ledger, change, seq, ended, ended.conversation, previous)
        fresh_count = chain.length if place.after is None else place.after
        instructs = place.prelude_id is None or place.prelude_id != chain.prelude_id
        brought = brought_in(ledger, chain, fresh_count, instructs=instructs)
        mention(ledger, change.session_key, seq, brought)
        values["input_node_id"] = chain.input_id
        values["output_node_id"] = chain.output_id
        values["prelude_node_id"] = chain.prelude_id
        values["fresh_count"] = fresh_count
        values["base_meaning"] = place.base_meaning
        values["input_meaning"] = place.input_meaning
        values["output_meaning"] = place.output_meaning
    values["stored_bytes"] = stored[project_id] - before + _carried(values, found)
    ledger.put_end(INSERT_END if found is None else UPDATE_END, values, is_new=found is None)
    if found is not None:
        values["started_at_us"] = found.started_at_us
        if change.tally is not None:  # of a long trace, which moves by the difference
            begun = {"seq": seq, "started_at_us": found.started_at_us, **_given(ended.start)}
            change.before.setdefault(write.key[2], SpanFacts.of_start(begun))
    _changed(ledger, write.key, SpanFacts.of_end(values), inserted=int(found is None))
    _replaced(ledger, write.key[0], values, found)
    # What it reserved stands for a cost that is not known; most calls reserve nothing.
    if ended.reserved and values["cost_nusd"] is not None:
        budgets.release(ledger.tx, write.key)


def _write_what_it_follows(ledger: Ledger, project_id: int, ended: SpanEnd) -> None:
    """Have the ends written by which a call finds its session."""
    if ended.previous_response_id is not None:
        follows = ledger.ends_hold([(project_id, clean_key(ended.previous_response_id))])
    else:
        points = () if ended.conversation is None else ended.conversation.points
        follows = ended.infer_session and ledger.ends_hold(point.meaning for point in points)
    if follows:
        ledger.write_ends()


def _places(session_key: int, ended: SpanEnd) -> Iterator[object]:
    """Give what ends hold from which a call may go on in its session."""
    if ended.keeps_state:
        yield session_key
    if ended.conversation is not None:
        for point in ended.conversation.points:
            yield session_key, point.meaning


def _given(start: SpanStart) -> dict[str, Any]:
    return {"name": start.name, "user_id": start.user_id, "parent_id": start.parent_id}


_NO_CONVERSATION: Final = dict.fromkeys(CONVERSATION_COLUMNS)


def _name_session(ledger: Ledger, write: SpanWrite) -> None:
    if write.session_id is not None:
        change = ledger.trace(write.key[:2])
        join(ledger, change, write.session_id, write.session_source or UNKNOWN_SOURCE)


def _changed(ledger: Ledger, key: SpanKey, span: SpanFacts, *, inserted: int) -> None:
    change = ledger.trace(key[:2])
    change.spans[key[2]] = span
    change.inserted += inserted
    change.moved[key[2]] = inserted
    if span.model is not None:
        change.models[span.model] += 1
    ledger.spans.append(key)


def _store_bodies(
    ledger: Ledger, write: SpanWrite, values: dict[str, Value], span_seq: int
) -> None:
    """Store what is kept of the bodies and put it, or its id, into ``values``."""
    additions, project_id = ledger.additions, write.key[0]
    for which, body in write.bodies.items():
        if body.content is not None:
            content = body.content
            content_id = additions.content(project_id, content.sha256, content.data)
            values[f"{which}_content_id"] = content_id
        elif body.envelope is not None:
            values[f"{which}_envelope"] = store_envelope(
                additions, project_id, span_seq, body.envelope
            )


def _carried(values: dict[str, Value], found: Found | None) -> int:
    """Give the bytes of a body that the last checkpoint stored, and that are the call's still."""
    if found is None or found.content_id is None:
        return 0
    return (found.stored_bytes or 0) if found.content_id == values["response_content_id"] else 0


def _replaced(
    ledger: Ledger, project_id: int, values: dict[str, Value], found: Found | None
) -> None:
    """Note the body of an earlier checkpoint, which is this span's no longer."""
    if found is None or found.content_id is None:
        return
    if found.content_id != values["response_content_id"]:
        ledger.replaced.append((project_id, found.content_id))


def _drop_replaced(ledger: Ledger) -> None:
    """Forget the bodies of earlier checkpoints, when all is written that may hold them."""
    for project_id, content_id in ledger.replaced:
        _, freed_bytes = drop_contents(ledger.tx, (content_id,))
        ledger.additions.stored_bytes[project_id] -= freed_bytes


# The oldest span that has the response's id is the one that made it; those that only asked for it
# come later. Its own usage, and the first that was reported, stand.
FIND_SETTLED: Final = """
SELECT trace_id, span_id, usage_source, COALESCE(model, model_requested) FROM spans
WHERE project_id = :project_id AND response_id = :response_id AND owner IS NOT NULL
  AND NOT (trace_id = :trace_id AND span_id = :span_id)
ORDER BY started_at_us, seq LIMIT 1
"""
SETTLE: Final = f"""
UPDATE spans SET settled_by = :settled_by, usage_source = 'provider',
model = COALESCE(:model, model), service_tier = COALESCE(:service_tier, service_tier),
{", ".join(f"{c} = :{c}" for c in (*TOKEN_COLUMNS, "cost_nusd", "cost_status", "price_version"))}
WHERE {ONE_SPAN} RETURNING {SPAN_FACTS}
"""
NOT_USAGE: Final = (None, "missing", "estimated")


def _settle(ledger: Ledger, reporter: SpanKey, values: dict[str, Value]) -> SpanKey | None:
    """Give a call the usage that another reports of it; return whose it is, if anybody's."""
    tx, project_id = ledger.tx, reporter[0]
    found = tx.execute(FIND_SETTLED, {**values, **_params(reporter)})
    if not found or found[0][2] not in NOT_USAGE:
        return None
    trace_id, span_id, _, old_model = found[0]
    key = (project_id, trace_id, span_id)
    (row,) = tx.execute(SETTLE, {**values, **_params(key), "settled_by": reporter[2]})
    span = SpanFacts.of(row)
    change = ledger.trace((project_id, trace_id))
    change.spans[span_id] = span
    if old_model is not None:
        change.models[old_model] -= 1
    if span.model is not None:
        change.models[span.model] += 1
    if key not in ledger.spans:
        ledger.spans.append(key)
    if values["cost_nusd"] is not None:
        budgets.release(tx, key)
    return key


def _params(key: SpanKey) -> dict[str, Value]:
    return {"project_id": key[0], "trace_id": key[1], "span_id": key[2]}
