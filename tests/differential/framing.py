"""Cases: where a request's body ends. Two lengths, odd codings, odd numbers, odd chunks."""

from collections.abc import Iterator

from tests.differential.script import (
    OK_BODY,
    PATH,
    REFUSED,
    SMUGGLED,
    Asked,
    Case,
    Got,
    Outcome,
    chunked,
    post,
    posted,
    relayed,
    says,
)

LENGTH = len(SMUGGLED)
HELLO = b"5\r\nhello\r\n0\r\n\r\n"
# A chunk that hides a request, for whoever reads another size than we do.
HIDDEN = b"%x\r\n%b\r\n0\r\n\r\n" % (LENGTH, SMUGGLED)
PASSES = relayed(b"hello")
EITHER = (REFUSED, PASSES)


def cases() -> Iterator[Case]:
    yield from _both()
    yield from _codings()
    yield from _lengths()
    yield from _chunks()
    yield from _trailers()


def _case(name: str, data: bytes, outcomes: tuple[Outcome, ...], why: str) -> Case:
    return Case(name, (says(data),), outcomes, why)


def _both() -> Iterator[Case]:
    why = (
        "both lengths are an attack or a mistake: refuse, or go by chunks and close (RFC 9112 6.1)"
    )
    both = b"Content-Length: %d\r\nTransfer-Encoding: chunked"
    swapped = b"Transfer-Encoding: chunked\r\nContent-Length: %d"
    empty = (REFUSED, relayed(b"", closed=True))
    yield _case("CL.TE", post(both % 6, b"0\r\n\r\nG"), empty, why)
    yield _case(
        "CL.TE, a request hidden", post(both % (5 + LENGTH), b"0\r\n\r\n" + SMUGGLED), empty, why
    )
    hidden = (REFUSED, relayed(SMUGGLED, closed=True))
    yield _case("TE.CL", post(swapped % 4, HIDDEN), hidden, why)
    yield _case("TE.CL, odd chunk size", post(swapped % 4, b"000" + HIDDEN), hidden, why)
    yield _case(
        "TE.CL, chunk extension",
        post(swapped % 4, HIDDEN.replace(b"\r\n", b";a=b\r\n", 1)),
        hidden,
        why,
    )
    yield _case(
        "CL.0 and TE", post(swapped % 0, HELLO), (REFUSED, relayed(b"hello", closed=True)), why
    )
    old = post(both % 5, HELLO, version=b"HTTP/1.0")
    why = "chunks in HTTP/1.0 are faulty framing: refuse, or close after it (RFC 9112 6.1)"
    yield _case("HTTP/1.0 with CL and TE", old, (REFUSED, relayed(b"hello", closed=True)), why)
    old = post(b"Transfer-Encoding: chunked", HELLO, version=b"HTTP/1.0")
    yield _case("HTTP/1.0 with TE", old, (REFUSED, relayed(b"hello", closed=True)), why)


def _codings() -> Iterator[Case]:
    why = "optional white space around a value is no part of it, or refused (RFC 9110 5.5)"
    yield _case("TE after a tab", post(b"Transfer-Encoding:\tchunked", HELLO), EITHER, why)
    yield _case(
        "TE with a space behind", post(b"Transfer-Encoding: chunked ", HELLO), (PASSES,), why
    )
    why = "codings have no case (RFC 9112 7)"
    yield _case("TE in capitals", post(b"TRANSFER-ENCODING: CHUNKED", HELLO), (PASSES,), why)
    why = "empty list elements may be ignored, or refused (RFC 9110 5.6.1)"
    yield _case(
        "TE with an empty element", post(b"Transfer-Encoding: ,chunked", HELLO), EITHER, why
    )
    yield _case(
        "TE empty, with CL", post(b"Transfer-Encoding:\r\nContent-Length: 5", b"hello"), EITHER, why
    )
    why = "a coding that is not understood, or not last, cannot be relayed (RFC 9112 6.1, 6.3)"
    for name, value in (
        ("TE with a vertical tab", b"\x0bchunked"),
        ("TE in quotes", b'"chunked"'),
        ("TE xchunked", b"xchunked"),
        ("TE with words", b"chunked foo"),
        ("TE with a parameter", b"chunked;q=1"),
        ("TE with a Kelvin sign", b"chun\xe2\x84\xaaed"),
        ("TE with NUL", b"chunked\0"),
        ("TE gzip, chunked", b"gzip, chunked"),
        ("TE chunked, gzip", b"chunked, gzip"),
        ("TE chunked, identity", b"chunked, identity"),
        ("TE chunked, chunked", b"chunked, chunked"),
        ("TE twice", b"chunked\r\nTransfer-Encoding: chunked"),
        ("TE twice, second unknown", b"chunked\r\nTransfer-encoding: x"),
        ("TE twice, first unknown", b"x\r\nTransfer-Encoding: chunked"),
        ("TE folded", b"\r\n chunked"),
    ):
        yield _case(name, post(b"Transfer-Encoding: " + value, HELLO), (REFUSED,), why)
    data = post(b"Transfer-Encoding: identity", SMUGGLED)
    yield _case("TE identity without CL", data, (REFUSED,), why)
    data = post(b"Transfer-Encoding: identity\r\nContent-Length: 5", b"hello")
    yield _case("TE identity with CL", data, EITHER, why)
    why = "a space before the colon must be refused (RFC 9112 5.1)"
    yield _case(
        "TE with a space before its colon",
        post(b"Transfer-Encoding : chunked", HELLO),
        (REFUSED,),
        why,
    )
    yield _case(
        "CL with a space before its colon", post(b"Content-Length : 5", b"hello"), (REFUSED,), why
    )
    why = "another name is another header; the body's end is CL's (RFC 9112 6.3)"
    data = post(b"Transfer_Encoding: chunked\r\nContent-Length: 5", b"hello")
    yield _case("TE with an underscore", data, EITHER, why)
    data = post(b"Content_Length: 5") + b""
    yield _case("CL with an underscore", data, (REFUSED, relayed(b"")), why)


