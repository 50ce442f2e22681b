"""One page of a conversation, made of its lines and of what was read for them. Pure.

Invariant: a message's own words come from its contents alone, and each is parsed once. A tool's
result names its call and the call its result, where both stand within ``NEIGHBOURS`` lines of the
page. What this reads of the database is others' business: it only says which contents it needs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from proxy.api.message_views import (
    TEXT_CHARS,
    BranchView,
    MessageView,
    ThreadView,
    ToolResultView,
    TurnView,
    changed_lines,
    changed_tools,
    outcome_view,
    part_view,
    tool_call_view,
)
from proxy.api.units import iso
from proxy.providers.lenient import preview
from proxy.providers.reading import Reading, answer_so_far, instruction_text, read, tool_names
from storage.lines import Line, Prompt, Tools
from storage.records import Span
from storage.threads import Entry, Stored, Thread

# Parts and tool calls of one message that are shown: the tools that OpenAI takes in a request.
MOST: Final = 128
# Lines beside the page in which the other half of a tool call is sought: a turn's parallel calls.
NEIGHBOURS: Final = 64
# Branches that a message lists, the newest, and all those of a page of which words are shown.
BRANCHES: Final = 20
PREVIEWS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What was read for a page: contents by id; spans and unfinished answers by a turn's `seq`.

    ``starts_us`` are the starts of all turns of the session, by their numbers from 1. Texts are cut
    at ``most_chars``.
    """

    contents: Mapping[int, bytes]
    spans: Mapping[int, Span]
    unfinished: Mapping[int, bytes]
    starts_us: Sequence[int]
    most_chars: int = TEXT_CHARS


def needed_contents(lines: Sequence[Line], page: range) -> list[int]:
    """Give the ids of the contents that a page shows, what matters most first."""
    shown = [lines[position] for position in page]
    entries = [line.entry for line in shown]
    stored = [value for line in shown for value in _told(line)]
    entries += [line.thread.first for line in shown]
    entries += [lines[position].entry for position in _around(lines, page)]
    heads = [head for line in shown if line.entry for head in line.entry.branches[:BRANCHES]]
    ids = [entry.said.content_id for entry in entries[: len(page)] if entry and entry.said]
    ids += [value for value in stored if isinstance(value, int)]
    rest = [*entries[len(page) :], *heads[:PREVIEWS]]
    ids += [entry.said.content_id for entry in rest if entry and entry.said]
    return list(dict.fromkeys(ids))


def show_page(
    lines: Sequence[Line], page: range, sources: Sources
) -> tuple[list[ThreadView], list[MessageView]]:
    """Show the lines of a page, and the threads that they are of."""
    reader = _Reader(lines, page, sources)
    threads = dict.fromkeys(lines[position].thread for position in page)
    return [reader.thread(thread) for thread in threads], [reader.message(at) for at in page]


def _told(line: Line) -> Iterator[Stored]:
    for prompt in (line.prompt, line.old_prompt):
        yield prompt.instructions
        yield from (said.content_id for said in prompt.messages)
    for tools in (line.tools, line.old_tools):
        yield from (tools.tools, tools.functions)


def _around(lines: Sequence[Line], page: range) -> range:
    """Give the page with the lines beside it up to the next words of the user's."""

    def between(position: int) -> bool:
        entry = lines[position].entry
        return entry is None or entry.said is None or entry.said.role != "user"

    start, stop = page.start, page.stop
    while start > max(0, page.start - NEIGHBOURS) and between(start - 1):
        start -= 1
    while stop < min(len(lines), page.stop + NEIGHBOURS) and between(stop):
        stop += 1
    return range(start, stop)


