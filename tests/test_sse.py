"""The SSE decoder: framing by the WHATWG rules, exact bytes, bounded memory, linear time."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import sse
from proxy.sse import Event, SseDecoder, events_of

BOM = b"\xef\xbb\xbf"
# Bytes in which every rule of framing is at work.
streams = st.lists(
    st.sampled_from(
        [
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b"data: a",
            b"data:b",
            b"data",
            b":c",
            b"event: e",
            BOM,
            b"id: 7",
            b" ",
            b"\x00",
            b"\xff",
        ]
    )
).map(b"".join)


def feed(*chunks: bytes, bound: int = 1000) -> tuple[list[Event], SseDecoder]:
    decoder = SseDecoder(bound)
    return [event for chunk in chunks for event in decoder.feed(chunk)], decoder


def fields(events: list[Event]) -> list[tuple[str, bytes]]:
    return [(event.name, event.data) for event in events if event.data_lines]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_lines_end_with_any_of_the_three_line_ends(end: bytes) -> None:
    stream = end.join([b"event: x", b"data: a", b"data: b", b"", b"data: c", b"", b""])
    for at in range(len(stream) + 1):
        events, decoder = feed(stream[:at], stream[at:])
        assert fields(events) == [("x", b"a\nb"), ("", b"c")]
        assert [event.data_lines for event in events] == [2, 1]
        assert decoder.pending == b""


def test_line_ends_may_be_mixed() -> None:
    for stream in (
        b"data: a\n\r\n",
        b"data: a\r\n\n",
        b"data: a\r\n\r",
        b"data: a\n\r",
        b"data: a\r\r",
    ):
        events, _ = feed(stream + b"data: b\n\n")
        assert fields(events) == [("", b"a"), ("", b"b")]


def test_an_event_whose_lines_end_with_cr_is_given_at_once() -> None:
    assert fields(feed(b"data: [DONE]\r\r")[0]) == [("", b"[DONE]")]


def test_a_cut_crlf_waits_for_its_lf_so_that_the_bytes_of_the_event_are_exact() -> None:
    events, decoder = feed(b"data: a\r\n\r")
    assert (events, decoder.pending) == ([], b"data: a\r\n\r")
    assert decoder.feed(b"\n") == [Event(b"data: a\r\n\r\n", "", b"a", 1)]


def test_one_space_after_the_colon_is_dropped_and_no_more() -> None:
    assert fields(feed(b"data:a\ndata: b\ndata:  c\ndata\n\n")[0]) == [("", b"a\nb\n c\n")]


def test_other_fields_and_comments_carry_nothing() -> None:
    events, _ = feed(b": ping\n\nid: 1\nretry: 5\ndatax: y\n data: z\n\n")
    assert [(event.raw, event.data_lines) for event in events] == [
        (b": ping\n\n", 0),
        (b"id: 1\nretry: 5\ndatax: y\n data: z\n\n", 0),
    ]


def test_comments_and_blank_lines_belong_to_the_event_that_follows() -> None:
    stream = b"\n\r\n: keep\ndata: a\n\n"
    assert feed(stream)[0] == [Event(stream, "", b"a", 1)]


def test_a_byte_order_mark_counts_only_at_the_beginning() -> None:
    stream = BOM + b"data: a\n\n" + BOM + b"data: b\n\n"
    for at in range(len(stream)):
        assert fields(feed(stream[:at], stream[at:])[0]) == [("", b"a")]


def test_an_event_without_its_blank_line_is_pending() -> None:
    events, decoder = feed(b"data: a\n\ndata: b\n")
    assert (fields(events), decoder.pending) == ([("", b"a")], b"data: b\n")


def test_a_name_that_is_not_utf_8_is_still_a_name() -> None:
    assert feed(b"event: \xff\ndata: a\n\n")[0][0].name == "\ufffd"


@given(streams, st.lists(st.integers(0, 200)), st.integers(0, 60))
def test_raw_and_pending_are_always_what_was_fed(
    stream: bytes, cuts: list[int], bound: int
) -> None:
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[a:b] for a, b in pairwise(places)]
    events, decoder = feed(*chunks, bound=bound)
    assert b"".join(event.raw for event in events) + decoder.pending == stream


@given(streams, st.integers(0, 200))
def test_a_cut_changes_no_event(stream: bytes, at: int) -> None:
    whole, split = feed(stream)[0], feed(stream[:at], stream[at:])[0]
    # An end of CR CR or LF CR is given before it is known whether an LF follows; a stream that
    # ends there has the same events all the same.
    assert fields(split) == fields(whole)


@given(streams)
def test_the_events_are_those_of_a_reader_of_lines(stream: bytes) -> None:
    expected: list[tuple[str, bytes]] = []
    name = ""
    data: list[bytes] = []
    for line in stream.removeprefix(BOM).splitlines(keepends=True):
        field, _, value = line.rstrip(b"\r\n").partition(b":")
        if not line.strip(b"\r\n"):
            if data:
                expected.append((name, b"\n".join(data)))
            name, data = "", []
        elif not line.endswith((b"\r", b"\n")):
            continue  # not a whole line yet
        elif field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ").decode("utf-8", "replace")
    events, decoder = feed(stream)
    if decoder.pending.endswith(b"\r\n\r"):  # waits for its LF
        events += decoder.feed(b"\n")
    assert fields(events) == expected


def test_an_event_above_the_bound_passes_in_pieces_with_bounded_memory() -> None:
    decoder = SseDecoder(100)
    chunks = [b"data: " + b"x" * 50] + [b"x" * 50] * 1000 + [b"\n\ndata: a\n\n"]
    events: list[Event] = []
    for chunk in chunks:
        events += decoder.feed(chunk)
        assert len(decoder.pending) <= 106
    assert fields(events) == [("", b"a")]
    assert decoder.oversized == 1
    assert b"".join(event.raw for event in events) == b"".join(chunks)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_decoding_resumes_after_an_oversized_event_wherever_it_is_cut(end: bytes) -> None:
    stream = b"data: " + b"x" * 60 + end + b"data: a" + end + b"data: " + b"y" * 60 + end
    for at in range(len(stream) + 1):
        events, decoder = feed(stream[:at], stream[at:], bound=40)
        assert (fields(events), decoder.oversized) == ([("", b"a")], 2)


def test_the_usual_chunk_is_held_to_the_bound_too() -> None:
    events, decoder = feed(b"data: " + b"x" * 60 + b"\n\n", bound=40)
    assert (fields(events), decoder.oversized) == ([], 1)


def test_a_flood_of_blank_lines_is_no_event_and_loses_none() -> None:
    events, decoder = feed(*[b"\n" * 50] * 100, b"data: a\n\n")
    assert (fields(events), decoder.oversized) == ([("", b"a")], 0)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_an_event_of_too_many_lines_passes_unread_and_the_next_one_is_read(end: bytes) -> None:
    most = sse.MAX_LINE_ENDS // len(end) - 1
    for count, name in ((most, "e"), (most + 1, "")):
        stream = b"event: e" + end + (b"data" + end) * (count - 1) + end + b"data: b" + end + end
        events, decoder = feed(stream, bound=1 << 20)
        assert b"".join(event.raw for event in events) == stream
        assert [event.name for event in events] == [name, ""]
        assert fields(events)[-1] == ("", b"b")
        assert decoder.oversized == (not name)


def test_blank_lines_before_an_event_are_none_of_its_lines() -> None:
    for before in (b"", BOM):
        stream = before + b"\n" * (2 * sse.MAX_LINE_ENDS) + b"event: e\ndata: a\n\n"
        assert fields(feed(stream, bound=1 << 20)[0]) == [("e", b"a")]


class Watched(bytearray):
    """A buffer that counts the bytes that are searched in it, or moved by a deletion."""

    looked_at = 0

    def find(self, part, start=0):  # type: ignore[no-untyped-def]
        at = super().find(part, start)
        self.looked_at += (len(self) if at < 0 else at) - start
        return at

    def __delitem__(self, part):  # type: ignore[no-untyped-def]
        super().__delitem__(part)
        self.looked_at += len(self)


class WatchedPattern:
    """A pattern that counts the bytes of the buffer that it goes through."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self.pattern = pattern

    def search(self, buffer: Watched, start: int) -> re.Match[bytes] | None:
        found = self.pattern.search(buffer, start)
        buffer.looked_at += (found.end() if found else len(buffer)) - start
        return found

    def match(self, buffer: Watched, start: int) -> re.Match[bytes] | None:
        found = self.pattern.match(buffer, start)
        buffer.looked_at += found.end() - start if found else 0
        return found


