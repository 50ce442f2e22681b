"""Handing in traces and spans as an application does, over HTTP; each answer must be described."""

from io import BytesIO
from typing import Any

import orjson

from tests.api.asking import Reply
from tests.api.described import faults
from tests.running import Running

TRACE = "019ac8f0a1b27c3d8e4f5a6b7c8d9e0f"
SPAN = "5a6b7c8d9e0f1a2b"
OTHER = "6b7c8d9e0f1a2b3c"
AT = "2026-11-26T09:00:00Z"
LATER = "2026-11-26T09:00:02.5Z"

MODEL_CALL: dict[str, Any] = {
    "type": "llm_call",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "input_tokens": 1_000,
    "output_tokens": 100,
}
# By the prices of genai-prices: 0.15 and 0.60 USD per million.
MODEL_CALL_USD = 0.00021


async def hand_in(tw: Running, path: str, body: object, **headers: str) -> Reply:
    """POST JSON, or bytes as they are."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    headers = {"Content-Type": "application/json"} | headers
    # A stream: aiohttp warns of large bodies that are none.
    async with tw.client.post(tw.url + path, data=BytesIO(data), headers=headers) as answer:
        reply = Reply(answer.status, dict(answer.headers), orjson.loads(await answer.read()))
    assert faults("POST", path, reply.status, reply.headers, reply.body) == [], reply.body
    return reply


async def batch(tw: Running, *items: object) -> list[Any]:
    """Hand in a batch, each item JSON or bytes as they are; give the results."""
    written = [one if isinstance(one, bytes) else orjson.dumps(one) for one in items]
    reply = await hand_in(tw, "/api/batch", b'{"items":[%b]}' % b",".join(written))
    assert reply.status == 200, reply.body
    assert reply.body["accepted"] + reply.body["refused"] == len(items)
    return list(reply.body["results"])


def span(number: int, **fields: object) -> dict[str, Any]:
    """Give an item of a batch: a span that has ended, in a trace that all of them share."""
    return {
        "type": "span",
        "id": f"{number:016x}",
        "trace_id": TRACE,
        "name": f"span {number}",
        "started_at": AT,
        "duration_ms": 10,
        **fields,
    }
