"""Asking a running server over its HTTP API.

Owns the connection and what can go wrong with it: a failure is a `NoAnswer`, which says what to
do, or a `Refused`, which says what the server said. Shows nothing and tries nothing twice. No
message holds the key that it is asked with.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
import orjson
from yarl import URL

from proxy import operator_socket
from proxy.access import PROJECT_HEADER
from proxy.sse import SseDecoder

T = TypeVar("T")
Params = Mapping[str, str | int | None]
Body = Mapping[str, str | int | float | None]

# Where commands find a key: on a command line every process of the machine would see it.
KEY_VARIABLE: Final = "TRACEWAY_API_KEY"

# A list may take the server seconds where a filter passes over many rows.
_ASKING: Final = aiohttp.ClientTimeout(total=60, sock_connect=5)
# A change takes milliseconds, and waits for as long as the database cannot be written.
CHANGING: Final = aiohttp.ClientTimeout(total=15, sock_connect=5)
# A file takes as long as it takes.
_LONG: Final = aiohttp.ClientTimeout(total=None, sock_connect=5)
# The server sends a comment every 15 s: after three of them that did not come nobody is there.
_FOLLOWING: Final = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=45)
_ID: Final = re.compile(rb"^id: ?(\d+)\r?$", re.MULTILINE)
_POSITION: Final = re.compile(r"q, position (\d+): ")


class NoAnswer(Exception):
    """Nobody answers there as a Traceway server does."""


class BrokenOff(NoAnswer):
    """An answer began, and did not come to its end."""


class Refused(Exception):
    """The server refuses a request; `position` is where its query is wrong, in characters."""

    def __init__(self, status: int, message: str) -> None:
        found = _POSITION.match(message)
        super().__init__(message[found.end() :] if found else message)
        self.status = status
        self.position = int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class _Reason:
    message: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class _Error:
    error: _Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event as far as it is about one call; `data` is all of its JSON, `number` its place."""

    type: str
    trace_id: str = ""
    span_id: str = ""
    session_id: str | None = None
    status: str = ""
    number: int | None = None
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Told:
    """Events that came together, and the number to go on from behind them."""

    events: list[Event]
    position: int | None


