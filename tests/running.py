"""A running Traceway for tests: real sockets, a real SQLite file, in this process."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from proxy.app import Traceway
from proxy.config import Config, load
from proxy.pricing import CustomPrice
from storage.database import Database
from storage.doctor import Finding, check
from storage.fulltext import TextOf
from storage.opening import open_at, snapshot_at
from storage.sqlite import open_snapshot
from tests import databases
from tests.databases import opened
from tests.wire import Received, connect

CHAT = "/api/proxy/openai/v1/chat/completions"


@dataclass
class Running:
    """A server under test."""

    server: Traceway
    database: Database
    config: Config
    port: int
    client: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def openai_base(self) -> str:
        return f"{self.url}/api/proxy/openai/v1"

    async def saved(self) -> None:
        """Wait until everything that was queued is in the database."""
        await self.server.recorder.write(lambda _: None)

    async def findings(self, text_of: TextOf) -> list[Finding]:
        """Give what the doctor finds, who looks at one state of a database that is in use."""
        url = self.config.database.url
        snapshot = snapshot_at(url) if url else open_snapshot(self.config.database.path)
        try:
            return await check(snapshot, text_of)
        finally:
            await snapshot.close()

    async def api(self, path: str) -> Any:
        """Read from the API what was saved."""
        await self.saved()
        async with self.client.get(self.url + path) as answer:
            body = await answer.read()
            assert answer.status == 200, body
            return orjson.loads(body)

    async def spans(self) -> list[Any]:
        """Give every span with its input and output, oldest first."""
        traces = (await self.api("/api/traces?limit=1000"))["traces"]
        found = []
        for trace in reversed(traces):
            spans = (await self.api(f"/api/traces/{trace['id']}"))["spans"]
            found += [await self.api(f"/api/spans/{span['id']}") for span in spans]
        return found

    async def span(self) -> Any:
        """Give the only span."""
        (span,) = await self.spans()
        return span

    async def ended(self) -> Any:
        """Wait for the only call to end, as its own handler sees it, and give its span."""
        async with asyncio.timeout(10):
            await self.server.idle()
        return await self.span()

    async def raw(
        self,
        target: bytes = CHAT.encode(),
        *,
        method: bytes = b"POST",
        headers: bytes = b"",
        body: bytes = b"",
        host: bytes = b"127.0.0.1",
    ) -> Received:
        """Make one call on a connection of its own, as raw bytes."""
        async with connect(self.port) as peer:
            length = b"Content-Length: %d\r\n" % len(body) if body else b""
            await peer.send(
                b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%bConnection: close\r\n\r\n%b"
                % (method, target, host, length, headers, body)
            )
            return await peer.response(head_only=method == b"HEAD")


def _opened(config: Config) -> Any:
    how: dict[str, Any] = {"query_timeout_s": config.database.query_timeout_s}
    if config.database.url:
        durability = config.recording.durability
        return open_at(config.database.path, config.database.url, durability=durability, **how)
    strict = config.recording.durability == "strict"
    return opened(config.database.path, synchronous="FULL" if strict else "NORMAL", **how)


@asynccontextmanager
async def running(
    folder: Path,
    upstream_url: str,
    settings: Mapping[str, str] | None = None,
    prices: tuple[CustomPrice, ...] = (),
) -> AsyncIterator[Running]:
    """Run a server in front of an upstream; `settings` have keys as "recording.durability"."""
    overrides = {
        "server.port": "0",
        "database.path": str(folder / "traceway.db"),
        "upstreams.openai.url": upstream_url,
        **(settings or {}),
    }
    if databases.kind() == "postgresql":
        path = Path(overrides["database.path"])
        overrides.setdefault("database.url", databases.url_of(path))
        overrides.setdefault("auth.key_file", f"{path}.key")
    config = replace(load(None, {}, overrides), prices=prices)
    database = _opened(config)
    server = Traceway(config, database)
    try:
        port = await server.start()
        try:
            async with aiohttp.ClientSession() as client:
                yield Running(server, database, config, port, client)
        finally:
            await server.stop(0, asyncio.Event())
    finally:
        await database.close()
