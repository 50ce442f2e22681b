"""What leaves for an upstream, and how its answer is made what it would have been."""

import gzip
import sys
import zlib
from typing import cast

import pytest

from proxy.answer import UpstreamFault
from proxy.decode import PIECE_BYTES, decoder
from proxy.inject import UsageStripper
from proxy.mask import Mask, spellings
from proxy.send import Editor, Sent
from proxy.upstream import Exchange
from tests.conftest import Serve
from tests.running import Running
from tests.wire import Peer, ScriptedUpstream, connect

SENT = (
    b'data: {"choices":[{"index":0}],"usage":null}\r\n\r\n: comment\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\ndata: [DONE]\n\n'
)
KEY = b"sk-proj-0123456789abcdef"
STARS = b"*" * len(KEY)
RECEIVED = b'data: {"choices":[{"index":0}]}\r\n\r\n: comment\n\ndata: [DONE]\n\n'


def edited(coding: str, body: bytes, step: int, editor: Editor | None = None) -> bytes:
    editor = editor or Editor(decoder(coding, sys.maxsize), stripper=UsageStripper())
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    return b"".join(shown for piece in pieces for shown in editor.feed(piece)) + editor.finish()


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("", SENT),
        ("identity", SENT),
        ("gzip", gzip.compress(SENT)),
        ("gzip", gzip.compress(SENT[:50]) + gzip.compress(SENT[50:])),
        ("deflate", zlib.compress(SENT)),
    ],
)
def test_a_stream_is_edited_whatever_its_coding_and_its_pieces(
    coding: str, body: bytes, step: int
) -> None:
    assert edited(coding, body, step) == RECEIVED


@pytest.mark.parametrize("step", [1, 10, 1000])
def test_a_stream_that_is_not_in_its_coding_is_a_fault_at_the_latest_at_its_end(step: int) -> None:
    body = gzip.compress(SENT)[:-8] + b"no such checksum"
    with pytest.raises(UpstreamFault) as raised:
        edited("gzip", body, step)
    assert (raised.value.code, raised.value.phase) == ("upstream_malformed", "body")


def test_a_stream_that_was_cut_in_an_event_gives_the_rest_as_it_is() -> None:
    assert edited("", SENT[:60], 7) == SENT[:44].replace(b',"usage":null', b"") + SENT[44:60]


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
@pytest.mark.parametrize("coding", ["", "gzip"])
def test_a_key_is_hidden_in_the_stream_that_is_edited(coding: str, step: int) -> None:
    """Also where what is taken out of the stream stood within it."""
    sent = SENT.replace(b": comment", b"event: " + KEY).replace(
        b'{"index":0}],"usage":null}', b'{"index":0}],"a":"%b","usage":null}' % KEY
    )
    body = gzip.compress(sent) if coding else sent
    mask = Mask(spellings(KEY))
    editor = Editor(decoder(coding, sys.maxsize), stripper=UsageStripper(), mask=mask)
    assert edited(coding, body, step, editor) == RECEIVED.replace(
        b": comment", b"event: " + STARS
    ).replace(b'{"index":0}]', b'{"index":0}],"a":"%b"' % STARS)


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_an_answer_that_only_hides_a_key_keeps_its_length_and_its_framing(step: int) -> None:
    editor = Editor(None, mask=Mask(spellings(KEY)))
    body = b'{"error":"wrong key %b"}' % KEY
    assert edited("", body, step, editor) == body.replace(KEY, STARS)
    assert not editor.reframes
    relayed = [(b"Content-Length", b"9"), (b"Location", b"/" + KEY)]
    assert editor.head(b"No " + KEY, relayed) == (
        b"No " + STARS,
        [(b"Content-Length", b"9"), (b"Location", b"/" + STARS)],
    )


def test_an_answer_that_comes_compressed_is_handed_on_plain() -> None:
    editor = Editor(decoder("gzip", sys.maxsize), mask=Mask(spellings(KEY)))
    relayed = [(b"Content-Length", b"9"), (b"Content-Encoding", b"gzip"), (b"A", b"b")]
    assert editor.reframes
    assert editor.head(b"OK", relayed) == (b"OK", [(b"A", b"b")])


def test_a_small_piece_that_unpacks_to_much_is_handed_on_bit_by_bit() -> None:
    editor = Editor(decoder("gzip", sys.maxsize), mask=Mask(spellings(KEY)))
    sizes = [len(shown) for shown in editor.feed(gzip.compress(bytes(20_000_000)))]
    assert sum(sizes) == 20_000_000
    assert max(sizes) <= PIECE_BYTES


class Coming:
    """An answer whose body comes in these pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.answer = self
        self._pieces = [*pieces, b""]

    async def read(self) -> bytes:
        return self._pieces.pop(0)


@pytest.mark.parametrize("early", [b"", b"first "])
@pytest.mark.parametrize("coding", ["", "gzip"])
async def test_each_piece_that_an_upstream_sent_is_told_once_beside_what_the_client_receives(
    coding: str, early: bytes
) -> None:
    """Who watches the stream decodes it by itself, and must miss nothing."""
    plain = early + b"no %b, sk-proj" % KEY
    body = gzip.compress(plain, mtime=0) if coding else plain
    early = body[: len(early)]
    coming = Coming(*(body[at : at + 3] for at in range(len(early), len(body), 3)))
    editor = Editor(decoder(coding, sys.maxsize), mask=Mask(spellings(KEY)))
    sent = Sent(exchange=cast(Exchange, coming), early=early, editor=editor)
    told = [pair async for pair in sent.pieces()]
    assert b"".join(upstreams for upstreams, _ in told) == body
    assert b"".join(clients for _, clients in told) == plain.replace(KEY, STARS)


async def test_an_answer_that_needs_no_edit_is_told_as_it_comes() -> None:
    sent = Sent(exchange=cast(Exchange, Coming(b"b", b"c")), early=b"a")
    assert [pair async for pair in sent.pieces()] == [(b"a", b"a"), (b"b", b"b"), (b"c", b"c")]


async def test_a_request_goes_out_as_it_came_in(tw: Running, upstream: ScriptedUpstream) -> None:
    upstream.answers(b"{}")
    body = b'{"stream": true, "messages": [], "stream": true}'
    await tw.raw(headers=b"Content-Type: application/json\r\n", body=body)
    (sent,) = upstream.requests
    assert sent.body == body


async def test_a_body_right_behind_its_head_goes_out_with_it(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    """So that an idempotent call with a body can be sent again: a body in pieces cannot."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.respond(b"{}")
        await peer.head()
        peer.cut()

    upstream.script = script
    await tw.raw(b"/api/proxy/openai/x", method=b"GET")
    upstream.answers(b"{}")
    async with connect(tw.port) as client:
        client.writer.write(
            b"PUT /api/proxy/openai/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"
        )
        client.writer.write(b"hello")
        assert (await client.response()).body == b"{}"
    (sent,) = upstream.requests
    assert (sent.start, sent.body) == (b"PUT /x HTTP/1.1", b"hello")


@pytest.mark.parametrize(("size", "status"), [(10, 200), (11, 413)])
async def test_a_limit_on_request_bodies_counts_every_byte(
    serve: Serve, upstream: ScriptedUpstream, size: int, status: int
) -> None:
    upstream.answers(b"{}")
    tw = await serve({"server.max_request_bytes": "10"})
    assert (await tw.raw(body=b"x" * size)).status == status
    assert len(upstream.requests) == (status == 200)
