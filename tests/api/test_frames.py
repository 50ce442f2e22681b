"""Events as bytes: their JSON, their pages, and who gets which."""

import orjson
import pytest

from proxy.api.frames import (
    PAGE_BYTES,
    Frame,
    Page,
    Wants,
    greeting,
    heartbeat,
    pages,
    progress,
    render,
)
from storage.events import Event, Told
from tests.api.records import session, trace

TRACE = (10).to_bytes(16, "big")
SPAN = (11).to_bytes(8, "big")


def data_of(frame: bytes) -> dict[str, object]:
    """Read a frame, which is an id and one line of data."""
    number, data, *rest = frame.split(b"\n")
    assert number.startswith(b"id: ")
    assert rest == [b"", b""]
    found = orjson.loads(data.removeprefix(b"data: "))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            Event("span_failed", "s", TRACE, SPAN, ("m",), "truncated"),
            {
                "type": "span_failed",
                "trace_id": TRACE.hex(),
                "span_id": SPAN.hex(),
                "session_id": "s",
                "at": "1970-01-01T00:00:01.000000Z",
                "model": "m",
                "status": "truncated",
            },
        ),
        (
            Event("trace_deleted", None, TRACE),
            {
                "type": "trace_deleted",
                "trace_id": TRACE.hex(),
                "session_id": None,
                "at": "1970-01-01T00:00:01.000000Z",
            },
        ),
        (
            Event("session_updated", "gone"),
            {
                "type": "session_updated",
                "session_id": "gone",
                "at": "1970-01-01T00:00:01.000000Z",
                "session": None,
            },
        ),
    ],
)
def test_an_event_is_one_line_of_json(event: Event, expected: dict[str, object]) -> None:
    (frame,) = render([Told(7, 1_000_000, event)], {}, {})
    assert frame.sequence == 7
    assert data_of(frame.data) == expected


def test_an_event_shows_the_row_that_it_names_whatever_the_text() -> None:
    hostile = "a\nb\r\n\ndata: {}\u2028</script>"
    told = [
        Told(1, 0, Event("trace_updated", hostile, TRACE)),
        Told(2, 0, Event("session_updated", hostile)),
    ]
    rows = render(
        told,
        {hostile: session(session_id=hostile, first_input=hostile)},
        {TRACE: trace(session_id=hostile)},
    )
    shown = [data_of(frame.data) for frame in rows]
    assert shown[0]["trace"]["session_id"] == hostile  # type: ignore[index]
    assert shown[1]["session"]["first_input"] == hostile  # type: ignore[index]
    assert shown[1]["session_id"] == hostile


def page(*frames: tuple[int, str, str | None, tuple[str, ...] | None]) -> Page:
    made = tuple(Frame(n, kind, sid, models, b"%d " % n) for n, kind, sid, models in frames)
    return Page(made[0].sequence - 1, made[-1].sequence, made, b"whole")


def test_without_a_filter_a_page_is_shared_as_it_is() -> None:
    told = page((1, "span_created", "s", ()), (2, "session_updated", "s", ("m",)))
    assert Wants(progress=True).of(told, 0) is told.data
    assert Wants().of(told, 1) == b"2 "
    assert Wants().of(told, 2) == b""


@pytest.mark.parametrize(
    ("wants", "expected"),
    [
        (Wants(session_id="s"), b"1 3 "),
        (Wants(kinds=frozenset(["span_created"])), b"1 2 "),
        (Wants(model="m"), b"2 3 4 "),
        (Wants(model="m", kinds=frozenset(["span_created"])), b"2 "),
        (Wants(session_id="s", model="n"), b""),
    ],
)
def test_each_filter_leaves_out_what_is_not_of_it(wants: Wants, expected: bytes) -> None:
    told = page(
        (1, "span_created", "s", ()),
        (2, "span_created", "t", ("m", "n")),
        (3, "session_updated", "s", ("m",)),
        (4, "trace_deleted", None, None),
    )
    assert wants.of(told, 0) == expected


def test_of_a_session_that_was_erased_everybody_hears_whatever_their_filters() -> None:
    told = [Told(7, 0, Event("session_updated", None)), Told(8, 0, Event("session_updated", "t"))]
    (made,) = pages(6, render(told, {}, {}))
    resync = b'id: 7\ndata: {"type":"resync"}\n\n'
    assert made.frames[0].data == resync
    for wants in (Wants(session_id="s"), Wants(model="m", kinds=frozenset(["span_created"]))):
        assert wants.of(made, 6).startswith(resync)
        assert wants.of(made, 7) == b""


def test_pages_are_small_and_follow_each_other() -> None:
    data = b"x" * (PAGE_BYTES // 3 + 1)
    made = list(pages(5, [Frame(n, "t", None, None, data) for n in range(6, 16)]))
    assert [(one.after, one.last) for one in made] == [(5, 8), (8, 11), (11, 14), (14, 15)]
    assert all(one.data == data * len(one.frames) for one in made)
    assert made[0].held_bytes > 2 * 3 * len(data)
    assert list(pages(5, [])) == []


def test_what_stands_between_events_has_no_data() -> None:
    assert greeting(3) == b"retry: 1000\nid: 3\n\n"
    assert heartbeat(4) == b": heartbeat\nid: 4\n\n"


def test_progress_has_no_id() -> None:
    frame = progress(TRACE, SPAN, None, 3, "a\nb")
    assert orjson.loads(frame.removeprefix(b"data: ")) == {
        "type": "span_progress",
        "trace_id": TRACE.hex(),
        "span_id": SPAN.hex(),
        "session_id": None,
        "offset": 3,
        "text": "a\nb",
    }
    assert frame.count(b"\n") == 2
