"""The texts of running streams: whole, in order, without secrets, and for those who ask only."""

import asyncio
import gzip
import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api import live
from proxy.api.frames import PAGE_BYTES
from proxy.api.live import LiveTexts
from proxy.call import COMPLETE, Call
from proxy.capture import Budget
from storage.records import DEFAULT_PROJECT
from tests.api.watching import kinds, watch
from tests.calling import DONE, EVENTS, a_call, delta
from tests.running import CHAT, Running
from tests.wire import Peer, ScriptedUpstream, connect

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
KEY = "sk-abcdefghijklmnopqrstuvwxyz0123456789"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def streaming(session: str | None = "s", **how: Any) -> Call:
    call = a_call(session=session, **how)
    call.answered(200, EVENTS, edited=False)
    return call


def hear(call: Call, *pieces: bytes) -> None:
    for piece in pieces:
        call.relayed(piece, piece)


def shown(frames: bytes) -> list[tuple[int, str]]:
    """Give offset and text of each frame."""
    told = [orjson.loads(one.removeprefix(b"data: ")) for one in frames.split(b"\n\n") if one]
    return [(one["offset"], one["text"]) for one in told]


def step(texts: LiveTexts) -> bool:
    """Do what the hub does from time to time."""
    texts.follow(texts.unfollowed())
    return texts.read_on()


def text_of(call: Call, texts: LiveTexts, *pieces: bytes) -> str:
    """Give the text that a reader gets of a stream that ends with these pieces."""
    reader = texts.reader(None)
    heard = ""
    with texts.watched(None):
        for piece in (*pieces, None):
            if piece is None:
                step(texts)
                call.finish(COMPLETE)
            else:
                hear(call, piece)
            step(texts)
            for offset, text in shown(reader.read()):
                assert offset == len(heard)
                heard += text
    return heard


def test_a_reader_hears_each_piece_once_and_a_late_one_all_from_the_beginning() -> None:
    call = streaming()
    texts = LiveTexts({call}, DEFAULT_PROJECT)
    with texts.watched("s"), texts.watched(None):
        first, everything, other = (texts.reader(one) for one in ("s", None, "other"))
        hear(call, delta("Hel"))
        assert step(texts)
        assert shown(first.read()) == [(0, "Hel")]
        assert first.read() == b""
        hear(call, delta("lo "), delta("you"))
        assert step(texts)
        assert not step(texts)
        late = texts.reader("s")
        assert shown(first.read()) == [(3, "lo you")]
        assert shown(late.read()) == shown(everything.read()) == [(0, "Hello you")]
        assert other.read() == b""


def test_frames_are_rendered_once_for_all_who_are_at_one_place() -> None:
    call = streaming()
    texts = LiveTexts({call}, DEFAULT_PROJECT)
    with texts.watched(None):
        hear(call, delta("Hello"))
        step(texts)
        (text,) = texts.of(None)
        assert text.frame(0)[1] is text.frame(0)[1]
        assert text.frame(0)[1] != text.frame(2)[1]


def test_a_reader_takes_a_page_of_all_texts_at_a_time() -> None:
    calls = {streaming() for _ in range(20)}
    texts = LiveTexts(calls, DEFAULT_PROJECT)
    for call in calls:
        hear(call, delta("x" * 5_000), delta("y" * 20_000))
    with texts.watched(None):
        for _ in range(20):
            step(texts)
        reader = texts.reader(None)
        heard: list[tuple[int, str]] = []
        while frames := reader.read():
            assert len(frames) <= PAGE_BYTES + 2 * live.FRAME_CHARS
            heard += shown(frames)
    assert sum(len(text) for _, text in heard) == 20 * 25_000


def test_what_was_said_before_anybody_watched_is_heard_too() -> None:
    call = streaming()
    hear(call, delta("Hel"), delta("lo"))
    assert text_of(call, LiveTexts({call}, DEFAULT_PROJECT), delta("!"), DONE) == "Hello!"


