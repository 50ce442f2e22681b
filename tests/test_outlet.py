"""Standard output and error: nobody waits for who reads them, and what is dropped is counted."""

import fcntl
import json
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.outlet import MAX_BYTES, Outlet, dropped_lines, never_waiting
from tests.api.asking import ask
from tests.running import CHAT, Running
from tests.served import served
from tests.wire import TIMEOUT_S, ScriptedUpstream, connect

PAGE = 4096  # the smallest pipe
LINE = "x" * 1023 + "\n"
CALL = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}".encode()


class Pipe:
    """A small pipe that is read only when a test says so."""

    def __init__(self) -> None:
        self.outlets: list[Outlet] = []
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, PAGE)

    def outlet(self, limit_bytes: int = MAX_BYTES) -> Outlet:
        """Give a stream into it."""
        self.outlets.append(Outlet(self.writing, limit_bytes))
        return self.outlets[-1]

    def lines(self, count: int) -> list[str]:
        """Read so many lines."""
        found = b""
        while found.count(b"\n") < count:
            ready, _, _ = select.select((self.reading,), (), (), TIMEOUT_S)
            assert ready, found
            found += os.read(self.reading, PAGE)
        return found.decode().splitlines()

    def hang_up(self) -> None:
        """Read no more."""
        if self.reading >= 0:
            os.close(self.reading)
            self.reading = -1

    def close(self) -> None:
        """Close it when nobody writes any more: its number may be another file's soon."""
        self.hang_up()
        for outlet in self.outlets:
            outlet.drain(TIMEOUT_S)
        os.close(self.writing)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_who_writes_never_waits_and_lines_past_the_bound_are_dropped(pipe: Pipe) -> None:
    outlet = pipe.outlet(10 * len(LINE))
    for number in range(20):
        outlet.write(f"{number:02}{LINE}")
    outlet.flush()
    # Those that the pipe took may have made room for others, or not yet.
    assert 20 - 10 - PAGE // len(LINE) <= outlet.dropped_lines <= 11
    kept = 20 - outlet.dropped_lines
    found = [int(line[:2]) for line in pipe.lines(kept)]
    assert found == sorted(found)
    assert found[0] == 0


def test_a_line_that_a_pipe_or_a_file_takes_at_once_needs_no_thread(
    pipe: Pipe, tmp_path: Path
) -> None:
    before = threading.active_count()
    pipe.outlet().write("one\n")
    assert pipe.lines(1) == ["one"]
    assert os.get_blocking(pipe.writing)  # for all others who were handed the pipe
    with (tmp_path / "log").open("w") as file:
        Outlet(file.fileno()).write("one\n")
    assert (tmp_path / "log").read_text() == "one\n"
    assert threading.active_count() == before


def test_lines_that_were_dropped_are_spoken_of_once_somebody_reads(
    pipe: Pipe, caplog: pytest.LogCaptureFixture
) -> None:
    outlet = pipe.outlet(5 * len(LINE))
    for _ in range(20):
        outlet.write(LINE)
    with caplog.at_level(logging.WARNING, "traceway"):
        pipe.lines(20 - outlet.dropped_lines)
        outlet.drain(TIMEOUT_S)  # what was read a moment ago may count yet
        outlet.write("more\n")
        pipe.lines(1)
        outlet.write("and more\n")  # is taken only after what happened with the one before
        pipe.lines(1)
    assert caplog.messages == [
        f"{outlet.dropped_lines} lines were not written: nobody read them in time"
    ]


def test_a_pipe_whose_reader_is_gone_costs_lines_and_nothing_else(pipe: Pipe) -> None:
    pipe.hang_up()
    outlet = pipe.outlet()
    outlet.write("one\n")
    outlet.drain(10)
    assert outlet.dropped_lines == 1


def test_a_pipe_that_refuses_to_block_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.writing, False)
    outlet = pipe.outlet()
    for _ in range(50):
        outlet.write(LINE)
    assert len(pipe.lines(50)) == 50
    assert outlet.dropped_lines == 0


def test_the_end_waits_for_lines_but_not_for_who_never_reads(pipe: Pipe) -> None:
    outlet = pipe.outlet()
    outlet.write("last\n")
    outlet.drain(10)
    assert pipe.lines(1) == ["last"]
    for _ in range(10):
        outlet.write(LINE)
    outlet.drain(0.01)
    assert outlet.dropped_lines == 0


def test_a_line_leaves_whole_whatever_it_is_written_in(pipe: Pipe) -> None:
    outlet = pipe.outlet()
    print("a", "\udce4 ü", sep="", file=outlet, flush=True)
    assert pipe.lines(1) == ["a\\udce4 ü"]
    assert (outlet.fileno(), outlet.isatty(), outlet.writable()) == (pipe.writing, False, True)


def test_print_and_warnings_go_the_same_way(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    with os.fdopen(os.dup(pipe.writing), "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(sys, "stdout", None)  # closed
        with never_waiting():
            assert isinstance(sys.stderr, Outlet)
            assert sys.stdout is None
            print("said", file=sys.stderr)
        assert sys.stderr is stream
    assert pipe.lines(1) == ["said"]


async def test_health_and_metrics_count_the_lines(
    tw: Running, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlet = pipe.outlet(0)
    monkeypatch.setattr(sys, "stderr", outlet)
    for _ in range(PAGE // len(LINE) + 1):
        outlet.write(LINE)
    assert dropped_lines() == 1
    assert (await ask(tw, "/api/health")).body["counters"]["dropped_log_lines"] == 1
    async with tw.client.get(f"{tw.url}/metrics") as answer:
        assert "traceway_dropped_log_lines_total 1.0" in await answer.text()


@pytest.mark.slow
@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_calls_go_on_and_are_saved_while_nobody_reads_the_log(
    tmp_path: Path, upstream: ScriptedUpstream, pipe: Pipe, log_format: str
) -> None:
    upstream.answers(b"{}")
    options = ("--upstream", f"openai={upstream.url}", "--log-format", log_format)
    # `strict`: an answer ends once its call is saved.
    strict = {"TRACEWAY_RECORDING_DURABILITY": "strict"}
    async with served(tmp_path, *options, environ=strict, stderr=pipe.writing) as server:
        async with connect(server.port) as client:
            for _ in range(50):  # three times what the pipe holds
                await client.send(CALL)
                assert (await client.response()).status == 200
            await client.send(b"GET /api/stats HTTP/1.1\r\nHost: localhost\r\n\r\n")
            stats = json.loads((await client.response()).body)
        assert stats["trace_count"] == 50
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 0
