"""A provider, and a server in front of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.provider import Provider, provider
from tests.running import Running, running


@pytest.fixture
async def openai_like() -> AsyncIterator[Provider]:
    """An OpenAI-compatible provider."""
    async with provider() as served:
        yield served


@pytest.fixture
async def proxy(tmp_path: Path, openai_like: Provider) -> AsyncIterator[Running]:
    """A server in front of the provider."""
    async with running(tmp_path, openai_like.url) as tw:
        yield tw
