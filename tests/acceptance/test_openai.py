"""The openai package through the proxy: it sees what it would see without, and all is recorded."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.acceptance.provider import Provider
from tests.running import Running
from tests.wire import TIMEOUT_S

KEY = "sk-canary-0123456789abcdef"
MESSAGES: Any = [{"role": "user", "content": "Hello?"}]
SOUND = ("talk.wav", b"RIFF" + bytes(range(256)) * 40, "audio/wav")


@dataclass(frozen=True)
class Use:
    """One use of the package, and what must be recorded of it."""

    name: str
    call: Callable[[Any], Any]
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    source: str | None = "provider"


USES = [
    Use(
        "chat",
        lambda c: c.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES),
        *("gpt-4o-mini-2024-07-18", 1000, 200, 0.00027),
    ),
    Use(
        "streamed chat",
        lambda c: c.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True),
        *("gpt-4o-mini-2024-07-18", 1000, 200, 0.00027, "injected"),
    ),
    Use(
        "streamed chat that asks for its usage",
        lambda c: c.chat.completions.create(
            model="gpt-4o-mini",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        ),
        *("gpt-4o-mini-2024-07-18", 1000, 200, 0.00027),
    ),
    Use(
        "response",
        lambda c: c.responses.create(model="gpt-5-mini", input="Tell me"),
        *("gpt-5-mini-2025-08-07", 3000, 500, 0.0013),
    ),
    Use(
        "streamed response",
        lambda c: c.responses.create(model="gpt-5-mini", input="Tell me", stream=True),
        *("gpt-5-mini-2025-08-07", 3000, 500, 0.0013),
    ),
    Use(
        "embeddings",
        lambda c: c.embeddings.create(
            model="text-embedding-3-small", input=["a", "b"], encoding_format="float"
        ),
        *("text-embedding-3-small", 8, 0, 0.00000016),
    ),
    Use(
        "transcription",
        lambda c: c.audio.transcriptions.create(model="gpt-4o-transcribe", file=SOUND),
        *("gpt-4o-transcribe", 1400, 45, 0.00885),
    ),
    Use(
        "speech",
        lambda c: c.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="Hi"),
        *("gpt-4o-mini-tts", None, None, None, "missing"),
    ),
    Use(
        "image",
        lambda c: c.images.generate(model="gpt-image-1", prompt="A cat"),
        *("gpt-image-1", 50, 1056, 0.04249),
    ),
    Use(
        "file",
        lambda c: c.files.create(file=("a", b"line\n" * 40_000), purpose="user_data"),
        *(None, None, None, 0.0, None),
    ),
    Use("models", lambda c: c.models.list(), None, None, None, 0.0, None),
]
each_use = pytest.mark.parametrize("use", USES, ids=[use.name for use in USES])


async def taken(use: Use, base_url: str, session_id: str) -> Any:
    """Use the blocking client, in a thread; give its whole result as plain values."""
    return await asyncio.to_thread(_taken, use, base_url, session_id)


def _taken(use: Use, base_url: str, session_id: str) -> Any:
    headers = {"X-Traceway-Session-Id": session_id}
    with openai.OpenAI(api_key=KEY, base_url=base_url, default_headers=headers) as client:
        result = use.call(client)
        if isinstance(result, openai.Stream):
            with result:
                return [event.to_dict() for event in result]
        return result.content if hasattr(result, "content") else result.to_dict()


async def taken_async(use: Use, base_url: str, session_id: str) -> Any:
    """Use the asynchronous client; give its whole result as plain values."""
    headers = {"X-Traceway-Session-Id": session_id}
    async with openai.AsyncOpenAI(
        api_key=KEY, base_url=base_url, default_headers=headers
    ) as client:
        result = await use.call(client)
        if isinstance(result, openai.AsyncStream):
            async with result:
                return [event.to_dict() async for event in result]
        return result.content if hasattr(result, "content") else result.to_dict()


@each_use
async def test_both_clients_get_what_they_would_get_without_the_proxy(
    proxy: Running, openai_like: Provider, use: Use
) -> None:
    direct = f"{openai_like.url}/v1"
    expected = await taken(use, direct, "s")
    assert expected == await taken_async(use, direct, "s")

    assert await taken(use, proxy.openai_base, "s") == expected
    assert await taken_async(use, proxy.openai_base, "s") == expected


@each_use
async def test_a_session_shows_the_call_with_its_tokens_and_its_cost(
    proxy: Running, use: Use
) -> None:
    await taken(use, proxy.openai_base, "user_1:chat/2")
    await taken_async(use, proxy.openai_base, "user_1:chat/2")

    session = await proxy.api("/api/sessions/user_1:chat%2F2")

    assert (session["trace_count"], session["status"]) == (2, "completed")
    for trace in session["traces"]:
        (span,) = (await proxy.api(f"/api/traces/{trace['id']}"))["spans"]
        kind = span["kind"]
        assert (span["status"], span["metadata"]["http_status"]) == ("completed", 200)
        assert (kind["model"], kind["usage_source"]) == (use.model, use.source)
        assert trace["input_tokens"] == kind["input_tokens"] == use.input_tokens
        assert trace["output_tokens"] == kind["output_tokens"] == use.output_tokens
        assert trace["cost"] == (None if use.cost is None else pytest.approx(use.cost, abs=1e-9))
        assert 0 < span["metadata"]["first_byte_ms"] <= trace["duration_ms"]
    assert session["total_tokens"] == (
        None if use.input_tokens is None else 2 * (use.input_tokens + (use.output_tokens or 0))
    )


async def test_each_retry_of_a_client_is_a_trace_of_its_own(
    proxy: Running, openai_like: Provider
) -> None:
    openai_like.busy = 2

    result = await taken_async(USES[0], proxy.openai_base, "s")

    assert result["choices"][0]["message"]["content"] == "Hello!"
    session = await proxy.api("/api/sessions/s")
    assert [trace["status"] for trace in session["traces"]] == ["failed", "failed", "completed"]
    assert session["traces"][0]["error"] == "HTTP 429: Rate limit reached for gpt-4o."
    assert (session["failed_trace_count"], session["error_rate"]) == (2, pytest.approx(2 / 3))
    assert (session["cost"], session["total_tokens"]) == (pytest.approx(0.00027), 1200)
    spans = await proxy.spans()
    counts = [dict(s["metadata"]["request_headers"])["x-stainless-retry-count"] for s in spans]
    assert counts == ["0", "1", "2"]
    assert openai_like.calls == 3


async def test_an_error_reaches_the_client_as_the_same_exception_with_the_same_headers(
    proxy: Running, openai_like: Provider
) -> None:
    async def error(base_url: str) -> openai.RateLimitError:
        openai_like.busy = 1
        async with openai.AsyncOpenAI(api_key=KEY, base_url=base_url, max_retries=0) as client:
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        return caught.value

    direct, proxied = await error(f"{openai_like.url}/v1"), await error(proxy.openai_base)

    assert (proxied.code, proxied.body) == (direct.code, direct.body)
    assert proxied.response.headers["Retry-After"] == direct.response.headers["Retry-After"]
    assert proxied.request_id == "req_2"
    assert "X-Traceway-Error" not in proxied.response.headers


async def test_an_error_of_ours_is_one_that_the_client_knows_and_does_not_repeat(
    proxy: Running, openai_like: Provider
) -> None:
    base_url = f"{proxy.url}/api/proxy/nowhere/v1"
    async with openai.AsyncOpenAI(api_key=KEY, base_url=base_url) as client:
        with pytest.raises(openai.NotFoundError, match="there is no upstream 'nowhere'") as caught:
            await client.models.list()
    assert caught.value.code == "unknown_upstream"
    assert (openai_like.calls, len(await proxy.spans())) == (0, 1)


async def test_a_client_that_leaves_a_stream_ends_it_at_the_provider_too(
    proxy: Running, openai_like: Provider
) -> None:
    openai_like.stalls = True
    async with openai.AsyncOpenAI(api_key=KEY, base_url=proxy.openai_base) as client:
        stream = await client.chat.completions.create(
            model="gpt-4o-mini", messages=MESSAGES, stream=True
        )
        assert (await anext(aiter(stream))).choices[0].delta.role == "assistant"
        await stream.close()
    async with asyncio.timeout(TIMEOUT_S):
        await openai_like.left.wait()

    span = await proxy.ended()
    assert span["status"]["cancelled"]["ended_by"] == "client"
    assert (span["kind"]["usage_source"], span["kind"]["input_tokens"] > 0) == ("estimated", True)
    assert span["output"]["role"] == "assistant"


async def test_the_key_goes_to_the_provider_and_nowhere_else(
    proxy: Running, openai_like: Provider, tmp_path: Path
) -> None:
    for use in USES:
        await taken_async(use, proxy.openai_base, "s")
    await proxy.saved()

    assert openai_like.authorizations == {f"Bearer {KEY}"}
    for name in ("traceway.db", "traceway.db-wal"):
        assert KEY.encode() not in (tmp_path / name).read_bytes()
    assert KEY not in str(await proxy.spans())
