"""Cases: what an upstream answers: bodies that pass, bodies that break off, and what is no HTTP."""

import gzip
from collections.abc import Iterator

from tests.differential.script import (
    BAD_GATEWAY,
    GATEWAY,
    OK,
    OK_BODY,
    PATH,
    Asked,
    Case,
    Got,
    Move,
    Outcome,
    answered,
    closes,
    comes_back,
    cut,
    cuts,
    get,
    is_asked,
    pause,
    posted,
    reads,
    says,
    serves,
    tells,
)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"H\xc3\xa9llo"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
LAST = b"0\r\n\r\n"
FINE = Got(status=(200,), body=OK_BODY)
HI = comes_back(b"hi")


def cases() -> Iterator[Case]:
    yield from _bodies()
    yield from _streams()
    yield from _statuses()
    yield from _cut_short()
    yield from _without_body()
    yield from _unclean()
    yield from _interim()


def _case(
    name: str,
    answer: bytes,
    outcomes: tuple[Outcome, ...],
    why: str,
    *then: Move,
    limit_s: float = 3.0,
) -> Case:
    return Case(
        name, (says(posted(b"{}")), is_asked(), tells(answer), *then), outcomes, why, limit_s
    )


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _length(body: bytes, lines: bytes = b"") -> bytes:
    return HEAD + lines + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def _bodies() -> Iterator[Case]:
    why = "a body passes byte for byte (requirement 3)"
    odd = bytes(range(256)) * 40
    yield _case("every byte", _length(odd), (comes_back(odd),), why)
    yield _case("an empty body", _length(b""), (comes_back(b""),), why)
    yield _case(
        "chunks", CHUNKED + chunk(b"he") + chunk(b"llo") + LAST, (comes_back(b"hello"),), why
    )
    yield _case("chunks with extensions", CHUNKED + b"2;a=b\r\nhi\r\n0;c\r\n\r\n", (HI,), why)
    yield _case("a body that ends with its connection", HEAD + b"\r\nhi", (HI,), why, closes())
    yield _case(
        "a length with leading zeros",
        HEAD + b"Content-Length: 0002\r\n\r\nhi",
        (HI, BAD_GATEWAY),
        why,
    )
    packed = gzip.compress(b"hello" * 100, mtime=0)
    for name, coding, body in (
        ("gzip", b"gzip", packed),
        ("br", b"br", b"\x0b\x02\x80hello\x03"),
        ("gzip that is none", b"gzip", b"this is not gzip"),
        ("gzip that is cut", b"gzip", packed[:-9]),
        ("a coding that nobody knows", b"x-odd", b"odd"),
    ):
        line = b"Content-Encoding: " + coding
        outcome = comes_back(body, lines=(line,))
        yield _case(f"a body in {name}", _length(body, line + b"\r\n"), (outcome,), why)
    large = bytes(range(256)) * 4096
    yield _case("a body of 1 MB", _length(large), (comes_back(large),), why)
    why = "a trailer ends here, or goes on as one (RFC 9110 6.5.1)"
    trailer = CHUNKED.replace(b"\r\n\r\n", b"\r\nTrailer: X-Sum\r\n\r\n") + chunk(b"hi")
    yield _case("a trailer of an answer", trailer + b"0\r\nX-Sum: 1\r\n\r\n", (HI,), why)
    twice = (
        tells(CHUNKED + chunk(b"hi") + b"0\r\nX-Sum: 1\r\n\r\n"),
        answered(),
        says(get()),
        is_asked(),
        serves(),
    )
    script = (says(get()), is_asked(), *twice)
    yield Case(
        "a trailer, and the next call",
        script,
        (Outcome((Asked(), Asked()), (Got(status=(200,), body=b"hi"), FINE)),),
        why,
    )


