"""The tap: what is learned of an answer while it passes."""

import gzip
import zlib

import brotli
import pytest
import zstandard

from proxy.capture import Budget, Capture
from proxy.providers.openai import StreamWatch, operation_of
from proxy.sse import Event
from proxy.tap import EVENT_STREAM, MAX_RATIO, Tap
from tests.calling import ANSWER, DONE, USAGE, delta

CHAT = operation_of("POST", "/v1/chat/completions")
STREAM = delta("Fi") + delta("ne.") + USAGE + DONE


def tap(media_type: str = EVENT_STREAM, coding: str = "") -> Tap:
    return Tap(CHAT, media_type, coding, Capture(1 << 20, Budget(8 << 20)))


def seen(watching: Tap, data: bytes, piece: int = 1 << 20) -> Tap:
    for at in range(0, len(data), piece):
        watching.feed(data[at : at + piece], data[at : at + piece])
    return watching


def test_an_answer_that_is_no_stream_is_only_copied() -> None:
    watching = seen(tap("application/json"), ANSWER)
    assert watching.capture.captured().head == ANSWER
    assert watching.facts() is None
    assert (watching.is_stream, watching.first_token, watching.ended) == (False, False, False)
    assert not watching.usage_field


def test_a_stream_shows_its_first_token_its_usage_and_its_end_as_they_pass() -> None:
    watching = tap()
    shown = []
    for event in (b": hello\n\n", delta("Fine."), USAGE, DONE):
        seen(watching, event)
        shown.append((watching.first_token, watching.usage_field, watching.ended))
    assert shown == [
        (False, False, False),
        (True, False, False),
        (True, True, False),
        (True, True, True),
    ]
    facts = watching.facts()
    assert facts is not None
    assert (facts.tokens.input, facts.tokens.output, facts.state) == (9, 2, "completed")


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(STREAM)),
        ("deflate", zlib.compress(STREAM)),
        ("br", brotli.compress(STREAM)),
        ("zstd", zstandard.compress(STREAM)),
    ],
)
def test_of_a_compressed_stream_the_copy_is_as_sent_and_the_meaning_is_read(
    coding: str, packed: bytes
) -> None:
    watching = seen(tap(coding=coding), packed, piece=3)
    facts = watching.facts()
    assert facts is not None
    assert (facts.tokens.total, facts.state) == (11, "completed")
    assert watching.capture.captured().head == packed


def test_what_the_upstream_sent_is_read_and_what_the_client_received_is_kept() -> None:
    watching = tap()
    for event, received in ((delta("Fine."), delta("Fine.")), (USAGE, b""), (DONE, DONE)):
        watching.feed(event, received)
    facts = watching.facts()
    assert facts is not None
    assert facts.tokens.total == 11
    assert watching.capture.captured().head == delta("Fine.") + DONE


def test_a_last_event_without_its_blank_line_counts() -> None:
    facts = seen(tap(), delta("Fine.") + DONE.rstrip()).facts()
    assert facts is not None
    assert facts.state == "completed"


@pytest.mark.parametrize("coding", ["gzip", "unknown"])
def test_a_stream_that_cannot_be_decoded_is_not_taken_for_one_that_was_cut(coding: str) -> None:
    facts = seen(tap(coding=coding), STREAM).facts()
    assert facts is not None
    assert (facts.state, facts.expects_end) == (None, False)
    assert facts.notes == ("the stream could not be decoded",)


def test_a_compressed_stream_that_was_cut_is_known_to_be_cut() -> None:
    facts = seen(tap(coding="gzip"), gzip.compress(delta("Fine."))[:-8]).facts()
    assert facts is not None
    assert (facts.state, facts.expects_end) == (None, True)


def test_a_bomb_is_not_unpacked_to_its_end() -> None:
    events = b"data: {}\n\n" * (2 << 20)
    bomb = gzip.compress(events)
    assert len(events) > MAX_RATIO * len(bomb) + (2 << 20)
    watching = tap(coding="gzip")
    seen(watching, bomb)
    facts = watching.facts()
    assert facts is not None
    assert facts.notes == ("the stream could not be decoded",)


def test_a_long_stream_that_packs_well_is_read_to_its_end() -> None:
    stream = b"".join(delta(f"word {n}") for n in range(30_000)) + USAGE + DONE
    facts = seen(tap(coding="gzip"), gzip.compress(stream)).facts()
    assert facts is not None
    assert (facts.tokens.total, facts.state) == (11, "completed")


@pytest.mark.parametrize(
    "data", [b"\x00\xff" * 500, b"data: {\n\n" * 50, b"data: [1,\n\ndata: NaN\n\n", b"\r\r\r\n"]
)
def test_no_bytes_make_it_raise(data: bytes) -> None:
    facts = seen(tap(), data, piece=7).facts()
    assert facts is not None
    assert facts.state is None


@pytest.mark.parametrize("event", [b"a\n\n", b"data: {}\n\n", b'data: {"usage":{}}\n\n'])
def test_others_may_run_between_few_events_however_many_a_piece_unpacks_to(
    event: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = [0]

    def count(_: StreamWatch, __: Event) -> None:
        counts[-1] += 1

    monkeypatch.setattr(StreamWatch, "event", count)
    bomb = gzip.compress(event * (2**20 // len(event)))
    for _ in tap(coding="gzip").steps(bomb, bomb):
        counts.append(0)  # noqa: PERF401
    assert len(counts) > 10
    assert max(counts) < 3_000


def test_a_piece_of_a_usual_stream_is_one_step() -> None:
    watching = tap()
    assert list(watching.steps(STREAM * 50, STREAM * 50)) == []
    assert watching.first_token


def test_a_stream_of_very_many_events_is_not_watched_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.tap.MAX_EVENTS", 1_000)
    watching = seen(tap(), b"a\n\n" * 1_001)
    facts = seen(watching, STREAM).facts()
    assert facts is not None
    assert (facts.tokens.total, facts.expects_end) == (None, False)
    assert facts.notes == ("only 1,000 events of the stream were read",)
