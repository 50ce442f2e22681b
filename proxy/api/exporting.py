"""Sends recorded calls on to a collector of OpenTelemetry, in the background.

Invariants: it reads what was committed, by the event log, so that neither a call nor the writer
waits for it, and nothing is held in memory but the piece that is on its way; how far it came is in
the database, so that a restart goes on there; what a collector does not take is counted.
"""

import asyncio
import gzip
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from proxy.answer import ClientFault, UpstreamFault
from proxy.config_values import header_pairs_of
from proxy.egress import Egress
from proxy.otlp.sent import Call, export, refused
from proxy.recorder import Recorder
from proxy.sections import ExportConfig, UpstreamConfig
from proxy.upstream import Request, Upstream
from storage import events, exports
from storage.database import Database, StorageError

# How long it rests where there is nothing to send.
PAUSE_S: Final = 1.0
# Between tries, doubled each time.
FIRST_RETRY_S: Final = 1.0
LAST_RETRY_S: Final = 60.0
LOG_EVERY_S: Final = 60.0
# OTLP 1.9, "Retryable Response Codes". All others say that it would fare no better.
_RETRYABLE: Final = frozenset({429, 502, 503, 504})
_MAX_ANSWER_BYTES: Final = 64 * 1024
_TIMEOUT_S: Final = 30.0

_log = logging.getLogger("traceway")


class Exporter:
    """Sends calls on as [export] says; ``count`` is told what became of them, by result.

    ``project`` gives a project's name by its id. Of those who share the database, only the one that
    ``leads`` sends; what is on its way when that changes may be sent twice.
    """

    def __init__(
        self,
        config: ExportConfig,
        egress: Egress,
        database: Database,
        recorder: Recorder,
        project: Callable[[int], str],
        count: Callable[[Mapping[str, int]], None],
        leads: Callable[[], bool],
    ) -> None:
        target = UpstreamConfig(url=config.otlp_url, total_timeout_s=_TIMEOUT_S)
        self._upstream = Upstream("collector", target, egress.hop(config.otlp_url))
        self._headers = header_pairs_of(config.otlp_headers)
        self._database = database
        self._recorder = recorder
        self._project = project
        self._count = count
        self._leads = leads
        self._last_log_s: float | None = None

    async def run(self) -> None:
        """Send what ends, for ever."""
        after: int | None = None
        try:
            while True:
                try:
                    if not self._leads():
                        after = None  # whoever leads now goes on from what is noted
                        await asyncio.sleep(PAUSE_S)
                        continue
                    after = await self._begin() if after is None else await self._next(after)
                except StorageError as error:
                    self._complain(error)
                    await asyncio.sleep(PAUSE_S)
        finally:
            self._upstream.close()

    def _complain(self, error: StorageError) -> None:
        """Log that it cannot go on, unless a line came a short while ago."""
        now_s = time.monotonic()
        if self._last_log_s is None or now_s - self._last_log_s >= LOG_EVERY_S:
            self._last_log_s = now_s
            _log.warning("sending calls on waits for the database: %s", error)

    async def _begin(self) -> int:
        """Find out where to go on: at first, with what ends from now on."""
        pruned, newest = await events.bounds(self._database)
        known = await exports.cursor(self._database)
        if known is None:
            await self._recorder.write(lambda tx: exports.note(tx, newest), ())
            return newest
        if known < pruned:
            _log.warning("calls that ended while the export stood still were not sent on")
        return min(max(known, pruned), newest)  # a database may have lost its newest events

    async def _next(self, after: int) -> int:
        batch = await exports.read_after(self._database, after)
        if batch is None:
            await asyncio.sleep(PAUSE_S)
            return after
        if batch.ended:
            calls = [Call(self._project(ended.span.project_id), *ended) for ended in batch.ended]
            await self._deliver(await asyncio.to_thread(_packed, calls), len(calls))
        await self._recorder.write(lambda tx: exports.note(tx, batch.sequence), ())
        return batch.sequence

    async def _deliver(self, body: bytes, count: int) -> None:
        """Send one piece until it is taken, or will never be."""
        pause_s = FIRST_RETRY_S
        while True:
            try:
                status, asked_s, answer = await self._post(body)
            except (UpstreamFault, ClientFault) as fault:
                status, asked_s, answer = 503, 0.0, b""
                why = str(fault)
            else:
                why = f"it answered {status}"
            if status < 300:
                lost = min(refused(answer), count)
                self._count({"sent": count - lost, "dropped": lost})
                return
            if status not in _RETRYABLE:
                _log.warning("the collector took no %d calls: %s", count, why)
                self._count({"sent": 0, "dropped": count})
                return
            if pause_s == FIRST_RETRY_S:
                _log.warning("the collector does not take calls now: %s", why)
            await asyncio.sleep(max(pause_s, min(asked_s, LAST_RETRY_S)))
            pause_s = min(2 * pause_s, LAST_RETRY_S)

    async def _post(self, body: bytes) -> tuple[int, float, bytes]:
        headers = [
            (b"Host", self._upstream.authority),
            (b"Content-Type", b"application/x-protobuf"),
            (b"Content-Encoding", b"gzip"),
            (b"Content-Length", b"%d" % len(body)),
            *self._headers,
        ]
        request = Request(
            method=b"POST", target=self._upstream.target(b""), headers=headers, body=body
        )
        exchange = await self._upstream.open(request)
        try:
            answer = bytearray()
            while piece := await exchange.answer.read():
                answer += piece
                if len(answer) > _MAX_ANSWER_BYTES:
                    break
            asked = dict((name.lower(), value) for name, value in exchange.answer.headers)
            retry_after = asked.get(b"retry-after", b"")
            seconds = float(retry_after) if retry_after.isdigit() else 0.0
            return exchange.answer.status, seconds, bytes(answer)
        finally:
            exchange.close()


def _packed(calls: list[Call]) -> bytes:
    return gzip.compress(export(calls), compresslevel=1)
