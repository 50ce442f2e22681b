"""A block of an archive as it comes in: read line by line, kept on disk, and found whole or not.

Invariants: nothing of a block is used before its last line was found to fit all others; then each
of its contents and nodes is of its hash, a message is of the role and meaning that whoever reads
them (``Says``) finds in it, what a span names stands before it, and its bodies rebuild
to the hashes that it says. In memory are the place of each content and span, and the nodes; the
bytes are in a file without a name. Only one thread at a time may use a block.
"""

import hashlib
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

import msgspec

from storage.archive_lines import (
    VERSION,
    BadArchive,
    BodyLine,
    Chain,
    ContentLine,
    EndLine,
    EnvelopeLine,
    Header,
    Line,
    NodeLine,
    OpenedLine,
    SessionLine,
    SpanLine,
    TraceLine,
    bytes_of,
    decoded,
    plain,
)
from storage.archive_nodes import Nodes, Stored
from storage.archive_places import Place, Spans
from storage.archive_spans import told_of
from storage.chain import BEGINNING, node_hash
from storage.parameters import MAX_TIME_US
from storage.records import MAX_ENVELOPED_BYTES
from storage.squeeze import MAX_BYTES
from storage.wholeness import may_be_decoded

# Tells whether a message, by its bytes, is of this role and of this meaning.
Says = Callable[[bytes, str, bytes], bool]

# A block up to this size stays in memory.
SPOOL_BYTES: Final = 4 * 1024 * 1024
# Contents that were just read, of all sizes together.
CACHE_BYTES: Final = 4 * 1024 * 1024
# Hashes of inputs, of which the next ones are mostly longer ones.
HASHES: Final = 64
# What stands before a message: a comma and blanks, of which no more than 256 are recorded.
MAX_LEAD_BYTES: Final = 1024
# What a piece of an envelope and the id behind it take beside its bytes, at most (MessagePack).
PIECE_BYTES: Final = 16
# What stands for an error whose words are forgotten.
FORGOTTEN: Final = "[forgotten]"


