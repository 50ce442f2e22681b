"""What a case is made of: moves of both sides in order, and what may come of them. Data only.

A script reads as a sequence diagram from top to bottom. A move that waits goes on when what it
waits for has come, or when the proxy has ended the matter in another way.
"""

from dataclasses import dataclass
from typing import Literal

What = Literal[
    "says", "another", "reads", "answered", "ends_its_side", "leaves", "resets", "is_closed",
    "is_asked", "sees", "tells", "serves", "closes", "cuts", "is_left", "pause",
]  # fmt: skip


@dataclass(frozen=True)
class Move:
    """One step. `data` are bytes that are sent or waited for, `seconds` how long it may take."""

    what: What
    data: bytes = b""
    seconds: float = 3.0


# What the client does. `another` opens a connection, which the moves behind it are about.


def says(data: bytes) -> Move:
    return Move("says", data)


def another() -> Move:
    return Move("another")


def reads(data: bytes, seconds: float = 3.0) -> Move:
    """Wait until the client has these bytes."""
    return Move("reads", data, seconds)


def answered(seconds: float = 3.0) -> Move:
    """Wait until each request of this client so far is answered, or its connection ends."""
    return Move("answered", b"", seconds)


def ends_its_side() -> Move:
    return Move("ends_its_side")


def leaves() -> Move:
    return Move("leaves")


def resets() -> Move:
    return Move("resets")


def is_closed(seconds: float) -> Move:
    """Wait until the proxy closes the client's connection."""
    return Move("is_closed", b"", seconds)


# What the upstream does. Without any move of its own it answers each request with OK.


def is_asked() -> Move:
    """Wait for the next whole request; the moves behind it are about its connection."""
    return Move("is_asked")


def sees(data: bytes) -> Move:
    """Wait until a connection brought these bytes, however far its request is."""
    return Move("sees", data)


def tells(data: bytes) -> Move:
    return Move("tells", data)


def serves() -> Move:
    """From now on answer each request with OK, those included that wait for an answer."""
    return Move("serves")


def closes() -> Move:
    return Move("closes")


def cuts() -> Move:
    """Reset the connection."""
    return Move("cuts")


def is_left(seconds: float = 2.0) -> Move:
    """Wait until the proxy closes its connection to the upstream."""
    return Move("is_left", b"", seconds)


def pause(seconds: float) -> Move:
    return Move("pause", b"", seconds)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as it must have reached the upstream; what is None is not looked at.

    `lines` must stand among its headers, byte for byte and in this order; `without` are names in
    lower case that must not.
    """

    method: bytes | None = None
    target: bytes | None = None
    body: bytes | None = None
    lines: tuple[bytes, ...] = ()
    without: tuple[bytes, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Got:
    """An answer as it must have reached the client. `whole` False: begun, and visibly cut."""

    status: tuple[int, ...]
    body: bytes | None = None
    whole: bool = True
    begins: bytes = b""
    reason: bytes | None = None
    lines: tuple[bytes, ...] = ()
    without: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """One thing that may come of a case: all whole requests upstream, all answers, in order.

    `closed`: the proxy must have closed the (last) client's connection by itself. `loose`: answers
    are not looked at, because no rule says how they look.
    """

    asked: tuple[Asked, ...]
    got: tuple[Got, ...]
    closed: bool = False
    loose: bool = False


@dataclass(frozen=True)
class Case:
    """A case: `outcomes` are all that are right, `why` says so with its source."""

    id: str
    script: tuple[Move, ...]
    outcomes: tuple[Outcome, ...]
    why: str
    # Seconds that a proxy has to come to an end of it, once the script is played.
    limit_s: float = 3.0


OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{"n":1}'
OK_BODY = b'{"n":1}'

# What a refusal may say: a fault of the client, or something that the server does not do.
REFUSALS = (400, 403, 404, 405, 408, 411, 413, 414, 415, 417, 421, 422, 426, 431, 501, 505)
REFUSED = Outcome((), (Got(status=REFUSALS),))
GATEWAY = (502, 504)


def relayed(
    body: bytes | None = None, got: bytes | None = OK_BODY, *, closed: bool = False, **asked: object
) -> Outcome:
    """The request arrived once, with this body, and its answer came back."""
    request = Asked(body=body, **asked)  # type: ignore[arg-type]
    return Outcome((request,), (Got(status=(200,), body=got),), closed=closed)


def comes_back(body: bytes | None, *, status: int = 200, **got: object) -> Outcome:
    """The upstream was asked once, and this answer came back."""
    return Outcome((Asked(),), (Got(status=(status,), body=body, **got),))  # type: ignore[arg-type]


def cut(begins: bytes = b"") -> Outcome:
    """The answer begins like this and is visibly not whole."""
    return Outcome((Asked(),), (Got(status=(200,), whole=False, begins=begins),))


BAD_GATEWAY = Outcome((Asked(),), (Got(status=GATEWAY),))
NOTHING = Outcome((Asked(),), ())

PATH = b"/api/proxy/openai/v1/x"
SMUGGLED = b"GET /api/proxy/openai/v1/SMUGGLED HTTP/1.1\r\nHost: localhost\r\n\r\n"


def get(target: bytes = PATH, headers: bytes = b"", *, method: bytes = b"GET") -> bytes:
    """Give a request without a body; `headers` are whole lines."""
    return b"%b %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (method, target, headers)


def post(headers: bytes, body: bytes = b"", *, version: bytes = b"HTTP/1.1") -> bytes:
    """Give a request with a body, framed as the header lines say (the last without its CRLF)."""
    return b"POST %b %b\r\nHost: localhost\r\n%b\r\n\r\n%b" % (PATH, version, headers, body)


def posted(body: bytes, headers: bytes = b"") -> bytes:
    """Give a request whose body has its right length; `headers` are whole lines."""
    return post(headers + b"Content-Length: %d" % len(body), body)


def chunked(data: bytes) -> bytes:
    """Give a request with a chunked body, of which `data` are the bytes on the wire."""
    return post(b"Transfer-Encoding: chunked", data)
