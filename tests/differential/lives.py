"""Cases: connections over time: kept, stale, poisoned, half closed; who leaves, who is early."""

from collections.abc import Iterator

from tests.differential.script import (
    GATEWAY,
    OK,
    OK_BODY,
    PATH,
    Asked,
    Case,
    Got,
    Outcome,
    another,
    answered,
    chunked,
    closes,
    cuts,
    ends_its_side,
    get,
    is_asked,
    is_closed,
    is_left,
    leaves,
    pause,
    post,
    posted,
    reads,
    relayed,
    resets,
    says,
    sees,
    serves,
    tells,
)

FINE = Got(status=(200,), body=OK_BODY)
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
UPLOAD = post(b"Content-Length: 1000000", b"x" * 1000)
TOO_LARGE = b"HTTP/1.1 413 Too Large\r\n%bContent-Length: 3\r\n\r\nbig"
NONE = Outcome((), ())


def cases() -> Iterator[Case]:
    yield from _kept()
    yield from _poisoned()
    yield from _stale()
    yield from _early()
    yield from _leaving()
    yield from _slow()


def _two(first: Got = FINE, second: Got = FINE, number: int = 2) -> tuple[Outcome, ...]:
    return (Outcome((Asked(),) * number, (first, second)),)


def _kept() -> Iterator[Case]:
    why = "a connection goes on after an answer, an error too (RFC 9112 9.3)"
    for status in (b"200 OK", b"404 Not Found", b"500 Oh"):
        first = Got(status=(int(status[:3]),), body=b"hi")
        script = (
            says(posted(b"{}")),
            is_asked(),
            tells(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nhi"),
            answered(),
            says(posted(b"{}")),
            is_asked(),
            serves(),
        )
        yield Case(
            f"two calls of a client, the first a {status[:3].decode()}", script, _two(first), why
        )
    why = "each caller gets its own answer (requirement 20)"
    script = (
        says(get(PATH + b"1")),
        is_asked(),
        another(),
        says(get(PATH + b"2")),
        is_asked(),
        tells(OK.replace(b'"n"', b'"2"')),
        answered(),
        sees(b"x1"),
        tells(OK.replace(b'"n"', b'"1"')),
        reads(b""),
    )
    ones = Got(status=(200,), body=b'{"1":1}'), Got(status=(200,), body=b'{"2":1}')
    yield Case("two callers, answered the other way round", script, _two(*ones), why)
    why = "no cookie of one caller goes out with the next (requirement 5)"
    cookie = OK.replace(b"Content-Length", b"Set-Cookie: a=1; Path=/\r\nContent-Length")
    script = (
        says(get()),
        is_asked(),
        tells(cookie),
        answered(),
        another(),
        says(get()),
        is_asked(),
        serves(),
    )
    asked = (Asked(without=(b"cookie",)),) * 2
    yield Case(
        "a cookie",
        script,
        (Outcome(asked, (Got(status=(200,), lines=(b"Set-Cookie: a=1; Path=/",)), FINE)),),
        why,
    )


def _poisoned() -> Iterator[Case]:
    why = "bytes on an idle connection reach no caller (requirement 6)"
    for name, unasked in (
        ("an answer", POISON),
        (
            "a 408",
            b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        ),
        ("half an answer", b"HTTP/1.1 200 OK\r\nX-Poison: "),
        ("garbage", b"POISON"),
    ):
        script = (
            says(get()),
            is_asked(),
            tells(OK),
            answered(),
            tells(unasked),
            pause(0.05),
            another(),
            says(get()),
            is_asked(),
            serves(),
        )
        yield Case(f"{name} on an idle connection", script, _two(), why)
    why = "bytes behind a complete answer reach no caller (requirement 6)"
    for name, more in (("a second answer", POISON), ("more than its length", b"POISON")):
        script = (
            says(get()),
            is_asked(),
            tells(OK + more),
            answered(),
            another(),
            says(get()),
            is_asked(),
            serves(),
        )
        yield Case(f"{name} behind an answer", script, _two(), why)
    chunks = CHUNKED + b"7\r\n%b\r\n0\r\n\r\n" % OK_BODY
    script = (
        says(get()),
        is_asked(),
        tells(chunks + POISON),
        answered(),
        another(),
        says(get()),
        is_asked(),
        serves(),
    )
    yield Case("a second answer behind the last chunk", script, _two(), why)


def _stale() -> Iterator[Case]:
    why = "a connection that the upstream closed is not used again (faults: stale keep-alive)"
    for name, end in (("closed", closes()), ("reset", cuts())):
        script = (
            says(get()),
            is_asked(),
            tells(OK),
            answered(),
            end,
            pause(0.05),
            says(posted(b"{}")),
            is_asked(),
            serves(),
        )
        yield Case(f"an idle connection that was {name}, and a POST", script, _two(), why)
    why = "a POST goes out once, also where its connection dies (requirement 5; RFC 9110 9.2.2)"
    for name, end in (("closed", closes()), ("reset", cuts())):
        script = (
            says(get()),
            is_asked(),
            tells(OK),
            answered(),
            says(posted(b"{}")),
            is_asked(),
            end,
        )
        yield Case(
            f"a kept connection {name} under a POST",
            script,
            _two(FINE, Got(status=GATEWAY)),
            why,
            3,
        )
    why = "a GET may go out once more, and is then answered (RFC 9110 9.2.2)"
    script = (
        says(get()),
        is_asked(),
        tells(OK),
        answered(),
        says(get()),
        is_asked(),
        cuts(),
        serves(),
    )
    again = Outcome((Asked(),) * 3, (FINE, FINE))
    failed = Outcome((Asked(),) * 2, (FINE, Got(status=GATEWAY)))
    yield Case("a kept connection reset under a GET", script, (again, failed), why, 3)
    why = "Connection: close of an upstream is its last word (RFC 9112 9.6)"
    last = OK.replace(b"Content-Length", b"Connection: close\r\nContent-Length")
    script = (
        says(get()),
        is_asked(),
        tells(last),
        answered(),
        says(posted(b"{}")),
        is_asked(),
        serves(),
    )
    yield Case("Connection: close of an answer, and a POST", script, _two(), why)


def _early() -> Iterator[Case]:
    why = "an early answer arrives, and what is left of its request is no request (RFC 9112 9.3)"
    big = Got(status=(413,), body=b"big")
    for name, line, end in (
        ("", b"", ()),
        (", then closed", b"Connection: close\r\n", (closes(),)),
    ):
        script = (says(UPLOAD), sees(b"\r\n\r\nxxx"), tells(TOO_LARGE % line), *end, reads(b"big"))
        # A proxy that goes on with the upload hands the upstream the rest, and that is right too.
        yield Case(f"an early 413{name}", script, (Outcome((), (big,)),), why)
    script = (
        says(UPLOAD),
        sees(b"\r\n\r\nxxx"),
        tells(TOO_LARGE % b""),
        reads(b"big"),
        another(),
        says(get()),
        is_asked(),
        serves(),
        answered(),
    )
    yield Case(
        "an early 413, and the next caller",
        script,
        (Outcome((Asked(method=b"GET"),), (big, FINE)),),
        why,
    )
    why = "the answer, or a 502; never a hang (faults: early 413)"
    script = (says(UPLOAD), sees(b"\r\n\r\nxxx"), tells(TOO_LARGE % b""), cuts())
    outcomes = tuple(
        Outcome((), (Got(status=(413, *GATEWAY), whole=whole),)) for whole in (True, False)
    )
    yield Case("an early 413, then a reset", script, outcomes, why)


def _leaving() -> Iterator[Case]:
    why = "when the client leaves, the upstream is left within 2 s (requirement 7)"
    for name, end in (("leaves", leaves()), ("resets", resets())):
        script = (says(posted(b"{}")), is_asked(), end, is_left())
        yield Case(
            f"a client that {name} before the answer", script, (Outcome((Asked(),), ()),), why, 0.1
        )
        script = (
            says(posted(b"{}")),
            is_asked(),
            tells(CHUNKED + b"2\r\nhi\r\n"),
            reads(b"hi"),
            end,
            is_left(),
        )
        outcome = Outcome((Asked(),), (Got(status=(200,), whole=False),))
        yield Case(f"a client that {name} in mid-stream", script, (outcome,), why, 0.1)
    why = (
        "a request that broke off never looks whole upstream, which is left in 2 s (requirement 7)"
    )
    script = (says(UPLOAD), sees(b"\r\n\r\nxxx"), leaves(), is_left())
    yield Case("a client that leaves in mid-upload", script, (NONE,), why, 0.1)
    script = (says(chunked(b"5\r\nhello\r\n")), sees(b"hello"), leaves(), is_left())
    yield Case("a client that leaves between two chunks", script, (NONE,), why, 0.1)
    why = "who closes its side only is answered, or the call ends; no hang (faults: half-close)"
    outcomes = (relayed(b"{}"), Outcome((Asked(),), (), closed=True))
    script = (says(posted(b"{}")), is_asked(), ends_its_side(), pause(0.1), serves(), is_closed(3))
    yield Case("a client that closes its side only", script, outcomes, why)
    script = (says(post(b"Content-Length: 5", b"hel")), ends_its_side(), is_closed(3))
    outcomes = (NONE, Outcome((), (Got(status=(400, 408, 499)),)))
    yield Case("a client that closes its side in its body", script, outcomes, why)
    script = (says(get()[:-2]), ends_its_side(), is_closed(3))
    yield Case("a client that closes its side in its head", script, outcomes, why)


def _slow() -> Iterator[Case]:
    why = "a request may come slowly (RFC 9112 2.2)"
    wire = posted(b"hello")
    script = tuple(move for byte in wire for move in (says(bytes([byte])), pause(0)))
    yield Case("a request in pieces of a byte", script, (relayed(b"hello"),), why)
    why = "a body goes up as it comes, so that nobody has to hold it (faults: 100 MB body)"
    script = (
        says(chunked(b"5\r\nhello\r\n")),
        sees(b"hello"),
        says(b"0\r\n\r\n"),
        is_asked(),
        serves(),
    )
    yield Case("chunks that go up as they come", script, (relayed(b"hello"),), why)
    script = (
        says(posted(b"x" * 2000)[:-1000]),
        sees(b"\r\n\r\nxxx"),
        says(b"x" * 1000),
        is_asked(),
        serves(),
    )
    yield Case("a body that goes up as it comes", script, (relayed(b"x" * 2000),), why)
    why = "a chunk that is malformed ends the request at once, also in mid-upload (RFC 9112 7.1, 8)"
    broken = (NONE, Outcome((), (Got(status=(400, 408)),)))
    for name, rest in (
        ("that is none", b"zz\r\nhello\r\n"),
        ("with more than its size", b"5\r\nhello!\r\n"),
    ):
        script = (says(chunked(b"5\r\nhello\r\n")), sees(b"hello"), says(rest), is_left())
        yield Case(f"a later chunk {name}", script, broken, why)
    why = "half a head is closed within 10 s (requirement 14)"
    outcomes = (Outcome((), (), closed=True), Outcome((), (Got(status=(400, 408)),), closed=True))
    yield Case("half a head", (says(get()[:-2]), is_closed(12)), outcomes, why)
    drip = tuple(move for _ in range(26) for move in (pause(0.5), says(b"x")))
    yield Case(
        "a head that drips for 13 s",
        (says(get()[:-4] + b"X: "), *drip, is_closed(0.2)),
        outcomes,
        why,
    )
