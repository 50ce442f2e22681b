"""How a page of a conversation is laid out: sections, days, turns, results with their calls. Pure.

Invariant: every message of the page is shown exactly once, in its own place or, a tool's result,
under the call that asked for it. Figures are those of the API's views, untouched.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final

from proxy.api.conversation import ConversationPage
from proxy.api.message_views import (
    TEXT_CHARS,
    MessageView,
    PartView,
    ThreadView,
    ToolCallView,
    part_view,
    tool_call_view,
)
from proxy.providers.reading import Part, Reading
from proxy.ui.json_text import indented
from proxy.ui.markdown import Block, Paragraph, Text, parse

# Characters of one page that are read as Markdown, which costs the most; the rest is plain text.
MARKDOWN_CHARS: Final = 200_000
# A tool's arguments or result that is longer is folded: what fits on a screen.
FOLDED_CHARS: Final = 1200


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a message: its text as ``blocks``, or what else; ``picture`` is an address."""

    kind: str
    blocks: Sequence[Block] = ()
    part: PartView | None = None
    picture: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call, its arguments indented, and the message with its result where that is here."""

    call: ToolCallView
    arguments: str
    result: "Row | None"

    @property
    def is_short(self) -> bool:
        """Whether all of its arguments fit on a screen."""
        return len(self.arguments) <= FOLDED_CHARS


@dataclass(frozen=True, slots=True)
class Row:
    """A message. ``turn`` is the trace that begins with it, ``day`` a time on the day that does."""

    message: MessageView
    pieces: Sequence[Piece]
    calls: Sequence[Call] = ()
    turn: str | None = None
    day: str | None = None

    @property
    def is_short(self) -> bool:
        """Whether all of its text fits on a screen."""
        return (self.message.length or 0) <= FOLDED_CHARS


@dataclass(frozen=True, slots=True)
class Section:
    """The messages of one thread on a page."""

    thread: ThreadView
    rows: Sequence[Row]


def picture_address(message: str, number: int) -> str | None:
    """Give the address at which pictures.py serves a picture of a message."""
    return f"/pictures/{message}/{number}"


@dataclass(slots=True)
class SoFar:
    """What was shown before, of pages that are read in one: turns, and the day."""

    turns: set[str] = field(default_factory=set)
    day: str = ""


def sections(
    page: ConversationPage,
    so_far: SoFar | None = None,
    address: Callable[[str, int], str | None] = picture_address,
) -> list[Section]:
    """Lay out a page; `address` gives the one of a message's picture, by its number from 0."""
    threads = {thread.id: thread for thread in page.threads}
    rows = _Layout(page.messages, so_far or SoFar(), address).rows()
    return [
        Section(threads[thread], list(group))
        for thread, group in groupby(rows, key=lambda row: row.message.thread)
    ]


@dataclass(frozen=True, slots=True)
class Said:
    """A message of one call, outside of its conversation."""

    role: str
    pieces: Sequence[Piece]
    calls: Sequence[Call]


def said(reading: Reading) -> Said:
    """Lay out one message as it was read."""
    parts = [part_view(part) for part in reading.parts or [Part("text", reading.text or None)]]
    return Said(
        reading.role,
        [Piece(part.kind, parse(part.text) if part.text else (), part) for part in parts],
        [
            Call(tool_call_view(call, None, None), indented(call.arguments[:TEXT_CHARS]), None)
            for call in reading.tool_calls
        ],
    )


class _Layout:
    def __init__(
        self,
        messages: Sequence[MessageView],
        so_far: SoFar,
        address: Callable[[str, int], str | None],
    ) -> None:
        self._messages = messages
        self._so_far = so_far
        self._address = address
        self._left = MARKDOWN_CHARS
        here = {message.id: message for message in messages}
        # Results whose call is on this page too; one that calls tools itself stands for itself.
        self._results: Mapping[str, MessageView] = {
            call.result: here[call.result]
            for message in messages
            for call in message.tool_calls
            if call.result in here and not here[call.result].tool_calls
        }

    def rows(self) -> Iterator[Row]:
        """Give the rows from top to bottom."""
        so_far = self._so_far
        for message in self._messages:
            if message.id in self._results:
                continue
            trace = message.turn.trace_id
            row = self._row(message)
            if trace is not None and trace not in so_far.turns:
                row = replace(row, turn=trace)
                so_far.turns.add(trace)
            if (date := message.at[:10]) != so_far.day:
                row = replace(row, day=message.at)
                so_far.day = date
            yield row

    def _row(self, message: MessageView) -> Row:
        return Row(
            message, list(self._pieces(message)), [self._call(one) for one in message.tool_calls]
        )

    def _call(self, call: ToolCallView) -> Call:
        result = self._results.get(call.result or "")
        arguments = call.arguments if call.truncated else indented(call.arguments)
        return Call(call, arguments, None if result is None else self._row(result))

    def _pieces(self, message: MessageView) -> Iterator[Piece]:
        if message.kind in ("prompt", "tools"):
            return
        if not message.parts:
            if message.text:
                yield Piece("text", self._blocks(message, message.text))
            return
        pictures = 0
        for part in message.parts:
            address = None
            if part.kind == "image":
                if part.size:
                    address = self._address(message.id, pictures)
                pictures += 1
            yield Piece(part.kind, self._blocks(message, part.text or ""), part, address)

    def _blocks(self, message: MessageView, text: str) -> Sequence[Block]:
        """Read a text as Markdown, but for what is none, or still grows."""
        if not text:
            return ()
        if message.role == "tool" or message.tool_result is not None:
            return (Paragraph((Text(indented(text)),)),)
        self._left -= len(text)
        if message.kind == "running" or self._left < 0:
            return (Paragraph((Text(text),)),)
        return parse(text)
