"""The write API: what applications hand in, over HTTP, and the one door by which it is stored.

Owns how much of it may be in memory. Invariants: an answer is given when what it speaks of is
committed; what comes again changes nothing, so that whoever got no answer may send it again; the
calls that pass are not held up, since it is stored in pieces, each a transaction of its own, and
beyond a bound in bytes it is a 429.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar

from aiohttp import web

from proxy.access import check_still, project_id
from proxy.api import ingest_items, ingest_views, request_body
from proxy.api.answers import json_answer
from proxy.api.params import BadParameter
from proxy.decode import decoder
from proxy.errors import Refused, error_response
from proxy.recorder import Recorder
from storage.database import StatementRefused, StorageError
from storage.handed import Item, Outcome, Reader, SpanClosed, SpanOpened
from storage.intake import take
from storage.overdue import end_overdue

T = TypeVar("T")

# Items of one transaction, and the bytes of what they say, but for one item that has more: 10 ms of
# work, as with the recorder's own batches. Of many large ones it would never be done in its time.
CHUNK_ITEMS: Final = 100
CHUNK_BYTES: Final = 512 * 1024
# A body that is larger, or packed, is read in a thread: the loop has calls to serve.
INLINE_BYTES: Final = 64 * 1024
# So many bodies of the largest size may be in memory, packed and unpacked ones counted alike.
HELD_BODIES: Final = 4
# What a request weighs beside its body: its task, its records, its place in the queue.
REQUEST_BYTES: Final = 4 * 1024
RETRY_AFTER_S: Final = 1
# What nobody ended is looked for so often, or ten times in the time that it has.
OVERDUE_S: Final = 60.0
_OVERDUE_SHARE: Final = 10
OVERDUE_BATCH: Final = 500
# What became of an item that was none.
REFUSED: Final = "refused"

_log = logging.getLogger("traceway")


class Ingest:
    """The handlers of the write API.

    ``reader`` reads spans for what they mean; ``count`` is told what became of spans, by result.
    """

    def __init__(
        self,
        recorder: Recorder,
        reader: Reader,
        max_body_bytes: int,
        count: Callable[[Mapping[str, int]], None],
    ) -> None:
        self.held_bytes = 0
        self._recorder = recorder
        self._reader = reader
        self._max_body_bytes = max_body_bytes
        self.count = count
        # One transaction at a time: a call that begins meanwhile waits for no more than that.
        self._turn = asyncio.Lock()

    async def trace(self, request: web.Request) -> web.Response:
        """POST /api/traces: open a trace."""
        return await self._one(request, ingest_items.read_trace)

    async def span(self, request: web.Request) -> web.Response:
        """POST /api/spans: begin a span, or hand in one that has ended."""
        return await self._one(request, ingest_items.read_span)

    async def complete(self, request: web.Request) -> web.Response:
        """POST /api/spans/{id}/complete: end a span."""
        item_id = request.match_info["id"]
        return await self._one(request, partial(ingest_items.read_completion, span_id=item_id))

    async def fail(self, request: web.Request) -> web.Response:
        """POST /api/spans/{id}/fail: end a span that failed."""
        item_id = request.match_info["id"]
        return await self._one(request, partial(ingest_items.read_failure, span_id=item_id))

    async def end(self, request: web.Request) -> web.Response:
        """POST /api/traces/{id}/end: end a trace."""
        item_id = request.match_info["id"]
        return await self._one(request, partial(ingest_items.read_trace_end, trace_id=item_id))

    async def batch(self, request: web.Request) -> web.Response:
        """POST /api/batch: many of these, each good or bad for itself."""
        async with self.received(request) as body:
            project = project_id(request)
            found = await self.read(partial(ingest_items.read_batch, body, project), body)
            good = [one for one in found if not isinstance(one, BadParameter)]
            outcomes = iter(await self.take_items(project, good))
            refused = len(found) - len(good)
            self.count({REFUSED: refused})
            results = []
            for one in found:
                if isinstance(one, BadParameter):
                    results.append(ingest_views.mistake_of(one))
                    continue
                outcome = next(outcomes)
                refused += not ingest_views.is_accepted(outcome)
                results.append(ingest_views.result_of(one, outcome))
            return json_answer(
                {"results": results, "accepted": len(found) - refused, "refused": refused}
            )

    async def take_items(self, project_id: int, items: Sequence[Item]) -> list[Outcome]:
        """Store what was handed in, all of it of this project, and give what became of each.

        Raises:
            Refused: the database does not take it now. What of it was stored is stored; it is known
                when it comes again.
        """
        outcomes: list[Outcome] = []
        try:
            for chunk in _chunks(items):
                outcomes += await self._stored(chunk)
        except StorageError as error:
            raise Refused(
                503, "storage_unavailable", str(error), retry_after_s=RETRY_AFTER_S
            ) from None
        self.count(
            Counter(
                outcome.result
                for item, outcome in zip(items, outcomes, strict=True)
                if isinstance(item, SpanOpened | SpanClosed)
            )
        )
        return outcomes

    @asynccontextmanager
    async def received(self, request: web.Request) -> AsyncIterator[bytes]:
        """Give a request's body, whole and unpacked; it counts as held until the end.

        Raises:
            BadParameter: it does not come whole, or is not packed as it says.
            Denied: whoever sends it may not any more.
            Refused: it is too large, packed in another way, or there is too much already.
        """
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            others = self.held_bytes - held
            if others and self.held_bytes + size > HELD_BODIES * self._max_body_bytes:
                raise Refused(
                    429,
                    "too_much_at_once",
                    "too much is being handed in at once: send it again in a second",
                    kind="requests",
                    retry_after_s=RETRY_AFTER_S,
                )
            self.held_bytes += size
            held += size

        try:
            hold(REQUEST_BYTES)
            body = bytearray()
            if (request.content_length or 0) > self._max_body_bytes:
                raise self._too_large()
            async for piece in request_body.pieces(request):
                hold(len(piece))
                body += piece
                if len(body) > self._max_body_bytes:
                    raise self._too_large()
            check_still(request)
            data = bytes(body)
            if coding := request.headers.get("Content-Encoding", ""):
                data = await asyncio.to_thread(self._unpacked, data, coding)
                hold(len(data))
            yield data
        finally:
            self.held_bytes -= held

    async def read(self, read: Callable[[], T], body: bytes) -> T:
        """Read a body by a function that knows it: in a thread where that may take long."""
        return read() if len(body) <= INLINE_BYTES else await asyncio.to_thread(read)

    async def _one(self, request: web.Request, read: Callable[[bytes, int], Item]) -> web.Response:
        async with self.received(request) as body:
            project = project_id(request)
            try:
                item = await self.read(partial(read, body, project), body)
            except BadParameter:
                self.count({REFUSED: 1})
                raise
            (outcome,) = await self.take_items(project, [item])
        if outcome.result == "already_ended":
            return error_response(409, "already_ended", ingest_views.REASONS[outcome.result])
        if outcome.result == "conflict":
            return error_response(409, "conflict", ingest_views.REASONS[outcome.result])
        status = ingest_views.STATUSES[outcome.result]
        return json_answer(ingest_views.view_of(item, outcome), status=status)

    async def _stored(self, items: Sequence[Item]) -> list[Outcome]:
        """Store items in one transaction; where one of them is refused, all others nevertheless."""
        now_us = time.time_ns() // 1000
        try:
            async with self._turn:
                return await self._recorder.change(
                    lambda tx: take(tx, items, now_us=now_us, reader=self._reader),
                    {item.project_id for item in items},
                )
        except StatementRefused as error:
            if len(items) == 1:
                _log.warning("something that was handed in cannot be stored: %s", error)
                return [Outcome("conflict", None)]
        half = len(items) // 2
        return [*await self._stored(items[:half]), *await self._stored(items[half:])]

    def _unpacked(self, data: bytes, coding: str) -> bytes:
        codec = decoder(coding, self._max_body_bytes)
        if codec is None:
            return data
        if codec.failed:
            raise Refused(
                415, "unknown_encoding", "the Content-Encoding may be gzip, deflate, br or zstd"
            )
        unpacked = b"".join(codec.feed(data))
        if codec.overflowed:
            raise self._too_large()
        if codec.failed:
            raise BadParameter("the body is not packed as its Content-Encoding says")
        return unpacked

    def _too_large(self) -> Refused:
        return Refused(
            413,
            "body_too_large",
            f"the body may have {self._max_body_bytes} bytes, also when it is unpacked"
            " ([ingest] max_body_bytes)",
        )


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Divide items into what one transaction takes."""
    start = said_bytes = 0
    for at, item in enumerate(items):
        weight = _weight(item)
        if at > start and (at - start == CHUNK_ITEMS or said_bytes + weight > CHUNK_BYTES):
            yield items[start:at]
            start, said_bytes = at, 0
        said_bytes += weight
    if start < len(items):
        yield items[start:]


def _weight(item: Item) -> int:
    """Give the bytes of what a span says of itself."""
    if not isinstance(item, SpanOpened | SpanClosed):
        return 0
    said = item.said
    return sum(len(part) for part in (said.input, said.output, said.attributes) if part is not None)


async def end_overdue_forever(
    recorder: Recorder, open_timeout_s: float, leads: Callable[[], bool]
) -> None:
    """End what applications left open, piece by piece, between the calls.

    Of those who share the database, by the one that ``leads``.
    """
    pause_s = min(OVERDUE_S, open_timeout_s / _OVERDUE_SHARE)
    timeout_us = round(open_timeout_s * 1_000_000)
    while True:
        await asyncio.sleep(pause_s)
        now_us = time.time_ns() // 1000
        work = partial(end_overdue, now_us=now_us, timeout_us=timeout_us, limit=OVERDUE_BATCH)
        try:
            while leads() and await recorder.write(work):
                pass
        except StorageError:
            continue  # the next time