class _Reader:
    """Makes the views of one page."""

    def __init__(self, lines: Sequence[Line], page: range, sources: Sources) -> None:
        self._lines = lines
        self._sources = sources
        self._most_chars = sources.most_chars
        self._readings: dict[Entry, Reading | None] = {}
        # The position of the result of each call (position, number), and back.
        self._results: dict[tuple[int, int], int] = {}
        self._calls: dict[int, int] = {}
        waiting: dict[str, tuple[int, int]] = {}
        for position in _around(lines, page):
            entry = lines[position].entry
            reading = self._read(entry) if entry else None
            if reading is None:
                continue
            for number, call in enumerate(reading.tool_calls):
                if call.id is not None:
                    waiting[call.id] = position, number
            # Some models give the same id to each of their calls: a result is the last one's.
            if reading.result_of in waiting:
                call_at = waiting.pop(reading.result_of)
                self._results[call_at] = position
                self._calls[position] = call_at[0]

    def thread(self, thread: Thread) -> ThreadView:
        """Show a thread: what it is, and when calls went on with it."""
        first, replaces = thread.first, thread.replaces
        reading = self._read(first)
        if replaces is None and reading is not None and reading.summary:
            replaces = thread.previous
        kind = "window" if thread.window else "conversation"
        return ThreadView(
            id=first.id,
            kind="compaction" if replaces else kind,
            replaces=replaces.first.id if replaces else None,
            started_at=iso(first.turn.started_at_us),
            last_active_at=iso(self._sources.starts_us[first.newest - 1]),
            turns=first.turns,
        )

    def message(self, position: int) -> MessageView:
        """Show one line."""
        line = self._lines[position]
        span = self._sources.spans.get(line.turn.seq)
        view = MessageView(
            id=line.id,
            position=position,
            thread=line.thread.first.id,
            parent=line.parent,
            kind=line.kind,
            role=None,
            turn=TurnView(
                number=line.turn.number,
                trace_id=span.trace_id.hex() if span else None,
                span_id=line.turn.span_id.hex(),
            ),
            at=iso(line.turn.started_at_us),
            link=f"/api/spans/{line.turn.span_id.hex()}",
        )
        if line.entry is not None:
            return self._message(view, line.entry)
        if line.kind == "prompt":
            return self._prompt(view, line.prompt, line.old_prompt)
        return self._tools(view, line.tools, line.old_tools)

    def _message(self, view: MessageView, entry: Entry) -> MessageView:
        outcome = self._sources.spans.get(entry.outcome.seq) if entry.outcome else None
        if outcome is not None:
            ended_at_us = outcome.ended_at_us or outcome.started_at_us
            view = replace(view, at=iso(ended_at_us), outcome=outcome_view(outcome, entry.repeats))
        reading = self._read(entry)
        if entry.said is not None:
            # What was too much to read is not empty: its link has it.
            view = replace(view, link=f"/api/messages/{entry.id}", truncated=reading is None)
        if reading is not None:
            view = replace(
                self._with_text(view, reading.text),
                parts=[part_view(part, self._most_chars) for part in reading.parts[:MOST]],
                tool_calls=[
                    tool_call_view(
                        call,
                        *self._place(self._results.get((view.position, number))),
                        self._most_chars,
                    )
                    for number, call in enumerate(reading.tool_calls[:MOST])
                ],
                tool_result=self._tool_result(view.position, reading),
            )
        role = entry.said.role if entry.said else "assistant"
        return replace(view, role=role, branches=self._branches(entry))

    def _tool_result(self, position: int, reading: Reading) -> ToolResultView | None:
        if reading.result_of is None:
            return None
        call, call_position = self._place(self._calls.get(position))
        return ToolResultView(call_id=reading.result_of, call=call, call_position=call_position)

    def _place(self, position: int | None) -> tuple[str | None, int | None]:
        return (None, None) if position is None else (self._lines[position].id, position)

    def _branches(self, entry: Entry) -> list[BranchView]:
        found = []
        for head in entry.branches[:BRANCHES]:
            reading = self._read(head)
            view = BranchView(
                id=head.id,
                current=head is entry,
                turns=head.turns,
                last_active_at=iso(self._sources.starts_us[head.newest - 1]),
                preview=preview(reading.text) if reading else None,
            )
            found.append(view)
        return found

    def _prompt(self, view: MessageView, prompt: Prompt, old: Prompt) -> MessageView:
        text = self._prompt_text(prompt)
        return replace(
            self._with_text(view, text),
            role=prompt.messages[0].role if prompt.messages else "system",
            link=f"{view.link}/request",
            changes=changed_lines(self._prompt_text(old), text) if old != Prompt() else [],
        )

    def _tools(self, view: MessageView, tools: Tools, old: Tools) -> MessageView:
        names = self._tool_names(tools)
        return replace(
            view,
            link=f"{view.link}/request",
            tools=list(names)[:MOST],
            changes=changed_tools(self._tool_names(old), names) if old != Tools() else [],
        )

    def _prompt_text(self, prompt: Prompt) -> str:
        texts = [instruction_text(self._data(prompt.instructions))]
        texts += [read(self._data(said.content_id)).text for said in prompt.messages]
        return "\n\n".join(text for text in texts if text)

    def _tool_names(self, tools: Tools) -> dict[str, bytes]:
        return tool_names(self._data(tools.tools)) | tool_names(self._data(tools.functions))

    def _data(self, stored: Stored) -> bytes:
        """Give a value's JSON; null where there is none, or it was too much to read."""
        if isinstance(stored, int):
            return self._sources.contents.get(stored, b"null")
        return b"null" if stored is None else stored

    def _read(self, entry: Entry) -> Reading | None:
        """Read what an entry says; None where there is nothing, or it was too much to read."""
        if entry not in self._readings:
            found = None
            if entry.said is not None:
                if (data := self._sources.contents.get(entry.said.content_id)) is not None:
                    found = read(data)
            elif (data := self._sources.unfinished.get(entry.turn.seq)) is not None:
                so_far = answer_so_far(data)
                found = so_far if so_far.parts or so_far.text or so_far.tool_calls else None
            self._readings[entry] = found
        return self._readings[entry]

    def _with_text(self, view: MessageView, text: str) -> MessageView:
        shown = text[: self._most_chars]
        return replace(view, text=shown, length=len(text), truncated=len(shown) < len(text))
