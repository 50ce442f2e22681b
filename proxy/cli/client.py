"""Asking a running server over its HTTP API.

Owns the connection and what can go wrong with it: a failure is a `NoAnswer`, which says what to
do, or a `Refused`, which says what the server said. Shows nothing and tries nothing twice.
"""

import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Literal, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
import orjson
from yarl import URL

from proxy.sse import SseDecoder

T = TypeVar("T")
Params = Mapping[str, str | int | None]

# A list may take the server seconds where a filter passes over many rows.
_ASKING: Final = aiohttp.ClientTimeout(total=60, sock_connect=5)
# The server sends a comment every 15 s: after three of them that did not come nobody is there.
_FOLLOWING: Final = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=45)
_ID: Final = re.compile(rb"^id: ?(\d+)\r?$", re.MULTILINE)
_POSITION: Final = re.compile(r"q, position (\d+): ")


class NoAnswer(Exception):
    """Nobody answers there as a Traceway server does."""


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
    """A connection to the server at `url`, open from `async with` on."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    async def __aenter__(self) -> "Client":
        self._session = aiohttp.ClientSession(timeout=_ASKING)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        await self._session.close()
        return False

    async def get(self, path: str, params: Params) -> bytes:
        """Read the JSON of an answer; a parameter that is None is left out.

        Raises:
            NoAnswer, Refused: there is none.
        """
        try:
            async with self._session.get(self._at(path, params)) as answer:
                body = await answer.read()
                await self._check(answer, "application/json")
                return body
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._nobody(error) from None

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
                f"{self.url} is not a Traceway server of this version: {error}"
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
        return URL(f"{self.url}{path}?{query}", encoded=True)

    async def _check(self, answer: aiohttp.ClientResponse, content_type: str) -> None:
        if answer.status == 200 and answer.content_type == content_type:
            return
        try:
            told = msgspec.json.decode(await answer.read(), type=_Error)
        except msgspec.DecodeError:
            raise NoAnswer(
                f"what answers at {self.url} is not Traceway (status {answer.status}):"
                " say with --url where it is"
            ) from None
        raise Refused(answer.status, told.error.message)

    def _nobody(self, error: Exception) -> NoAnswer:
        reason = getattr(error, "os_error", error)
        why = "" if isinstance(reason, ConnectionRefusedError) else f" ({reason or 'no answer'})"
        return NoAnswer(
            f"no server answers at {self.url}{why}:"
            " start it with `traceway serve`, or say with --url where it is"
        )


def _passed_over(_kind: type, _value: object) -> orjson.Fragment:
    """Stand for JSON within an answer, of which nothing here shows a part."""
    return orjson.Fragment(b"null")
