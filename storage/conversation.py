"""Conversations as they are stored: each message once, in a chain that calls share and extend.

Invariants: a node is there only if all nodes before it are; the content of each has a row in
messages; what is in a hole of an envelope is kept for its span. Which session a call belongs to
and what its conversation means is continuation.py's; the way back to bytes is rebuild.py's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from storage.additions import Additions, Node
from storage.chain import Conversation, Message
from storage.database import DatabaseCorrupt, Params, StatementRefused, Transaction
from storage.ledger import Ledger
from storage.records import Envelope
from storage.squeeze import expand, squeeze

# The id of what is in the hole of the messages: no content has it.
MESSAGES: Final = 0
# Messages of an input that are looked up with those of other calls. Of more, which come without the
# beginning that the last call gave, most are there: the deepest that is costs fewer looks.
FEW_MESSAGES: Final = 8

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[list[bytes], list[int]]).decode


@dataclass(slots=True)
class Chain:
    """Where a call's messages stand.

    ``inputs`` and ``answers`` have the contents of those of which the node is new, in order.
    """

    input: Node | None = None
    output: Node | None = None
    prelude: Node | None = None
    inputs: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    @property
    def input_id(self) -> int | None:
        """The last node of the input."""
        return None if self.input is None else self.input.id

    @property
    def output_id(self) -> int | None:
        """The last node of the answer."""
        return None if self.output is None else self.output.id

    @property
    def prelude_id(self) -> int | None:
        """The last node of what instructs the model."""
        return None if self.prelude is None else self.prelude.id

    @property
    def length(self) -> int:
        """The number of messages of the input behind those that instruct."""
        return (self.input.depth if self.input else 0) - (self.prelude.depth if self.prelude else 0)


def store_envelope(
    additions: Additions, project_id: int, span_seq: int, envelope: Envelope
) -> bytes:
    """Store what is in the holes of a body; return the body round them as it is kept.

    That is [pieces, ids] in MessagePack, squeezed: the ids of the contents in the holes.
    """
    ids = []
    for hole in envelope.holes:
        if hole is None:
            ids.append(MESSAGES)
        else:
            content_id = additions.content(project_id, hole.sha256, hole.data)
            additions.hold(content_id, span_seq)
            ids.append(content_id)
    packed = squeeze(_encode((envelope.pieces, ids)))
    additions.stored_bytes[project_id] += len(packed)
    return packed


def unpack_envelope(packed: bytes) -> tuple[list[bytes], list[int]]:
    """Give the pieces of an envelope and the ids of what is in its holes, ``MESSAGES`` for one.

    Raises DatabaseCorrupt where it is none.
    """
    try:
        return _decode(expand(packed))
    except msgspec.MsgspecError as error:
        raise DatabaseCorrupt("spans", f"an envelope does not unpack ({error})") from error


def holes_of(packed: bytes | None) -> list[int]:
    """Give the contents in the holes of an envelope, if there is one."""
    return [] if packed is None else [one for one in unpack_envelope(packed)[1] if one != MESSAGES]


def known_holes_of(packed: bytes | None) -> list[int]:
    """Give the contents in the holes of an envelope; none of one that is damaged."""
    try:
        return holes_of(packed)
    except DatabaseCorrupt:
        return []


def look_up(additions: Additions, project_id: int, conversations: Sequence[Conversation]) -> None:
    """Find out at once what is there of the messages of many calls, but for those of long ones."""
    nodes: list[bytes] = []
    contents: list[bytes] = []
    for conversation in conversations:
        nodes += filter(None, (conversation.known, conversation.prelude))
        few = conversation.messages if len(conversation.messages) <= FEW_MESSAGES else ()
        for message in (*few, *conversation.answer):
            nodes.append(message.node)
            contents.append(message.sha256)
    additions.look_up_nodes(project_id, nodes)
    additions.look_up_contents(project_id, contents)


def store_chain(additions: Additions, project_id: int, conversation: Conversation) -> Chain:
    """Store those messages of a call that are not there yet.

    Raises StatementRefused where the message before them, which is said to be there, is not.
    """
    chain = Chain()
    parent = None
    if conversation.known is not None:
        parent = additions.node(project_id, conversation.known)
        if parent is None:
            raise StatementRefused("nodes", "the messages before those of a call are not there")
    chain.input = _extend(additions, project_id, parent, conversation.messages, chain.inputs)
    tip = _extend(additions, project_id, chain.input, conversation.answer, chain.answers)
    chain.output = tip if conversation.answer else None
    if conversation.prelude is not None:
        chain.prelude = additions.node(project_id, conversation.prelude)
    return chain


def _extend(
    additions: Additions,
    project_id: int,
    tip: Node | None,
    messages: Sequence[Message],
    added: list[int],
) -> Node | None:
    """Put messages behind the tip and return the last one's place; ``added`` gets what is new."""
    low, high = 0, len(messages)
    while low < high:
        middle = (low + high) // 2
        found = additions.node(project_id, messages[middle].node)
        if found is None:
            high = middle
        else:
            low, tip = middle + 1, found
    new = messages[low:]
    additions.look_up_contents(project_id, [message.sha256 for message in new])
    if len(messages) > FEW_MESSAGES:
        additions.reserve(len(new))
    for message in new:
        content_id = additions.message(project_id, message)
        tip = additions.add_node(project_id, tip, message, content_id)
        added.append(content_id)
    return tip


