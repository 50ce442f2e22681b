"""Background tasks are named, kept alive until they end, and their failures logged once."""

import asyncio
import gc
import logging
import weakref

import pytest

from proxy.tasks import spawn


async def test_a_task_has_its_name_and_gives_its_result() -> None:
    async def work() -> int:
        return 7

    task = spawn(work(), "work")
    assert task.get_name() == "work"
    assert await task == 7


async def test_a_task_that_nobody_holds_is_not_lost() -> None:
    ended = asyncio.Event()
    waits_for: list[weakref.ref[asyncio.Future[None]]] = []

    async def work() -> None:
        known_to_this_task_only = asyncio.get_running_loop().create_future()
        waits_for.append(weakref.ref(known_to_this_task_only))
        await known_to_this_task_only
        ended.set()

    spawn(work(), "work")
    await asyncio.sleep(0)  # it begins
    gc.collect()
    future = waits_for[0]()
    assert future is not None
    future.set_result(None)
    await asyncio.wait_for(ended.wait(), 10)


async def test_what_a_task_raises_is_logged_with_its_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        raise ZeroDivisionError("by nothing")

    task = spawn(work(), "work")
    with caplog.at_level(logging.ERROR, "traceway"):
        await asyncio.wait([task])
    (record,) = caplog.records
    assert "work" in record.getMessage()
    assert "by nothing" in record.getMessage()


async def test_a_cancelled_task_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    task = spawn(asyncio.Event().wait(), "waits for ever")
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert caplog.records == []
