"""Reads what models write as Markdown: a small subset, as a tree that a template renders. Pure.

Paragraphs, headings, lists, code, emphasis, and links to http and https; all else stays the text
that it is, raw HTML and pictures too. Invariants: no letter or digit of the text is lost or moved;
the time is linear in the text's length, and no tree is deeper than its bounds, whatever the text.
Nodes hold plain text: escaping is the template's business.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

# Lists in lists, and marks in marks: what people can tell apart, and far from any stack's end.
MAX_LISTS: Final = 6
MAX_EMPHASIS: Final = 8


@dataclass(frozen=True, slots=True)
class Text:
    """Text that is nothing but that."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """Code within a line."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True, slots=True)
class Emphasis:
    """Emphasized text, strongly or not."""

    kind: ClassVar[str] = "emphasis"
    strong: bool
    children: "tuple[Inline, ...]"


@dataclass(frozen=True, slots=True)
class Link:
    """A link; ``href`` begins with http:// or https://."""

    kind: ClassVar[str] = "link"
    href: str
    children: "tuple[Inline, ...]"


Inline = Text | Code | Emphasis | Link


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph, in which line breaks and spaces count; ``heading`` where it is one."""

    kind: ClassVar[str] = "paragraph"
    children: tuple[Inline, ...]
    heading: bool = False


@dataclass(frozen=True, slots=True)
class Fence:
    """Lines of code, or a table as it was written. ``info`` is what stands behind the fence."""

    kind: ClassVar[str] = "fence"
    info: str
    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A line across."""

    kind: ClassVar[str] = "rule"


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a list; ``number`` is its own in a list that counts, else None."""

    number: int | None
    blocks: "tuple[Block, ...]"


@dataclass(frozen=True, slots=True)
class Listing:
    """A list."""

    kind: ClassVar[str] = "list"
    ordered: bool
    items: tuple[Item, ...]


Block = Paragraph | Fence | Rule | Listing


def parse(text: str) -> tuple[Block, ...]:
    """Read a text."""
    return tuple(_blocks(text.replace("\r\n", "\n").split("\n"), MAX_LISTS))


_FENCE: Final = re.compile(r"[ \t]*(?P<mark>`{3,}+|~{3,}+)(?P<info>[^`]*+)")
_HEADING: Final = re.compile(r" {0,3}#{1,6}[ \t]++(?P<text>.*)")
_ITEM: Final = re.compile(
    r"(?P<lead>[ \t]*+)(?P<mark>[-*+]|(?P<number>0|[1-9]\d{0,8})[.)])(?:[ \t](?P<text>.*)|$)",
    re.ASCII,
)
_TABLE: Final = re.compile(r"[ \t]*+\|")


def _blocks(lines: Sequence[str], lists: int) -> Iterator[Block]:
    """Read lines from top to bottom; at most ``lists`` lists are in each other."""
    at = 0
    while at < len(lines):
        line, start = lines[at], at
        at += 1
        if not line.strip():
            continue
        if fence := _FENCE.fullmatch(line):
            end = _fence_end(lines, at, fence["mark"])
            yield Fence(fence["info"].strip(), _undented(lines[at:end], _indent(line)))
            at = end + 1
        elif heading := _HEADING.fullmatch(line):
            yield Paragraph(_inlines(heading["text"].strip()), heading=True)
        elif _is_rule(line):
            yield Rule()
        elif _TABLE.match(line):
            while at < len(lines) and _TABLE.match(lines[at]):
                at += 1
            yield Fence("", "\n".join(lines[start:at]))
        elif lists and (item := _ITEM.fullmatch(line)):
            items, at = _items(lines, start, item, lists)
            yield Listing(item["number"] is not None, tuple(items))
        else:
            while at < len(lines) and lines[at].strip() and not _begins(lines[at], lists):
                at += 1
            yield Paragraph(_inlines("\n".join(lines[start:at])))


def _items(
    lines: Sequence[str], at: int, first: re.Match[str], lists: int
) -> tuple[list[Item], int]:
    """Read the items of a list; give them and the number of the line after them."""
    indent = _indent(first["lead"])
    found: list[tuple[int | None, list[str]]] = []
    blank = False
    while at < len(lines):
        line = lines[at]
        item = _ITEM.fullmatch(line)
        if item and abs(_indent(item["lead"]) - indent) < 2 and not _is_rule(line):
            if (item["number"] is None) != (first["number"] is None):
                break
            number = None if item["number"] is None else int(item["number"])
            found.append((number, [item["text"] or ""]))
        elif not line.strip() or _indent(line) >= indent + 2:
            found[-1][1].append(_undented([line], indent + 2))
        elif blank or _begins(line, lists):
            break
        else:  # a line of a paragraph that goes on without its indent
            found[-1][1].append(line)
        blank = not line.strip()
        at += 1
    return [Item(number, tuple(_blocks(own, lists - 1))) for number, own in found], at


def _begins(line: str, lists: int) -> bool:
    """Tell whether a line begins something else than the paragraph before it."""
    return bool(
        _FENCE.fullmatch(line)
        or _HEADING.fullmatch(line)
        or _TABLE.match(line)
        or _is_rule(line)
        or (lists and _ITEM.fullmatch(line))
    )


def _is_rule(line: str) -> bool:
    marks = "".join(line.split())
    return len(marks) >= 3 and marks[0] in "-*_" and marks == marks[0] * len(marks)


def _fence_end(lines: Sequence[str], at: int, mark: str) -> int:
    """Find the line that closes a fence; the end of the text where none does."""
    for number in range(at, len(lines)):
        line = lines[number].strip()
        if line.startswith(mark) and line == mark[0] * len(line):
            return number
    return len(lines)


def _indent(line: str) -> int:
    """Count the columns before a line's first character."""
    return len(line[: len(line) - len(line.lstrip(" \t"))].expandtabs(4))