def test_nothing_is_read_while_nobody_watches_and_nothing_of_other_sessions() -> None:
    call, other = streaming("s"), streaming("t")
    texts = LiveTexts({call, other}, DEFAULT_PROJECT)
    hear(call, delta("Hello"))
    hear(other, delta("Hello"))
    assert not step(texts)
    assert (texts.busy, texts.of(None)) == (False, [])
    with texts.watched("s"):
        assert texts.busy
        assert [text.call for text in texts.unfollowed()] == [call]
        step(texts)
        assert len(texts.of(None)) == len(texts.of("s")) == 1
    assert not texts.busy
    step(texts)
    assert texts.of(None) == []


def test_a_call_is_followed_to_its_end_and_then_let_go() -> None:
    call = streaming()
    in_flight = {call}
    texts = LiveTexts(in_flight, DEFAULT_PROJECT)
    with texts.watched(None):
        reader = texts.reader(None)
        hear(call, delta("Hel"))
        step(texts)
        hear(call, delta("lo")[:-1])  # its last event is not ended by a blank line
        call.finish(COMPLETE)
        in_flight.clear()
        assert texts.busy
        assert step(texts)
        assert shown(reader.read()) == [(0, "Hello")]
        in_flight.add(call)  # `strict` saves it before it lets it go
        step(texts)
        step(texts)
        assert texts.of(None) == []
        in_flight.clear()
        assert not texts.busy


def test_a_long_stream_that_ended_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "STEP_BYTES", 100)
    call = streaming()
    in_flight = {call}
    texts = LiveTexts(in_flight, DEFAULT_PROJECT)
    with texts.watched(None):
        hear(call, *(delta("word ") for _ in range(50)))
        step(texts)
        call.finish(COMPLETE)
        in_flight.clear()
        (text,) = texts.of(None)
        while texts.busy:
            texts.read_on()
    assert text.text == "word " * 50


@pytest.mark.parametrize("how", ["preview", "off"])
def test_a_call_that_is_not_recorded_in_full_is_not_heard(how: str) -> None:
    call = streaming(capture=how)
    assert text_of(call, LiveTexts({call}, DEFAULT_PROJECT), delta("Hello"), DONE) == ""


def test_an_answer_that_is_no_stream_is_not_heard() -> None:
    call = a_call()
    assert call.overheard() is None
    call.answered(200, ((b"Content-Type", b"application/json"),), edited=False)
    assert call.overheard() is None


def test_a_copy_that_has_no_room_ends_the_text() -> None:
    call = a_call(body_bytes=100)
    call.answered(200, EVENTS, edited=False)
    hear(call, delta("a"), delta("b"))
    assert text_of(call, LiveTexts({call}, DEFAULT_PROJECT), delta("c"), DONE) == "a"


def test_a_compressed_stream_is_heard() -> None:
    call = a_call()
    call.answered(200, (*EVENTS, (b"Content-Encoding", b"gzip")), edited=False)
    packed = gzip.compress(b"".join(delta(str(n)) for n in range(100)) + DONE)
    pieces = [packed[at : at + 50] for at in range(0, len(packed), 50)]
    assert text_of(call, LiveTexts({call}, DEFAULT_PROJECT), *pieces) == "".join(
        map(str, range(100))
    )


def test_a_step_reads_a_bounded_part_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "STEP_BYTES", 1_000)
    monkeypatch.setattr(live, "FRAME_CHARS", 10)
    bomb = a_call()
    bomb.answered(200, (*EVENTS, (b"Content-Encoding", b"gzip")), edited=False)
    long = streaming()
    hear(bomb, gzip.compress(b":" + bytes(8 << 20) + b"\n\n" + delta("bang")))
    hear(long, *(delta("word ") for _ in range(50)))
    texts = LiveTexts({bomb, long}, DEFAULT_PROJECT)
    reader = texts.reader(None)
    heard = ""
    steps = 0
    with texts.watched(None):
        while "bang" not in heard or heard.count("word ") < 50:
            step(texts)
            steps += 1
            while frames := reader.read():
                heard += "".join(text for _, text in shown(frames))
                assert all(len(text) <= 10 for _, text in shown(frames))
    assert steps > (8 << 20) / live.STEP_BYTES / 300


