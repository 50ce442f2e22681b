"""A session's tree read from top to bottom: one path through each thread, line by line. Pure.

Besides the messages a line may say which prompt and which tools hold from there on. Invariant:
they stand once at a thread's beginning, and again only where a turn on the path changed them,
before the first message that came with it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from storage.records import COMPLETED, RUNNING
from storage.threads import Entry, Said, Stored, Thread, Tree, Turn

Kind = Literal["prompt", "tools", "input", "answer", "error", "running"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What instructs the model: the request's instructions, and messages before all others."""

    instructions: Stored = None
    messages: tuple[Said, ...] = ()

    def differs(self, other: "Prompt") -> bool:
        """Tell whether another prompt says something else."""
        return self.instructions != other.instructions or (
            [said.meaning for said in self.messages] != [said.meaning for said in other.messages]
        )


@dataclass(frozen=True, slots=True)
class Tools:
    """What the model may call."""

    tools: Stored = None
    functions: Stored = None


class Line(NamedTuple):
    """One line: a message or a turn's end (``entry``), or a prompt or tools that hold from there.

    ``parent`` is the id of the message before it in the conversation. ``old_prompt`` and
    ``old_tools`` are what held before.
    """

    kind: Kind
    thread: Thread
    turn: Turn
    parent: str | None
    entry: Entry | None = None
    prompt: Prompt = Prompt()
    old_prompt: Prompt = Prompt()
    tools: Tools = Tools()
    old_tools: Tools = Tools()

    @property
    def id(self) -> str:
        """An entry's id, or the span with which the prompt or the tools changed."""
        return self.entry.id if self.entry else f"{self.turn.span_id.hex()}-{self.kind}"


class Fork(NamedTuple):
    """Where a path begins: with its first message, and what held before that."""

    entry: Entry
    parent: str | None = None
    prompt: Prompt = Prompt()
    tools: Tools = Tools()


def lines(tree: Tree, way: Mapping[Entry, Entry]) -> list[Line]:
    """Give every thread, in the order in which they began, each along one path.

    The newest branch is the one taken, where ``way`` says of a message no other to go on with.
    """
    return [line for thread in tree.threads for line in _path(thread, Fork(thread.first), way, [])]


def all_lines(tree: Tree) -> list[list[Line]]:
    """Give every line of every branch once: of each thread its newest branch, then the others.

    Another branch begins with the first message that is not on a path before it.
    """
    paths: list[list[Line]] = []
    for thread in tree.threads:
        forks = [Fork(thread.first)]
        # A path finds the branches that leave it, which come behind those that are known.
        paths.extend(list(_path(thread, fork, {}, forks)) for fork in forks)
    return paths


def _path(
    thread: Thread, fork: Fork, way: Mapping[Entry, Entry], forks: list[Fork]
) -> Iterator[Line]:
    """Give the lines of a path, and add to ``forks`` those that leave it."""
    entry: Entry | None
    entry, parent, prompt, tools = fork
    turn: Turn | None = None
    while entry is not None:
        for one in (*entry.before, entry) if entry.shown_as is None else ():
            if one.turn is not turn:
                turn = one.turn
                old_prompt, prompt = prompt, prompt_of(turn, prompt)
                old_tools, tools = tools, tools_of(turn, tools)
                told = Line(kind="prompt", thread=thread, turn=turn, parent=parent)
                if prompt.differs(old_prompt):
                    yield told._replace(prompt=prompt, old_prompt=old_prompt)
                if tools != old_tools:
                    yield told._replace(kind="tools", tools=tools, old_tools=old_tools)
            yield _line(thread, parent, one)
        parent = entry.id
        # These may be of later turns than what follows, and change nothing for it.
        for one in entry.after.values():
            yield _line(thread, parent, one)
        children = entry.children.values()
        entry = way.get(entry) or max(children, key=lambda child: child.newest, default=None)
        forks += [Fork(one, parent, prompt, tools) for one in children if one is not entry]


def _line(thread: Thread, parent: str | None, entry: Entry) -> Line:
    kind: Kind = "answer" if entry.answer else "input"
    if entry.said is None and entry.turn.state != COMPLETED:
        kind = "running" if entry.turn.state == RUNNING else "error"
    return Line(kind=kind, thread=thread, turn=entry.turn, parent=parent, entry=entry)


def prompt_of(turn: Turn, before: Prompt) -> Prompt:
    """Give the prompt that holds with a turn, where `before` is what held on the way to it."""
    instructions = before.instructions if turn.setting is None else turn.setting.instructions
    # A provider that holds the conversation holds the messages that instruct, too.
    held = turn.held and not turn.prelude
    return Prompt(instructions, before.messages if held else tuple(turn.prelude))


def tools_of(turn: Turn, before: Tools) -> Tools:
    """Give the tools that hold with a turn, where `before` are those that held on the way to it."""
    return before if turn.setting is None else Tools(turn.setting.tools, turn.setting.functions)
