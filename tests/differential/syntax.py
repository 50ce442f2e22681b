"""Cases: lines and names of a request's head, versions, upgrades, and requests in a row."""

from collections.abc import Iterator

from tests.differential.script import (
    OK_BODY,
    PATH,
    REFUSALS,
    REFUSED,
    SMUGGLED,
    Asked,
    Case,
    Got,
    Outcome,
    answered,
    get,
    post,
    posted,
    reads,
    relayed,
    says,
)

PLAIN = relayed(b"", method=b"GET")
EITHER = (REFUSED, PLAIN)
DROPPED = (REFUSED, relayed(b"", without=(b"x", b"x(", b"garbage")))
FIRST = PATH + b"1"
SECOND = PATH + b"2"
FINE = Got(status=(200,), body=OK_BODY)


def cases() -> Iterator[Case]:
    yield from _lines()
    yield from _first_lines()
    yield from _versions()
    yield from _upgrades()
    yield from _in_a_row()


def _case(name: str, data: bytes, outcomes: tuple[Outcome, ...], why: str) -> Case:
    return Case(name, (says(data),), outcomes, why)


def _lines() -> Iterator[Case]:
    why = "a folded line: refuse, or make it one line (RFC 9112 5.2)"
    data = get(headers=b"X: 1\r\n folded: 2\r\n")
    yield _case("a folded header", data, (REFUSED, relayed(b"", lines=(b"X: 1 folded: 2",))), why)
    data = post(b"X: 1\r\n Transfer-Encoding: chunked\r\nContent-Length: 5", b"hello")
    yield _case(
        "TE in a folded line",
        data,
        (REFUSED, relayed(b"hello", without=(b"transfer-encoding",))),
        why,
    )
    why = "white space before the first header: refuse, or drop that line (RFC 9112 2.2)"
    data = b"GET %b HTTP/1.1\r\n Host: localhost\r\n\r\n" % PATH
    yield _case("a space before the first header", data, (REFUSED,), why)
    data = b"GET %b HTTP/1.1\r\n X: 1\r\nHost: localhost\r\n\r\n" % PATH
    yield _case(
        "a space before a header ahead of Host", data, (REFUSED, relayed(b"", without=(b"x",))), why
    )
    why = "a bare LF: refuse, or take it for a line's end and send CRLF on (RFC 9112 2.2)"
    data = post(b"X: 1\r\nContent-Length: 5", b"hello")
    both = (REFUSED, relayed(b"hello"))
    head, _, body = data.partition(b"\r\n\r\n")
    yield _case("lines that end in LF", head.replace(b"\r\n", b"\n") + b"\n\n" + body, both, why)
    yield _case("a header that ends in LF", data.replace(b"X: 1\r\n", b"X: 1\n"), both, why)
    yield _case("a head that ends in LF LF", head + b"\n\n" + body, both, why)
    why = "a bare CR: refuse, or make it a space (RFC 9112 2.2)"
    yield _case("a bare CR in a value", data.replace(b"X: 1\r\n", b"X: 1\r"), (REFUSED,), why)
    data = get(headers=b"X: a\rTransfer-Encoding: chunked\r\n")
    spaced = relayed(b"", lines=(b"X: a Transfer-Encoding: chunked",))
    yield _case("a bare CR that hides TE", data, (REFUSED, spaced), why)
    why = "NUL in a value: refuse, or make it a space (RFC 9110 5.5)"
    yield _case(
        "NUL in a value",
        get(headers=b"X: a\0b\r\n"),
        (REFUSED, relayed(b"", lines=(b"X: a b",))),
        why,
    )
    why = "other control bytes: refuse, or send them as they are, or drop the line (RFC 9110 5.5)"
    yield _case("a control byte in a value", get(headers=b"X: a\x01b\r\n"), EITHER, why)
    yield _case("DEL in a value", get(headers=b"X: a\x7fb\r\n"), EITHER, why)
    why = "a name is a token: refuse, or drop the line (RFC 9110 5.1)"
    for name, line in (
        ("a header without a colon", b"garbage"),
        ("a header without a name", b": x"),
        ("a control byte in a name", b"X\x01: y"),
        ("a bracket in a name", b"X(: y"),
        ("a space in a name", b"X Y: 1"),
        ("a tab before the colon", b"X\t: 1"),
        ("a byte above 127 in a name", b"X\xe9: 1"),
    ):
        yield _case(name, get(headers=line + b"\r\n"), DROPPED, why)
    data = get().replace(b"Host:", b"Host :")
    yield _case("Host with a space before its colon", data, (REFUSED,), why)


