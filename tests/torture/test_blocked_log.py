"""A log that nobody reads, under load: calls go on, are saved, and the server ends when told to."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import CHAT
from tests.served import served
from tests.wire import TIMEOUT_S, Peer, ScriptedUpstream, connect

pytestmark = pytest.mark.torture

# Lines of 700 bytes: twice what waits for the log, and the pipe's own 64 KiB.
CALLS = 3_500
CLIENTS = 8
BODY = b'{"model":"%b"}' % (b"m" * 200)
CALL = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (
    CHAT.encode() + b"?" + b"q" * 200,
    len(BODY),
    BODY,
)
MAX_LIVE_S = 1.0  # it takes milliseconds, and for ever where a line holds the event loop


@pytest.fixture
def unread() -> Iterator[int]:
    """Give a pipe's end for writing; nobody ever reads the other."""
    reading, writing = os.pipe()
    yield writing
    os.close(reading)
    os.close(writing)


async def get(client: Peer, path: str) -> bytes:
    await client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return (await client.response()).body


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_a_log_that_nobody_reads_stops_nothing(
    tmp_path: Path, upstream: ScriptedUpstream, unread: int, log_format: str
) -> None:
    upstream.answers(b"{}")
    options = ("--upstream", f"openai={upstream.url}", "--log-format", log_format)
    made = CALLS // CLIENTS * CLIENTS

    async def caller(port: int) -> None:
        async with connect(port) as client:
            for _ in range(CALLS // CLIENTS):
                await client.send(CALL)
                assert (await client.response()).status == 200

    async with served(tmp_path, *options, stderr=unread) as server:
        callers = asyncio.gather(*(caller(server.port) for _ in range(CLIENTS)))
        slowest_s = 0.0
        async with connect(server.port) as client:
            while not callers.done():
                began_s = time.monotonic()
                await get(client, "/api/live")
                slowest_s = max(slowest_s, time.monotonic() - began_s)
                await asyncio.wait([callers], timeout=0.05)
            await callers
            async with asyncio.timeout(TIMEOUT_S):  # the recorder is behind by seconds
                while json.loads(await get(client, "/api/stats"))["trace_count"] < made:
                    pass
            health = json.loads(await get(client, "/api/health"))
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 0
    assert slowest_s < MAX_LIVE_S
    assert health["reasons"] == []
    assert health["counters"]["dropped_log_lines"] > 0
