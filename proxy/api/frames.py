"""Events as they go over the wire: rendered once, shared by all who watch, and chosen by filter.

Invariant: a frame is one server-sent event whose data is one line of JSON; its id is the event's
number in the log. What an event names is shown as it is when it is rendered. Pure.

Source of the framing: WHATWG HTML, section 9.2 "Server-sent events" (November 2026).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import orjson

from proxy.api.units import iso
from proxy.api.views import session_view, trace_view
from storage.events import SESSION_UPDATED, TRACE_CREATED, TRACE_DELETED, TRACE_UPDATED, Told
from storage.records import Session, Trace

# Bytes of one page, which is written at once: as much as a socket's writer takes without waiting.
PAGE_BYTES: Final = 64 * 1024
# What a frame weighs in memory beside its bytes.
FRAME_BYTES: Final = 300
# A browser waits so long before it connects again.
RETRY_MS: Final = 1000

RESYNC_TYPE: Final = "resync"
RESYNC: Final = b'data: {"type":"resync"}\n\n'


class Frame(NamedTuple):
    """One event, rendered. ``models`` is None where a filter by model lets it pass unseen."""

    sequence: int
    type: str
    session_id: str | None
    models: Sequence[str] | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """The events behind number ``after`` up to ``last``; ``data`` is all of them."""

    after: int
    last: int
    frames: tuple[Frame, ...]
    data: bytes

    @property
    def held_bytes(self) -> int:
        """What it weighs in memory."""
        return 2 * len(self.data) + FRAME_BYTES * len(self.frames)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wants:
    """What a subscriber asked for; None is everything. ``progress``: the texts of streams too."""

    session_id: str | None = None
    kinds: frozenset[str] | None = None
    model: str | None = None
    progress: bool = False

    def of(self, page: Page, position: int) -> bytes:
        """Give what a subscriber that has seen all up to ``position`` gets of a page."""
        if position <= page.after and (self.session_id, self.kinds, self.model) == (None,) * 3:
            return page.data
        return b"".join(
            frame.data
            for frame in page.frames
            if frame.sequence > position and (frame.type == RESYNC_TYPE or self._has(frame))
        )

    def _has(self, frame: Frame) -> bool:
        return (
            (self.kinds is None or frame.type in self.kinds)
            and (self.session_id is None or frame.session_id == self.session_id)
            and (self.model is None or frame.models is None or self.model in frame.models)
        )


def greeting(position: int) -> bytes:
    """Give the first frame: from where to go on, should the connection break before any event."""
    return b"retry: %d\nid: %d\n\n" % (RETRY_MS, position)


def heartbeat(position: int) -> bytes:
    """Give a comment, so that nobody takes the connection for dead, and where it stands."""
    return b": heartbeat\nid: %d\n\n" % position


def progress(
    trace_id: bytes, span_id: bytes, session_id: str | None, offset: int, text: str
) -> bytes:
    """Render text that a stream added to its answer, ``offset`` characters behind its beginning."""
    told = {
        "type": "span_progress",
        "trace_id": trace_id.hex(),
        "span_id": span_id.hex(),
        "session_id": session_id,
        "offset": offset,
        "text": text,
    }
    return b"data: %b\n\n" % orjson.dumps(told)


def pages(after: int, frames: Sequence[Frame]) -> Iterator[Page]:
    """Put frames into pages of about ``PAGE_BYTES``."""
    held: list[Frame] = []
    held_bytes = 0
    for n, frame in enumerate(frames, 1):
        held.append(frame)
        held_bytes += len(frame.data)
        if held_bytes >= PAGE_BYTES or n == len(frames):
            yield Page(after, frame.sequence, tuple(held), b"".join(one.data for one in held))
            after, held, held_bytes = frame.sequence, [], 0


def render(
    told: Sequence[Told], sessions: Mapping[str, Session], traces: Mapping[bytes, Trace]
) -> list[Frame]:
    """Render events with the rows that they name; of one that is gone, null.

    An event of a session whose id was erased becomes a ``resync`` with the event's number: whoever
    shows that session is to hear of it, and nothing says any more who that is.
    """
    session_views = {
        key: orjson.Fragment(orjson.dumps(session_view(session)))
        for key, session in sessions.items()
    }
    trace_views = {
        key: orjson.Fragment(orjson.dumps(trace_view(trace))) for key, trace in traces.items()
    }
    times = {at_us: iso(at_us) for at_us in {one.at_us for one in told}}
    frames = []
    for sequence, at_us, event in told:
        if event.type == SESSION_UPDATED and event.session_id is None:
            data = b"id: %d\n%b" % (sequence, RESYNC)
            frames.append(Frame(sequence, RESYNC_TYPE, None, None, data))
            continue
        shown: dict[str, object] = {"type": event.type}
        models: Sequence[str] | None = event.models
        if event.trace_id is not None:
            shown["trace_id"] = event.trace_id.hex()
        if event.span_id is not None:
            shown["span_id"] = event.span_id.hex()
        shown["session_id"] = event.session_id
        shown["at"] = times[at_us]
        if event.type == SESSION_UPDATED:
            session = sessions.get(event.session_id or "")
            models = None if session is None else session.models
            shown["session"] = session_views.get(event.session_id or "")
        elif event.type in (TRACE_CREATED, TRACE_UPDATED):
            shown["trace"] = trace_views.get(event.trace_id or b"")
        elif event.type == TRACE_DELETED:
            models = None
        else:
            shown["model"] = event.models[0] if event.models else None
            shown["status"] = event.status
        data = b"id: %d\ndata: %b\n\n" % (sequence, orjson.dumps(shown))
        frames.append(Frame(sequence, event.type, event.session_id, models, data))
    return frames
