"""A session as lines for fine-tuning, in the format of proxy/providers/finetune.py.

Owns which answers are trained, and in which line. Invariants: every turn of a session is trained
once or counted with the reason why it is not; an answer is trained with what the model saw when it
gave it, and with nothing else. So there is a line for each end of the conversation, and more where
the prompt or the tools changed on the way to it, or a call left the beginning out. What goes while
it is read is an error, and no reason.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

from proxy.api.conversation import ANSWERING
from proxy.api.staying import check_stays
from proxy.providers.finetune import (
    Head,
    Message,
    NotExpressible,
    Reason,
    goes_on,
    is_cut_short,
    write_line,
)
from storage import queries, rebuild, transcript
from storage.archive import ArchiveChanged
from storage.database import Database
from storage.lines import Prompt, Tools, prompt_of, tools_of
from storage.records import COMPLETED, Span
from storage.threads import Entry, Said, Stored, Tree, Turn

MEDIA_TYPE: Final = "application/jsonl"
SUFFIX: Final = ".finetune.jsonl"
# How many lines there are, and how many turns are in none: `reason=count`, with commas between.
LINES_HEADER: Final = "X-Traceway-Lines"
SKIPPED_HEADER: Final = "X-Traceway-Skipped"
# Contents of one line; what is longer no model reads.
LINE_BYTES: Final = 32 * 1024 * 1024
# Turns whose spans are read at a time.
TURNS: Final = 1000

Skipped: TypeAlias = (
    Reason
    | Literal[
        "cut_short",
        "not_completed",
        "not_recorded",
        "no_answer",
        "repeated",
        "too_large",
        "not_chat",
        "unknown_beginning",
    ]
)

# The reason of a turn of which the provider held what came before, and nobody recorded it.
HELD: Final = "unknown_beginning"
# Why a turn is not trained: of what it says, and of how it went.
REASONS: Final = frozenset((*get_args(Reason), *get_args(get_args(Skipped)[-1])))


@dataclass(slots=True)
class Report:
    """How many lines there are, how many turns they train, and why how many others are not."""

    lines: int = 0
    trained: int = 0
    skipped: "Counter[Skipped]" = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Setting:
    """What a turn was asked with beside its messages, and the step with which these begin."""

    start: int
    prompt: Prompt
    tools: Tools


@dataclass(frozen=True, slots=True)
class _Step:
    """A message on the way to an end: the turn that it answers, or None, and with what setting."""

    said: Said
    answers: Turn | None
    setting: _Setting


class FineTune:
    """Writes sessions as lines for fine-tuning."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pieces(self, project_id: int, session_id: str) -> AsyncIterator[bytes]:
        """Write a session's lines.

        Raises:
            LookupError: there is no such session; before the first piece.
            ArchiveChanged: it does not stay meanwhile.
        """
        async for line in self._lines(project_id, session_id, Report()):
            yield line

    async def report(self, project_id: int, session_id: str) -> Report:
        """Tell what `pieces` gives, and what it leaves out.

        Raises:
            LookupError: there is no such session.
            ArchiveChanged: it does not stay meanwhile.
        """
        report = Report()
        async for _ in self._lines(project_id, session_id, report):
            pass
        return report

    async def headers(self, project_id: int, session_id: str) -> dict[str, str]:
        """Tell the report in headers; raises what that does."""
        report = await self.report(project_id, session_id)
        skipped = ", ".join(f"{why}={count}" for why, count in sorted(report.skipped.items()))
        return {LINES_HEADER: str(report.lines), SKIPPED_HEADER: skipped}

    async def _lines(
        self, project_id: int, session_id: str, report: Report
    ) -> AsyncIterator[bytes]:
        session = await queries.get_session(self._database, project_id, session_id)
        if session is None:
            raise LookupError(session_id)
        turns = await transcript.session_turns(self._database, project_id, session_id, ANSWERING)
        reasons = await self._judged(project_id, turns)
        tree, seen = await asyncio.to_thread(lambda: (Tree(turns), _seen(turns, reasons)))
        waiting = {turn.number for turn in turns} & seen.keys() - reasons.keys()
        report.skipped.update(reasons.values())
        if lost := len(turns) - len(seen.keys() | reasons.keys()):
            report.skipped[HELD] += lost
        for leaf in tree.leaves:
            steps = await asyncio.to_thread(_steps, leaf, seen)
            due = {turn: end for turn, end in _ends(steps).items() if turn in waiting}
            while due:
                number, end = max(due.items(), key=lambda one: one[1])
                setting = steps[end].setting
                trained = {one for one, last in due.items() if steps[last].setting == setting}
                messages = steps[setting.start : end + 1]
                done = {number}
                try:
                    line = await self._line(project_id, setting, messages, trained)
                except _TooLarge:
                    report.skipped["too_large"] += 1
                except NotExpressible as problem:
                    # What stands before it may be a line; behind it is nothing that can be one.
                    at = setting.start + problem.index
                    done |= {one for one in trained if due[one] >= at}
                    report.skipped[problem.reason] += len(done)
                else:
                    done = trained
                    report.lines += 1
                    report.trained += len(trained)
                    yield line + b"\n"
                waiting -= done
                due = {one: last for one, last in due.items() if one not in done}
        for number in waiting:
            report.skipped["repeated" if turns[number - 1].answers else "no_answer"] += 1
        await check_stays(self._database, session)

    async def _judged(self, project_id: int, turns: Sequence[Turn]) -> dict[int, Skipped]:
        """Find the turns that cannot be trained, whatever they say, and why."""
        reasons: dict[int, Skipped] = {}
        for start in range(0, len(turns), TURNS):
            some = turns[start : start + TURNS]
            seqs = [turn.seq for turn in some]
            spans = await transcript.turn_spans(self._database, project_id, seqs)
            frames = await transcript.answer_frames(self._database, project_id, seqs)
            for turn in some:
                if (span := spans.get(turn.seq)) is None:
                    raise ArchiveChanged("a call")
                begins = turn.recorded and turn.base is None
                if begins and await self._is_held(span):
                    reasons[turn.number] = HELD
                elif reason := _why_not(turn, span):
                    reasons[turn.number] = reason
                elif is_cut_short(frames.get(turn.seq, b"")):
                    reasons[turn.number] = "cut_short"
        return reasons

    async def _is_held(self, span: Span) -> bool:
        """Tell whether the provider holds what came before, of which no turn is known."""
        if span.operation != "responses":
            return False
        body = await rebuild.request_body(self._database, span.project_id, span.span_id)
        return body is None or await asyncio.to_thread(goes_on, body.data)

    async def _line(
        self, project_id: int, setting: _Setting, steps: Sequence[_Step], trained: set[int]
    ) -> bytes:
        head = [setting.prompt.instructions, setting.tools.tools, setting.tools.functions]
        prelude = [said.content_id for said in setting.prompt.messages]
        said = [step.said.content_id for step in steps]
        ids = [*(one for one in head if isinstance(one, int)), *prelude, *said]
        data = await transcript.message_contents(self._database, project_id, ids, LINE_BYTES)
        if len(data) < len(set(ids)):
            if not await transcript.are_there(self._database, project_id, ids):
                raise ArchiveChanged("a message")
            raise _TooLarge
        instructions, tools, functions = (_data(one, data) for one in head)
        return await asyncio.to_thread(
            write_line,
            Head(instructions, [data[one] for one in prelude], tools, functions),
            [
                Message(data[step.said.content_id], step.answers.number if step.answers else None)
                for step in steps
            ],
            trained,
        )


