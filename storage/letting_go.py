"""What calls held and mentioned goes with them: nodes, contents, words, and who went on from them.

Invariant: when calls are gone from a session, or only their content is, nobody goes on from a place
that none holds, the session mentions what its other calls bring and names the oldest of them, and
what nobody holds is deleted. The work is that of the calls that went and of those that went on from
them, not that of their whole session. Sums are not touched here.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from storage.additions import ADD_MENTIONS, MENTIONED
from storage.contents import drop_contents
from storage.continuation import replant_at
from storage.conversation import drop_nodes, known_holes_of
from storage.database import Params, Row, Transaction
from storage.fulltext import TextOf, await_index, leave_index
from storage.mentions import WITHDRAW, brought_by_call, mention_calls, unheard

# What a span held, as it was before it went.
HELD_COLUMNS: Final = (
    *("seq", "span_id", "request_content_id", "response_content_id"),
    *("request_envelope", "response_envelope"),
    *("input_node_id", "output_node_id", "input_meaning", "output_meaning"),
)


@dataclass(slots=True)
class Leaving:
    """Calls of one session, or of a trace without one, that went: what they held and brought.

    ``spans`` are rows of ``HELD_COLUMNS``; what they have of their own is gone already.
    """

    session_key: int
    spans: list[Row] = field(default_factory=list)
    brought: set[int] = field(default_factory=set)

    @property
    def seqs(self) -> set[int]:
        """The numbers of the calls."""
        return {span[0] for span in self.spans}


FREED: Final = "DELETE FROM holes WHERE content_id = :content_id AND span_seq = :span_seq"
MENTIONS: Final = """
SELECT content_id, span_seq FROM mentions
WHERE session_key = :session_key AND content_id IN (:keys)
"""
# Not by DISTINCT, which would read all places of a message that everybody sends.
STANDING: Final = """
SELECT c.id FROM contents c
WHERE EXISTS (SELECT 1 FROM nodes n WHERE n.content_id = c.id) AND c.id IN (:keys)
"""


def let_go(
    tx: Transaction, leaving: Leaving, text_of: TextOf, *, anew: bool = False
) -> tuple[int, int]:
    """Drop what these calls held and nobody else does; return contents and bytes, as stored.

    With ``anew``, calls that went on from them begin anew: what went before them goes as well.
    """
    spans, session_key = leaving.spans, leaving.session_key
    places = {place for span in spans for place in span[8:10] if place is not None}
    replanted = replant_at(tx, session_key, places, anew=anew)
    held = _release(tx, spans)
    taken = _taken(tx, leaving, replanted.left, replanted.seqs)
    tx.execute_many(WITHDRAW, [{"content_id": one, "old_key": session_key} for one in taken])
    again = mention_calls(tx, session_key, replanted.seqs)
    _find_others(tx, session_key, min(leaving.seqs, default=0), taken)
    mentioned = {row[0] for row in tx.look_up(MENTIONED, {}, sorted(taken))}
    leave_index(tx, sorted(taken - mentioned), text_of)
    await_index(tx, unheard(tx, session_key, sorted(again - taken)))
    contents, freed_bytes = drop_contents(tx, sorted(held))
    return contents, freed_bytes + sum(len(body) for s in spans for body in s[4:6] if body)


def _release(tx: Transaction, spans: Sequence[Row]) -> set[int]:
    """Let go of nodes and holes; return the contents that may be held by nobody now."""
    held: set[int] = set()
    for seq, _, *content_ids, request, response, input_node_id, output_node_id, _, _ in spans:
        held.update(one for one in content_ids if one is not None)
        for content_id in (*known_holes_of(request), *known_holes_of(response)):
            tx.execute(FREED, {"content_id": content_id, "span_seq": seq})
            held.add(content_id)
        held.update(drop_nodes(tx, input_node_id))
        held.update(drop_nodes(tx, output_node_id))
    return held


def _taken(
    tx: Transaction, leaving: Leaving, left: Collection[int], replanted: Collection[int]
) -> set[int]:
    """Give the contents of which the session's mention names a call that no longer brings them."""
    seqs, also = leaving.seqs, {*left}
    key: Params = {"session_key": leaving.session_key}
    rows = tx.look_up(MENTIONS, key, sorted(leaving.brought | also))
    return {
        content_id
        for content_id, seq in rows
        if seq in seqs or (content_id in also and seq in replanted)
    }


# Those that bring anything: the content of others was forgotten.
LATER_CALLS: Final = """
SELECT seq FROM spans WHERE session_key = :session_key AND seq > :after
  AND COALESCE(input_node_id, output_node_id, prelude_node_id) IS NOT NULL
ORDER BY seq LIMIT 20
"""


def _find_others(tx: Transaction, session_key: int, after: int, taken: Collection[int]) -> None:
    """Mention what other calls bring as well: younger ones, since a mention names the oldest."""
    pending = {row[0] for row in tx.look_up(STANDING, {}, sorted(taken))}
    while pending:
        later = tx.execute(LATER_CALLS, {"session_key": session_key, "after": after})
        if not later:
            return
        for (seq,) in later:
            found = pending & brought_by_call(tx, seq)
            pending -= found
            for content_id in sorted(found):
                row = {"content_id": content_id, "session_key": session_key, "span_seq": seq}
                tx.execute(ADD_MENTIONS, row)
            after = seq
            if not pending:
                return