def _lengths() -> Iterator[Case]:
    why = "a length is digits and nothing else (RFC 9112 6.3; RFC 9110 8.6)"
    for name, value in (
        ("CL with a plus", b"+5"),
        ("CL negative", b"-5"),
        ("CL hexadecimal", b"0x5"),
        ("CL with an underscore inside", b"1_0"),
        ("CL with a point", b"5.0"),
        ("CL two numbers", b"5 6"),
        ("CL with a parameter", b"5;x"),
        ("CL in an Arabic digit", b"\xd9\xa5"),
        ("CL with NUL", b"5\0"),
        ("CL of a list, different", b"5, 6"),
        ("CL twice, different", b"5\r\nContent-Length: 6"),
        ("CL twice, the second none", b"5\r\nContent-Length: 0"),
        ("CL beyond 64 bits", b"99999999999999999999"),
        ("CL that wraps to 5 in 64 bits", b"18446744073709551621"),
        ("CL that wraps to 5 in 32 bits, as text", b"4294967301 5"),
    ):
        yield _case(name, post(b"Content-Length: " + value, b"hello" + SMUGGLED), (REFUSED,), why)
    data = post(b"Content-Length:", SMUGGLED)
    yield _case("CL empty", data, (REFUSED,), why)
    why = "the same length twice: refuse, or take it once (RFC 9110 8.6)"
    yield _case("CL of a list, the same", post(b"Content-Length: 5, 5", b"hello"), EITHER, why)
    data = post(b"Content-Length: 5\r\nContent-Length: 5", b"hello")
    yield _case("CL twice, the same", data, EITHER, why)
    why = "leading zeros are digits (RFC 9110 8.6)"
    yield _case("CL with leading zeros", post(b"Content-Length: 0005", b"hello"), EITHER, why)
    why = "a body has an end whatever the method (RFC 9110 9.3.1)"
    data = b"GET %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (
        PATH,
        LENGTH,
        SMUGGLED,
    )
    yield _case("GET with a request body", data, (REFUSED, relayed(SMUGGLED)), why)
    yield _case(
        "HEAD with a request body",
        data.replace(b"GET", b"HEAD", 1),
        (REFUSED, relayed(SMUGGLED, b"")),
        why,
    )
    yield _case(
        "DELETE with a request body",
        data.replace(b"GET", b"DELETE", 1),
        (REFUSED, relayed(SMUGGLED)),
        why,
    )


