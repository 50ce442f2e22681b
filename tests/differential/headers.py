"""Cases: the headers of a request and of an answer: which stay, which go, how many, how long."""

from collections.abc import Iterator

from tests.differential.script import (
    OK_BODY,
    REFUSED,
    SMUGGLED,
    Case,
    Got,
    Outcome,
    comes_back,
    get,
    is_asked,
    posted,
    relayed,
    says,
    tells,
)

FINE = Got(status=(200,), body=OK_BODY)


def cases() -> Iterator[Case]:
    yield from _between_neighbours()
    yield from _as_they_came()
    yield from _bounds()
    yield from _sessions()
    yield from _answers()


def _case(name: str, headers: bytes, outcomes: tuple[Outcome, ...], why: str) -> Case:
    return Case(name, (says(get(headers=headers)),), outcomes, why)


def _gone(*names: bytes) -> Outcome:
    return relayed(b"", lines=(b"X-Kept: 1",), without=names)


def _between_neighbours() -> Iterator[Case]:
    why = "a header for the neighbour goes no further (RFC 9110 7.6.1)"
    for line in (
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"TE: trailers",
    ):
        title = line.partition(b":")[0]
        yield _case(
            f"{title.decode()} of a request",
            line + b"\r\nX-Kept: 1\r\n",
            (_gone(title.lower()),),
            why,
        )
    why = "what Connection names goes no further (RFC 9110 7.6.1)"
    for name, lines, gone in (
        ("Connection names a header", b"X-A: 1\r\nConnection: x-a\r\n", b"x-a"),
        ("Connection names one with others", b"Connection: close, X-A ,,\r\nX-A: 1\r\n", b"x-a"),
        ("two Connection headers", b"Connection: X-B\r\nConnection: X-A\r\nX-A: 1\r\n", b"x-a"),
        (
            "Connection: Authorization",
            b"Authorization: Bearer x\r\nConnection: Authorization\r\n",
            b"authorization",
        ),
    ):
        yield _case(name, lines + b"X-Kept: 1\r\n", (_gone(gone, b"connection"),), why)
    why = "Connection cannot take away what frames a request (RFC 9110 7.6.1; requirement 2)"
    data = posted(SMUGGLED, b"Connection: Content-Length\r\n")
    yield Case("Connection: Content-Length", (says(data),), (REFUSED, relayed(SMUGGLED)), why)
    data = get(headers=b"Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding\r\n")
    data += b"5\r\nhello\r\n0\r\n\r\n"
    yield Case("Connection: Transfer-Encoding", (says(data),), (REFUSED, relayed(b"hello")), why)
    yield _case(
        "Connection: Host",
        b"Connection: Host\r\nX-Kept: 1\r\n",
        (REFUSED, _gone(b"connection")),
        why,
    )
    why = "who asks for the end of the connection gets it (RFC 9112 9.6)"
    yield _case("Connection: close", b"Connection: close\r\n", (relayed(b"", closed=True),), why)


def _as_they_came() -> Iterator[Case]:
    why = "headers keep bytes, case, order and duplicates (transparent bytes; RFC 9110 5.3)"
    lines = (b"x-one: 1", b"X-Bytes: \xff\xfe \xc3\xa9", b"X-ONE: 2", b"x-Two: a, b", b"x-one: 3")
    data = b"".join(line + b"\r\n" for line in lines)
    yield _case("headers of a request", data, (relayed(b"", lines=lines),), why)
    yield _case(
        "an empty header",
        b"X-Empty:\r\nX-A: 1\r\n",
        (relayed(b"", lines=(b"X-Empty: ", b"X-A: 1")),),
        why,
    )
    yield _case(
        "a name with underscores",
        b"X_under_score: 1\r\n",
        (relayed(b"", lines=(b"X_under_score: 1",)),),
        why,
    )
    yield _case(
        "a name of all that a token may have",
        b"X!#$%&'*+.^`|~: 1\r\n",
        (relayed(b"", lines=(b"X!#$%&'*+.^`|~: 1",)),),
        why,
    )
    yield _case(
        "cookies of a request",
        b"Cookie: a=b\r\ncookie: c=d\r\n",
        (relayed(b"", lines=(b"Cookie: a=b", b"cookie: c=d")),),
        why,
    )
    coded = b"Accept-Encoding: zstd;q=0.1\r\nUser-Agent: x/1\r\n"
    yield _case(
        "Accept-Encoding and User-Agent",
        coded,
        (relayed(b"", lines=(b"Accept-Encoding: zstd;q=0.1", b"User-Agent: x/1")),),
        why,
    )
    bare = relayed(
        b"",
        without=(
            b"user-agent",
            b"accept",
            b"accept-encoding",
            b"x-forwarded-for",
            b"x-real-ip",
            b"via",
        ),
    )
    yield _case("no header that the client did not send", b"", (bare,), why)


