"""The passive observer of one answer, fed after its bytes went to the client.

Owns what is learned while an answer passes. Invariant: its work is bounded, of one step and in all,
its memory is that of its capture and one event, and nothing in it can fail the answer: the parsers
below it take any bytes.
Bodies that are not event streams are only copied here; the recorder's thread reads them.
"""

from collections.abc import Iterator
from typing import Final

from proxy.capture import Capture
from proxy.decode import Decoder, decoder
from proxy.providers.facts import AnswerFacts, Operation
from proxy.providers.openai import StreamWatch
from proxy.sse import SseDecoder

# Decoded bytes of a compressed stream that are watched; a longer one has unknown usage.
WATCHED_BYTES: Final = 64 * 1024 * 1024
# A stream that unpacks to more than its first MiB and to so many times its size is a bomb. Chunks
# of a model's answer unpack to 20 times their size or so.
MAX_RATIO: Final = 50
_BEYOND_RATIO_BYTES: Final = 1024 * 1024
# Events of a stream that are watched. Models say 128,000 tokens at most, each an event; so many of
# the shortest are two seconds of work.
MAX_EVENTS: Final = 1_000_000
# Others run on the event loop between steps of so many bytes, an event counting as so many more: 5
# ms of the shortest events. A piece of an answer is a step nearly always.
_SLICE_BYTES: Final = 8 * 1024
_STEP_BYTES: Final = 128 * 1024
_EVENT_BYTES: Final = 256
EVENT_STREAM: Final = "text/event-stream"


class Tap:
    """Watches one answer. `first_token` and `ended` are True once the stream said so."""

    __slots__ = (
        *("_decoder", "_events", "_given_up", "_plain_bytes", "_sent_bytes", "_sse", "_watch"),
        "capture",
    )

    def __init__(
        self, operation: Operation, media_type: str, content_encoding: str, capture: Capture
    ) -> None:
        self.capture = capture
        self._sse: SseDecoder | None = None
        self._sent_bytes = self._plain_bytes = self._events = 0
        self._given_up = ""
        if media_type == EVENT_STREAM:
            self._sse = SseDecoder()
            self._watch = StreamWatch(operation)
            self._decoder = decoder(content_encoding, WATCHED_BYTES)

    @property
    def is_stream(self) -> bool:
        """Whether the answer is an event stream."""
        return self._sse is not None

    @property
    def first_token(self) -> bool:
        """Whether an event carried the first piece of what the model made."""
        return self._sse is not None and self._watch.first_token

    @property
    def ended(self) -> bool:
        """Whether the stream's own end has come; clients act on it before the body ends."""
        return self._sse is not None and self._watch.ended

    @property
    def usage_field(self) -> bool:
        """Whether any event had a usage, be it null."""
        return self._sse is not None and self._watch.usage_field

    def feed(self, sent: bytes, received: bytes) -> None:
        """Take what the upstream sent, and what the client received of it (usually the same)."""
        for _ in self.steps(sent, received):
            pass

    def steps(self, sent: bytes, received: bytes) -> Iterator[None]:
        """Do what `feed` does, in steps between which others may run."""
        self.capture.add(received)
        if self._sse is None or self._given_up:
            return
        step_bytes = 0
        for piece in (sent,) if self._decoder is None else self._unpacked(self._decoder, sent):
            for at in range(0, len(piece), _SLICE_BYTES):
                if step_bytes >= _STEP_BYTES:
                    yield
                    step_bytes = 0
                events = self._sse.feed(piece[at : at + _SLICE_BYTES])
                for event in events:
                    self._watch.event(event)
                step_bytes += _SLICE_BYTES + _EVENT_BYTES * len(events)
                self._events += len(events)
                if self._events > MAX_EVENTS:
                    self._given_up = f"only {MAX_EVENTS:,} events of the stream were read"
                    return

    def _unpacked(self, coding: Decoder, sent: bytes) -> Iterator[bytes]:
        self._sent_bytes += len(sent)
        for piece in coding.feed(sent):
            self._plain_bytes += len(piece)
            if self._plain_bytes > _BEYOND_RATIO_BYTES + MAX_RATIO * self._sent_bytes:
                coding.failed = True
                break
            yield piece
        if coding.failed:
            self._given_up = "the stream could not be decoded"

    def facts(self) -> AnswerFacts | None:
        """Give what the stream reported, at its end; None for an answer that is not a stream."""
        if self._sse is None:
            return None
        # OpenAI's clients read a last event that no blank line ends, so it counts.
        for event in self._sse.feed(b"\n\n"):
            self._watch.event(event)
        facts = self._watch.facts()
        if self._given_up and facts.state is None:
            # Its end may have come unseen: what cannot be read was not cut for that.
            return facts._replace(expects_end=False, notes=(*facts.notes, self._given_up))
        return facts
