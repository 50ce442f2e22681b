"""What the process holds at most while somebody makes much pass through it: peaks of its memory."""

import asyncio
import gzip
import json
import re
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.running import CHAT
from tests.served import Served, served
from tests.wire import Peer, ScriptedUpstream, connect

pytestmark = pytest.mark.torture

MB = 1_000_000
PIECE = b"x" * 100_000
WAIT_S = 120.0
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hello "}}]}\n\n'
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n%b\r\n"
)
STREAMS = 500


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def request(body: bytes) -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body)
    )


def asked(*, stream: bool = False, text: str = "hi") -> bytes:
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": "gpt-4o", "stream": stream, "messages": messages}).encode()


class Memory:
    """The memory of a process, in bytes."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        self._before = 0

    def now(self, field: str = "VmRSS") -> int:
        found = re.search(rf"{field}:\s+(\d+) kB", (self._folder / "status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    def begin(self) -> None:
        """Count from here."""
        (self._folder / "clear_refs").write_text("5")  # the peak falls to what is used now
        self._before = self.now()

    def growth(self) -> int:
        """Give by how much the peak is above the beginning."""
        return self.now("VmHWM") - self._before


@asynccontextmanager
async def warm(folder: Path, upstream: ScriptedUpstream) -> AsyncIterator[tuple[Served, Memory]]:
    """Serve, after a first call: what it needs for any call is there."""
    script = upstream.script
    upstream.answers(b"{}", headers=b"Connection: close\r\n")
    async with served(folder, "--upstream", f"openai={upstream.url}") as server:
        async with connect(server.port) as client:
            await client.send(request(asked()))
            assert (await client.response()).status == 200
        await recorded(server, 1)
        upstream.script = script
        memory = Memory(server.process.pid)
        memory.begin()
        yield server, memory


async def health(server: Served, path: str = "/api/health") -> dict[str, int]:
    async with connect(server.port) as client:
        await client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        body: dict[str, int] = json.loads((await client.response()).body)
        return body


async def recorded(server: Served, calls: int) -> None:
    """Wait until so many calls are saved, with their ends."""
    async with asyncio.timeout(WAIT_S):
        while (await health(server, "/api/stats"))["span_count"] < calls or (await health(server))[
            "queued_bytes"
        ]:
            pass


def report(what: str, bytes_: int) -> None:
    print(f"{what}: {bytes_ / MB:.0f} MB")


async def test_a_client_that_reads_nothing_of_96_mb(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    sent = 0
    stuck = asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (96 * MB))
        for _ in range(960):
            try:
                async with asyncio.timeout(2):
                    await peer.send(PIECE)
            except TimeoutError:
                break
            sent += len(PIECE)
        stuck.set()
        await peer.gone()

    upstream.script = script
    async with warm(tmp_path, upstream) as (server, memory), connect(server.port) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(request(asked()))
        async with asyncio.timeout(WAIT_S):
            await stuck.wait()
        report(f"reads nothing, {sent / MB:.0f} MB sent", memory.growth())
        assert sent < 96 * MB
        assert memory.growth() < 40 * MB


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("unit", [b"\0", b"data: {}\n\n"])
async def test_a_gzip_bomb_of_400_mb(
    tmp_path: Path, upstream: ScriptedUpstream, content_type: str, unit: bytes, stream: bool
) -> None:
    bomb = gzip.compress(unit * (400 * MB // len(unit)), 6)

    async def script(peer: Peer) -> None:
        await peer.request()
        encoding = b"Content-Encoding: gzip\r\n"
        await peer.respond(bomb, content_type=content_type.encode(), headers=encoding)

    upstream.script = script
    async with warm(tmp_path, upstream) as (server, memory):
        async with connect(server.port) as client:
            await client.send(request(asked(stream=stream)))
            answer = await client.head()
            async with asyncio.timeout(WAIT_S):
                size = 0
                if answer.get(b"Content-Length") is not None:
                    size = len(await client.reader.readexactly(len(bomb)))
                else:
                    async for piece in client.chunks():
                        size += len(piece)
        assert size in (len(bomb), 400 * MB // len(unit) * len(unit))
        await recorded(server, 2)
        report(f"bomb of {unit!r} as {content_type}, stream {stream}", memory.growth())
        assert memory.growth() < 100 * MB


@pytest.mark.parametrize("stream", [False, True])
async def test_a_line_of_64_mb(tmp_path: Path, upstream: ScriptedUpstream, stream: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD % b"" + chunk(b"data: "))
        for _ in range(640):
            await peer.send(chunk(PIECE))
        await peer.send(chunk(b"\n\n") + chunk(b""))

    upstream.script = script
    async with warm(tmp_path, upstream) as (server, memory):
        async with connect(server.port) as client:
            await client.send(request(asked(stream=stream)))
            await client.head()
            async with asyncio.timeout(WAIT_S):
                assert sum([len(piece) async for piece in client.chunks()]) == 64 * MB + 8
        await recorded(server, 2)
        report(f"line of 64 MB, stream {stream}", memory.growth())
        assert memory.growth() < 80 * MB


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_an_upload_of_100_mb(
    tmp_path: Path, upstream: ScriptedUpstream, framing: str
) -> None:
    got = 0

    async def script(peer: Peer) -> None:
        nonlocal got
        head = await peer.head()
        if head.get(b"Content-Length") is not None:
            while got < 100 * MB:
                got += len(await peer.reader.read(65536))
        else:
            async for piece in peer.chunks():
                got += len(piece)
        await peer.respond(b"{}")

    upstream.script = script
    kind = (
        b"Content-Length: %d" % (100 * MB) if framing == "length" else b"Transfer-Encoding: chunked"
    )
    async with warm(tmp_path, upstream) as (server, memory):
        async with connect(server.port) as client:
            await client.send(
                b"POST %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
                b"Content-Type: application/json\r\n\r\n" % (CHAT.encode(), kind)
            )
            for _ in range(1000):
                await client.send(PIECE if framing == "length" else chunk(PIECE))
            if framing == "chunks":
                await client.send(chunk(b""))
            async with asyncio.timeout(WAIT_S):
                assert (await client.response()).status == 200
        assert got == 100 * MB
        await recorded(server, 2)
        report(f"upload of 100 MB by {framing}", memory.growth())
        assert memory.growth() < 120 * MB


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process, which is both ends, open three files for each stream."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * STREAMS + 1000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def own_words(number: int) -> str:
    """Give 500 KB that no other client says: nothing of it is stored or cached for another."""
    words = f"{number} says what nobody else does, and more. "
    return (words * (500_000 // len(words) + 1))[:500_000]


@pytest.mark.parametrize("heads", ["at once", "late"])
@pytest.mark.usefixtures("many_files")
async def test_500_streams_whose_requests_have_500_kb(
    tmp_path: Path, upstream: ScriptedUpstream, heads: str
) -> None:
    arrived = 0
    bodies = [request(asked(stream=True, text=own_words(n))) for n in range(STREAMS)]
    all_there, may_answer, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
    if heads == "at once":
        may_answer.set()

    async def script(peer: Peer) -> None:
        nonlocal arrived
        async with asyncio.timeout(WAIT_S):
            await slowly(peer)
            arrived += 1
            if arrived == STREAMS:
                all_there.set()
            await may_answer.wait()
            await peer.send(STREAM_HEAD % b"" + chunk(EVENT))
            await may_end.wait()
            await peer.send(chunk(b"data: [DONE]\n\n") + chunk(b""))

    async def slowly(peer: Peer) -> None:
        async with asyncio.timeout(WAIT_S):
            head = await peer.reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            assert length is not None
            await peer.reader.readexactly(int(length[1]))

    async def caller(client: Peer, number: int) -> None:
        async with asyncio.timeout(WAIT_S):
            await client.send(bodies[number])
            await client.reader.readuntil(b"\r\n\r\n")
            assert b"".join([piece async for piece in client.chunks()]).endswith(b"[DONE]\n\n")

    upstream.script = script
    async with AsyncExitStack() as stack:
        server, memory = await stack.enter_async_context(warm(tmp_path, upstream))
        # All are connected before the first one sends: then they send at the same time.
        clients = [await stack.enter_async_context(connect(server.port)) for _ in range(STREAMS)]
        report("before", memory.now())
        callers = asyncio.gather(*(caller(client, n) for n, client in enumerate(clients)))
        async with asyncio.timeout(WAIT_S):
            await all_there.wait()
            uploading = memory.now("VmHWM")
            report("peak of the upload", uploading)
            memory.begin()
            may_answer.set()
            while (await health(server))["calls_in_flight"] < STREAMS:
                pass
        report("streams", memory.now())
        may_end.set()
        await callers
        await recorded(server, STREAMS + 1)
        ending = memory.now("VmHWM")
        report("peak of the streams and their end", ending)
        report("after", memory.now())
        assert max(uploading, ending) < 300 * MB