class Block:
    """A block: what it says by ids, and where in it the rest stands."""

    def __init__(self, says: Says | None = None) -> None:
        self.is_whole = False
        self.session: SessionLine | None = None
        self.traces: dict[bytes, TraceLine] = {}
        self.opened: dict[bytes, OpenedLine] = {}
        self.spans = Spans()
        self.nodes = Nodes()
        self.contents: dict[bytes, Place] = {}
        self._format = ""
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115
        self._end = 0
        self._lines = 0
        self._hash = hashlib.sha256()
        self._cache: OrderedDict[bytes, bytes] = OrderedDict()
        self._cached_bytes = 0
        self._says = says
        self._said_by: dict[bytes, tuple[str, bytes]] = {}
        self._inputs: OrderedDict[tuple[bytes, bytes], Any] = OrderedDict()

    def close(self) -> None:
        """Give back the room that it takes."""
        self._file.close()

    def add(self, line: bytes) -> None:
        """Take its next line, with the line feed.

        Raises BadArchive where that is none, or does not fit those before it.
        """
        found = decoded(line)
        if isinstance(found, EndLine):
            self._take_end(found)
            return
        self._check_place(found)
        self._take(found, Place(self._end, len(line)))
        self._file.seek(self._end)
        self._file.write(line)
        self._end += len(line)
        self._lines += 1
        self._hash.update(line)

    def _take_end(self, end: EndLine) -> None:
        if not self._lines:
            raise BadArchive("it begins with no line that says what it is")
        if end.lines != self._lines:
            raise BadArchive(f"lines are missing: there are {self._lines} of {end.lines}")
        if end.sha256 != self._hash.hexdigest():
            raise BadArchive("the lines before it are not of the hash that it says")
        if self._format == "session" and self.session is None:
            raise BadArchive("the session is missing")
        self._inputs.clear()
        self.is_whole = True

    def _check_place(self, line: Line) -> None:
        if not self._lines:
            if not isinstance(line, Header):
                raise BadArchive("it begins with no line that says what it is")
            if line.version != VERSION:
                raise BadArchive(
                    f"it is of version {line.version}, and this program knows version {VERSION}"
                )
        elif isinstance(line, Header):
            raise BadArchive("a block begins before the one before it has ended: it was cut")
        elif isinstance(line, SessionLine) != (self._lines == 1 and self._format == "session"):
            raise BadArchive("the session stands behind the first line, once")

    def _take(self, line: Line, place: Place) -> None:
        match line:
            case Header():
                self._format = line.format
            case SessionLine():
                self.session = line
            case TraceLine():
                self._take_trace(line)
            case OpenedLine():
                trace_id = self._known_trace(line.trace)
                _once(trace_id, self.opened, "what was said of the trace")
                if line.at_us is None and line.closed_at_us is None:
                    raise BadArchive(f"the trace {line.trace} was neither opened nor closed")
                self.opened[trace_id] = line
            case ContentLine():
                sha256, data = bytes.fromhex(line.sha256), plain(line.data)
                _once(sha256, self.contents, "the content")
                if hashlib.sha256(data).digest() != sha256:
                    raise BadArchive(f"the content {line.sha256} is not of its hash")
                self.contents[sha256] = place._replace(size=len(data))
                self._keep(sha256, data)
            case NodeLine():
                self._take_node(line)
            case SpanLine():
                self._take_span(line, place)

    def _take_trace(self, line: TraceLine) -> None:
        trace_id = bytes.fromhex(line.id)
        _once(trace_id, self.traces, "the trace")
        if line.source is None and self.session is not None:
            raise BadArchive(f"the trace {line.id} does not say how its session was found")
        self.traces[trace_id] = line

    def _take_node(self, line: NodeLine) -> None:
        own, parent = bytes.fromhex(line.hash), bytes_of(line.parent)
        sha256, lead = bytes.fromhex(line.content), plain(line.lead)
        _once(own, self.nodes, "the node")
        if sha256 not in self.contents or (parent is not None and parent not in self.nodes):
            raise BadArchive(f"what the node {line.hash} follows, or holds, is not before it")
        if len(lead) > MAX_LEAD_BYTES:
            raise BadArchive(f"the node {line.hash} stands behind more than {MAX_LEAD_BYTES} bytes")
        if node_hash(parent or BEGINNING, lead, sha256) != own:
            raise BadArchive(f"the node {line.hash} is not of its hash")
        stored = Stored(parent, lead, sha256, line.role, bytes.fromhex(line.meaning))
        if not self._is_said(stored):
            raise BadArchive(f"the node {line.hash} has a role or a meaning that is not its own")
        self.nodes.add(own, stored, self.contents[sha256].size)

    def _is_said(self, node: Stored) -> bool:
        """Tell whether a message says what its node says of it, each message once.

        Messages are kept by their bytes: those of an archive become those of calls that come later.
        """
        own = (node.role, node.meaning)
        if (known := self._said_by.get(node.sha256)) is not None:
            return known == own
        self._said_by[node.sha256] = own
        return self._says is None or self._says(self.content(node.sha256), *own)

    def _take_span(self, line: SpanLine, place: Place) -> None:
        key = (self._known_trace(line.trace), bytes.fromhex(line.id))
        _once(key, self.spans, "the span")
        of = f"the span {line.id} of the trace {line.trace}"
        if self.traces[key[0]].forgotten_at_us is not None and _has_content(line):
            raise BadArchive(f"{of} has contents, and its trace says that they were forgotten")
        if not line.handed_in and (line.same_call or line.early_end):
            raise BadArchive(f"{of} is a call, and says what only spans say that were handed in")
        if line.started_at_us + line.duration_us > MAX_TIME_US:
            raise BadArchive(f"{of} ends after the year 9999")
        if line.early_end is not None:
            try:
                told_of(1, line, line.early_end)
            except (msgspec.MsgspecError, OverflowError, UnicodeError) as error:
                raise BadArchive(f"{of} has an early end that cannot be: {error}") from None
        chain = line.chain or Chain()
        for node in (chain.input, chain.output, chain.prelude):
            if node is not None and bytes.fromhex(node) not in self.nodes:
                raise BadArchive(f"{of} names a node that is not before it")
        if not self.nodes.follows(bytes_of(chain.input), bytes_of(chain.output)):
            raise BadArchive(f"{of} has an answer that does not follow its input")
        head, prelude = bytes_of(chain.input), bytes_of(chain.prelude)
        if prelude is not None and not self.nodes.leads_to(prelude, head):
            raise BadArchive(f"{of} is instructed by what is not in its input")
        # Of an input that was damaged and is gone it stays known how many messages were new.
        behind = self.nodes.depth(head) - self.nodes.depth(prelude)
        if head is not None and (chain.fresh_count or 0) > behind:
            raise BadArchive(f"{of} brings more messages than its input has")
        for which, body in (("request", line.request), ("response", line.response)):
            if body is not None and not self._rebuilds(which, body, line):
                raise BadArchive(f"{of} has a {which} that is not of its hash, or lacks a part")
        self.spans.add(key, bytes_of(line.moved_from), place)

    def _known_trace(self, text: str) -> bytes:
        trace_id = bytes.fromhex(text)
        if trace_id not in self.traces:
            raise BadArchive(f"the trace {text} is not before what is in it")
        return trace_id

    def _rebuilds(self, which: str, body: BodyLine, line: SpanLine) -> bool:
        """Tell whether a body has all its parts and is, where that can be told, of its hash."""
        if which == "request" and body.assembled is not None:
            return False
        is_exact = body.sha256 is not None and not (
            body.truncated or body.redacted or body.assembled
        )
        if body.envelope is not None:
            return body.content is None and self._envelope_rebuilds(
                which, body, body.envelope, line, is_exact=is_exact
            )
        if body.content is None:
            return True
        place = self.contents.get(bytes.fromhex(body.content))
        if place is None:
            return False
        if not is_exact or body.content == body.sha256:
            return True
        return _came_packed(which, body, place.size, line)

    def _envelope_rebuilds(
        self,
        which: str,
        body: BodyLine,
        envelope: EnvelopeLine,
        line: SpanLine,
        *,
        is_exact: bool,
    ) -> bool:
        chain = line.chain or Chain()
        pieces, holes = envelope.pieces, [bytes_of(hole) for hole in envelope.holes]
        if len(pieces) != len(holes) + 1 or holes.count(None) > 1:
            return False
        if any(hole is not None and hole not in self.contents for hole in holes):
            return False
        sizes = [
            self._said_bytes(which, chain) if h is None else self.contents[h].size for h in holes
        ]
        around = sum(len(plain(piece)) for piece in pieces)
        if around + PIECE_BYTES * len(pieces) > MAX_BYTES:
            raise BadArchive(f"round the parts of a {which} are more than {MAX_BYTES:,} bytes")
        if sum(sizes) + around > MAX_ENVELOPED_BYTES:
            raise BadArchive(f"the parts of a {which} have more than {MAX_ENVELOPED_BYTES:,} bytes")
        if not is_exact:
            return True
        parts: list[bytes] = []
        size = 0
        found: Any = None
        for piece, hole in zip(pieces, [*holes, b""], strict=True):
            parts.append(plain(piece))
            if hole is None:
                before = b"".join(parts)
                size, parts = len(before), []
                if which == "request":
                    found = self._after_input(before, bytes_of(chain.input))
                else:
                    found = hashlib.sha256(before)
                    for node in self.nodes.below(bytes_of(chain.input), bytes_of(chain.output)):
                        said = self._said(node)
                        size += len(said)
                        found.update(said)
            elif hole:
                parts.append(self.content(hole))
        rest = b"".join(parts)
        found = found or hashlib.sha256()
        found.update(rest)
        same = found.hexdigest() == body.sha256
        return bool(same) or _came_packed(which, body, size + len(rest), line)

    def _said_bytes(self, which: str, chain: Chain) -> int:
        """Give how long the messages of a body are."""
        above = self.nodes.said_bytes(bytes_of(chain.input))
        if which == "request":
            return above
        return 0 if chain.output is None else self.nodes.said_bytes(bytes_of(chain.output)) - above

    def _after_input(self, before: bytes, head: bytes | None) -> Any:
        """Give the hash of what stands before the messages and of all of these, to go on with.

        It goes on from that of an input that this one begins with.
        """
        begin = hashlib.sha256(before)
        if head is None:
            return begin
        name, path = begin.digest(), []
        one: bytes | None = head
        while one is not None and (name, one) not in self._inputs:
            path.append(one)
            one = self.nodes[one].parent
        found = begin if one is None else self._inputs[name, one].copy()
        for node in reversed(path):
            found.update(self._said(node))
        self._inputs[name, head] = found.copy()
        if len(self._inputs) > HASHES:
            self._inputs.popitem(last=False)
        return found

    def _said(self, node: bytes) -> bytes:
        stored = self.nodes[node]
        return stored.lead + self.content(stored.sha256)

    def content(self, sha256: bytes) -> bytes:
        """Give the bytes of one of its contents."""
        if (data := self._cache.get(sha256)) is not None:
            self._cache.move_to_end(sha256)
            return data
        line = self.line(self.contents[sha256])
        data = plain(line.data) if isinstance(line, ContentLine) else b""
        self._keep(sha256, data)
        return data

    def _keep(self, sha256: bytes, data: bytes) -> None:
        self._cache[sha256] = data
        self._cached_bytes += len(data)
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            _, gone = self._cache.popitem(last=False)
            self._cached_bytes -= len(gone)

    def line(self, place: Place) -> Line:
        """Read one of its lines again."""
        self._file.seek(place.at)
        return decoded(self._file.read(place.length))

    def lines(self, at: int) -> Iterator[tuple[Line, int]]:
        """Read its lines again from a place on, each with the place behind it."""
        while at < self._end:
            self._file.seek(at)
            line = self._file.readline()
            at += len(line)
            yield decoded(line), at


def _has_content(line: SpanLine) -> bool:
    """Tell whether a span says anything but what is known of it when its content was forgotten."""
    bodies = [body for body in (line.request, line.response) if body is not None]
    texts = (line.input_preview, line.output_preview, line.attributes, line.query)
    return (
        line.chain is not None
        or line.early_end is not None
        or line.error not in (None, FORGOTTEN)
        or any(body.content or body.envelope or body.sha256 for body in bodies)
        or any(one is not None for one in (*texts, line.request_headers, line.response_headers))
    )


def _once(key: object, there: dict[Any, Any], what: str) -> None:
    if key in there:
        name = key[-1] if isinstance(key, tuple) else key
        shown = name.hex() if isinstance(name, bytes) else name
        raise BadArchive(f"{what} {shown} comes twice")


def _came_packed(which: str, body: BodyLine, size: int, line: SpanLine) -> bool:
    """Tell whether an answer may be kept without the coding with which it came."""
    if which != "response" or body.encoding:
        return False
    headers = None if line.response_headers is None else plain(line.response_headers)
    return may_be_decoded(size, body.size, headers)
