"""A change of who may come in is written, then known, then said; one after the other."""

import asyncio

import pytest

from proxy import recorder
from proxy.api.granting import Granting
from proxy.keyring import Keyring
from storage import api_keys
from storage.database import StatementRefused, StorageError, Transaction
from tests.calling import Gate, a_call
from tests.recorders import Begin, Recording


@pytest.fixture
async def gated(begin: Begin) -> tuple[Granting, Recording, Gate]:
    recording = await begin()
    keyring = Keyring("auto", await recording.recorder.write(api_keys.grants))
    return Granting(keyring, recording.recorder), recording, recording.gate


async def make(granting: Granting, name: str) -> object:
    return await granting.change(lambda tx, now_us: api_keys.create_project(tx, name, now_us))


def names(granting: Granting) -> list[str]:
    return [project.name for project in granting.keyring.projects]


async def test_a_change_is_known_when_it_is_answered(
    gated: tuple[Granting, Recording, Gate],
) -> None:
    granting, *_ = gated
    assert await make(granting, "a") == 2
    assert names(granting) == ["default", "a"]


async def test_nothing_is_known_that_is_not_written(
    gated: tuple[Granting, Recording, Gate],
) -> None:
    granting, _, gate = gated
    gate.shut()
    changing = asyncio.ensure_future(make(granting, "a"))
    async with asyncio.timeout(5):
        await gate.waiting.wait()
    assert names(granting) == ["default"]
    gate.open()
    await changing
    assert names(granting) == ["default", "a"]


async def test_what_the_database_refuses_is_raised_and_the_next_change_is_made(
    gated: tuple[Granting, Recording, Gate], caplog: pytest.LogCaptureFixture
) -> None:
    granting, *_ = gated

    def refused(tx: Transaction, _: int) -> None:
        tx.execute("INSERT INTO projects (id, name) VALUES (1, 'twice')", {})

    with pytest.raises(StatementRefused):
        await granting.change(refused)
    assert names(granting) == ["default"]
    assert await make(granting, "a") == 2


async def test_a_change_is_made_and_known_also_when_who_asked_for_it_leaves(
    gated: tuple[Granting, Recording, Gate],
) -> None:
    granting, _, gate = gated
    gate.shut()
    changing = asyncio.ensure_future(make(granting, "a"))
    async with asyncio.timeout(5):
        await gate.waiting.wait()
    changing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await changing
    following = asyncio.ensure_future(make(granting, "b"))
    gate.open()
    assert await following == 3
    assert names(granting) == ["default", "a", "b"]


async def test_many_at_once_are_made_one_after_the_other(
    gated: tuple[Granting, Recording, Gate],
) -> None:
    granting, *_ = gated
    made = await asyncio.gather(*(make(granting, f"p{n}") for n in range(20)))
    assert made == list(range(2, 22))
    assert len(names(granting)) == 21


async def test_a_use_is_noted_without_waiting_and_its_failure_is_nobodys(
    gated: tuple[Granting, Recording, Gate], caplog: pytest.LogCaptureFixture
) -> None:
    granting, recording, gate = gated
    await granting.change(
        lambda tx, now_us: api_keys.create_key(
            tx, project_id=1, name="k", scope="read", sha256=b"s", last_four="abcd", now_us=now_us
        )
    )
    (key,) = granting.keyring.keys
    granting.note_use(key, 77)
    found = await recording.recorder.write(api_keys.grants)
    assert [one.last_used_at_us for one in found.keys] == [77]
    gate.failures.append(RuntimeError("no"))
    granting.note_use(key, 88)
    found = await recording.recorder.write(api_keys.grants)
    assert [one.last_used_at_us for one in found.keys] == [77]
    assert "never retrieved" not in caplog.text


async def test_a_use_that_cannot_be_noted_in_time_waits_for_nothing(
    gated: tuple[Granting, Recording, Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "CHANGE_WAIT_S", 0.05)
    granting, recording, gate = gated
    await granting.change(
        lambda tx, now_us: api_keys.create_key(
            tx, project_id=1, name="k", scope="read", sha256=b"s", last_four="abcd", now_us=now_us
        )
    )
    (key,) = granting.keyring.keys
    gate.shut()
    recording.recorder.put(a_call(request=b"").start)
    async with asyncio.timeout(5):
        await gate.waiting.wait()
    for _ in range(3):
        granting.note_use(key, 77)
    # Taken back in order, and this one behind them.
    with pytest.raises(StorageError, match="nothing was changed"):
        await recording.recorder.change(lambda _: None)
    assert len(recording.recorder._backlog) == 0
    gate.open()
