"""The passive observer of one answer, fed after its bytes went to the client.

Owns what is learned while an answer passes. Invariant: its work per byte is bounded, its memory
is that of its capture and one event, and nothing in it can fail the answer: the parsers below it
take any bytes.
Bodies that are not event streams are only copied here; the recorder's thread reads them.
"""

from typing import Final

from proxy.capture import Capture
from proxy.decode import decoder
from proxy.providers.facts import AnswerFacts, Operation
from proxy.providers.openai import StreamWatch
from proxy.sse import SseDecoder

# Decoded bytes of a compressed stream that are watched; a longer one has unknown usage.
WATCHED_BYTES: Final = 64 * 1024 * 1024
# A stream that unpacks to more than its first MiB and to so many times its size is a bomb: 64 KiB
# of it would hold up the event loop for seconds. Chunks of a model's answer unpack to 20 times
# their size or so.
MAX_RATIO: Final = 50
_BEYOND_RATIO_BYTES: Final = 1024 * 1024
EVENT_STREAM: Final = "text/event-stream"


class Tap:
    """Watches one answer. `first_token` and `ended` are True once the stream said so."""

    __slots__ = ("_decoder", "_plain_bytes", "_sent_bytes", "_sse", "_watch", "capture")

    def __init__(
        self, operation: Operation, media_type: str, content_encoding: str, capture: Capture
    ) -> None:
        self.capture = capture
        self._sse: SseDecoder | None = None
        self._sent_bytes = self._plain_bytes = 0
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
        self.capture.add(received)
        if self._sse is None:
            return
        if self._decoder is None:
            for event in self._sse.feed(sent):
                self._watch.event(event)
            return
        self._sent_bytes += len(sent)
        for piece in self._decoder.feed(sent):
            self._plain_bytes += len(piece)
            if self._plain_bytes > _BEYOND_RATIO_BYTES + MAX_RATIO * self._sent_bytes:
                self._decoder.failed = True
                break
            for event in self._sse.feed(piece):
                self._watch.event(event)

    def facts(self) -> AnswerFacts | None:
        """Give what the stream reported, at its end; None for an answer that is not a stream."""
        if self._sse is None:
            return None
        # OpenAI's clients read a last event that no blank line ends, so it counts.
        for event in self._sse.feed(b"\n\n"):
            self._watch.event(event)
        facts = self._watch.facts()
        if self._decoder is not None and self._decoder.failed and facts.state is None:
            # Its end may have come unseen: what cannot be read was not cut for that.
            note = "the stream could not be decoded"
            return facts._replace(expects_end=False, notes=(*facts.notes, note))
        return facts
