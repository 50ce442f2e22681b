"""A small OpenAI-compatible server: it answers with the golden cases, as OpenAI does.

A streamed chat reports its usage to who asks for it only; each event is a write of its own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tests.golden import load

CASES = {case.name: case for case in load()}
ANSWERS = {
    "/v1/chat/completions": "chat, plain",
    "/v1/responses": "response, with cached input and reasoning",
    "/v1/embeddings": "embeddings",
    "/v1/audio/transcriptions": "transcription billed by tokens",
    "/v1/audio/speech": "speech as sound",
    "/v1/images/generations": "image",
}
CHAT_STREAM = CASES["chat stream with usage"].answer
# Without `include_usage` the event with the usage is not there, nor any `"usage":null`.
PLAIN_CHAT_STREAM = b"\n\n".join(
    event.replace(b',"usage":null', b"")
    for event in CHAT_STREAM.split(b"\n\n")
    if b'"usage":{' not in event
)
FILE = (
    b'{"id":"file-1","object":"file","bytes":%d,"created_at":1,"filename":"a",'
    b'"purpose":"user_data"}'
)
MODELS = b'{"object":"list","data":[{"id":"gpt-4o","object":"model","created":1,"owned_by":"x"}]}'
BUSY = CASES["429 as JSON"].answer


@dataclass
class Provider:
    """A running one: `busy` calls are answered 429 before the next is; `calls` counts all.

    With `stalls` a stream ends only when its client leaves, and `left` says that it did.
    """

    url: str = ""
    busy: int = 0
    calls: int = 0
    stalls: bool = False
    left: asyncio.Event = field(default_factory=asyncio.Event)
    authorizations: set[str] = field(default_factory=set)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        self.authorizations.add(request.headers.get("Authorization", ""))
        body = await request.read()
        headers = {"x-request-id": f"req_{self.calls}", "openai-processing-ms": "7"}
        if self.busy:
            self.busy -= 1
            headers |= {"retry-after-ms": "1", "Retry-After": "1"}
            return web.Response(
                status=429, body=BUSY, content_type="application/json", headers=headers
            )
        if request.path == "/v1/files":
            reply = FILE % len(body.split(b"\r\n\r\n")[-1].partition(b"\r\n--")[0])
            return web.Response(body=reply, content_type="application/json", headers=headers)
        if request.path == "/v1/models":
            return web.Response(body=MODELS, content_type="application/json", headers=headers)
        asked = orjson.loads(body) if request.content_type == "application/json" else {}
        if not asked.get("stream"):
            case = CASES[ANSWERS[request.path]]
            return web.Response(body=case.answer, content_type=case.answer_type, headers=headers)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **headers})
        await response.prepare(request)
        for event in _stream(request.path, asked).split(b"\n\n")[:-1]:
            await response.write(event + b"\n\n")
            if self.stalls:
                await self._stall()
        return response

    async def _stall(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()


def _stream(path: str, asked: dict[str, Any]) -> bytes:
    if path == "/v1/responses":
        return CASES["response stream, completed"].answer
    with_usage = (asked.get("stream_options") or {}).get("include_usage")
    return CHAT_STREAM if with_usage else PLAIN_CHAT_STREAM


@asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    """Serve until the block ends."""
    served = Provider()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", served.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield served
    finally:
        await runner.cleanup()