def _first_lines() -> Iterator[Case]:
    why = "empty lines before a request: ignore one, or refuse (RFC 9112 2.2)"
    yield _case("empty lines first", b"\r\n\r\n" + get(), EITHER, why)
    why = "more than single spaces: refuse, or send single ones on (RFC 9112 3)"
    yield _case("two spaces in the first line", get().replace(b" ", b"  ", 2), EITHER, why)
    data = get().replace(b" /", b"\t/").replace(b" HTTP", b"\tHTTP")
    yield _case("tabs in the first line", data, EITHER, why)
    yield _case("a space behind the first line", get().replace(b"1.1\r", b"1.1 \r"), EITHER, why)
    why = "a method is a token, and has case (RFC 9110 9.1)"
    yield _case("a method with a bracket", get(method=b"GE(T"), (REFUSED,), why)
    yield _case(
        "a method in small letters", get(method=b"get"), (REFUSED, relayed(b"", method=b"get")), why
    )
    yield _case(
        "a method that nobody knows",
        get(method=b"FROBNICATE"),
        (REFUSED, relayed(b"", method=b"FROBNICATE")),
        why,
    )
    yield _case(
        "a method of 5,000 letters",
        get(method=b"A" * 5000),
        (REFUSED, relayed(b"", method=b"A" * 5000)),
        why,
    )
    yield _case("nothing but a method", b"GET\r\n\r\n", (REFUSED,), why)
    yield _case(
        "TLS on the plain port",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 32 + b"\r\n\r\n",
        (REFUSED, Outcome((), (), closed=True)),
        why,
    )