def _bounds() -> Iterator[Case]:
    why = "real headers fit: tokens, cookies, traces of 60 KB (requirement 15)"
    long = b"X-Long: " + b"x" * 60_000
    yield _case("a header of 60,000 bytes", long + b"\r\n", (relayed(b"", lines=(long,)),), why)
    yield _case("900 headers", b"X-A: 1\r\n" * 900, (relayed(b"", lines=(b"X-A: 1",) * 900),), why)
    why = "a head has a bound: 4xx (RFC 6585 5)"
    yield _case("a header of 1 MB", b"X-Long: " + b"x" * 1_000_000 + b"\r\n", (REFUSED,), why)
    yield _case(
        "headers of 1 MB in all", (b"X-A: " + b"x" * 50_000 + b"\r\n") * 20, (REFUSED,), why
    )
    why = "many headers: bounded, or all of them through (faults: bounded)"
    through = relayed(b"")
    yield _case("20,000 headers", b"X-A: 1\r\n" * 20_000, (REFUSED, through), why)


def _sessions() -> Iterator[Case]:
    why = "a tag never breaks a call (requirement 15)"
    for name, value in (
        ("empty", b""),
        ("of one character", b"a"),
        ("of 1,024 bytes", b"s" * 1024),
        ("of 1,025 bytes", b"s" * 1025),
        ("of 8 KB", b"s" * 8192),
        ("with slashes and %2F", b"a/b/../%2F%00"),
        ("with quotes and braces", b"{\"'}`<script>"),
        ("in UTF-8", "é✓".encode()),
        ("in Latin-1", b"\xe9"),
    ):
        line = b"X-Traceway-Session-Id: " + value + b"\r\n"
        yield _case(f"a session id {name}", line, (relayed(b""),), why)
    line = b"X-Traceway-Session-Id: a\r\nX-Traceway-Session-Id: b\r\n"
    yield _case("two session ids", line, (relayed(b""),), why)
    why = "control bytes, and what is above the bound of a head, are a 4xx (requirement 15)"
    yield _case("a session id with NUL", b"X-Traceway-Session-Id: a\0b\r\n", (REFUSED,), why)
    yield _case(
        "a session id of 300 KB",
        b"X-Traceway-Session-Id: " + b"s" * 300_000 + b"\r\n",
        (REFUSED,),
        why,
    )


def _answers() -> Iterator[Case]:
    why = "headers keep bytes, case, order and duplicates (transparent bytes; RFC 9110 5.3)"
    lines = (
        b"set-cookie: a=1; Path=/", b"X-Bytes: \xff \xc3\xa9", b"Set-Cookie: b=2",
        b"Server: theirs/1", b"Date: Thu, 01 Jan 1970 00:00:00 GMT", b"X-a: 1", b"x-A: 2",
        b"set-COOKIE: a=1",
    )  # fmt: skip
    yield _answer("headers of an answer", b"\r\n".join(lines), comes_back(b"hi", lines=lines), why)
    yield _answer(
        "an empty header of an answer",
        b"X-Empty:\r\nX-A: 1",
        comes_back(b"hi", lines=(b"X-Empty: ", b"X-A: 1")),
        why,
    )
    why = "what the upstream did not say nobody says for it (transparent bytes)"
    yield _answer(
        "no header that the upstream did not send",
        b"X-A: 1",
        comes_back(b"hi", without=(b"via", b"age", b"set-cookie", b"etag")),
        why,
    )
    why = "a header for the neighbour goes no further (RFC 9110 7.6.1)"
    gone = comes_back(b"hi", lines=(b"X-Kept: 1",), without=(b"x-a",))
    yield _answer(
        "Connection of an answer names a header",
        b"Connection: X-A, keep-alive\r\nX-A: 1\r\nX-Kept: 1",
        gone,
        why,
    )
    gone = comes_back(
        b"hi", lines=(b"X-Kept: 1",), without=(b"proxy-connection", b"keep-alive", b"upgrade")
    )
    yield _answer(
        "neighbours' headers of an answer",
        b"Proxy-Connection: x\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nX-Kept: 1",
        gone,
        why,
    )
    long = b"X-Long: " + b"x" * 30_000
    why = "real headers fit: 30 KB in one line, 300 of them"
    yield _answer(
        "a header of 30,000 bytes in an answer", long, comes_back(b"hi", lines=(long,)), why
    )
    yield _answer(
        "300 headers of an answer",
        b"\r\n".join([b"X-A: 1"] * 300),
        comes_back(b"hi", lines=(b"X-A: 1",) * 300),
        why,
    )


def _answer(name: str, lines: bytes, outcome: Outcome, why: str) -> Case:
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n%b\r\nContent-Length: 2\r\n\r\nhi" % lines
    )
    return Case(name, (says(get()), is_asked(), tells(answer)), (outcome,), why)
