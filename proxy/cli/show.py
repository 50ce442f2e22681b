"""`traceway sessions show ID`: a session's six metrics and its conversation, from top to bottom.

Shows what the API says, each message once, as wide as the terminal is.
"""

import argparse
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from proxy.api.message_views import MessageView, OutcomeView, PartView, ThreadView
from proxy.api.views import SessionView
from proxy.cli.client import Client, Params
from proxy.cli.terminal import Screen, clock, safe, safe_json, wrap
from proxy.ui import view

# By `id=` any id is found, also one that no path can carry.
SESSION = "/api/sessions/by-id"
_MARKS = {"added": "+ ", "removed": "- ", "changed": "~ "}


@dataclass(frozen=True, slots=True)
class _More:
    """Where an answer goes on: `cursor` of the traces, `next` of the messages."""

    cursor: str | None = None
    next: int | None = None


@dataclass(frozen=True, slots=True)
class _Conversation:
    threads: list[ThreadView]
    messages: list[MessageView]
    next: int | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("id", metavar="ID", help="the session's id")


async def run(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    """Show a session."""
    if options.json:
        async for answer in _answers(client, options.id):
            print(safe_json(answer))
        return
    session = await client.read(SessionView, SESSION, {"id": options.id, "limit": 1})
    print("\n".join(_head(session, screen)))
    writer = _Writer(screen)
    start: int | None = 0
    while start is not None:
        page = await client.read(
            _Conversation, f"{SESSION}/conversation", {"id": options.id, "from": start}
        )
        for line in writer.page(page):
            print(line)
        start = page.next


async def _answers(client: Client, session_id: str) -> AsyncIterator[bytes]:
    """Read all pages of the session's traces, then all of its conversation."""
    more = _More("", 0)
    while more.cursor is not None:
        answer = await client.get(SESSION, {"id": session_id, "cursor": more.cursor or None})
        yield answer
        more = client.decode(_More, answer)
    more = _More(None, 0)
    while more.next is not None:
        place: Params = {"id": session_id, "from": more.next}
        answer = await client.get(f"{SESSION}/conversation", place)
        yield answer
        more = client.decode(_More, answer)


def _head(session: SessionView, screen: Screen) -> Iterator[str]:
    yield from (screen.paint(line, "strong") for line in wrap(session.id, screen.width))
    yield screen.paint(session.status, session.status)
    named = [session.name, session.user_id and f"user {session.user_id}", *session.models]
    yield from wrap(", ".join(text for text in named if text), screen.width)
    yield ""
    cost = view.money(
        session.cost, unpriced=session.unpriced_count, estimated=session.estimated_count
    )
    tokens = view.tokens(session.total_tokens, estimated=session.estimated_count)
    parts = ", ".join(
        f"{number:,} {name}"
        for number, name in (
            (session.input_tokens, "in"),
            (session.output_tokens, "out"),
            (session.cached_input_tokens, "of it cached"),
        )
        if number is not None
    )
    failed = f"{session.failed_trace_count:,} of {view.plural(session.trace_count, 'trace')} failed"
    figures = [
        ("Total cost", str(cost), cost.exact),
        ("Total tokens", str(tokens), parts),
        ("Total duration", str(view.duration(session.duration_ms)), ""),
        ("Avg latency", str(view.duration(session.avg_latency_ms)), ""),
        ("Trace count", f"{session.trace_count:,}", ""),
        ("Error rate", str(view.percent(session.error_rate)), failed),
    ]
    for name, figure, exact in figures:
        aside = f"  ({exact})" if exact and exact != figure else ""
        yield from wrap(f"{name:<16}{figure}{aside}", screen.width)


class _Writer:
    """Writes a conversation page by page: a heading for each turn, below it what it brought."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._thread = ""
        self._turn = 0

    def page(self, page: _Conversation) -> Iterator[str]:
        threads = {thread.id: thread for thread in page.threads}
        for message in page.messages:
            if message.thread != self._thread:
                kind = threads[message.thread].kind
                if self._thread or kind != "conversation":
                    yield f"\n{self._screen.paint(f'== {kind} ==', 'strong')}"
                self._thread, self._turn = message.thread, 0
            if message.turn.number != self._turn:
                self._turn = message.turn.number
                began = message.outcome.started_at if message.outcome else message.at
                title = f"turn {self._turn:,}  {clock(began, with_date=True)}"
                yield f"\n{self._screen.paint(title, 'strong')}"
            yield from self._message(message)

    def _message(self, message: MessageView) -> Iterator[str]:
        yield self._screen.paint(f"  {safe(_speaker(message))}", "faint")
        if message.changes:
            for change in message.changes:
                yield from self._text(_MARKS[change.change] + change.text)
        elif message.tools:
            yield from self._text(", ".join(message.tools))
        elif message.parts:
            for part in message.parts:
                yield from self._text(_part(part))
        elif message.text:
            yield from self._text(message.text)
        if message.truncated:
            yield f"    … the whole is at {safe(message.link)}"
        for call in message.tool_calls:
            cut = " …" if call.truncated else ""
            yield from self._text(f"-> {call.name}({call.arguments}{cut})")
        if message.outcome is not None:
            yield from self._outcome(message.outcome)
        if len(message.branches) > 1:
            yield f"    one of {len(message.branches)} branches, of which this is the newest"

    def _outcome(self, outcome: OutcomeView) -> Iterator[str]:
        said = [outcome.state]
        if outcome.model is not None:
            said.append(outcome.model)
        tokens = [outcome.input_tokens, outcome.output_tokens]
        if any(number is not None for number in tokens):
            sent, answered = (str(view.tokens(number)) for number in tokens)
            said.append(f"{sent} + {answered} tokens")
        said += [str(view.money(outcome.cost)), str(view.duration(outcome.duration_ms))]
        if outcome.repeats:
            said.append(f"answered so {view.plural(outcome.repeats, 'time')} more")
        state = self._screen.paint(outcome.state, outcome.state)
        for line in self._text(f"= {', '.join(said)}"):
            yield line.replace(f"= {outcome.state}", f"= {state}")
        if outcome.error is not None:
            for line in self._text(f"error: {outcome.error}"):
                yield self._screen.paint(line, "failed")

    def _text(self, text: str) -> Iterator[str]:
        return wrap(text, self._screen.width, "    ")


def _speaker(message: MessageView) -> str:
    if message.kind == "prompt":
        return f"{message.role} prompt{', changed' if message.changes else ''}"
    if message.kind == "tools":
        return f"tools{', changed' if message.changes else ''}"
    if message.tool_result is not None:
        return f"{message.role}, result of {message.tool_result.call_id}"
    return message.role or ""


def _part(part: PartView) -> str:
    """Write a part of a message: its text, or what is there instead of it."""
    about = [part.kind if part.kind != "other" else "", part.name, part.mime, part.url]
    if part.size is not None:
        about.append(f"{part.size:,} bytes")
    label = f"[{', '.join(text for text in about if text)}]"
    if part.text is None:
        return label
    return part.text if part.kind == "text" else f"{label} {part.text}"
