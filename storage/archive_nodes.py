"""The nodes of a block: which stands behind which, told without walking the whole way.

Invariant: a node is added behind its parent, so that each has its depth and the length of all that
is said up to it; whether one stands behind another takes steps as the logarithm of their depth.
"""

from dataclasses import dataclass

from storage.chain import MAX_MESSAGES


@dataclass(slots=True)
class Stored:
    """A node of a block. ``said_bytes`` are those of the messages up to it, and of their leads.

    ``jump`` is one far above it; None is the beginning.
    """

    parent: bytes | None
    lead: bytes
    sha256: bytes
    role: str
    meaning: bytes
    depth: int = 1
    said_bytes: int = 0
    jump: bytes | None = None


class Nodes(dict[bytes, Stored]):
    """The nodes of a block by their hashes."""

    def add(self, own: bytes, node: Stored, size: int) -> None:
        """Add a node, of which the content has ``size`` bytes, behind its parent."""
        node.said_bytes = len(node.lead) + size
        if node.parent is not None:
            parent = self[node.parent]
            node.depth = parent.depth + 1
            node.said_bytes += parent.said_bytes
            # Two jumps of one length become one of twice the length.
            far = self.depth(parent.jump)
            farther = self.depth(self[parent.jump].jump) if parent.jump is not None else 0
            is_pair = parent.depth - far == far - farther
            node.jump = (
                self[parent.jump].jump if is_pair and parent.jump is not None else node.parent
            )
        self[own] = node

    def said_bytes(self, own: bytes | None) -> int:
        """Give how long all is that is said up to a node."""
        return 0 if own is None else self[own].said_bytes

    def follows(self, above: bytes | None, own: bytes | None) -> bool:
        """Tell whether a node, if there is one, stands behind another, and not too far."""
        if own is None:
            return True
        is_near = 0 < self.depth(own) - self.depth(above) <= MAX_MESSAGES
        return is_near and self.leads_to(above, own)

    def leads_to(self, above: bytes | None, own: bytes | None) -> bool:
        """Tell whether a node is another, or stands above it; None is the beginning."""
        depth = self.depth(above)
        one = own
        while one is not None and self[one].depth > depth:
            jump = self[one].jump
            one = jump if self.depth(jump) >= depth else self[one].parent
        return one == above

    def depth(self, own: bytes | None) -> int:
        """Give how many messages there are up to a node, its own among them."""
        return 0 if own is None else self[own].depth

    def below(self, above: bytes | None, own: bytes | None) -> list[bytes]:
        """Give the nodes from behind one to another that follows it."""
        found: list[bytes] = []
        while own is not None and own != above:
            found.append(own)
            own = self[own].parent
        return found[::-1]
