"""The answer of one exchange: its framing, its limits in bytes and in time, and how it ended."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.answer import HIGH_BYTES, MAX_HEAD_BYTES, ClientFault, UpstreamFault
from tests.line import OK, STREAM, Line, line, turns, whole
from tests.wire import ScriptedUpstream

pytestmark = pytest.mark.both_loops


@pytest.fixture
async def wire(upstream: ScriptedUpstream) -> AsyncIterator[Line]:
    async with line(upstream) as opened, asyncio.timeout(10):
        yield opened


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n", b""],
)
async def test_an_answer_to_head_ends_at_its_head_and_the_next_one_is_not_taken_for_its_body(
    wire: Line, head: bytes
) -> None:
    answer = wire.begin(b"HEAD")
    await wire.peer.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
    assert await whole(answer) == b""
    assert (answer.complete, answer.length) == (True, 0)
    assert answer.close()
    answer = wire.begin()
    await wire.peer.send(OK)
    assert await whole(answer) == b"hi"


async def test_a_head_is_the_same_wherever_it_is_cut(wire: Line) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    head = interim + b"HTTP/1.1 404 Not Found Here\r\nA: b c\r\nContent-Length: 0\r\n\r\n"
    for at in range(len(head)):
        answer = wire.begin()
        answer.feed(head[:at])
        answer.feed(head[at:])
        await answer.head()
        assert (answer.status, answer.reason, answer.headers) == (
            404,
            b"Not Found Here",
            [(b"A", b"b c"), (b"Content-Length", b"0")],
        )
        assert answer.close()


async def test_bytes_that_come_after_a_complete_answer_reach_nobody(wire: Line) -> None:
    answer = wire.begin()
    await wire.peer.send(OK)
    await answer.head()
    await wire.peer.send(OK)
    await wire.peer.gone()
    assert await answer.read() == b"hi"
    assert await answer.read() == b""
    assert not answer.close()


async def test_an_answer_that_nobody_reads_is_held_back_and_then_goes_on(wire: Line) -> None:
    size = 16 * 1024 * 1024
    answer = wire.begin()
    await wire.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    wire.peer.writer.write(b"x" * size)
    await answer.head()
    await turns(lambda: answer._held)
    wire.clock.advance(1000)  # the client is slow, which is not the upstream's fault
    assert answer._unread_bytes < 4 * HIGH_BYTES
    assert await whole(answer) == b"x" * size
    assert answer.close()


@pytest.mark.parametrize("begun", [False, True])
async def test_a_wait_that_is_cancelled_leaves_an_exchange_that_can_be_closed(
    wire: Line, begun: bool
) -> None:
    answer = wire.begin()
    if begun:
        await wire.peer.send(STREAM)
        await answer.head()
    waiting = asyncio.create_task(answer.read() if begun else answer.head())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert not answer.close()
    await wire.peer.gone()


async def test_a_head_must_come_within_its_limit(
    wire: Line,
) -> None:
    answer = wire.begin()
    wire.clock.advance(9)
    wire.clock.advance(1)
    with pytest.raises(UpstreamFault, match="10 s") as raised:
        await answer.head()
    fault = raised.value
    assert (fault.code, fault.status, fault.phase) == ("upstream_timeout", 504, "headers")
    assert not fault.silent  # it may be at work: the request must not be sent again
    answer.close()


async def test_an_upload_that_moves_on_keeps_the_limit_of_the_head_away(wire: Line) -> None:
    answer = wire.begin(b"POST")
    for _ in range(100):
        wire.clock.advance(9)
        answer.progress()
    await wire.peer.send(OK)
    assert await whole(answer) == b"hi"
    answer.close()


async def test_a_stream_may_take_hours_if_it_is_never_silent_for_too_long(wire: Line) -> None:
    answer = wire.begin()
    await wire.peer.send(STREAM)
    await answer.head()
    for _ in range(500):
        wire.clock.advance(19)
        await wire.peer.send(b"1\r\nx\r\n")
        assert await answer.read() == b"x"
    wire.clock.advance(20)
    with pytest.raises(UpstreamFault, match="20 s") as raised:
        await answer.read()
    assert (raised.value.phase, raised.value.status) == ("body", 504)
    answer.close()


async def test_what_came_before_a_fault_is_given_first(wire: Line) -> None:
    answer = wire.begin()
    await wire.peer.send(STREAM + b"5\r\nhello\r\nzz\r\n")
    await answer.head()
    assert await answer.read() == b"hello"
    for _ in range(2):
        with pytest.raises(UpstreamFault) as raised:
            await answer.read()
        assert raised.value.code == "upstream_malformed"
    answer.close()


async def test_the_first_fault_of_an_exchange_stands(wire: Line) -> None:
    answer = wire.begin(b"POST")
    answer.fail(ClientFault("request_body_broken", "the client's"))
    answer.fail(UpstreamFault("upstream_closed", "the upstream's", phase="headers"))
    with pytest.raises(ClientFault, match="client's"):
        await answer.head()
    assert not answer.close()


async def test_a_fault_after_the_end_of_an_answer_takes_nothing_from_it(wire: Line) -> None:
    answer = wire.begin(b"POST")
    await wire.peer.send(OK)
    await answer.head()
    answer.fail(ClientFault("request_body_broken", "the upload went on, and broke off"))
    assert await whole(answer) == b"hi"
    assert not answer.close()


@pytest.mark.parametrize(
    "dripped",
    [
        pytest.param(b"HTTP/1.1 102 Processing\r\n\r\n", id="interim answers"),
        pytest.param(b"x", id="a status line without an end"),
    ],
)
async def test_nothing_but_the_head_itself_keeps_the_limit_of_the_head_away(
    wire: Line, dripped: bytes
) -> None:
    answer = wire.begin()
    if dripped == b"x":
        await wire.peer.send(b"HTTP/1.1 200 ")
    for number in range(1, 10):
        wire.clock.advance(1)
        await wire.deliver(dripped)
        assert answer._fault is None, number
    wire.clock.advance(1)
    with pytest.raises(UpstreamFault, match="no head of an answer within 10 s") as raised:
        await answer.head()
    assert (raised.value.phase, raised.value.status) == ("headers", 504)
    answer.close()


async def test_the_limit_of_the_head_counts_from_the_last_piece_of_the_request(wire: Line) -> None:
    answer = wire.begin(b"POST")
    wire.clock.advance(9)
    answer.progress()
    wire.clock.advance(9)
    assert answer._fault is None
    wire.clock.advance(1)
    with pytest.raises(UpstreamFault, match="no head"):
        await answer.head()
    answer.close()


async def test_the_first_byte_of_a_body_has_its_own_limit_from_the_head_on(wire: Line) -> None:
    answer = wire.begin()
    wire.clock.advance(9)
    await wire.peer.send(STREAM)
    await answer.head()
    wire.clock.advance(19)
    assert answer._fault is None
    wire.clock.advance(1)
    with pytest.raises(UpstreamFault, match="20 s"):
        await answer.read()
    answer.close()


@pytest.mark.parametrize(
    "bare",
    [
        pytest.param(b"5;x=" + b"y" * 100, id="a chunk extension without an end"),
        pytest.param(b"0\r\nX: y\r\n", id="trailers without an end"),
    ],
)
async def test_what_only_frames_a_body_is_no_sign_that_its_upstream_goes_on(
    wire: Line, bare: bytes
) -> None:
    answer = wire.begin()
    await wire.peer.send(STREAM + b"1\r\nx\r\n")
    await answer.head()
    assert await answer.read() == b"x"
    for piece in (bare, *[b"X: y\r\n" if bare[:1] == b"0" else b"y"] * 2):
        wire.clock.advance(5)
        await wire.deliver(piece)
    assert answer._fault is None
    wire.clock.advance(5)
    with pytest.raises(UpstreamFault, match="20 s"):
        await answer.read()
    answer.close()


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        pytest.param(b"0\r\nX: ", b"x" * 8192, id="one trailer"),
        pytest.param(b"0\r\n", b"X: y\r\n" * 1000, id="many trailers"),
        pytest.param(b"1;a=", b"x" * 8192, id="one chunk extension"),
        pytest.param(b"", b"1;a=%b\r\nx\r\n" % (b"y" * 8192), id="an extension of each chunk"),
    ],
)
async def test_what_frames_a_body_is_bounded(wire: Line, begins: bytes, goes_on: bytes) -> None:
    answer = wire.begin()
    await wire.peer.send(STREAM + b"5\r\nhello\r\n" + begins)
    await answer.head()
    sent = 0
    while answer._fault is None:
        sent += len(goes_on)
        assert sent < 2 * MAX_HEAD_BYTES
        await wire.deliver(goes_on)
    assert (await answer.read()).startswith(b"hello")
    with pytest.raises(UpstreamFault, match="trailers or the chunk extensions") as raised:
        await answer.read()
    assert (raised.value.code, raised.value.phase) == ("upstream_malformed", "body")
    answer.close()


async def test_small_trailers_and_extensions_pass_and_the_connection_is_kept(wire: Line) -> None:
    answer = wire.begin()
    await wire.peer.send(STREAM + b"2;a=b\r\nhi\r\n0;c\r\nX-A: 1\r\nX-B: 2\r\n\r\n")
    assert await whole(answer) == b"hi"
    assert answer.close()
    answer = wire.begin()
    await wire.peer.send(OK)
    assert await whole(answer) == b"hi"


async def test_a_body_in_chunks_of_a_byte_may_be_of_any_size(wire: Line) -> None:
    size = MAX_HEAD_BYTES  # its framing is 5 times as much
    answer = wire.begin()
    wire.peer.writer.write(STREAM + b"1\r\nx\r\n" * size + b"0\r\n\r\n")
    assert await whole(answer) == b"x" * size
    assert answer.close()


@pytest.mark.parametrize("phase", ["headers", "body"])
async def test_a_call_has_a_time_limit_in_all_if_it_is_given_one(wire: Line, phase: str) -> None:
    answer = wire.begin(b"POST", ends_at=15)
    for _ in range(7):
        wire.clock.advance(2)
        answer.progress()
    if phase == "body":
        await wire.peer.send(STREAM + b"1\r\nx\r\n")
        await answer.head()
    assert answer._fault is None
    wire.clock.advance(1)
    if phase == "body":
        assert await answer.read() == b"x"  # what came before it is given first
    with pytest.raises(UpstreamFault, match="total_timeout_s") as raised:
        await (answer.read() if phase == "body" else answer.head())
    fault = raised.value
    assert (fault.code, fault.status, fault.phase) == ("upstream_timeout", 504, phase)
    answer.close()


async def test_a_client_that_does_not_read_does_not_stop_the_clock_of_the_whole_call(
    wire: Line,
) -> None:
    answer = wire.begin(ends_at=50)
    await wire.peer.send(STREAM)
    await answer.head()
    size = HIGH_BYTES + 1
    wire.peer.writer.write(b"%x\r\n" % size + b"x" * size)
    await turns(lambda: answer._held)
    wire.clock.advance(49)
    assert answer._fault is None
    wire.clock.advance(1)
    await wire.peer.gone()
    assert answer._fault is not None
