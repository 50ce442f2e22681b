"""Clients that do not behave, by the thousand: others are served, memory stays, files come back."""

import asyncio
import contextlib
import os
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.running import CHAT
from tests.served import Served, served
from tests.wire import ScriptedUpstream, connect

pytestmark = pytest.mark.torture

HALF_SENT = 4_000
HEADER_S = 10.0
LIVE = b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
CALL = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}" % CHAT.encode()
MIB = 1 << 20
# One of the machine's cores may be busy with something else.
MAX_CALL_S = 1.0


def memory(server: Served) -> int:
    """Give the bytes that a server's process holds."""
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def files(server: Served) -> int:
    """Give how many files it has open."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def cpu_s(server: Served) -> float:
    """Give the processor time that it used, in seconds."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def passed(seconds: float) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    await over.wait()


async def slowest_call_s(port: int, seconds: float) -> float:
    """Make calls through the proxy, each on a connection of its own; give the slowest's time."""
    slowest_s, end_s = 0.0, time.monotonic() + seconds
    while time.monotonic() < end_s:
        began_s = time.monotonic()
        async with connect(port) as client:
            await client.send(CALL)
            assert (await client.response()).status == 200
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        await passed(0.02)
    return slowest_s


@asynccontextmanager
async def raw(port: int, count: int) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """Open so many connections, as far as they are taken."""
    writers: list[asyncio.StreamWriter] = []
    try:
        for _ in range(count):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
        yield writers
    finally:
        for writer in writers:
            writer.transport.abort()


@pytest.fixture(autouse=True)
def as_many_files_as_may_be() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3 * HALF_SENT:
        pytest.skip(f"needs {3 * HALF_SENT} open files, and {hard} are allowed")
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def test_thousands_of_half_sent_requests_are_closed_in_time_and_hold_up_nobody(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    async with served(tmp_path, "--upstream", f"openai={upstream.url}") as server:
        await slowest_call_s(server.port, 0.5)
        before, files_before = memory(server), files(server)
        began_s = time.monotonic()
        async with raw(server.port, HALF_SENT) as writers:
            for number, writer in enumerate(writers):
                writer.write(LIVE[: 10 + number % 30])
            opened_s = time.monotonic()
            slowest_s = await slowest_call_s(server.port, 3)
            grown, held = memory(server) - before, files(server)
            calls = asyncio.create_task(slowest_call_s(server.port, HEADER_S - 1))
            while files(server) > files_before + 20:
                assert time.monotonic() - opened_s < HEADER_S + 5
                await passed(0.1)
            all_closed_s = time.monotonic() - opened_s
            slowest_s = max(slowest_s, await calls)
    print(
        f"\n{HALF_SENT} half-sent: opened in {opened_s - began_s:.1f} s, {held} files,"
        f" {grown / HALF_SENT:.0f} bytes each, slowest call {slowest_s * 1000:.0f} ms, all closed"
        f" after {all_closed_s:.1f} s"
    )
    assert held > HALF_SENT
    assert grown < 200 * MIB
    assert slowest_s < MAX_CALL_S


async def test_a_flood_of_pipelined_requests_waits_for_its_client_in_bounded_memory(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    environ = {"TRACEWAY_SERVER_WRITE_TIMEOUT_S": "2"}
    options = ("--upstream", f"openai={upstream.url}")
    async with served(tmp_path, *options, environ=environ) as server:
        await slowest_call_s(server.port, 0.5)
        before, sent = memory(server), 0

        async def flood(writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(LIVE * 1000)
                    await writer.drain()
                    sent += len(LIVE) * 1000

        async with raw(server.port, 8) as writers, asyncio.timeout(60):
            floods = [asyncio.create_task(flood(writer)) for writer in writers]
            slowest_s = await slowest_call_s(server.port, 2)
            grown = memory(server) - before
            await asyncio.gather(*floods)  # each is cut, since it takes nothing
    print(
        f"\npipelining: {sent / MIB:.1f} MiB of requests taken of 8 clients, memory +"
        f"{grown / MIB:.1f} MiB, slowest call {slowest_s * 1000:.0f} ms"
    )
    assert grown < 64 * MIB
    assert slowest_s < MAX_CALL_S


@pytest.mark.parametrize(
    ("what", "head", "statuses"),
    [
        (
            "64 KB URL",
            b"GET /sessions?q=%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * 65_000),
            {400, 431},
        ),
        ("70 KB URL", b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * 70_000), {431}),
        (
            "200 KB session id",
            CALL.replace(b"\r\n\r\n", b"\r\nX-Traceway-Session-Id: %b\r\n\r\n" % (b"s" * 200_000)),
            {431},
        ),
        (
            "60 KB session id",
            CALL.replace(b"\r\n\r\n", b"\r\nX-Traceway-Session-Id: %b\r\n\r\n" % (b"s" * 60_000)),
            {200},
        ),
        (
            "20,000 headers",
            CALL.replace(b"\r\n\r\n", b"\r\n" + b"X: y\r\n" * 20_000 + b"\r\n"),
            {400},
        ),
    ],
)
async def test_large_heads_are_answered_or_relayed_in_bounded_memory(
    tmp_path: Path, upstream: ScriptedUpstream, what: str, head: bytes, statuses: set[int]
) -> None:
    upstream.answers(b"{}")
    async with served(tmp_path, "--upstream", f"openai={upstream.url}") as server:
        await slowest_call_s(server.port, 0.5)
        before = memory(server)

        async def one() -> None:
            async with connect(server.port) as client:
                with contextlib.suppress(ConnectionError):  # closed before it had sent all
                    await client.send(head)
                    assert (await client.response()).status in statuses

        async def many() -> None:
            for _ in range(100):
                await one()

        floods = asyncio.gather(*(many() for _ in range(4)))
        slowest_s = await slowest_call_s(server.port, 2)
        await floods
        grown = memory(server) - before
    print(f"\n400 of {what}: memory +{grown / MIB:.1f} MiB, slowest call {slowest_s * 1000:.0f} ms")
    assert grown < 128 * MIB
    assert slowest_s < MAX_CALL_S


@pytest.mark.parametrize("limit", ["0", "10000"])
async def test_a_server_that_runs_out_of_files_neither_dies_nor_spins_and_recovers(
    tmp_path: Path, upstream: ScriptedUpstream, limit: str
) -> None:
    upstream.answers(b"{}")
    environ = {"TRACEWAY_SERVER_MAX_CONNECTIONS": limit}
    options = ("--upstream", f"openai={upstream.url}")
    async with served(tmp_path, *options, environ=environ, files=100) as server:
        await slowest_call_s(server.port, 0.5)
        began = files(server)
        async with raw(server.port, 300) as writers:
            for writer in writers:
                writer.write(LIVE[:10])
            await passed(1)
            used_s, most = -cpu_s(server), files(server)
            await passed(2)
            used_s += cpu_s(server)
            if limit == "0":  # there are files left for those that were let in
                async with connect(server.port) as client:
                    await client.send(LIVE)
                    assert (await client.response()).status == 503
        assert server.process.returncode is None
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    async with connect(server.port) as client:
                        await client.send(CALL)
                        if (await client.response()).status == 200:
                            break
                await passed(0.1)
        slowest_s = await slowest_call_s(server.port, 0.5)
    print(f"\n{began} files, then {most} of 100; {used_s:.2f} s of processor time in 2 s")
    assert used_s < 0.5
    assert slowest_s < MAX_CALL_S
