"""Cases: what a request is addressed to, by its target and by its Host."""

from collections.abc import Iterator

from tests.differential.script import (
    OK_BODY,
    PATH,
    REFUSED,
    Asked,
    Case,
    Got,
    Outcome,
    get,
    relayed,
    says,
)

BASE = b"/api/proxy/openai"
# The upstream that is configured was asked, with whatever target; no other can be reached.
OURS = Outcome((Asked(),), (Got(status=(200,), body=OK_BODY),))


def cases() -> Iterator[Case]:
    why = "path and query are the upstream's: not one byte changes (RFC 9110 7.7, 'transparent')"
    for name, rest in (
        ("a query with repeated names", b"/v1/models?a=1&a=2&b=%7E+%2F;c"),
        ("a question mark with nothing behind", b"/v1/models?"),
        ("encoded letters", b"/v1/%7Euser/a%2Fb/a+b/x;y=1/%C3%A9"),
        ("slashes in a row", b"/v1//models///x"),
        ("two slashes and a name", b"//evil.example/v1"),
        ("an @ and a name", b"/@evil.example/v1"),
        ("an address in the query", b"/v1/x?url=http://evil.example/../%23"),
        ("names that begin with points", b"/v1/..hidden/...x"),
        ("dot segments that are encoded twice", b"/v1/%252e%252e/x"),
        ("an encoded CR LF", b"/v1/x%0d%0aX-A:%201"),
        ("characters that no URI has", b"/v1/{id}|`^<>'\""),
        ("a path of 60,000 bytes", b"/v1/" + b"a" * 60_000),
    ):
        passes = relayed(b"", target=BASE + rest)
        yield _case(name, BASE + rest, (passes,), why)
    why = "an encoded NUL: as it is, or refused"
    yield _case("an encoded NUL", PATH + b"%00", (REFUSED, relayed(b"", target=PATH + b"%00")), why)
    why = "a dot segment never arrives: refuse, or resolve it (RFC 3986 5.2.4; requirement 1)"
    for name, rest in (
        ("..", b"/v1/../x"),
        (".. at the end", b"/v1/.."),
        (".", b"/v1/./x"),
        (".. encoded", b"/v1/%2e%2e/x"),
        (".. half encoded", b"/v1/%2E./x"),
        (".. and an encoded slash", b"/v1/.%2e%2fx"),
        (".. between encoded slashes", b"/v1/x%2f..%2fy"),
        (".. and an encoded backslash", b"/v1/..%5cx"),
        (".. between backslashes", b"/v1/\\..\\x"),
        (".. out of the prefix", b"/../../../admin"),
        (".. encoded, out of the prefix", b"/%2e%2e/%2e%2e/admin"),
    ):
        yield _case(f"dot segment: {name}", BASE + rest, (REFUSED, OURS), why)
    why = "a fragment is no part of a target: refuse, or leave it out (RFC 9112 3.2)"
    yield _case("a fragment", PATH + b"#x", (REFUSED, relayed(b"", target=PATH)), why)
    why = "a target names no host; what it reaches is what is configured (requirement 1)"
    for name, target in (
        ("absolute form, a foreign host", b"http://evil.example" + PATH),
        ("absolute form, our host", b"http://localhost" + PATH),
        ("absolute form with a user", b"http://openai@evil.example" + PATH),
        ("absolute form, another scheme", b"ftp://localhost" + PATH),
        ("authority form", b"evil.example:443"),
        ("two slashes first", b"//evil.example" + PATH),
        ("a backslash first", b"\\evil.example" + PATH),
        ("no slash first", b"api/proxy/openai/v1"),
        ("a star", b"*"),
        ("raw bytes above 127", PATH + b"\xff\xfe"),
    ):
        yield _case(name, target, (REFUSED, OURS), why)
    yield Case(
        "a star with OPTIONS",
        (says(get(b"*", method=b"OPTIONS")),),
        (REFUSED, OURS, Outcome((), (Got(status=(200, 204)),))),
        why,
    )
    yield Case("CONNECT", (says(get(b"evil.example:443", method=b"CONNECT")),), (REFUSED,), why)
    yield Case("CONNECT of a path", (says(get(PATH, method=b"CONNECT")),), (REFUSED,), why)
    yield Case(
        "TRACE", (says(get(method=b"TRACE")),), (REFUSED, relayed(b"", method=b"TRACE")), why
    )
    yield _case("a space in a path", BASE + b"/v1/a b", (REFUSED,), "RFC 9112 3: refuse")
    yield _case("NUL in a path", PATH + b"\0", (REFUSED,), "RFC 9112 3: refuse")
    why = "a target has a bound (RFC 9112 3: 414)"
    yield _case("a path of 300,000 bytes", PATH + b"a" * 300_000, (REFUSED,), why)
    yield from _hosts()


def _case(name: str, target: bytes, outcomes: tuple[Outcome, ...], why: str) -> Case:
    return Case(name, (says(get(target)),), outcomes, why)


def _hosts() -> Iterator[Case]:
    why = "one Host, and one of ours: else 400 or 421 (RFC 9112 3.2; requirement 17)"
    for name, lines in (
        ("a foreign Host", b"Host: evil.example"),
        ("a Host that begins like ours", b"Host: localhost.evil.example"),
        ("a Host that is empty", b"Host:"),
        ("no Host", b"X-A: 1"),
        ("two Hosts", b"Host: localhost\r\nHost: evil.example"),
        ("two Hosts, ours last", b"Host: evil.example\r\nHost: localhost"),
        ("twice the same Host", b"Host: localhost\r\nHost: localhost"),
        ("a Host with a user", b"Host: localhost@evil.example"),
        ("a Host that is a list", b"Host: localhost, evil.example"),
        ("a Host with a path", b"Host: localhost/evil.example"),
    ):
        data = b"GET %b HTTP/1.1\r\n%b\r\n\r\n" % (PATH, lines)
        yield Case(name, (says(data),), (REFUSED,), why)
    data = get().replace(b"localhost", b"localhost:x")
    yield Case("a Host of ours with a port that is none", (says(data),), (REFUSED, OURS), why)
    why = "nothing in a request names the upstream's host (requirement 1)"
    for name, line in (
        ("X-Forwarded-Host", b"X-Forwarded-Host: evil.example"),
        ("Forwarded", b"Forwarded: host=evil.example"),
        ("X-Original-URL", b"X-Original-URL: /admin"),
        ("X-Rewrite-URL", b"X-Rewrite-URL: /admin"),
        ("a custom host", b"X-Custom-Host: http://evil.example"),
    ):
        data = get(headers=line + b"\r\n")
        yield Case(name, (says(data),), (relayed(b"", target=PATH),), why)
