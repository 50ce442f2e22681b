"""Changes that somebody waits for: made in time, or refused and never made."""

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from proxy import commits
from proxy import recorder as module
from proxy.api.erasing import Erasing
from proxy.api.granting import Granting
from proxy.api.keys import Keys, NewProject
from proxy.keyring import Keyring
from storage import api_keys
from storage.database import DatabaseLocked, StorageError, Transaction
from storage.erasures import Order
from storage.postgres_errors import Unreachable
from tests.calling import ANSWER, Gate, a_call
from tests.conftest import Serve
from tests.recorders import Begin, Recording
from tests.running import Running
from tests.wire import ScriptedUpstream

LOCKED = DatabaseLocked("traceway.db", None)
NAMES = "SELECT name FROM projects ORDER BY id"


def make(name: str) -> Callable[[Transaction], object]:
    return lambda tx: api_keys.create_project(tx, name, 1)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.CHANGE_WAIT_S == 2.0
    monkeypatch.setattr(module, "CHANGE_WAIT_S", 0.05)


async def refused(recording: Recording, name: str) -> str:
    with pytest.raises(StorageError, match="nothing was changed") as caught:
        await recording.recorder.change(make(name))
    return str(caught.value)


async def only_the_next_is_made(recording: Recording) -> None:
    async with asyncio.timeout(5):
        await recording.recorder.write(make("next"))
    assert await recording.rows(NAMES) == [("default",), ("next",)]
    assert recording.recorder.losses.counters.dropped_records == 0


async def test_a_change_is_answered_with_its_result(begin: Begin) -> None:
    recording = await begin()
    assert await recording.recorder.change(make("a")) == 2


@pytest.mark.usefixtures("_impatient")
async def test_a_change_that_waits_behind_others_is_taken_out_of_the_line(begin: Begin) -> None:
    recording = await begin()
    recording.gate.shut()
    recording.recorder.put(a_call(request=b"").start)
    await recording.gate.waiting.wait()
    assert "it is busy" in await refused(recording, "late")
    recording.gate.open()
    await only_the_next_is_made(recording)


@pytest.mark.usefixtures("_impatient")
async def test_what_was_withdrawn_is_not_held_until_the_database_is_back(begin: Begin) -> None:
    recording = await begin()
    recording.gate.shut()
    recording.recorder.put(a_call(request=b"").start)
    await recording.gate.waiting.wait()
    for number in range(3):
        await refused(recording, f"late {number}")
    assert len(recording.recorder._backlog) == 0
    recording.gate.open()
    await only_the_next_is_made(recording)


@pytest.mark.usefixtures("_impatient")
async def test_a_change_that_is_tried_again_is_given_up_at_once(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "RETRY_S", 3600.0)
    recording = await begin()
    recording.gate.failures.append(LOCKED)
    assert "another program has locked the database" in await refused(recording, "late")
    await only_the_next_is_made(recording)  # and the pause of an hour is over


@pytest.mark.usefixtures("_impatient")
async def test_a_change_that_is_being_made_is_undone_before_its_commit(begin: Begin) -> None:
    recording = await begin()
    recording.gate.shut()
    changing = asyncio.ensure_future(refused(recording, "late"))
    await recording.gate.waiting.wait()
    await changing
    recording.gate.open()
    await only_the_next_is_made(recording)
    assert recording.recorder.losses.counters.failed_commits == 0