class _TooLarge(Exception):
    """A line has more contents than are read for one."""


def _why_not(turn: Turn, span: Span) -> Skipped | None:
    """Say why the answer of a turn cannot be an example, whatever it says."""
    if turn.state != COMPLETED:
        return "not_completed"
    if not turn.recorded:
        return "not_recorded"
    if any(body.truncated or body.redacted for body in (span.request, span.response) if body):
        return "not_recorded"
    if span.operation is not None and span.operation not in ("chat.completions", "responses"):
        return "not_chat"
    return None


def _seen(turns: Sequence[Turn], reasons: Mapping[int, Skipped]) -> dict[int, int]:
    """Count the messages that each turn saw, its own answer among them, by the turn's number.

    Those that go on from what is not known are not in it.
    """
    at: dict[bytes, int] = {}
    lost: set[bytes | None] = set()
    seen = {}
    for turn in turns:
        # Who sends all of it again needs nobody who holds it.
        is_lost = turn.held and (turn.base in lost or turn.base not in at)
        count = at.get(turn.base, 0) if turn.base is not None else 0
        for place, said in (
            (turn.input_meaning, turn.inputs),
            (turn.output_meaning, turn.answers),
        ):
            count += sum(1 for one in said if one.meaning)
            if place is not None:
                at[place] = count
        if is_lost or reasons.get(turn.number) == HELD:
            lost |= {turn.input_meaning, turn.output_meaning}
        else:
            seen[turn.number] = count
    return seen


def _steps(leaf: Entry, seen: Mapping[int, int]) -> list[_Step]:
    """Give the way to the end of a conversation, message by message."""
    steps: list[_Step] = []
    # Where those stand that count: what the model thought or looked up goes along with the next.
    places: list[int] = []
    turn: Turn | None = None
    prompt, tools = Prompt(), Tools()
    for entry in _way(leaf):
        if entry.said is None:
            continue
        answers = entry.turn if entry.said in entry.turn.answers else entry.outcome
        if (answers or entry.turn) is not turn:
            turn = answers or entry.turn
            prompt, tools = prompt_of(turn, prompt), tools_of(turn, tools)
        if entry.said.meaning:
            places.append(len(steps))
        count = seen.get(turn.number, 0)
        start = places[-count] if 0 < count < len(places) else 0
        steps.append(_Step(entry.said, answers, _Setting(start, prompt, tools)))
    return steps


def _way(leaf: Entry) -> Iterator[Entry]:
    found = []
    entry: Entry | None = leaf
    while entry is not None and entry.level:
        found.append(entry)
        entry = entry.parent
    for entry in reversed(found):
        yield from entry.before
        yield entry


def _ends(steps: Sequence[_Step]) -> dict[int, int]:
    """Give the turns whose whole answer is on the way, and the step at which it ends."""
    ends: dict[int, int] = {}
    counts: Counter[int] = Counter()
    turns = {}
    for n, step in enumerate(steps):
        if step.answers is not None and step.said.meaning:
            turns[step.answers.number] = step.answers
            ends[step.answers.number] = n
            counts[step.answers.number] += 1
    return {
        number: end
        for number, end in ends.items()
        if counts[number] == sum(1 for said in turns[number].answers if said.meaning)
    }


def _data(stored: Stored, data: Mapping[int, bytes]) -> bytes:
    if isinstance(stored, int):
        return data[stored]
    return b"null" if stored is None else stored