def _chunks() -> Iterator[Case]:
    why = "extensions end at the next neighbour (RFC 9112 7.1.1)"
    yield _case("chunk extension", chunked(b"5;a=b" + HELLO[1:]), (PASSES,), why)
    yield _case("chunk extension in quotes", chunked(b'5;a="b;c"' + HELLO[1:]), EITHER, why)
    yield _case(
        "extension of the last chunk", chunked(b"5\r\nhello\r\n0;a=b\r\n\r\n"), (PASSES,), why
    )
    why = "sizes may have leading zeros and capitals (RFC 9112 7.1)"
    yield _case(
        "chunk sizes 0005 and 000", chunked(b"0005\r\nhello\r\n000\r\n\r\n"), (PASSES,), why
    )
    yield _case(
        "chunk size A", chunked(b"A\r\nhellohello\r\n0\r\n\r\n"), (relayed(b"hellohello"),), why
    )
    yield _case("chunk size of 100 zeros", chunked(b"0" * 100 + HELLO), EITHER, why)
    yield _case("no chunk but the last", chunked(b"0\r\n\r\n"), (relayed(b""),), why)
    yield _case("a chunk that hides a request", chunked(HIDDEN), (relayed(SMUGGLED),), why)
    broken = (REFUSED, Outcome((), (), closed=True))
    why = "a chunk that is not as the grammar has it ends the request (RFC 9112 7.1, 8)"
    for name, data in (
        ("chunk size 0x5", b"0x5" + HELLO[1:]),
        ("chunk size +5", b"+5" + HELLO[1:]),
        ("chunk size -5", b"-5" + HELLO[1:]),
        ("chunk size 5_0", b"5_0" + HELLO[1:]),
        ("chunk size empty", b"" + HELLO[1:]),
        ("chunk size that overflows", b"10000000000000005" + HELLO[1:]),
        ("chunk size that is a word", b"five" + HELLO[1:]),
        ("chunk without its end", b"5\r\nhello0\r\n\r\n"),
        ("chunk with more than its size", b"5\r\nhelloXX\r\n0\r\n\r\n"),
        ("chunk with less than its size", b"9" + HELLO[1:] + b"0\r\n\r\n"),
        ("a space before the chunk size", b" 5" + HELLO[1:]),
        ("chunk extension with CR", b"5;a\rb" + HELLO[1:]),
        ("chunk that ends in CR and a letter", b"5\r\nhello\rX0\r\n\r\n"),
    ):
        yield _case(name, chunked(data + SMUGGLED), broken, why)
    why = "white space behind a size: take it away, or refuse (RFC 9112 7.1.1)"
    yield _case("a space behind the chunk size", chunked(b"5 " + HELLO[1:]), EITHER, why)
    why = "a bare LF in chunks: refuse, or send it on as CRLF (RFC 9112 2.2)"
    alone = (*broken, PASSES)
    yield _case("chunks that end in LF", chunked(b"5\nhello\n0\n\n"), alone, why)
    yield _case("chunk size that ends in LF", chunked(b"5\nhello\r\n0\r\n\r\n"), alone, why)
    yield _case("chunk extension that ends in LF", chunked(b"5;a\nhello\r\n0\r\n\r\n"), alone, why)
    data = chunked(b"2;\n" + b"xx\r\n%x\r\n0\r\n\r\n" % 5 + SMUGGLED[:-4])
    yield _case("chunk extension with LF that hides a request", data, broken, why)
    why = "what is not finished never looks finished (RFC 9112 8)"
    yield Case("chunks that stop", (says(chunked(b"5\r\nhel")),), (NOTHING_WHOLE,), why, 0.3)
    yield Case("a length that stops", (says(posted(b"hello")[:-1]),), (NOTHING_WHOLE,), why, 0.3)


def _trailers() -> Iterator[Case]:
    why = "a trailer is no header, whatever its name (RFC 9110 6.5.1)"
    both = (
        REFUSED,
        Outcome((Asked(body=b"hello", without=(b"x-a",)),), (Got(status=(200,), body=OK_BODY),)),
    )
    last = b"5\r\nhello\r\n0\r\n"
    yield _case("trailer", chunked(last + b"X-A: 1\r\n\r\n"), both, why)
    yield _case("trailer Content-Length", chunked(last + b"Content-Length: 50\r\n\r\n"), both, why)
    yield _case(
        "trailer Transfer-Encoding", chunked(last + b"Transfer-Encoding: gzip\r\n\r\n"), both, why
    )
    host = Outcome((Asked(body=b"hello"),), (Got(status=(200,)),))
    yield _case("trailer Host", chunked(last + b"Host: evil.example\r\n\r\n"), (REFUSED, host), why)
    why = "a trailer that is no header line: refuse, or leave it out (RFC 9112 7.1.2)"
    broken = (REFUSED, Outcome((), (), closed=True), PASSES)
    yield _case("trailer without a colon", chunked(last + b"garbage\r\n\r\n"), broken, why)
    yield _case(
        "trailer with a space before its colon", chunked(last + b"X : 1\r\n\r\n"), broken, why
    )
    yield _case("trailer that is folded", chunked(last + b"X: 1\r\n 2\r\n\r\n"), broken, why)
    yield _case("trailers that end in LF", chunked(b"5\r\nhello\r\n0\nX: y\n\n"), broken, why)


# The proxy waits for the rest, and its client leaves: no answer, and no whole request upstream.
NOTHING_WHOLE = Outcome((), ())