def _versions() -> Iterator[Case]:
    why = "another minor version is read as 1.1, or refused (RFC 9112 2.3)"
    yield _case("HTTP/1.2", get().replace(b"1.1", b"1.2"), EITHER, why)
    why = "another major version is not ours to speak (RFC 9110 15.6.6)"
    yield _case("HTTP/2.0 in a first line", get().replace(b"1.1", b"2.0"), (REFUSED,), why)
    yield _case("HTTP/3.0 in a first line", get().replace(b"1.1", b"3.0"), (REFUSED,), why)
    yield _case("HTTP/0.1 in a first line", get().replace(b"1.1", b"0.1"), (REFUSED,), why)
    yield _case("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (REFUSED,), why)
    why = "the version's name has case (RFC 9112 2.3)"
    yield _case("http/1.1 in small letters", get().replace(b"HTTP", b"http"), (REFUSED,), why)
    why = "a version is two digits: refuse, or send 1.1 on (RFC 9112 2.3)"
    yield _case("HTTP/1.10", get().replace(b"1.1", b"1.10"), EITHER, why)
    yield _case("HTTP/+1.1", get().replace(b"1.1", b"+1.1"), (REFUSED,), why)
    why = "a request of HTTP/0.9 has no Host, and goes nowhere (obsolete since RFC 7230)"
    yield _case("HTTP/0.9", b"GET " + PATH + b"\r\n\r\n", (Outcome((), (), loose=True),), why)
    why = "HTTP/1.0 gets its answer, and the end of the connection (RFC 9112 9.3)"
    yield _case("HTTP/1.0", get().replace(b"1.1", b"1.0"), (relayed(b"", closed=True),), why)


def _upgrades() -> Iterator[Case]:
    why = "an upgrade goes nowhere: refuse, or relay it without (RFC 9110 7.8)"
    gone = (b"upgrade", b"http2-settings", b"connection")
    both = (REFUSED, relayed(SMUGGLED, without=gone))
    data = posted(
        SMUGGLED,
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    )
    yield _case("upgrade to h2c with a body", data, both, why)
    data = posted(SMUGGLED, b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
    yield _case("upgrade to WebSocket with a body", data, both, why)
    plain = (REFUSED, relayed(b"", without=gone))
    shaken = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    yield _case("upgrade to WebSocket", get(headers=shaken), plain, why)
    yield _case(
        "upgrade to what nobody knows",
        get(headers=b"Connection: Upgrade\r\nUpgrade: foo\r\n"),
        plain,
        why,
    )
    why = "Upgrade without Connection is for nobody (RFC 9110 7.8)"
    yield _case(
        "Upgrade without Connection",
        get(headers=b"Upgrade: websocket\r\n"),
        (REFUSED, relayed(b"")),
        why,
    )
    why = "what follows an upgrade that was not made is the next request (RFC 9110 7.8)"
    data = get(FIRST, shaken) + get(SECOND)
    two = Outcome((Asked(target=FIRST), Asked(target=SECOND)), (FINE, FINE))
    refused = Got(status=REFUSALS)
    second = Outcome((Asked(target=SECOND),), (refused, FINE))
    yield _case("a request behind an upgrade", data, (REFUSED, second, two, relayed(b"")), why)


def _in_a_row() -> Iterator[Case]:
    why = "requests in a row are answered in that order (RFC 9112 9.3.2)"
    two = Outcome((Asked(target=FIRST), Asked(target=SECOND)), (FINE, FINE))
    yield _case("two requests at once", get(FIRST) + get(SECOND), (two,), why)
    data = posted(b"hello").replace(PATH, FIRST) + get(SECOND)
    yield _case("a body and a request at once", data, (two,), why)
    data = get(FIRST, method=b"HEAD") + get(SECOND)
    yield _case(
        "HEAD and a request at once",
        data,
        (Outcome(two.asked, (Got(status=(200,), body=b""), FINE)),),
        why,
    )
    script = (
        says(get(FIRST)[:-3]),
        says(get(FIRST)[-3:] + get(SECOND)[:20]),
        reads(OK_BODY),
        says(get(SECOND)[20:]),
    )
    yield Case("requests cut anywhere", script, (two,), why)
    ten = Outcome(tuple(Asked(target=PATH + b"%d" % n) for n in range(10)), (FINE,) * 10)
    yield _case(
        "ten requests at once", b"".join(get(PATH + b"%d" % n) for n in range(10)), (ten,), why
    )
    why = "after a request that could not be read, nothing behind it is one (RFC 9112 2.2, 6.3)"
    bad = b"Content-Length: 5\r\nContent-Length: 6"
    yield _case("a request behind two lengths", post(bad, SMUGGLED), (REFUSED,), why)
    yield _case(
        "a request behind a name with a space",
        get(headers=b"Content-Length : 0\r\n") + SMUGGLED,
        (REFUSED,),
        why,
    )
    yield _case(
        "a request behind a line that is none", b"garbage\r\n\r\n" + SMUGGLED, (REFUSED,), why
    )
    data = get(FIRST) + post(bad, SMUGGLED)
    first = Outcome((Asked(target=FIRST),), (FINE, Got(status=REFUSALS)))
    only = Outcome((Asked(target=FIRST),), (FINE,), closed=True)
    yield _case("a request, and one that cannot be read", data, (first, only, REFUSED), why)
    why = "the body of a request that is refused is still its body (RFC 9112 9.3)"
    nowhere = posted(SMUGGLED).replace(PATH, b"/nowhere")
    refused = Got(status=REFUSALS)
    after = Outcome((Asked(target=SECOND),), (refused, FINE))
    yield Case(
        "a 404 with a body, and a request",
        (says(nowhere), answered(), says(get(SECOND))),
        (after, REFUSED),
        why,
    )
    data = nowhere.replace(b"localhost", b"evil.example", 1)
    yield Case(
        "a 421 with a body, and a request",
        (says(data), answered(), says(get(SECOND))),
        (after, REFUSED),
        why,
    )
    why = "an expectation that is not known: 417, or ignore it (RFC 9110 10.1.1)"
    yield _case(
        "Expect of something else",
        posted(b"hello", b"Expect: 200-ok\r\n"),
        (REFUSED, relayed(b"hello")),
        why,
    )
    why = "100 Continue, then the answer; or the answer at once (RFC 9110 10.1.1)"
    yield _case(
        "Expect with its body at once",
        posted(b"hello", b"Expect: 100-continue\r\n"),
        (relayed(b"hello"),),
        why,
    )
    head = posted(b"hello", b"Expect: 100-continue\r\n")[:-5]
    yield Case(
        "Expect, and a client that waits",
        (says(head), reads(b"100 Continue"), says(b"hello")),
        (relayed(b"hello"),),
        why,
    )
    twice = posted(b"hello", b"Expect: 100-continue\r\nExpect: 100-continue\r\n")
    yield _case("Expect twice", twice, (REFUSED, relayed(b"hello")), why)