@pytest.mark.parametrize("size", [1, 1024, 1 << 20])
@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 20_000 + b"\n\n",
        b"\r\n" + b"data: " + b"x" * 20_000 + b"\n\n",
        b"\n" * 20_000,
        b"\r" * 20_000,
        b"x\r\n\r" * 5_000,
        b"data: \n" * 3_000,
        (b"data: " + b"x" * 300 + b"\n\n") * 60,
        (b"data: " + b"x" * 300 + b"\r\n\r\n") * 60,
    ],
)
def test_each_byte_is_looked_at_a_bounded_number_of_times(
    stream: bytes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_BLANK_LINE", "_LINE_ENDS"):
        monkeypatch.setattr(sse, name, WatchedPattern(getattr(sse, name)))
    for bound in (1000, 1 << 24):
        decoder = SseDecoder(bound)
        decoder._buffer = buffer = Watched()
        for at in range(0, len(stream), size):
            decoder.feed(stream[at : at + size])
        # Where a chunk ends, the last bytes wait to be looked at again with what follows them.
        chunks = -(-len(stream) // size)
        assert buffer.looked_at <= 2 * len(stream) + 4 * chunks


@given(streams, st.integers(1, 20))
def test_a_whole_stream_is_decoded_a_part_at_a_time(stream: bytes, step: int) -> None:
    expected = fields(feed(stream + b"\n\n")[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sse, "_STEP_BYTES", step)
        assert fields(list(events_of(stream))) == expected


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"data: b",
        b"data: b\n",
        b"\n\ndata: b\n\n",
        b"data: b\ndata: c\n\ndata: d\n\n",
        b"event: e\ndata: b\n\ndata: c\n\n",
        b"data: b\r\n\r\n",
        b"data: b\r\rdata: c\n\n",
        b"\xef\xbb\xbfdata: b\n\n",
    ],
)
def test_behind_events_of_one_line_a_whole_stream_is_decoded_as_one_that_comes(
    rest: bytes,
) -> None:
    stream = b"data: a\n\n" * 3 + rest
    assert fields(list(events_of(stream))) == fields(feed(stream + b"\n\n")[0])


def test_an_event_that_is_too_long_is_passed_over_in_a_whole_stream_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 20)
    monkeypatch.setattr(SseDecoder.__init__, "__defaults__", (20,))
    found = [event.data for event in events_of(b"data: a\n\ndata: %b\n\ndata: b\n\n" % (b"x" * 30))]
    assert [data for data in found if data] == [b"a", b"b"]


def test_the_events_of_a_whole_stream_are_never_all_held(monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []

    class Watching(SseDecoder):
        def feed(self, chunk: bytes) -> list[Event]:
            fed.append(len(chunk))
            return super().feed(chunk)

    monkeypatch.setattr(sse, "SseDecoder", Watching)
    assert next(events_of(b"data: a\r\n\r\n" * 100_000)).data == b"a"
    assert fed == [65_536]
