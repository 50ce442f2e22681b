"""Both ways of calling with a key of ours, with the openai package, as docs/keys.md shows them."""

import openai
import orjson
import pytest

from proxy.cli.client import Client
from proxy.operator_socket import path_of
from tests.acceptance.provider import Provider
from tests.running import Running

PROVIDERS = "sk-of-the-provider-0123456789"
CALLERS = "sk-of-the-caller-0123456789"


async def key_of(proxy: Running) -> str:
    """Store a provider key, and make a key that calls."""
    async with Client(socket=path_of(proxy.config.database.path)) as operator:
        await operator.send("PUT", "/api/provider-keys/openai", {"key": PROVIDERS})
        made = await operator.send("POST", "/api/keys", {"name": "app", "scope": "write"})
    key: str = orjson.loads(made)["key"]
    return key


async def call(client: openai.AsyncOpenAI) -> None:
    async with client:
        await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}]
        )


async def test_our_key_in_place_of_the_providers(proxy: Running, openai_like: Provider) -> None:
    key = await key_of(proxy)
    await call(openai.AsyncOpenAI(base_url=proxy.openai_base, api_key=key))
    assert openai_like.authorizations == {f"Bearer {PROVIDERS}"}


async def test_our_key_beside_the_callers(proxy: Running, openai_like: Provider) -> None:
    headers = {"X-Traceway-Api-Key": await key_of(proxy)}
    await call(
        openai.AsyncOpenAI(base_url=proxy.openai_base, api_key=CALLERS, default_headers=headers)
    )
    assert openai_like.authorizations == {f"Bearer {CALLERS}"}


async def test_without_a_key_of_ours_nothing_goes_out(
    proxy: Running, openai_like: Provider
) -> None:
    await key_of(proxy)
    with pytest.raises(openai.AuthenticationError, match="this needs a key of this server"):
        await call(openai.AsyncOpenAI(base_url=proxy.openai_base, api_key=CALLERS))
    assert openai_like.calls == 0