def _streams() -> Iterator[Case]:
    why = "each event is with the client at once, whatever its chunks (requirement 3)"
    first = (tells(EVENTS + chunk(EVENT)), reads(EVENT), tells(chunk(EVENT) + chunk(DONE) + LAST))
    whole = comes_back(EVENT * 2 + DONE)
    yield Case("the first event at once", (says(posted(b"{}")), is_asked(), *first), (whole,), why)
    bare = (
        tells(EVENTS.replace(b"Transfer-Encoding: chunked\r\n", b"") + EVENT),
        reads(EVENT),
        tells(EVENT + DONE),
        closes(),
    )
    yield Case(
        "the first event at once, without chunks",
        (says(posted(b"{}")), is_asked(), *bare),
        (whole,),
        why,
    )
    bytewise = b"".join(chunk(bytes([byte])) for byte in EVENT)
    yield _case("an event in chunks of a byte", EVENTS + bytewise + LAST, (comes_back(EVENT),), why)
    wire = chunk(EVENT) + chunk(DONE) + LAST
    pieces = [move for byte in wire for move in (tells(bytes([byte])), pause(0))]
    yield _case("a stream in pieces of a byte", EVENTS, (comes_back(EVENT + DONE),), why, *pieces)
    odd = (
        b": ping\r\n\r\ndata: a\rdata: b\r\revent: x\ndata\n\n\xef\xbb\xbf"
        + b"data: "
        + b"x" * 70_000
    )
    yield _case(
        "odd events, and none that ends", EVENTS + chunk(odd) + LAST, (comes_back(odd),), why
    )
    yield _case(
        "an event that is an error",
        EVENTS + chunk(b'data: {"error":{}}\n\n') + LAST,
        (comes_back(b'data: {"error":{}}\n\n'),),
        why,
    )


def _statuses() -> Iterator[Case]:
    why = "an error is the provider's to say, byte for byte, asked once (requirement 5)"
    body = b'{"error": {"message":  "no"}}'
    lines = (b"Retry-After: 7", b"x-should-retry: true")
    for status, reason in (
        (400, b"Bad Request"),
        (401, b"Unauthorized"),
        (404, b"Not Found"),
        (429, b"Slow down, please"),
        (500, b"Oh"),
        (502, b"Bad Gateway"),
        (503, b"Service Unavailable"),
        (529, b"Overloaded"),
    ):
        answer = b"HTTP/1.1 %d %b\r\nX-A: 1\r\n%b\r\nContent-Length: %d\r\n\r\n%b"
        answer %= (status, reason, b"\r\n".join(lines), len(body), body)
        yield _case(
            f"status {status}",
            answer,
            (comes_back(body, status=status, reason=reason, lines=lines),),
            why,
        )
    why = "a redirect is handed over and not followed (requirement 5)"
    for status in (301, 302, 303, 307, 308):
        for where in (b"/v1/elsewhere", b"http://evil.example/x")[: 2 if status == 302 else 1]:
            line = b"Location: " + where
            answer = b"HTTP/1.1 %d Moved\r\n%b\r\nContent-Length: 0\r\n\r\n" % (status, line)
            outcome = comes_back(b"", status=status, lines=(line,))
            name = "to another host" if b"evil" in where else "to a path"
            yield _case(f"a redirect {status} {name}", answer, (outcome,), why)
    why = "reason and code as they are (RFC 9112 4)"
    for name, start, status, reason in (
        (
            "a reason in Latin-1 and UTF-8",
            b"HTTP/1.1 299 Fine \xff \xc3\xa9",
            299,
            b"Fine \xff \xc3\xa9",
        ),
        ("a reason that is empty", b"HTTP/1.1 200 ", 200, b""),
        ("HTTP/1.0 of an upstream", b"HTTP/1.0 404 Old", 404, b"Old"),
    ):
        answer = start + b"\r\nContent-Length: 2\r\n\r\nhi"
        yield _case(name, answer, (comes_back(b"hi", status=status, reason=reason),), why)
    missing = HEAD.replace(b" OK", b"") + b"Content-Length: 2\r\n\r\nhi"
    yield _case("no reason, and no space", missing, (HI, BAD_GATEWAY), why)
    why = "a code has three digits, 100 to 599: else a 502 (RFC 9110 15)"
    for code in (b"99", b"1000", b"000", b"2x0", b"-200", b"+200", b"20"):
        answer = b"HTTP/1.1 " + code + b" OK\r\nContent-Length: 2\r\n\r\nhi"
        yield _case(f"status code {code.decode()}", answer, (BAD_GATEWAY,), why, limit_s=4)


