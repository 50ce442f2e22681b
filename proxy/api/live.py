"""What running streams have said so far, for those who watch them being written.

Reads the copies that the calls in flight keep for their records, from outside: the relay knows
nothing of it, waits for nothing and runs no line more. Invariants: a text is what may be shown of
the answer's text, from its beginning, and only grows; secrets are cut out of it, also where two
events share one; a call that is not recorded in full shows none. Work is bounded at each step, and
none is done while nobody watches. A copy that has no room in memory any more ends its text.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from typing import Final

from proxy.api.frames import PAGE_BYTES, progress
from proxy.bodies import without
from proxy.call import Call, Overheard
from proxy.decode import decoder
from proxy.providers.lenient import clean
from proxy.providers.openai import text_delta
from proxy.sse import SseDecoder

# Bytes of streams that are read at one step, over all of them: 2 ms of the event loop. 20 steps a
# second keep up with more than 100 streams of 20 kB/s.
STEP_BYTES: Final = 128 * 1024
# Decoded bytes of a compressed stream that are read.
READ_BYTES: Final = 64 * 1024 * 1024
# Characters of one frame.
FRAME_CHARS: Final = 16 * 1024
# At the end of a text, what may go on to be a key of ours, or half of a character.
_UNFINISHED: Final = re.compile(r"(?:tw_sk_[A-Za-z0-9_-]*|tw_sk|tw_s|tw_|tw|t|[\ud800-\udbff])\Z")


class LiveText:
    """The text of one stream; ``ended`` once all of it is here."""

    def __init__(self, call: Call, stream: Overheard) -> None:
        self.text = ""
        self.ended = False
        self.call = call
        self._stream = stream
        self._decoder = decoder(stream.content_encoding, READ_BYTES)
        self._sse = SseDecoder()
        self._secrets = [secret.decode(errors="replace") for secret in stream.secrets]
        self._taken = 0
        self._plain: Iterator[bytes] = iter(())
        self._held = ""
        self._frame: tuple[int, int, bytes] = (0, 0, b"")

    def read_on(self, limit_bytes: int) -> int:
        """Read about so many bytes more, as far as they are here; return how many it read."""
        is_over = self.call.finished
        read_bytes = 0
        texts = [self._held]
        while read_bytes < limit_bytes and (piece := self._next_piece()) is not None:
            read_bytes += len(piece)
            texts += map(text_delta, self._sse.feed(piece))
        self.ended = is_over and read_bytes < limit_bytes
        if not read_bytes and not self.ended:
            return 0
        if self.ended:
            texts += map(text_delta, self._sse.feed(b"\n\n"))
        held = "".join(texts)
        end = len(held) if self.ended else self._safe_end(held)
        self.text += without(clean(held[:end]), self._stream.secrets)
        self._held = held[end:]
        return read_bytes

    def frame(self, offset: int) -> tuple[int, bytes]:
        """Give the next place and the frame that leads to it, rendered once for all at one place.

        At its end, the place itself and no bytes.
        """
        end = min(len(self.text), offset + FRAME_CHARS)
        if offset >= end:
            return offset, b""
        if self._frame[:2] != (offset, end):
            place, span_id = self.call.place, self.call.start.span_id
            data = progress(
                place.trace_id, span_id, place.session_id, offset, self.text[offset:end]
            )
            self._frame = (offset, end, data)
        return end, self._frame[2]

    def _next_piece(self) -> bytes | None:
        """Give the next piece of the stream, decoded; None where there is none yet."""
        while (piece := next(self._plain, None)) is None:
            raw = self._stream.capture.piece(self._taken)
            if raw is None:
                return None
            self._taken += 1
            self._plain = iter((raw,)) if self._decoder is None else self._decoder.feed(raw)
        return piece

    def _safe_end(self, text: str) -> int:
        """Say up to where no secret has begun that may still go on."""
        unfinished = _UNFINISHED.search(text)
        end = len(text) if unfinished is None else unfinished.start()
        for secret in self._secrets:
            for length in range(min(len(secret) - 1, len(text)), len(text) - end, -1):
                if text.endswith(secret[:length]):
                    end = len(text) - length
                    break
        return end


class LiveTexts:
    """The texts of a project's calls in flight that somebody watches."""

    def __init__(self, in_flight: Set[Call], project_id: int) -> None:
        self._in_flight = in_flight
        self._project_id = project_id
        self._watched: Counter[str | None] = Counter()
        self._texts: dict[Call, LiveText] = {}

    @property
    def busy(self) -> bool:
        """Whether there may be more to read, without anything being committed."""
        return bool(self._watched and (self._in_flight or self._texts))

    @contextmanager
    def watched(self, session_id: str | None) -> Iterator[None]:
        """Have the streams of a session followed, or of all where it is None."""
        self._watched[session_id] += 1
        try:
            yield
        finally:
            self._watched[session_id] -= 1
            self._watched += Counter()  # drops what is 0

    def reader(self, session_id: str | None) -> "Reader":
        """Give a reader of the texts of a session, or of all."""
        return Reader(self, session_id)

    def of(self, session_id: str | None) -> list[LiveText]:
        """Give the texts of a session, or all."""
        return [
            text
            for call, text in self._texts.items()
            if session_id is None or call.place.session_id == session_id
        ]

    def unfollowed(self) -> list[LiveText]:
        """Give the streams that run and are watched, but are not followed yet."""
        found = []
        for call in self._in_flight if self._watched else ():
            if call in self._texts or call.finished or not self._is_watched(call):
                continue
            if (stream := call.overheard()) is not None:
                found.append(LiveText(call, stream))
        return found

    def follow(self, texts: Iterable[LiveText]) -> None:
        """Have these read from the next time on."""
        self._texts.update({text.call: text for text in texts})

    def read_on(self) -> bool:
        """Read what passed since the last time, a bounded part; tell whether any text grew.

        A text that has ended is let go the time after, when its readers have come by.
        """
        for call, text in list(self._texts.items()):
            if text.ended or not self._is_watched(call):
                del self._texts[call]
        left_bytes = STEP_BYTES
        has_grown = False
        for text in self._texts.values():
            had_chars = len(text.text)
            left_bytes -= text.read_on(left_bytes)
            has_grown |= len(text.text) > had_chars
        return has_grown

    def _is_watched(self, call: Call) -> bool:
        if call.start.project_id != self._project_id:
            return False
        return None in self._watched or call.place.session_id in self._watched


class Reader:
    """One subscriber's place in each text."""

    def __init__(self, texts: LiveTexts, session_id: str | None) -> None:
        self._texts = texts
        self._session_id = session_id
        self._heard: dict[LiveText, int] = {}

    def read(self) -> bytes:
        """Give a page of what was added since the last time; nothing at the end of all texts."""
        heard, self._heard = self._heard, {}
        frames: list[bytes] = []
        left_bytes = PAGE_BYTES
        for text in self._texts.of(self._session_id):
            place, frame = heard.get(text, 0), b""
            if left_bytes > 0:
                place, frame = text.frame(place)
            self._heard[text] = place
            frames.append(frame)
            left_bytes -= len(frame)
        return b"".join(frames)
