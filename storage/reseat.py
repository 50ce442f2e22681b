"""The session of a trace by an explicit word, which also takes it out of one that was inferred.

Rule: the first session that anybody names is the trace's; one that we only found by what its calls
said (continuation.py) yields to it. Invariant: after a move both sessions mention what their calls
bring, and each call goes on from a place that its session holds.
"""

from collections import Counter
from typing import Final

from storage.continuation import CONTINUATION, PREVIOUS_RESPONSE, join, replant
from storage.database import Params
from storage.ledger import Ledger, TraceChange
from storage.mentions import MENTION_BROUGHT, SET_SESSION_KEY, WITHDRAW, brought_by

INFERRED: Final = frozenset({CONTINUATION, PREVIOUS_RESPONSE})


def name_session(ledger: Ledger, change: TraceChange, session_id: str, source: str) -> None:
    """Put a trace into the session that an application names, unless another was named before."""
    if change.session_id is None:
        join(ledger, change, session_id, source)
    elif change.session_id != session_id and change.session_source in INFERRED:
        _leave(ledger, change, session_id, source)


COUNT_MENTIONS: Final = "SELECT COUNT(*) FROM mentions WHERE content_id = :content_id"


def _leave(ledger: Ledger, change: TraceChange, session_id: str, source: str) -> None:
    """Take a trace, with all that its calls brought, from its session to another."""
    tx, old_key = ledger.tx, change.session_key
    change.session_id, change.session_source = session_id, source
    if not change.has_ended_spans:
        return
    ledger.flush()
    brought = brought_by(tx, change.key)
    own: Params = {
        "project_id": change.key[0],
        "trace_id": change.key[1],
        "session_key": change.session_key,
    }
    tx.execute(SET_SESSION_KEY, own)
    tx.execute_many(WITHDRAW, [{"content_id": one, "old_key": old_key} for one in brought])
    again: Counter[int] = Counter()
    for number in (old_key, change.session_key):
        replant(tx, number)
        again.update(row[0] for row in tx.execute(MENTION_BROUGHT, {"session_key": number}))
    # A call whose place stayed behind brings more than before: what nobody mentioned until now.
    for content_id in again.keys() - brought:
        ((mentions,),) = tx.execute(COUNT_MENTIONS, {"content_id": content_id})
        if mentions == again[content_id]:
            ledger.unheard.append(content_id)
