"""Look-ups of names: shared by those who wait, and never in the way of another upstream."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from proxy import lookup as module
from proxy.lookup import MAX_THREADS, Lookup

pytestmark = pytest.mark.both_loops

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]


class NameServer:
    """Stands where the system looks names up; `hangs` are names that it does not answer yet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.hangs: dict[str, threading.Event] = {}
        self.fails: set[str] = set()
        self._resolve = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: str, port: int, **how: Any) -> Any:
        if how.get("flags") == socket.AI_NUMERICHOST:
            return self._resolve(host, port, **how)
        self.asked.append(host)
        if host in self.hangs:
            self.hangs[host].wait(10)
        if host in self.fails:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return FOUND


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer(monkeypatch)
    yield server
    for event in server.hangs.values():
        event.set()


async def test_a_name_is_looked_up_each_time_that_it_is_needed(names: NameServer) -> None:
    lookup = Lookup("up.example", 80)
    assert [await lookup.addresses() for _ in range(2)] == [FOUND, FOUND]
    assert names.asked == ["up.example", "up.example"]


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
async def test_an_address_is_not_looked_up(names: NameServer, address: str) -> None:
    ((_, kind, _, _, where),) = await Lookup(address, 81).addresses()
    assert (kind, where[:2]) == (socket.SOCK_STREAM, (address, 81))
    assert names.asked == []


async def test_all_who_wait_share_a_look_up_and_who_leaves_ends_it_for_nobody(
    names: NameServer,
) -> None:
    names.hangs["up.example"] = threading.Event()
    lookup = Lookup("up.example", 80)
    waiting = [asyncio.create_task(lookup.addresses()) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    names.hangs["up.example"].set()
    async with asyncio.timeout(10):
        assert await asyncio.gather(*waiting[1:]) == [FOUND] * 49
    assert names.asked == ["up.example"]


async def test_a_look_up_that_hangs_delays_no_other_upstream(names: NameServer) -> None:
    hanging = []
    for number in range(40):  # more than any pool of threads has
        names.hangs[f"hung{number}"] = threading.Event()
        hanging.append(asyncio.create_task(Lookup(f"hung{number}", 80).addresses()))
    async with asyncio.timeout(10):
        assert await Lookup("up.example", 80).addresses() == FOUND
    assert not any(task.done() for task in hanging)
    for event in names.hangs.values():
        event.set()
    await asyncio.gather(*hanging)


async def test_a_name_that_is_not_known_is_so_for_all_who_wait_and_may_be_asked_for_again(
    names: NameServer,
) -> None:
    names.fails.add("up.example")
    lookup = Lookup("up.example", 80)
    ends = await asyncio.gather(*(lookup.addresses() for _ in range(3)), return_exceptions=True)
    assert [type(end) for end in ends] == [socket.gaierror] * 3
    names.fails.clear()
    assert await lookup.addresses() == FOUND


async def test_a_look_up_that_has_hung_for_long_is_tried_again_a_few_times(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HUNG_S", -1.0)
    names.hangs["up.example"] = threading.Event()
    lookup = Lookup("up.example", 80)
    waiting = []
    for _ in range(MAX_THREADS + 5):
        waiting.append(asyncio.create_task(lookup.addresses()))
        await asyncio.sleep(0)
    names.hangs["up.example"].set()
    async with asyncio.timeout(10):
        assert await asyncio.gather(*waiting) == [FOUND] * len(waiting)
    assert len(names.asked) == MAX_THREADS


def test_an_event_loop_that_ends_does_not_wait_for_a_look_up(names: NameServer) -> None:
    names.hangs["left.example"] = threading.Event()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await Lookup("left.example", 80).addresses()

    asyncio.run(leave())
    (hanging,) = (t for t in threading.enumerate() if t.name == "look-up of left.example")
    assert hanging.daemon  # nor does the process