class Client:
    """A connection to a server, open from `async with` on.

    The server is at `url`, or at the other end of a Unix `socket`, where no key is needed.
    `project` is the one to work in, where it is not that of the key. `place` is how messages name
    the server.
    """

    def __init__(
        self,
        url: str = "http://localhost",
        *,
        socket: Path | None = None,
        key: str | None = None,
        project: str | None = None,
    ) -> None:
        self.place = str(socket) if socket is not None else url.rstrip("/")
        self._url = url.rstrip("/")
        self._socket = socket
        self._has_key = key is not None
        self._project = project
        self._headers = {} if project is None else {PROJECT_HEADER: project}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._open = ExitStack()

    async def __aenter__(self) -> "Client":
        connector = None
        if self._socket is not None:
            at = self._open.enter_context(operator_socket.address(self._socket))
            connector = aiohttp.UnixConnector(at)
        self._session = aiohttp.ClientSession(
            connector=connector, headers=self._headers, timeout=_ASKING
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        with self._open:
            await self._session.close()
        return False

    async def get(self, path: str, params: Params) -> bytes:
        """Read the JSON of an answer; a parameter that is None is left out.

        Raises:
            NoAnswer, Refused: there is none.
        """
        try:
            async with self._session.get(self._at(path, params)) as answer:
                return await self._read(answer)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._nobody(error) from None

    async def send(self, method: str, path: str, body: Body | None = None) -> bytes:
        """Have the server change something, and read the JSON of its answer.

        Raises:
            NoAnswer, Refused: it did not, or nobody knows.
        """
        data = None if body is None else orjson.dumps(body)
        headers = {} if data is None else {"Content-Type": "application/json"}
        unknown = "did not say whether it is done ({}): look at what it lists, and at its log"
        how: dict[str, Any] = {"data": data, "headers": headers, "timeout": CHANGING}
        return await self._sent(method, path, unknown, **how)

    async def download(
        self, path: str, params: Params, take: Callable[[bytes], object]
    ) -> Mapping[str, str]:
        """Have the pieces of a file taken as they come; give the answer's headers.

        Raises:
            BrokenOff: what was taken is not all of it.
            NoAnswer, Refused: there is none.
        """
        try:
            async with self._session.get(self._at(path, params), timeout=_LONG) as answer:
                if answer.status != 200 or "Content-Disposition" not in answer.headers:
                    await self._check(answer, "")
                try:
                    async for piece in answer.content.iter_any():
                        take(piece)
                except (aiohttp.ClientError, TimeoutError) as error:
                    raise BrokenOff(f"{self.place} broke off ({error}): ask again") from None
                return dict(answer.headers)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._nobody(error) from None

    async def upload(self, path: str, content_type: str, pieces: AsyncIterator[bytes]) -> bytes:
        """Send a file of any length, and read the JSON of the answer.

        Raises:
            NoAnswer, Refused: it did not take all of it, or nobody knows.
        """
        headers = {"Content-Type": content_type}
        unknown = "broke off ({}): send it again, what is there already is passed over"
        how: dict[str, Any] = {"data": pieces, "headers": headers, "timeout": _LONG}
        return await self._sent("POST", path, unknown, **how)

    async def _sent(self, method: str, path: str, unknown: str, **how: Any) -> bytes:
        """Send something, and read the JSON of the answer; `unknown` is said where none came."""
        try:
            # One that is led elsewhere would arrive there as something else.
            async with self._session.request(
                method, self._at(path, {}), allow_redirects=False, **how
            ) as answer:
                return await self._read(answer)
        except aiohttp.ClientConnectorError as error:
            raise self._nobody(error) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            why = str(error) or "no answer in time"
            raise NoAnswer(f"{self.place} {unknown.format(why)}") from None

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        body = await answer.read()
        await self._check(answer, "application/json")
        return body

    async def read(self, kind: type[T], path: str, params: Params) -> T:
        """Read an answer as a dataclass.

        Raises:
            NoAnswer, Refused: there is none.
        """
        return self.decode(kind, await self.get(path, params))

    def decode(self, kind: type[T], data: bytes) -> T:
        """Read JSON of the server's.

        Raises:
            NoAnswer: it is not what a server of this version says.
        """
        try:
            return msgspec.json.decode(data, type=kind, dec_hook=_passed_over)
        except msgspec.DecodeError as error:
            raise NoAnswer(
                f"{self.place} is not a Traceway server of this version: {error}"
            ) from None

    async def follow(self, since: int | None, params: Params) -> AsyncGenerator[Told, None]:
        """Read events as they come, those that came together at once, until the server ends it.

        Raises:
            NoAnswer, Refused: there are none, or the connection broke.
        """
        headers = {} if since is None else {"Last-Event-ID": str(since)}
        decoder = SseDecoder()
        try:
            async with self._session.get(
                self._at("/api/events", params), headers=headers, timeout=_FOLLOWING
            ) as answer:
                await self._check(answer, "text/event-stream")
                async for chunk in answer.content.iter_any():
                    events = []
                    for one in decoder.feed(chunk):
                        found = _ID.search(one.raw)
                        number = int(found[1]) if found else None
                        since = since if number is None else number
                        if one.data_lines:
                            event = self.decode(Event, one.data)
                            events.append(replace(event, number=number, data=one.data))
                    yield Told(events, since)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._nobody(error) from None

    def _at(self, path: str, params: Params) -> URL:
        given = {name: value for name, value in params.items() if value is not None}
        query = urlencode(given, quote_via=quote, errors="replace")
        return URL(f"{self._url}{path}?{query}", encoded=True)

    async def _check(self, answer: aiohttp.ClientResponse, content_type: str) -> None:
        if answer.status in (200, 201, 202) and answer.content_type == content_type:
            return
        try:
            told = msgspec.json.decode(await answer.read(), type=_Error).error
        except msgspec.DecodeError:
            raise NoAnswer(
                f"what answers at {self.place} is not Traceway (status {answer.status}):"
                " say with --url where it is"
            ) from None
        raise Refused(answer.status, self._remedy(answer.status, told) or told.message)

    def _remedy(self, status: int, told: _Reason) -> str | None:
        """Say what whoever runs a command can do, where the server speaks to programs."""
        if status == 401 and self._has_key:
            return (
                f"the server at {self.place} does not know the key in {KEY_VARIABLE}:"
                " it is wrong, or it was revoked"
            )
        if status == 401:
            return (
                f"the server at {self.place} needs a key: put one into {KEY_VARIABLE}"
                " (`traceway keys create --name NAME --scope read` makes one, where the server is)"
            )
        if told.code == "unknown_project":
            return (
                f"there is no project {self._project!r}: `traceway projects list` shows all, and"
                f" `traceway projects create {self._project}` makes it"
            )
        if told.code == "other_project":
            return (
                f"the key in {KEY_VARIABLE} may not work in project {self._project!r}:"
                " leave --project out, or use an admin key"
            )
        return None

    def _nobody(self, error: Exception) -> NoAnswer:
        reason = getattr(error, "os_error", error)
        why = (
            "" if isinstance(reason, ConnectionRefusedError) else f" ({str(reason) or 'no answer'})"
        )
        return NoAnswer(
            f"no server answers at {self.place}{why}:"
            " start it with `traceway serve`, or say with --url where it is"
        )


def _passed_over(_kind: type, _value: object) -> orjson.Fragment:
    """Stand for JSON within an answer, of which nothing here shows a part."""
    return orjson.Fragment(b"null")
