"""The calls of a session put together into threads: a tree in which each message stands once. Pure.

A turn (one call) stands where the place is from which it goes on; its new messages hang below,
each under the one before, told apart by what they say. So a message that is sent again is the one
that is there, and one that differs is a branch. Invariant: on the path to a turn's place stand all
messages of the turn, in order, each once. What a message says in words is not known here.

A message that counts for nothing (reasoning) is no step on a path: it stands before the next one.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from storage.records import COMPLETED

# Places tried for a chain that may go on in the middle of a thread: a text such as "ok" stands in
# many, and the newest are the likely ones.
MAX_PLACES: Final = 16
# Messages of a summary that replace a thread's beginning: one, with room for a greeting and answer.
MAX_SUMMARY: Final = 3
# Messages in a row that show that a chain goes on with a thread; one alone may be chance.
ENOUGH: Final = 2

# A value of a request's JSON: its bytes, or the id of the content that holds them; None without.
Stored = bytes | int | None


class Said(NamedTuple):
    """A message in a turn's chain. ``depth`` is its place there, ``meaning`` its own."""

    content_id: int
    depth: int
    role: str
    meaning: bytes


@dataclass(frozen=True, slots=True)
class Setting:
    """What a request says beside its messages."""

    instructions: Stored = None
    tools: Stored = None
    functions: Stored = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn:
    """One call. ``number`` counts the session's from 1, in the order in which they began.

    ``base`` is the meaning of the place from which it goes on, and ``inputs`` are the messages
    behind it; None: they are all there are. ``prelude`` are those that instruct, before all others.
    ``held``: the provider holds what came before, so that the chain has new messages only.
    ``recorded``: its messages are known. ``answers_due``: it is of a kind that is answered in the
    conversation. ``setting`` is None where that is not known.
    """

    number: int
    seq: int
    span_id: bytes
    started_at_us: int
    state: str
    base: bytes | None = None
    inputs: Sequence[Said] = ()
    answers: Sequence[Said] = ()
    prelude: Sequence[Said] = ()
    input_meaning: bytes | None = None
    output_meaning: bytes | None = None
    setting: Setting | None = None
    held: bool = False
    answers_due: bool = True
    recorded: bool = True


_NO_TURN: Final = Turn(number=0, seq=0, span_id=b"", started_at_us=0, state="")


@dataclass(slots=True, eq=False)
class Thread:
    """Messages that hang together, from ``first`` on.

    ``window``: calls went on with it that left its beginning out. ``previous`` is the thread of the
    turn before its first one; ``replaces`` the one whose end its messages repeat behind a summary.
    """

    first: "Entry"
    previous: "Thread | None"
    window: bool = False
    replaces: "Thread | None" = None


@dataclass(slots=True, eq=False)
class Entry:
    """A message in the tree, or (``said`` is None) the end of a turn that left no message.

    ``turn`` is the one with which it came first, ``outcome`` the one whose answer ends with it, and
    ``repeats`` the number of later turns with the same answer. ``before`` are messages that count
    for nothing, ``after`` others of the kind at the end, and ends without an answer. ``shown_as``
    is the same message in the thread that this one's thread replaces. ``newest`` and ``turns`` are
    the number of the newest turn that ends here or below, and how many do.
    """

    turn: Turn
    said: Said | None
    parent: "Entry | None" = None
    answer: bool = False
    level: int = 0
    thread: Thread | None = None
    outcome: Turn | None = None
    repeats: int = 0
    children: "dict[bytes, Entry]" = field(default_factory=dict)
    before: "list[Entry]" = field(default_factory=list)
    after: "dict[int, Entry]" = field(default_factory=dict)
    shown_as: "Entry | None" = None
    newest: int = 0
    turns: int = 0

    @property
    def id(self) -> str:
        """Name it by the span with which it came and its depth in that span's chain."""
        if self.shown_as is not None:
            return self.shown_as.id
        return f"{self.turn.span_id.hex()}-{'end' if self.said is None else self.said.depth}"

    @property
    def branches(self) -> "list[Entry]":
        """The messages that stand in this one's place, the newest first; none where it is alone."""
        if self.parent is None or not self.parent.level or len(self.parent.children) == 1:
            return []
        return sorted(self.parent.children.values(), key=lambda entry: -entry.newest)


