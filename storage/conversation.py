"""Conversations as they are stored: each message once, in a chain that calls share and extend.

Invariants: a node is there only if all nodes before it are; the content of each has a row in
messages; what is in a hole of an envelope is kept for its span. Which session a call belongs to
and what its conversation means is continuation.py's; the way back to bytes is rebuild.py's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from storage.chain import Conversation, Message
from storage.database import DatabaseCorrupt, Params, StatementRefused, Transaction
from storage.ledger import Ledger
from storage.parameters import clean_text
from storage.records import Content, Envelope
from storage.squeeze import expand, squeeze

# The id of what is in the hole of the messages: no content has it.
MESSAGES: Final = 0
# The last messages of an input that are most often new: the client's own form of the answer before,
# and what is said to it. Those before them were sent with the turn before.
NEW_MESSAGES: Final = 2

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[list[bytes], list[int]]).decode


class Node(NamedTuple):
    """A place in a chain. The depth of a first message is 1."""

    id: int
    content_id: int
    depth: int


@dataclass(slots=True)
class Chain:
    """Where a call's messages stand.

    ``inputs`` and ``answers`` have the contents of those of which the node is new, in order;
    ``new`` are the contents that were not stored before.
    """

    input: Node | None = None
    output: Node | None = None
    prelude: Node | None = None
    inputs: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    new: set[int] = field(default_factory=set)

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


def store_envelope(ledger: Ledger, project_id: int, span_seq: int, envelope: Envelope) -> bytes:
    """Store what is in the holes of a body; return the body round them as it is kept.

    That is [pieces, ids] in MessagePack, squeezed: the ids of the contents in the holes.
    """
    ids = []
    for hole in envelope.holes:
        if hole is None:
            ids.append(MESSAGES)
        else:
            content_id, _ = ledger.content(project_id, hole)
            ledger.tx.execute(HOLD, {"content_id": content_id, "span_seq": span_seq})
            ids.append(content_id)
    packed = squeeze(_encode((envelope.pieces, ids)))
    ledger.stored_bytes[project_id] += len(packed)
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


HOLD: Final = """
INSERT INTO holes (content_id, span_seq) VALUES (:content_id, :span_seq)
ON CONFLICT (content_id, span_seq) DO NOTHING
"""


def store_chain(ledger: Ledger, project_id: int, conversation: Conversation) -> Chain:
    """Store those messages of a call that are not there yet.

    Raises StatementRefused where the message before them, which is said to be there, is not.
    """
    chain = Chain()
    parent = None
    if conversation.known is not None:
        parent = _find(ledger.tx, project_id, conversation.known)
        if parent is None:
            raise StatementRefused("nodes", "the messages before those of a call are not there")
    messages = conversation.messages
    there, chain.input = _deepest(ledger.tx, project_id, parent, messages)
    for n, message in enumerate(messages[there:], there - len(messages)):
        content_id = _store(ledger, project_id, message, chain, sent_again=n < -NEW_MESSAGES)
        chain.input = _add(ledger.tx, project_id, chain.input, message, content_id)
        chain.inputs.append(content_id)
    there, tip = 0, chain.input
    if not chain.inputs:  # below a new node there is nothing yet
        there, tip = _deepest(ledger.tx, project_id, tip, conversation.answer)
    for message in conversation.answer[there:]:
        content_id = _store(ledger, project_id, message, chain, sent_again=False)
        tip = _add(ledger.tx, project_id, tip, message, content_id)
        chain.answers.append(content_id)
    chain.output = tip if conversation.answer else None
    if conversation.prelude is not None:
        chain.prelude = _find(ledger.tx, project_id, conversation.prelude)
    return chain


FIND_NODE: Final = """
SELECT id, content_id, depth FROM nodes WHERE project_id = :project_id AND hash = :hash
"""


def _find(tx: Transaction, project_id: int, node: bytes) -> Node | None:
    rows = tx.execute(FIND_NODE, {"project_id": project_id, "hash": node})
    return Node._make(rows[0]) if rows else None


def _deepest(
    tx: Transaction, project_id: int, parent: Node | None, messages: Sequence[Message]
) -> tuple[int, Node | None]:
    """Give how many of the messages are there, and the place of the last of these."""
    low, high = 0, len(messages)
    while low < high:
        middle = (low + high) // 2
        found = _find(tx, project_id, messages[middle].node)
        if found is None:
            high = middle
        else:
            low, parent = middle + 1, found
    return low, parent


FIND_MESSAGE: Final = """
SELECT c.id FROM contents c JOIN messages m ON m.content_id = c.id
WHERE c.project_id = :project_id AND c.sha256 = :sha256
"""
ADD_MESSAGE: Final = """
INSERT INTO messages (content_id, role, meaning) VALUES (:content_id, :role, :meaning)
ON CONFLICT (content_id) DO NOTHING
"""


def _store(
    ledger: Ledger, project_id: int, message: Message, chain: Chain, *, sent_again: bool
) -> int:
    """Store what a message says, unless it is there, and return the id of that.

    ``sent_again``: it is likely to be there, so that a look is worth its cost.
    """
    if sent_again:
        params: Params = {"project_id": project_id, "sha256": message.sha256}
        if found := ledger.tx.execute(FIND_MESSAGE, params):
            return int(found[0][0])
    content = Content(sha256=message.sha256, data=message.data)
    content_id, is_new = ledger.content(project_id, content)
    if is_new:
        chain.new.add(content_id)
    role = clean_text(message.role)
    ledger.tx.execute(
        ADD_MESSAGE, {"content_id": content_id, "role": role, "meaning": message.meaning}
    )
    return content_id


ADD_NODE: Final = """
INSERT INTO nodes (project_id, parent_id, content_id, depth, hash, lead)
VALUES (:project_id, :parent_id, :content_id, :depth, :hash, :lead)
"""


def _add(
    tx: Transaction, project_id: int, parent: Node | None, message: Message, content_id: int
) -> Node:
    depth = 1 if parent is None else parent.depth + 1
    params: Params = {
        "project_id": project_id,
        "parent_id": None if parent is None else parent.id,
        "content_id": content_id,
        "depth": depth,
        "hash": message.node,
        "lead": message.lead,
    }
    return Node(tx.insert(ADD_NODE, params), content_id, depth)


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


def brought_in(tx: Transaction, chain: Chain, fresh_count: int, *, instructs: bool) -> set[int]:
    """Give the contents that a call brings into its session.

    They are the last ``fresh_count`` messages of its input, its answer and, where ``instructs``,
    what instructs the model.
    """
    brought: set[int] = set()
    if instructs and chain.prelude is not None:
        brought |= _last(tx, chain.prelude, chain.prelude.depth, [])
    if chain.input is not None:
        brought |= _last(tx, chain.input, fresh_count, chain.inputs)
    if chain.output is not None:
        above = 0 if chain.input is None else chain.input.depth
        brought |= _last(tx, chain.output, chain.output.depth - above, chain.answers)
    return brought


def _last(tx: Transaction, tip: Node, n: int, added: list[int]) -> set[int]:
    """Give the last ``n`` contents of a chain, of which those ``added`` are the last."""
    contents = set(added[-n:] if n else ())
    rest = n - len(added)
    if rest == 1 and not added:
        contents.add(tip.content_id)
    elif rest > 0:
        params: Params = {"id": tip.id, "above": tip.depth - n, "depth": tip.depth - len(added)}
        contents.update(content_id for (content_id,) in tx.execute(WALK_UP, params))
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