@pytest.mark.parametrize("secret", [KEY, "tw_sk_abcDEF-123_x", "Bearer-like.secret/with+signs"])
@pytest.mark.parametrize("width", [1, 2, 3, 7, 1000])
def test_a_secret_is_cut_out_wherever_the_events_part_it(secret: str, width: int) -> None:
    said = f"the key is {secret}, {secret} and {secret}"
    call = streaming(headers=((b"Authorization", f"Bearer {secret}".encode()),))
    pieces = [delta(said[at : at + width]) for at in range(0, len(said), width)]
    heard = text_of(call, LiveTexts({call}, DEFAULT_PROJECT), *pieces, DONE)
    assert heard == "the key is [redacted], [redacted] and [redacted]"


def test_the_beginning_of_a_secret_that_does_not_go_on_is_text() -> None:
    call = streaming(headers=((b"Authorization", f"Bearer {KEY}".encode()),))
    pieces = [delta(piece) for piece in ("what is ", KEY[:20], " and tw", "_s", "?t")]
    assert (
        text_of(call, LiveTexts({call}, DEFAULT_PROJECT), *pieces)
        == f"what is {KEY[:20]} and tw_s?t"
    )


def test_half_a_character_waits_for_the_other_half() -> None:
    call = streaming()
    halves = [
        b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % text
        for text in (b"a\\ud83d", b"\\ude00b\\ud83d")
    ]
    assert text_of(call, LiveTexts({call}, DEFAULT_PROJECT), *halves, DONE) == "a\U0001f600b\ufffd"


@given(st.lists(st.text(max_size=20), max_size=20), st.integers(0, 2**32))
def test_the_text_is_that_of_the_events_however_they_are_cut(words: list[str], seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (a test's choices)
    call = a_call(Budget(1 << 20))
    call.answered(200, EVENTS, edited=False)
    stream = b"".join(map(delta, words)) + DONE
    heard = text_of(call, LiveTexts({call}, DEFAULT_PROJECT), *cut(stream, chance))
    assert heard == "".join(words).replace("\0", "\ufffd")


def cut(data: bytes, chance: random.Random) -> Iterator[bytes]:
    while data:
        size = chance.randrange(1, 60)
        yield data[:size]
        data = data[size:]


async def test_a_page_sees_a_stream_being_written_and_then_its_end(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD)
        for word in words:
            await peer.send(chunk(delta(word)))
            await heard.get()
        await peer.send(chunk(DONE) + b"0\r\n\r\n")

    words = ["Once ", "upon ", "a ", "time, in the bit"]
    heard = asyncio.Queue[None]()
    upstream.script = script
    async with (
        watch(tw, "session=s&progress=1") as watching,
        watch(tw, "session=s") as without,
        watch(tw, "session=other&progress=1&kind=span_completed") as elsewhere,
        asyncio.TaskGroup() as tasks,
        connect(tw.port) as client,
    ):
        body = b'{"model":"gpt-4o-mini","stream":true,"messages":[]}'
        await client.send(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"X-Traceway-Session-Id: s\r\nContent-Length: %d\r\n\r\n%b"
            % (CHAT.encode(), len(body), body)
        )
        answer = tasks.create_task(client.response())
        told = await watching.events(3)
        said = ""
        for word in words:
            event = (await watching.until("span_progress"))[-1]
            assert event == {
                "type": "span_progress",
                "trace_id": told[0]["trace_id"],
                "span_id": told[1]["span_id"],
                "session_id": "s",
                "offset": len(said),
                # The last letter of all may begin a key of ours, and waits.
                "text": word.removesuffix("t"),
            }
            said += event["text"]
            if word == "upon ":
                async with watch(tw, "session=s&progress=1&kind=span_failed") as late:
                    assert (await late.event())["text"] == said
            heard.put_nowait(None)
        await answer
        ends = await watching.until("session_updated")
        plain = await without.until("span_completed")
        await tw.server.stop(0, asyncio.Event())
        assert await elsewhere.ended() == []
    assert kinds(ends) == ["span_progress", "span_completed", "trace_updated", "session_updated"]
    assert (ends[0]["offset"], ends[0]["text"]) == (len(said), "t")
    assert ends[-1]["session"]["last_output"] == said + "t"
    assert "span_progress" not in kinds(plain)