# The contents of a chain from a node upwards, from one depth down to another.
WALK_UP: Final = """
WITH RECURSIVE up (parent_id, content_id, depth) AS (
  SELECT parent_id, content_id, depth FROM nodes WHERE id = :id
  UNION ALL
  SELECT n.parent_id, n.content_id, n.depth FROM up JOIN nodes n ON n.id = up.parent_id
  WHERE n.depth > :above AND n.depth < up.depth
)
SELECT content_id FROM up WHERE depth <= :depth
"""


def brought_in(ledger: Ledger, chain: Chain, fresh_count: int, *, instructs: bool) -> set[int]:
    """Give the contents that a call brings into its session.

    They are the last ``fresh_count`` messages of its input, its answer and, where ``instructs``,
    what instructs the model.
    """
    brought: set[int] = set()
    if instructs and chain.prelude is not None:
        brought |= _last(ledger, chain.prelude, chain.prelude.depth, [])
    if chain.input is not None:
        brought |= _last(ledger, chain.input, fresh_count, chain.inputs)
    if chain.output is not None:
        above = 0 if chain.input is None else chain.input.depth
        brought |= _last(ledger, chain.output, chain.output.depth - above, chain.answers)
    return brought


def _last(ledger: Ledger, tip: Node, n: int, added: list[int]) -> set[int]:
    """Give the last ``n`` contents of a chain, of which those ``added`` are the last."""
    contents = set(added[-n:] if n else ())
    rest = n - len(added)
    if rest == 1 and not added:
        contents.add(tip.content_id)
    elif rest > 0:
        params: Params = {"id": tip.id, "above": tip.depth - n, "depth": tip.depth - len(added)}
        ledger.additions.flush()
        contents.update(content_id for (content_id,) in ledger.tx.execute(WALK_UP, params))
    return contents


DROP_NODE: Final = """
DELETE FROM nodes WHERE id = :id
AND NOT EXISTS (SELECT 1 FROM nodes WHERE parent_id = :id)
AND NOT EXISTS (SELECT 1 FROM spans WHERE input_node_id = :id)
AND NOT EXISTS (SELECT 1 FROM spans WHERE output_node_id = :id)
RETURNING parent_id, content_id
"""
DROP_MESSAGE: Final = """
DELETE FROM messages WHERE content_id = :content_id
AND NOT EXISTS (SELECT 1 FROM nodes WHERE content_id = :content_id)
"""


def drop_nodes(tx: Transaction, node_id: int | None) -> list[int]:
    """Delete the nodes from this one upwards that no call holds; return their contents."""
    contents = []
    while node_id is not None and (dropped := tx.execute(DROP_NODE, {"id": node_id})):
        ((node_id, content_id),) = dropped
        tx.execute(DROP_MESSAGE, {"content_id": content_id})
        contents.append(content_id)
    return contents