class Tree:
    """The threads of a session; made of its turns in the order in which they began."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        self.threads: list[Thread] = []
        self._top = Entry(_NO_TURN, None)
        self._entries: list[Entry] = []
        # Where the conversation of a meaning ends, and where messages of a meaning stand.
        self._places: dict[bytes, Entry] = {}
        self._standing: defaultdict[bytes, list[Entry]] = defaultdict(list)
        self._last = self._top
        for turn in turns:
            self._last = self._add(turn)
            self._last.newest = turn.number
            self._last.turns += 1
        # A child comes after its parent, so that going back each sum is whole when it is passed on.
        for entry in reversed(self._entries):
            if entry.parent is not None:
                entry.parent.newest = max(entry.parent.newest, entry.newest)
                entry.parent.turns += entry.turns

    @property
    def leaves(self) -> list[Entry]:
        """The messages behind which nothing was said, in the order in which they came."""
        return [entry for entry in self._entries if not entry.children]

    def through(self, ids: Iterable[str]) -> Mapping[Entry, Entry]:
        """Give the way to each of these messages: for every message before it, the next one.

        Raises KeyError with the first id that is no message's.
        """
        found = {entry.id: entry for entry in self._entries if entry.shown_as is None}
        way: dict[Entry, Entry] = {}
        for one in ids:
            entry = found[one]
            while entry.parent is not None:
                way[entry.parent] = entry
                entry = entry.parent
        return way

    def _add(self, turn: Turn) -> Entry:
        """Insert a turn and give the place where it ends."""
        if not turn.recorded:
            # Nobody knows where it belongs; it was made after what was there.
            return self._end(self._last, turn)
        start = self._places.get(turn.base) if turn.base is not None else None
        place = self._insert(start or self._anchor(turn), turn, turn.inputs)
        if turn.input_meaning is not None:
            self._places[turn.input_meaning] = place
        if not turn.answers:
            return self._end(place, turn)
        place = self._insert(place, turn, turn.answers, answer=True)
        if turn.output_meaning is not None:
            self._places[turn.output_meaning] = place
        return place

    def _end(self, place: Entry, turn: Turn) -> Entry:
        """Note at a place that a turn ended, or runs, there without a message of its own."""
        if turn.state == COMPLETED and not turn.answers_due:
            return place
        entry = Entry(turn, None, answer=True, outcome=turn)
        if place is self._top:
            return self._append(place, turn.span_id, entry)
        place.after[-turn.number] = entry
        return place

    def _insert(
        self, place: Entry, turn: Turn, messages: Iterable[Said], *, answer: bool = False
    ) -> Entry:
        """Hang messages under a place, each under the one before, and give the last one's place."""
        silent: list[Entry] = []
        end = place
        for said in messages:
            if not said.meaning:
                silent.append(Entry(turn, said, answer=answer))
                continue
            child = place.children.get(said.meaning)
            if child is None:
                child = Entry(turn, said, answer=answer)
                # Those before a message that is there already came with it then.
                child.before = silent
                self._append(place, said.meaning, child)
                self._standing[said.meaning].append(child)
            end = place = child
            silent = []
        for entry in silent:
            if entry.said is not None and place is not self._top:
                end = place.after.setdefault(entry.said.content_id, entry)
        if answer and end is not self._top:
            end.answer = True
            if end.outcome is None:
                end.outcome = turn
            else:
                end.repeats += 1
        return place

    def _append(self, parent: Entry, key: bytes, entry: Entry) -> Entry:
        entry.parent = parent
        entry.level = parent.level + 1
        entry.thread = parent.thread
        if parent is self._top:
            entry.thread = Thread(entry, self._last.thread)
            self.threads.append(entry.thread)
        parent.children[key] = entry
        self._entries.append(entry)
        return entry

    def _anchor(self, turn: Turn) -> Entry:
        """Find where the whole input of a turn begins: at the top, or in the middle of a thread."""
        messages = [said.meaning for said in turn.inputs if said.meaning]
        if not messages:
            return self._top
        run = self._match(messages)
        if run and run[0].parent is not None and run[0].parent is not self._top:
            # The model's own words, or more than one message, are no chance.
            first = run[0]
            if len(run) >= ENOUGH or (first.said is not None and first.said.role == "assistant"):
                if first.thread is not None:
                    first.thread.window = True
                return run[0].parent
        if messages[0] not in self._top.children:
            self._compact(turn, messages)
        return self._top

    def _compact(self, turn: Turn, messages: list[bytes]) -> None:
        """Insert a chain whose end repeats that of a thread behind a beginning that is new."""
        for start in range(1, min(MAX_SUMMARY, len(messages) - ENOUGH) + 1):
            run = self._match(messages[start:])
            # As many messages before it as there were is an edited beginning, and no summary.
            if len(run) < ENOUGH or run[-1].children or run[0].level <= start + 1:
                continue
            self._insert(self._top, turn, turn.inputs)
            copies = _follow(self._top.children[messages[0]], messages)
            for copy, original in zip(copies[start:], run, strict=False):
                copy.shown_as = original
            self.threads[-1].replaces = run[0].thread
            return

    def _match(self, messages: Sequence[bytes]) -> list[Entry]:
        """Give the entries on which these messages follow each other furthest; none without any.

        Where they do so in many places, these are the newest: the talk goes on there.
        """
        best: list[Entry] = []
        places = self._standing.get(messages[0], [])[-MAX_PLACES:]
        if (root := self._top.children.get(messages[0])) is not None:
            places.insert(0, root)
        for entry in reversed(places):
            run = _follow(entry, messages)
            if len(run) > len(best):
                best = run
        return best


def _follow(entry: Entry, messages: Sequence[bytes]) -> list[Entry]:
    """Give the entries on which these messages stand, the first on ``entry``, as far as they do."""
    run = [entry]
    for meaning in messages[1:]:
        child = run[-1].children.get(meaning)
        if child is None:
            break
        run.append(child)
    return run
