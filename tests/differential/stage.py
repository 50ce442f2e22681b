"""Plays a case: a client, a proxy, and a scripted upstream behind it; then judges what was seen.

Every wait ends: when what it waits for has come, when the proxy refused or closed, or at its limit,
which is then part of what was seen. Knows nothing of which proxy it is.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import unquote_to_bytes

from tests.differential.script import OK, Asked, Case, Got, Move, Outcome
from tests.differential.strict import End, Message, Reading, read
from tests.wire import Peer, ScriptedUpstream

# The requests that a client means to make; those in a body have this name.
_METHODS = re.compile(rb"^([A-Z]+) /(?!\S*SMUGGLED)", re.MULTILINE)
_UPSTREAM_MOVES = {"is_asked", "sees", "tells", "serves", "closes", "cuts", "is_left"}


class Wire:
    """One connection as one side sees it."""

    def __init__(self, peer: Peer, lane: bytes) -> None:
        self.peer = peer
        self.lane = lane
        self.data = bytearray()
        self.end: End = "open"
        self.handled = 0  # requests that the upstream answered, or leaves to the script
        self.owes = False  # whether the script took one of them and has not answered it yet
        self.methods: list[bytes] = []  # of a client's requests

    async def take(self, changed: Callable[[], None]) -> None:
        """Read to the end of the connection."""
        try:
            while data := await self.peer.reader.read(2**18):
                self.data += data
                changed()
            self.end = "closed"
        except ConnectionError:
            self.end = "reset"
        changed()

    def requests(self) -> Reading:
        return read(bytes(self.data).replace(self.lane, b"openai"), "requests", self.end)

    def answers(self) -> Reading:
        return read(bytes(self.data), "answers", self.end, self.methods)


@dataclass
class Seen:
    """What came of a case. `asked` are whole requests, `begun` how many more began."""

    asked: list[Message] = field(default_factory=list)
    begun: int = 0
    got: list[Message] = field(default_factory=list)
    upstream_problems: list[str] = field(default_factory=list)
    client_problems: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    end: End = "open"


class Stage:
    """Plays cases one after another. `quiet_s`: who says nothing for so long has said all."""

    def __init__(self, upstream: ScriptedUpstream, port: int, quiet_s: float) -> None:
        self._upstream = upstream
        self._port = port
        self._quiet_s = quiet_s
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        self._lines: list[Wire] = []
        self._clients: list[Wire] = []
        self._order: list[tuple[Wire, Message]] = []
        self._serving = True
        self._line: Wire | None = None
        self._taken = 0
        self._lane = b"openai"

    async def play(self, case: Case, lane: bytes = b"openai") -> Seen:
        """Play a case; `lane` is the upstream's name in the configuration, of six letters."""
        self._lines, self._clients, self._order = [], [], []
        self._line, self._taken, self._over, self._lane = None, 0, asyncio.Event(), lane
        self._serving = not any(move.what in _UPSTREAM_MOVES for move in case.script)
        self._upstream.script = self._serve
        seen = Seen()
        async with asyncio.TaskGroup() as tasks:
            await self._connect(tasks)
            for move in _in_lane(case.script, lane):
                if not await self._make(move, tasks):
                    seen.late.append(f"{move.what} {move.data[:30]!r}".replace(" b''", ""))
                    break
            expected = max(len(outcome.got) for outcome in case.outcomes)
            await self._until(lambda: self._is_over(expected), case.limit_s)
            await self._quiet()
            seen.end = self._clients[-1].end
            for client in self._clients:
                self._read_answers(client, seen)
                client.peer.writer.transport.abort()
            await self._quiet()
            for line in self._lines:
                line.peer.writer.transport.abort()
            self._over.set()
        self._read_requests(seen)
        return seen

    # What happens on the wires.

    async def _serve(self, peer: Peer) -> None:
        line = Wire(peer, self._lane)
        self._lines.append(line)
        order, over = self._order, self._over  # of this case, also when its end comes late

        def changed() -> None:
            known = sum(wire is line for wire, _ in order)
            whole = [message for message in line.requests().messages if message.whole]
            order.extend((line, message) for message in whole[known:])
            if not over.is_set():
                self._answer_all()
                self._changed.set()

        await line.take(changed)
        await over.wait()

    def _answer_all(self) -> None:
        if not self._serving:
            return
        for line in self._lines:
            waiting = [message for wire, message in self._order if wire is line][line.handled :]
            for message in waiting:
                line.handled += 1
                body = OK if message.method != b"HEAD" else OK.partition(b"{")[0]
                with contextlib.suppress(ConnectionError):
                    line.peer.writer.write(body)

    async def _connect(self, tasks: asyncio.TaskGroup) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        client = Wire(Peer(reader, writer), self._lane)
        self._clients.append(client)
        tasks.create_task(client.take(self._changed.set))

    async def _make(self, move: Move, tasks: asyncio.TaskGroup) -> bool:
        """Make a move; False if what it waits for did not come."""
        client, line = self._clients[-1], self._line
        data = move.data
        match move.what:
            case "says":
                client.methods += _METHODS.findall(data)
                client.peer.writer.write(data)
                with contextlib.suppress(ConnectionError):
                    await client.peer.writer.drain()
            case "another":
                await self._connect(tasks)
            case "ends_its_side":
                with contextlib.suppress(OSError):
                    client.peer.writer.write_eof()
            case "leaves":
                client.peer.writer.transport.close()
            case "resets":
                with contextlib.suppress(OSError):
                    client.peer.cut()
            case "pause":
                await asyncio.sleep(move.seconds)
            case "serves":
                self._serving = True
                if line is not None and line.owes:
                    line.handled -= 1
                self._answer_all()
            case "reads":
                return await self._until(lambda: data in client.data, move.seconds)
            case "answered":
                return await self._until(lambda: self._has_answers(client), move.seconds)
            case "is_closed":
                return await self._until(lambda: client.end != "open", move.seconds)
            case "is_asked":
                wanted = self._taken
                await self._until(
                    lambda: len(self._order) > wanted or self._has_answers(client), move.seconds
                )
                if len(self._order) > wanted:
                    self._taken += 1
                    self._line = self._order[wanted][0]
                    before = self._order[: wanted + 1]
                    self._line.handled = sum(wire is self._line for wire, _ in before)
                    self._line.owes = True
            case "sees":
                await self._until(lambda: self._seeing(data) is not None, move.seconds)
                self._line = self._seeing(data)
                if self._line is None:
                    return False
                self._line.handled = 1 + sum(wire is self._line for wire, _ in self._order)
            case "is_left":
                return line is None or await self._until(lambda: line.end != "open", move.seconds)
            case _ if line is None:
                pass  # the proxy let nothing through: there is nobody to answer
            case "tells":
                line.owes = False
                with contextlib.suppress(ConnectionError):
                    line.peer.writer.write(data)
                    await line.peer.writer.drain()
            case "closes":
                line.peer.writer.transport.close()
            case "cuts":
                with contextlib.suppress(OSError):  # the proxy was faster
                    line.peer.cut()
        return True

    def _seeing(self, data: bytes) -> Wire | None:
        return next((line for line in reversed(self._lines) if data in line.data), None)

    def _has_answers(self, client: Wire) -> bool:
        whole = sum(message.whole for message in client.answers().messages)
        return client.end != "open" or whole >= len(client.methods)

    def _is_over(self, expected: int) -> bool:
        """Whether every answer that is expected has come, or cannot come any more."""
        whole = 0
        for client in self._clients:
            if client.end != "open":
                whole += max(1, len(client.answers().messages))
            else:
                reading = client.answers()
                whole += sum(message.whole for message in reading.messages)
        return whole >= max(expected, len(self._clients)) or self._clients[-1].end != "open"

    async def _until(self, holds: Callable[[], bool], seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        return holds()

    async def _quiet(self) -> None:
        """Wait until no byte comes for a while."""
        with contextlib.suppress(TimeoutError):
            while True:
                self._changed.clear()
                async with asyncio.timeout(self._quiet_s):
                    await self._changed.wait()

    # What is made of it.

    def _read_answers(self, client: Wire, seen: Seen) -> None:
        reading = client.answers()
        seen.got += reading.messages
        if reading.problem is not None:
            seen.client_problems.append(reading.problem)

    def _read_requests(self, seen: Seen) -> None:
        seen.asked = [message for _, message in self._order]
        for line in self._lines:
            reading = line.requests()
            seen.begun += sum(not message.whole for message in reading.messages)
            seen.begun += bool(reading.rest) and reading.problem is None
            if reading.problem is not None:
                seen.upstream_problems.append(reading.problem)


def _in_lane(script: Sequence[Move], lane: bytes) -> list[Move]:
    """Put the lane's name for the upstream's, which may be cut anywhere."""
    said = b"".join(move.data for move in script if move.what == "says").replace(b"openai", lane)
    moves = []
    for move in script:
        if move.what == "says":
            data, said = said[: len(move.data)], said[len(move.data) :]
            move = replace(move, data=data)
        moves.append(move)
    return moves


# Judging.


def judge(case: Case, seen: Seen) -> str | None:
    """Say what is wrong, None where all is right."""
    if seen.upstream_problems:
        return f"the upstream got {seen.upstream_problems[0]}"
    for message in seen.asked:
        if b"SMUGGLED" in message.target:
            return f"a second request went upstream; {told(seen)}"
        path = unquote_to_bytes(message.target.partition(b"?")[0]).replace(b"\\", b"/")
        if {b".", b".."} & set(path.split(b"/")):
            return f"a dot segment went upstream: {message.target.decode('latin-1')}"
    if seen.late:
        return f"in vain: {seen.late[0]}; {told(seen)}"
    wrongs = [_wrong(outcome, seen) for outcome in case.outcomes]
    if None in wrongs:
        return None
    # Of several that would be right, the one that it came nearest to.
    nearest = min(
        (outcome for outcome in case.outcomes),
        key=lambda outcome: (len(outcome.asked) != len(seen.asked), outcome.got == ()),
    )
    return f"{_wrong(nearest, seen)}; {told(seen)}"


def told(seen: Seen) -> str:
    """Say in short what was seen."""
    answers = [f"{m.status}" + ("" if m.whole else " (cut)") for m in seen.got]
    requests = [f"{m.method[:20].decode('latin-1')} with {len(m.body)} bytes" for m in seen.asked]
    requests += ["an unfinished one"] * seen.begun
    said = "answered " + (", ".join(answers) or f"nothing ({seen.end})")
    said += "".join(f", and {problem}" for problem in seen.client_problems)
    return f"{said}; upstream: {', '.join(requests) or 'nothing'}"


def _wrong(outcome: Outcome, seen: Seen) -> str | None:
    if len(seen.asked) != len(outcome.asked):
        return f"{len(seen.asked)} requests upstream, not {len(outcome.asked)}"
    for asked, message in zip(outcome.asked, seen.asked, strict=True):
        if (wrong := _wrong_request(asked, message)) is not None:
            return wrong
    if outcome.loose:
        return None
    if seen.client_problems:
        return f"the client got {seen.client_problems[0]}"
    if len(seen.got) != len(outcome.got):
        return f"{len(seen.got)} answers, not {len(outcome.got)}"
    for got, message in zip(outcome.got, seen.got, strict=True):
        if (wrong := _wrong_answer(got, message)) is not None:
            return wrong
    return "the connection stays open" if outcome.closed and seen.end == "open" else None


def _wrong_request(asked: Asked, message: Message) -> str | None:
    if asked.method is not None and message.method != asked.method:
        return f"the method became {message.method!r}"
    if asked.target is not None and message.target != asked.target:
        return f"the target became {message.target[:60]!r}"
    if asked.body is not None and message.body != asked.body:
        return f"the request body became {message.body[:40]!r}"
    return _wrong_fields(asked.lines, asked.without, message)


def _wrong_answer(got: Got, message: Message) -> str | None:
    if message.status not in got.status:
        return f"status {message.status}"
    if message.whole != got.whole:
        return "the answer looks complete" if message.whole else "the answer never ended"
    if got.body is not None and message.body != got.body:
        return f"the answer's body became {message.body[:40]!r}"
    if not message.body.startswith(got.begins):
        return f"what came before the cut became {message.body[:40]!r}"
    reason = message.start.partition(b" ")[2].partition(b" ")[2]
    if got.reason is not None and reason != got.reason:
        return f"the reason became {reason!r}"
    return _wrong_fields(got.lines, got.without, message)


def _wrong_fields(lines: Sequence[bytes], without: Sequence[bytes], message: Message) -> str | None:
    there = [name + b": " + value for name, value in message.fields]
    at = 0
    for line in lines:
        if line not in there[at:]:
            return f"no header {line[:40]!r}" + (" in its place" if line in there else "")
        at = there.index(line, at) + 1
    for name in without:
        if message.all(name):
            return f"the header {name.decode()} went through"
    return None
