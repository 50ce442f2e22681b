"""The rows that a transaction is going to add, gathered so that one statement writes many.

Owns the ids of contents and nodes, which it takes before the rows are there. Invariants: what it
gave an id is in the database after ``flush``, or the transaction fails; bytes are stored once per
project, and each that is stored is counted. Whoever reads these tables by SQL of its own flushes
first. What the rows mean is conversation.py's and mentions.py's business.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from storage.chain import Message
from storage.contents import pack
from storage.database import Params, Transaction
from storage.parameters import clean_text

FIND_CONTENTS: Final = """
SELECT c.sha256, c.id, m.content_id IS NOT NULL
FROM contents c LEFT JOIN messages m ON m.content_id = c.id
WHERE c.project_id = :project_id AND c.sha256 IN (:keys)
"""
FIND_NODES: Final = """
SELECT hash, id, content_id, depth FROM nodes WHERE project_id = :project_id AND hash IN (:keys)
"""
ADD_CONTENTS: Final = """
INSERT INTO contents (id, project_id, sha256, encoding, size, data)
VALUES (:id, :project_id, :sha256, :encoding, :size, :data)
"""
ADD_MESSAGES: Final = """
INSERT INTO messages (content_id, role, meaning) VALUES (:content_id, :role, :meaning)
"""
ADD_NODES: Final = """
INSERT INTO nodes (id, project_id, parent_id, content_id, depth, hash, lead)
VALUES (:id, :project_id, :parent_id, :content_id, :depth, :hash, :lead)
"""
ADD_HOLES: Final = """
INSERT INTO holes (content_id, span_seq) VALUES (:content_id, :span_seq)
ON CONFLICT (content_id, span_seq) DO NOTHING
"""
# Of contents that were there before, those that somebody mentioned.
MENTIONED: Final = """
SELECT c.id FROM contents c
WHERE EXISTS (SELECT 1 FROM mentions m WHERE m.content_id = c.id) AND c.id IN (:keys)
"""
ADD_MENTIONS: Final = """
INSERT INTO mentions (content_id, session_key, span_seq)
VALUES (:content_id, :session_key, :span_seq)
ON CONFLICT (content_id, session_key) DO NOTHING
"""


class Node(NamedTuple):
    """A place in a chain. The depth of a first message is 1."""

    id: int
    content_id: int
    depth: int


class Additions:
    """The new rows of one transaction, and what it has looked up so as not to add them twice.

    ``fresh`` are the contents that were not there before it, ``unheard`` those that nobody
    mentioned before it and somebody does now, when they are written; ``stored_bytes`` is by how
    much the contents and envelopes of each project grew.
    """

    def __init__(self, tx: Transaction) -> None:
        self.fresh: set[int] = set()
        self.unheard: list[int] = []
        self.stored_bytes: Counter[int] = Counter()
        self._tx = tx
        self._wanted_ids = 0
        self._ids: Iterator[int] = iter(())
        # What is known of the database: None where it has no such row.
        self._contents: dict[tuple[int, bytes], int | None] = {}
        self._nodes: dict[tuple[int, bytes], Node | None] = {}
        self._messages: set[int] = set()
        self._mentioned: dict[int, set[int]] = {}
        # Mentioned now, and perhaps before: in order, each once.
        self._to_hear: dict[int, None] = {}
        # In the order in which they refer to each other.
        self._rows: dict[str, list[Params]] = {
            sql: [] for sql in (ADD_CONTENTS, ADD_MESSAGES, ADD_NODES, ADD_HOLES, ADD_MENTIONS)
        }

    def reserve(self, n: int) -> None:
        """Have so many ids taken at once, with those of what was looked up and is not there."""
        self._wanted_ids += n

    def look_up_contents(self, project_id: int, hashes: Iterable[bytes]) -> None:
        """Find out which of these contents are there."""
        keys = [one for one in dict.fromkeys(hashes) if (project_id, one) not in self._contents]
        self._contents.update(((project_id, one), None) for one in keys)
        rows = self._tx.look_up(FIND_CONTENTS, {"project_id": project_id}, keys)
        self.reserve(len(keys) - len(rows))
        for sha256, content_id, is_message in rows:
            self._contents[project_id, sha256] = content_id
            if is_message:
                self._messages.add(content_id)

    def look_up_nodes(self, project_id: int, hashes: Iterable[bytes]) -> None:
        """Find out which of these nodes are there."""
        keys = [one for one in dict.fromkeys(hashes) if (project_id, one) not in self._nodes]
        self._nodes.update(((project_id, one), None) for one in keys)
        rows = self._tx.look_up(FIND_NODES, {"project_id": project_id}, keys)
        self.reserve(len(keys) - len(rows))
        for node, *place in rows:
            self._nodes[project_id, node] = Node._make(place)

    def node(self, project_id: int, node: bytes) -> Node | None:
        """Give the node with this hash; None where there is none."""
        if (project_id, node) not in self._nodes:
            self.look_up_nodes(project_id, (node,))
        return self._nodes[project_id, node]

    def content(self, project_id: int, sha256: bytes, data: bytes) -> int:
        """Store bytes unless they are there, and return the id of their content."""
        key = (project_id, sha256)
        if key not in self._contents:
            self.look_up_contents(project_id, (sha256,))
        if (known := self._contents[key]) is not None:
            return known
        encoding, packed = pack(data)
        content_id = self._contents[key] = self._take_id()
        self._rows[ADD_CONTENTS].append(
            {
                "id": content_id,
                "project_id": project_id,
                "sha256": sha256,
                "encoding": encoding,
                "size": len(data),
                "data": packed,
            }
        )
        self.fresh.add(content_id)
        self.stored_bytes[project_id] += len(packed)
        return content_id

    def message(self, project_id: int, message: Message) -> int:
        """Store what a message says, unless it is there, and return the id of its content."""
        content_id = self.content(project_id, message.sha256, message.data)
        if content_id not in self._messages:
            self._messages.add(content_id)
            role = clean_text(message.role)
            self._rows[ADD_MESSAGES].append(
                {"content_id": content_id, "role": role, "meaning": message.meaning}
            )
        return content_id

    def add_node(
        self, project_id: int, parent: Node | None, message: Message, content_id: int
    ) -> Node:
        """Put a message behind another, where it does not stand yet."""
        depth = 1 if parent is None else parent.depth + 1
        node = Node(self._take_id(), content_id, depth)
        self._nodes[project_id, message.node] = node
        self._rows[ADD_NODES].append(
            {
                "id": node.id,
                "project_id": project_id,
                "parent_id": None if parent is None else parent.id,
                "content_id": content_id,
                "depth": depth,
                "hash": message.node,
                "lead": message.lead,
            }
        )
        return node

    def hold(self, content_id: int, span_seq: int) -> None:
        """Keep a content for the hole of a span's envelope."""
        self._rows[ADD_HOLES].append({"content_id": content_id, "span_seq": span_seq})

    def mention(self, content_id: int, session_key: int, span_seq: int) -> None:
        """Note which session brought a content."""
        sessions = self._mentioned.get(content_id)
        if sessions is None:
            sessions = self._mentioned[content_id] = set()
            if content_id in self.fresh:
                self.unheard.append(content_id)
            else:
                self._to_hear[content_id] = None
        if session_key not in sessions:
            sessions.add(session_key)
            self._rows[ADD_MENTIONS].append(
                {"content_id": content_id, "session_key": session_key, "span_seq": span_seq}
            )

    def flush(self) -> None:
        """Write what is not written yet."""
        if self._to_hear:
            heard = {row[0] for row in self._tx.look_up(MENTIONED, {}, [*self._to_hear])}
            self.unheard += (one for one in self._to_hear if one not in heard)
            self._to_hear.clear()
        for sql, rows in self._rows.items():
            if rows:
                self._tx.insert_rows(sql, rows)
                rows.clear()

    def _take_id(self) -> int:
        if (taken := next(self._ids, None)) is not None:
            return taken
        n, self._wanted_ids = max(self._wanted_ids, 1), 0
        self._ids = iter(self._tx.take_numbers("id", n))
        return next(self._ids)