def _cut_short() -> Iterator[Case]:
    why = "an answer that breaks off never looks complete (requirement 4; RFC 9112 8)"
    length = HEAD + b"Content-Length: 100\r\n\r\nhello"
    chunks = CHUNKED + chunk(b"hello")
    for name, answer in (
        ("a length", length),
        ("chunks, between two", chunks),
        ("chunks, in one", CHUNKED + b"a\r\nhello"),
        ("chunks, in a size", chunks + b"5"),
        ("chunks, before the last line", chunks + b"0\r\n"),
        ("chunks, in a trailer", chunks + b"0\r\nX-A: 1\r\n"),
    ):
        yield _case(f"{name}: closed", answer, (cut(b"hello"),), why, reads(b"hello"), closes())
        if "between" in name or name == "a length":
            yield _case(f"{name}: reset", answer, (cut(b"hello"),), why, reads(b"hello"), cuts())
    yield _case(
        "until the end: reset", HEAD + b"\r\nhello", (cut(b"hello"),), why, reads(b"hello"), cuts()
    )
    for name, rest in (
        ("a chunk size that is none", b"zz\r\nworld\r\n" + LAST),
        ("a chunk size that overflows", b"10000000000000005\r\nworld\r\n" + LAST),
        ("a chunk with more than its size", b"5\r\nworldXX\r\n" + LAST),
    ):
        yield _case(
            name + ", in an answer",
            chunks,
            (cut(b"hello"),),
            why,
            reads(b"hello"),
            tells(rest),
            limit_s=4,
        )
    why = "HTTP/1.0 knows a body's end by a proper close alone: a cut is a reset (requirement 4)"
    for name, answer in (("a length", length), ("chunks", chunks)):
        old = posted(b"{}").replace(b"HTTP/1.1", b"HTTP/1.0")
        script = (says(old), is_asked(), tells(answer), reads(b"hello"), closes())
        yield Case(f"{name}: closed, for HTTP/1.0", script, (cut(b"hello"),), why)
    why = "silence ends: the limit of 2 s that both have here (requirement 4)"
    yield _case(
        "a stream that falls silent", chunks, (cut(b"hello"),), why, reads(b"hello"), limit_s=5
    )
    gone = Case("no answer", (says(posted(b"{}")), is_asked()), (BAD_GATEWAY,), why, 5)
    yield gone
    drip = [
        move for _ in range(20) for move in (pause(0.25), tells(b"HTTP/1.1 102 Processing\r\n\r\n"))
    ]
    why = "the head has one limit, whatever drips in before it ends (2 s here; requirement 4)"
    yield Case(
        "interim answers that drip for 5 s",
        (says(posted(b"{}")), is_asked(), *drip, tells(OK)),
        (BAD_GATEWAY,),
        why,
        4,
    )
    drip = [move for _ in range(20) for move in (pause(0.25), tells(b"X"))]
    yield Case(
        "a head that drips for 5 s",
        (
            says(posted(b"{}")),
            is_asked(),
            tells(HEAD),
            *drip,
            tells(b": 1\r\nContent-Length: 2\r\n\r\nhi"),
        ),
        (BAD_GATEWAY,),
        why,
        4,
    )
    why = "closed before its answer: a 502 at once; a POST goes out once (requirement 5)"
    yield _case("closed without an answer", b"", (BAD_GATEWAY,), why, closes())
    yield _case("reset without an answer", b"", (BAD_GATEWAY,), why, cuts())
    yield _case("closed in the head", HEAD, (BAD_GATEWAY,), why, closes())
    yield _case(
        "closed after an interim answer",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        (BAD_GATEWAY,),
        why,
        closes(),
    )