@pytest.mark.usefixtures("_impatient")
async def test_a_change_that_is_being_committed_is_answered_when_it_is(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await begin()
    transaction, committing, go_on = (
        recording.database.transaction,
        threading.Event(),
        threading.Event(),
    )

    @contextmanager
    def slow(projects: Collection[int] | None) -> Iterator[Transaction]:
        with transaction(projects) as tx:
            yield tx
            committing.set()
            go_on.wait(10)

    monkeypatch.setattr(recording.database, "transaction", slow)
    changing = recording.recorder.change(make("a"))
    await asyncio.to_thread(committing.wait, 10)
    done, _ = await asyncio.wait([changing], timeout=0.2)
    assert not done  # its time is long over, and what becomes of it is not known
    go_on.set()
    assert await changing == 2
    assert await recording.rows(NAMES) == [("default",), ("a",)]


@pytest.mark.usefixtures("_impatient")
async def test_a_change_whose_commit_fails_is_withdrawn_as_well(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "RETRY_S", 3600.0)
    recording = await begin()
    gate = recording.gate
    commit = []

    def late(tx: Transaction) -> None:
        make("late")(tx)
        gate.fails_at, gate.fault = gate.operations + 1, LOCKED
        commit.append(gate.fails_at)

    with pytest.raises(StorageError, match="nothing was changed"):
        await recording.recorder.change(late)
    assert gate.operations == commit[0]
    await only_the_next_is_made(recording)


@pytest.mark.postgres_only("its server is elsewhere, and the answer of a commit can be lost")
@pytest.mark.usefixtures("_impatient")
async def test_a_change_of_which_nobody_knows_is_not_said_to_be_none(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await begin()
    losing(recording, monkeypatch)
    with pytest.raises(StorageError, match="it may have been changed") as caught:
        await recording.recorder.change(make("a"))
    assert "nothing was changed" not in str(caught.value)
    assert await recording.rows(NAMES) == [("default",), ("a",)]


@pytest.mark.postgres_only("its server is elsewhere, and the answer of a commit can be lost")
async def test_an_order_whose_commit_lost_its_answer_is_given_once(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await begin()
    losing(recording, monkeypatch, and_then_away=False)
    erasing = Erasing(recording.database, recording.recorder, lambda: None)
    asked = await erasing.ask(1, Order(kind="session", given="s"))
    assert await recording.rows("SELECT id FROM erasures") == [(asked.id,)]


@pytest.mark.postgres_only("its server is elsewhere, and the answer of a commit can be lost")
async def test_a_project_whose_commit_lost_its_answer_is_made_once(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await begin()
    keyring = Keyring("auto", await recording.recorder.write(api_keys.grants))
    losing(recording, monkeypatch, and_then_away=False)
    made = await Keys(Granting(keyring, recording.recorder)).make_project(NewProject(name="a"))
    assert not isinstance(made, api_keys.Conflict)
    assert made.name == "a"
    assert await recording.rows(NAMES) == [("default",), ("a",)]


def losing(
    recording: Recording, monkeypatch: pytest.MonkeyPatch, *, and_then_away: bool = True
) -> None:
    """Have the next commit happen, and its answer lost; the tries after it fail, if so wanted."""
    database: Any = recording.database
    run = database.run

    def lossy(work: Any) -> Any:
        said = run(work)
        if said == "COMMIT":
            monkeypatch.setattr(database, "run", run)
            database._drop()
            if and_then_away:
                recording.gate.fails_forever = LOCKED
            raise Unreachable(database.place, "the connection was lost")
        return said

    monkeypatch.setattr(database, "run", lossy)


# Over the API.


async def gated(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> tuple[Running, Gate]:
    tw = await serve()
    gate = Gate(tw.database)
    monkeypatch.setattr(tw.database, "transaction", gate.transaction)
    return tw, gate


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/keys", {"name": "late", "scope": "admin"}),
        ("POST", "/api/projects", {"name": "late"}),
        ("DELETE", "/api/sessions/s", None),
        ("DELETE", "/api/traces/{trace}", None),
        ("DELETE", "/api/provider-keys/openai", None),
    ],
)
async def test_what_the_database_does_not_take_is_a_503_and_does_not_happen_later(
    serve: Serve,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    body: object,
) -> None:
    tw, gate = await gated(serve, monkeypatch)
    upstream.answers(ANSWER)
    await tw.raw(body=b"{}", headers=b"X-Traceway-Session-Id: s\r\n")
    trace = (await tw.span())["trace_id"]
    gate.fails_forever = LOCKED
    url = tw.url + path.format(trace=trace)
    async with asyncio.timeout(5), tw.client.request(method, url, json=body) as answer:
        assert answer.status == 503
        assert answer.headers["X-Traceway-Error"] == "storage_unavailable"
        assert "nothing was changed" in await answer.text()
    gate.fails_forever = None
    await tw.saved()
    assert (await tw.api("/api/keys"))["keys"] == []
    assert [project["name"] for project in (await tw.api("/api/projects"))["projects"]] == [
        "default"
    ]
    assert (await tw.api("/api/sessions/s"))["trace_count"] == 1
