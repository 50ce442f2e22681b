"""Fixtures that most tests share: a scripted upstream, and servers in front of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.keyed import Keyed, keyed
from tests.recorders import Begin, Recording, recording
from tests.running import Running, running
from tests.wire import ScriptedUpstream

# A machine that is busy with something else makes no test fail.
hypothesis.settings.register_profile("traceway", deadline=None)
hypothesis.settings.load_profile("traceway")

Serve = Callable[..., Awaitable[Running]]
ServeKeyed = Callable[..., Awaitable[Keyed]]


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """An upstream that fails the test unless it is given a script."""
    scripted = ScriptedUpstream()
    await scripted.start()
    yield scripted
    await scripted.stop()


@pytest.fixture
async def serve(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Serve]:
    """Start a server before the upstream: `await serve({"recording.durability": "strict"})`."""
    async with AsyncExitStack() as stack:

        async def start(settings: dict[str, str] | None = None) -> Running:
            return await stack.enter_async_context(running(tmp_path, upstream.url, settings))

        yield start


@pytest.fixture
async def tw(serve: Serve) -> Running:
    """A server with the default settings, in front of the upstream."""
    return await serve()


@pytest.fixture
async def serve_keyed(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[ServeKeyed]:
    """Start a server with keys on before the upstream: `await serve_keyed({"auth.mode": ...})`."""
    async with AsyncExitStack() as stack:

        async def start(settings: dict[str, str] | None = None) -> Keyed:
            return await stack.enter_async_context(keyed(tmp_path, upstream.url, settings))

        yield start


@pytest.fixture
async def team(serve_keyed: ServeKeyed) -> Keyed:
    """A server with keys on, in front of the upstream."""
    return await serve_keyed()


@pytest.fixture
async def begin(tmp_path: Path) -> AsyncIterator[Begin]:
    """Start a recorder without a server: `await begin(durability="strict")`."""
    async with AsyncExitStack() as stack:

        async def start(**how: Any) -> Recording:
            return await stack.enter_async_context(recording(tmp_path, **how))

        yield start
