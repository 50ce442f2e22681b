"""Other clients through the proxy: aiohttp, httpx and curl get the bytes of the provider."""

import asyncio
import gzip
import io
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import httpx2
import orjson
import pytest

from tests.acceptance.provider import CASES, PLAIN_CHAT_STREAM, Provider
from tests.running import Running

Send = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]

CHAT = orjson.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]})
STREAM = CHAT[:-1] + b',"stream":true}'
HEADERS = {"Content-Type": "application/json", "X-Traceway-Session-Id": "raw"}


async def aiohttp_post(url: str, body: bytes) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=io.BytesIO(body), headers=HEADERS) as answer,
    ):
        return answer.status, await answer.read()


async def httpx_post(url: str, body: bytes) -> tuple[int, bytes]:
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.post(url, content=body, headers=HEADERS)
        return answer.status_code, answer.content


async def curl_post(url: str, body: bytes) -> tuple[int, bytes]:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl")
    headers = [part for name, value in HEADERS.items() for part in ("-H", f"{name}: {value}")]
    process = await asyncio.create_subprocess_exec(
        *(curl, "-sS", "--noproxy", "*", "-w", "%{http_code}", "--data-binary", "@-"),
        *(*headers, url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(body)
    return int(out[-3:]), out[:-3]


@pytest.mark.parametrize("send", [aiohttp_post, httpx_post, curl_post])
async def test_a_client_gets_the_bytes_of_the_provider(proxy: Running, send: Send) -> None:
    url = f"{proxy.openai_base}/chat/completions"

    assert await send(url, CHAT) == (200, CASES["chat, plain"].answer)
    assert await send(url, STREAM) == (200, PLAIN_CHAT_STREAM)

    session = await proxy.api("/api/sessions/raw")
    assert [trace["total_tokens"] for trace in session["traces"]] == [1200, 1200]
    spans = await proxy.spans()
    assert [span["input"] for span in spans] == [orjson.loads(CHAT), orjson.loads(STREAM)]


@pytest.mark.parametrize("send", [aiohttp_post, httpx_post, curl_post])
async def test_a_large_body_arrives_whole(
    proxy: Running, openai_like: Provider, send: Send
) -> None:
    # curl asks whether it may send one this large (Expect: 100-continue).
    body = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"%b"}]}' % (
        b"x" * 3_000_000
    )

    assert await send(f"{proxy.openai_base}/chat/completions", body) == (
        200,
        CASES["chat, plain"].answer,
    )

    span = await proxy.span()
    assert (span["metadata"]["request"]["size"], span["status"]) == (len(body), "completed")
    assert openai_like.calls == 1


async def test_a_body_that_comes_in_pieces_and_compressed_arrives_as_it_was(
    proxy: Running,
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(packed), 10):
            yield packed[start : start + 10]

    packed = gzip.compress(CHAT)
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{proxy.openai_base}/chat/completions",
            data=pieces(),
            headers={**HEADERS, "Content-Encoding": "gzip"},
        ) as answer,
    ):
        assert await answer.read() == CASES["chat, plain"].answer
    assert (await proxy.span())["input"] == orjson.loads(CHAT)
