"""Calls that are sent on to a collector: which, once each, and whatever the collector does."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from proxy.api import exporting
from storage import exports
from storage.database import Readable, StorageError
from tests.conftest import Serve
from tests.otlp.spans import as_json
from tests.running import CHAT, Running, running
from tests.wire import ScriptedUpstream

CALL = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"a secret"}]}'
ANSWER = (
    b'{"id":"chatcmpl-1","model":"gpt-4o-mini","choices":[{"message":{"role":"assistant",'
    b'"content":"x"}}],"usage":{"prompt_tokens":20,"completion_tokens":7,"total_tokens":27}}'
)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAUSE_S", "FIRST_RETRY_S", "LAST_RETRY_S"):
        monkeypatch.setattr(exporting, name, 0.01)


class Collector:
    """A collector: it answers with each of `replies`, and then with success for ever."""

    def __init__(self) -> None:
        self.url = ""
        self.replies: list[tuple[int, bytes]] = []
        self._asked: asyncio.Queue[tuple[Mapping[str, str], bytes]] = asyncio.Queue()

    async def answer(self, request: web.Request) -> web.Response:
        self._asked.put_nowait((request.headers, await request.read()))
        status, body = self.replies.pop(0) if self.replies else (200, b"")
        return web.Response(status=status, body=body, content_type="application/x-protobuf")

    async def asked(self) -> tuple[ExportTraceServiceRequest, Mapping[str, str]]:
        """Wait until it was asked; give what it was sent, and the headers."""
        async with asyncio.timeout(10):
            headers, body = await self._asked.get()
        return ExportTraceServiceRequest.FromString(body), headers


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    served = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", served.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


def settings(collector: Collector) -> dict[str, str]:
    return {
        "export.otlp_url": collector.url + "/v1/traces",
        "export.otlp_headers": "authorization=Bearer%20x, x-team=a",
    }


def spans_of(request: ExportTraceServiceRequest) -> list[Any]:
    return list(request.resource_spans[0].scope_spans[0].spans)


async def figures(tw: Running) -> str:
    async with tw.client.get(tw.url + "/metrics") as answer:
        return await answer.text()


async def counted(tw: Running, line: str) -> None:
    async with asyncio.timeout(10):
        while line not in await figures(tw):
            pass


async def test_a_call_is_sent_once_with_its_session_and_without_its_text(
    serve: Serve, upstream: ScriptedUpstream, collector: Collector
) -> None:
    tw = await serve(settings(collector))
    upstream.answers(ANSWER)
    await tw.raw(CHAT.encode(), headers=b"X-Traceway-Session-Id: s/1\r\n", body=CALL)
    request, headers = await collector.asked()
    (span,) = spans_of(request)
    told = {one.key: one.value for one in span.attributes}
    assert told["gen_ai.conversation.id"].string_value == "s/1"
    assert told["gen_ai.usage.input_tokens"].int_value == 20
    assert span.span_id.hex() == (await tw.span())["id"]
    assert headers["authorization"] == "Bearer x"
    assert headers["x-team"] == "a"
    assert headers["Content-Type"] == "application/x-protobuf"
    assert "secret" not in str(request)
    await counted(tw, 'traceway_exported_spans_total{result="sent"} 1.0')


async def test_what_was_handed_in_is_not_sent_back(
    serve: Serve, upstream: ScriptedUpstream, collector: Collector
) -> None:
    tw = await serve(settings(collector))
    async with tw.client.post(
        tw.url + "/v1/traces", data=as_json({}), headers={"Content-Type": "application/json"}
    ) as answer:
        assert answer.status == 200
    upstream.answers(ANSWER)
    await tw.raw(CHAT.encode(), body=CALL)
    request, _ = await collector.asked()
    (span,) = spans_of(request)
    assert span.name == "chat gpt-4o-mini"


async def test_a_collector_that_is_away_gets_it_later(
    serve: Serve, upstream: ScriptedUpstream, collector: Collector
) -> None:
    tw = await serve(settings(collector))
    upstream.answers(ANSWER)
    collector.replies = [(503, b""), (429, b"")]
    await tw.raw(CHAT.encode(), body=CALL)
    sent = [(await collector.asked())[0] for _ in range(3)]
    assert sent[0] == sent[1] == sent[2]
    await counted(tw, 'traceway_exported_spans_total{result="sent"} 1.0')


async def test_a_collector_that_cannot_be_reached_holds_nobody_up(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    tw = await serve({"export.otlp_url": "http://127.0.0.1:1/v1/traces"})
    upstream.answers(ANSWER)
    for _ in range(3):
        assert (await tw.raw(CHAT.encode(), body=CALL)).status == 200
    assert len(await tw.spans()) == 3


async def test_while_the_log_cannot_be_read_it_says_so_and_goes_on_when_it_can(
    serve: Serve,
    upstream: ScriptedUpstream,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures: asyncio.Queue[StorageError] = asyncio.Queue()
    read_after = exports.read_after

    async def tried(db: Readable, after: int) -> exports.Batch | None:
        try:
            return await read_after(db, after)
        except StorageError as error:
            failures.put_nowait(error)
            raise

    monkeypatch.setattr(exports, "read_after", tried)
    tw = await serve(settings(collector))
    upstream.answers(ANSWER)
    with monkeypatch.context() as patched:
        patched.setattr(exports, "READ", "SELECT nothing")
        async with asyncio.timeout(10):
            await failures.get()  # so it knew where to begin
            await tw.raw(CHAT.encode(), body=CALL)
            for _ in range(2):
                await failures.get()
    assert len(spans_of((await collector.asked())[0])) == 1
    lines = [one for one in caplog.messages if one.startswith("sending calls on waits for")]
    assert len(lines) == 1
    assert "refused a statement" in lines[0]


PARTIAL = ExportTraceServiceResponse()
PARTIAL.partial_success.rejected_spans = 1


@pytest.mark.parametrize(
    "reply",
    [(400, b""), (200, PARTIAL.SerializeToString())],
    ids=["all of it", "a part of it"],
)
async def test_what_a_collector_refuses_is_counted(
    serve: Serve, upstream: ScriptedUpstream, collector: Collector, reply: tuple[int, bytes]
) -> None:
    tw = await serve(settings(collector))
    upstream.answers(ANSWER)
    collector.replies = [reply]
    await tw.raw(CHAT.encode(), body=CALL)
    await counted(tw, 'traceway_exported_spans_total{result="dropped"} 1.0')


async def test_it_begins_with_what_ends_from_now_on_and_goes_on_after_a_restart(
    tmp_path: Path, upstream: ScriptedUpstream, collector: Collector
) -> None:
    upstream.answers(ANSWER)
    async with running(tmp_path, upstream.url) as tw:
        await tw.raw(CHAT.encode(), body=CALL)
        await tw.saved()
    async with running(tmp_path, upstream.url, settings(collector)) as tw:
        await tw.raw(CHAT.encode(), body=CALL)
        first, _ = await collector.asked()
        assert len(spans_of(first)) == 1
        await counted(tw, 'traceway_exported_spans_total{result="sent"} 1.0')
        # It is noted how far that was, and then the server stops.
        await tw.saved()
    async with running(tmp_path, upstream.url) as tw:
        await tw.raw(CHAT.encode(), body=CALL)
        await tw.saved()
    async with running(tmp_path, upstream.url, settings(collector)):
        second, _ = await collector.asked()
    assert len(spans_of(second)) == 1
    assert spans_of(second)[0].span_id != spans_of(first)[0].span_id