def _undented(lines: Iterable[str], columns: int) -> str:
    """Take so many columns of white space, where they are, from the beginning of each line."""
    if not columns:
        return "\n".join(lines)
    return "\n".join(" " * (_indent(line) - columns) + line.lstrip(" \t") for line in lines)


# An address ends before what ends it in a sentence, and holds parentheses that are closed in it.
_ADDRESS: Final = r"https?://(?:[^\s()<>\[\]`\"']|\([^\s()<>\[\]`\"']*+\))++"
_TOKEN: Final = re.compile(
    rf"""
    \\(?P<escaped>[*_`])
    | (?P<ticks>`++)
    | (?P<run>\*++|_++)
    | \[(?P<label>[^\[\]\n]*+)\]\((?P<href>{_ADDRESS})\)
    | (?P<address>{_ADDRESS})
    """,
    re.VERBOSE | re.IGNORECASE,
)
# What belongs to the sentence, where an address ends with it.
_SENTENCE: Final = ".,;:!?*_"


def _inlines(text: str) -> tuple[Inline, ...]:
    """Read a paragraph's text."""
    closings = _closing_ticks(text)
    emphasis = _Emphasis()
    at = 0
    while found := _TOKEN.search(text, at):
        emphasis.add(text[at : found.start()])
        at = found.end()
        if found["escaped"]:
            emphasis.add(found["escaped"])
        elif found["run"]:
            start = found.start()
            emphasis.run(found["run"], text[max(0, start - 1) : start], text[at : at + 1])
        elif found["href"]:
            emphasis.add(Link(found["href"], (Text(found["label"] or found["href"]),)))
        elif address := found["address"]:
            href = address.rstrip(_SENTENCE)
            at -= len(address) - len(href)
            emphasis.add(Link(href, (Text(href),)) if href.partition("//")[2] else href)
        elif (end := closings.get(found.start())) is not None:
            emphasis.add(Code(text[at:end].strip() or text[at:end]))
            at = end + len(found["ticks"])
        else:
            emphasis.add(found["ticks"])
    emphasis.add(text[at:])
    return emphasis.close()


def _closing_ticks(text: str) -> dict[int, int]:
    """Give, for each run of backticks, where the next one of its length is."""
    nearest: dict[int, int] = {}
    found = {}
    for run in reversed(list(re.finditer("`+", text))):
        length = len(run[0])
        if length in nearest:
            found[run.start()] = nearest[length]
        nearest[length] = run.start()
    return found


class _Emphasis:
    """Puts nodes into each other as marks open and close; a mark without its other half is text."""

    def __init__(self) -> None:
        # The marks that are open, and what stands behind each; the first is no mark.
        self._open: list[tuple[str, list[Inline | str]]] = [("", [])]

    def add(self, node: Inline | str) -> None:
        """Add a node, or plain text."""
        if node:
            self._open[-1][1].append(node)

    def run(self, marks: str, before: str, after: str) -> None:
        """Add a run of `*` or `_` between these characters."""
        if len(marks) > 3:
            self.add(marks)
            return
        inside = marks[0] == "_" and before.isalnum() and after.isalnum()
        if before.strip() and not inside:
            while marks and (level := self._matching(marks)):
                marks = marks[len(self._open[level][0]) :]
                self._close(level)
        if marks and after.strip() and not inside and len(self._open) + 1 < MAX_EMPHASIS:
            for mark in (marks,) if len(marks) < 3 else (marks[:2], marks[2:]):
                self._open.append((mark, []))
        else:
            self.add(marks)

    def close(self) -> tuple[Inline, ...]:
        """Give all nodes."""
        while len(self._open) > 1:
            self._flatten()
        return _joined(self._open[0][1])

    def _matching(self, marks: str) -> int:
        """Find the innermost mark that a run closes, best one of its length; 0 without any."""
        for fits in ((marks,), (marks[:2], marks[:1])):
            for level in range(len(self._open) - 1, 0, -1):
                mark, children = self._open[level]
                if mark in fits and (children or level + 1 < len(self._open)):
                    return level
        return 0

    def _close(self, level: int) -> None:
        while len(self._open) > level + 1:
            self._flatten()
        mark, children = self._open.pop()
        self.add(Emphasis(len(mark) == 2, _joined(children)))

    def _flatten(self) -> None:
        mark, children = self._open.pop()
        self._open[-1][1].extend((mark, *children))


def _joined(nodes: Iterable[Inline | str]) -> tuple[Inline, ...]:
    """Join the texts that follow each other."""
    found: list[Inline] = []
    words: list[str] = []
    for node in (*nodes, None):
        if isinstance(node, str):
            words.append(node)
            continue
        if words:
            found.append(Text("".join(words)))
            words = []
        if node is not None:
            found.append(node)
    return tuple(found)