def _without_body() -> Iterator[Case]:
    why = "HEAD, 204 and 304 have no body: what comes in its place reaches nobody (RFC 9112 6.3)"
    for name, method, answer in (
        ("HEAD with a length", b"HEAD", b"200 OK\r\nContent-Length: 1234\r\n\r\n"),
        ("HEAD with chunks announced", b"HEAD", b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD with a body", b"HEAD", b"200 OK\r\nContent-Length: 2\r\n\r\nhi"),
        ("204", b"GET", b"204 No Content\r\n\r\n"),
        ("204 with a body", b"GET", b"204 No Content\r\nContent-Length: 2\r\n\r\nhi"),
        (
            "204 with a chunked body",
            b"GET",
            b"204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        ),
        ("304 with a length", b"GET", b"304 Not Modified\r\nETag: x\r\nContent-Length: 99\r\n\r\n"),
        ("304 with a body", b"GET", b"304 Not Modified\r\nContent-Length: 2\r\n\r\nhi"),
    ):
        status = int(answer[:3])
        script = (
            says(get(method=method)),
            is_asked(),
            tells(b"HTTP/1.1 " + answer),
            answered(),
            says(get()),
            is_asked(),
            serves(),
        )
        two = Outcome((Asked(), Asked()), (Got(status=(status,), body=b""), FINE))
        yield Case(name, script, (two,), why)


def _unclean() -> Iterator[Case]:
    why = "what is no clean HTTP is a 502; none of it reaches the client (RFC 9112; requirement 4)"
    for name, answer in (
        ("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n"),
        ("bytes of TLS", b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n"),
        ("garbage before an answer", b"garbage\r\n" + _length(b"hi")),
        ("two lengths that differ", HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nhi"),
        ("a list of lengths that differ", HEAD + b"Content-Length: 1, 2\r\n\r\nhi"),
        ("a length with a plus", HEAD + b"Content-Length: +2\r\n\r\nhi"),
        ("a negative length", HEAD + b"Content-Length: -2\r\n\r\nhi"),
        ("a length beyond 64 bits", HEAD + b"Content-Length: 99999999999999999999999\r\n\r\nhi"),
        ("NUL in a header", HEAD + b"X-A: a\0b\r\nContent-Length: 2\r\n\r\nhi"),
        ("CR in a header", HEAD + b"X-A: a\rInjected: b\r\nContent-Length: 2\r\n\r\nhi"),
        ("an answer of HTTP/2", b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
        (
            "an upgrade that nobody asked for",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nhi",
        ),
        (
            "a header of 1 MB",
            HEAD + b"X-A: " + b"x" * 1_000_000 + b"\r\nContent-Length: 2\r\n\r\nhi",
        ),
        ("an endless header", HEAD + b"X-A: " + b"x" * 1_000_000),
    ):
        yield _case(f"{name}, in an answer", answer, (BAD_GATEWAY,), why, limit_s=4)
    why = "both lengths: a 502, or the chunks alone (RFC 9112 6.3)"
    both = HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    yield _case(
        "CL and TE in an answer",
        both,
        (BAD_GATEWAY, comes_back(b"hi", without=(b"content-length",))),
        why,
    )
    why = "a coding that cannot be taken off: a 502, or the bytes with their coding (RFC 9112 6.1)"
    for value in (b"gzip, chunked", b"chunked\r\nTransfer-Encoding: x", b"xchunked"):
        answer = HEAD + b"Transfer-Encoding: " + value + b"\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
        yield _case(f"TE {value.decode()!r} in an answer", answer, (BAD_GATEWAY,), why, limit_s=4)
    why = "a 502, or one clean answer without the fault (RFC 9112 5)"
    for name, line in (
        ("a folded header", b"X-A: a\r\n folded"),
        ("a space before a colon", b"X-A : a"),
        ("a line without a colon", b"garbage"),
        ("a header without a name", b": x"),
    ):
        answer = HEAD + line + b"\r\nContent-Length: 2\r\n\r\nhi"
        yield _case(f"{name}, in an answer", answer, (BAD_GATEWAY, HI), why, limit_s=4)
    answer = _length(b"hi").replace(b"\r\n", b"\n")
    yield _case("an answer whose lines end in LF", answer, (BAD_GATEWAY, HI), why, limit_s=4)
    same = HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi"
    yield _case("twice the same length, in an answer", same, (BAD_GATEWAY, HI), why, limit_s=4)
    many = HEAD + b"X-A: 1\r\n" * 20_000 + b"Content-Length: 2\r\n\r\nhi"
    yield _case("20,000 headers of an answer", many, (BAD_GATEWAY, HI), why, limit_s=4)


def _interim() -> Iterator[Case]:
    why = "interim answers are not the answer (RFC 9110 15.2)"
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    script = (
        says(get()),
        is_asked(),
        tells(hints + OK),
        answered(),
        says(get(PATH)),
        is_asked(),
        serves(),
    )
    two = Outcome((Asked(), Asked()), (Got(status=(200,), body=OK_BODY, without=(b"link",)), FINE))
    yield Case("interim answers", script, (two,), why)
    why = "a flood of them ends, in an error or in the answer (faults: 1xx flood)"
    flood = b"HTTP/1.1 102 Processing\r\nX-A: 1\r\n\r\n" * 20_000
    both = Outcome((Asked(),), (Got(status=(200, *GATEWAY)),))
    yield _case("20,000 interim answers", flood + OK, (both,), why, limit_s=4)
