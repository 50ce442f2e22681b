"""`traceway migrate`: what it says, where it refuses, and that a server answers the same then."""

import asyncio
import io
import json
import shutil
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import asyncpg
import pytest

from proxy.__main__ import main
from proxy.app import Traceway
from proxy.config import load
from proxy.transporting import LOGGED_S, SHOWN_S, Progress
from storage.database import Database, StorageError
from storage.postgres import open_postgres
from storage.sqlite import open_database
from storage.transport import index_all
from tests.databases import opened_file as opened
from tests.storage.calls import spoken, start, text_of, write
from tests.storage.transporting import ended as ended
from tests.storage.transporting import mixed, moved, new_target, read, run, untold

MANY = 6_000


async def migrated(*options: str) -> tuple[int, str, str]:
    """Run the command; give its exit code and what it said on stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "migrate", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_command_moves_proves_and_fills_the_search(tmp_path: Path) -> None:
    path, url = tmp_path / "traceway.db", await new_target()
    await mixed(path)
    code, out, err = await migrated(str(path), url)
    assert (code, err.count("traceway:")) == (0, 0), err
    lines = out.splitlines()
    assert lines[-1] == "the search is complete"
    assert lines[-2].startswith(f"{path} and postgresql://")
    assert lines[-2].endswith("figures, all equal")
    assert " rows moved in " in lines[-3]
    assert all(line.endswith("equal") or "equal (" in line for line in lines[:-3])
    assert sum(line.startswith("spans: sum of") for line in lines) > 10
    assert await read(url, "SELECT COUNT(*) FROM unindexed") == 0
    assert await read(url, "SELECT COUNT(*) FROM messages_fts") > 50
    code, out, err = await migrated(str(path), url)
    assert code == 1
    assert "it is not empty" in err
    await run(url, "UPDATE spans SET error = 'x'")
    code, out, err = await migrated(str(path), url, "--proof-only")
    assert code == 1
    assert [line.split("  ")[0] for line in out.splitlines() if line.endswith("DIFFERS")] == [
        "spans: digest of all columns"
    ]
    assert out.endswith("1 DIFFER\n")


async def test_the_result_can_be_read_by_a_script(tmp_path: Path) -> None:
    path, url = tmp_path / "traceway.db", await new_target()
    await mixed(path)
    code, out, _ = await migrated(str(path), url, "--json")
    assert code == 0
    result = json.loads(out)
    assert result["equal"] is True
    assert result["source"] == str(path)
    assert result["target"].startswith("postgresql://postgres@")
    assert result["waiting_for_search"] == 0
    assert result["moved"]["rows"] == sum(result["moved"]["rows_by_table"].values())
    assert result["moved"]["rows_before"] == 0
    assert {"what", "source", "target", "is_equal", "note"} == {*result["proof"][0]}


async def test_a_server_must_be_stopped_first(tmp_path: Path) -> None:
    path, url = tmp_path / "traceway.db", await new_target()
    database = opened(path)
    code, out, err = await migrated(str(path), url)
    await database.close()
    assert (code, out) == (1, "")
    assert "has the database open; stop it" in err
    assert await read(url, "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'") == 0


async def test_a_password_is_repeated_in_no_mistake(tmp_path: Path) -> None:
    database = opened(tmp_path / "traceway.db")
    await database.close()
    path, url = str(tmp_path / "traceway.db"), "postgresql://me:s3cret@127.0.0.1:1/tw"
    for given in ((url, path), (path, url), (path, "mysql://me:s3cret@h/x")):
        code, out, err = await migrated(*given)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith("traceway: ")
        assert "s3cret" not in err


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
async def test_an_interrupted_move_and_the_same_command_again_lose_nothing(
    tmp_path: Path, how: signal.Signals
) -> None:
    path, url = await _many(tmp_path), await new_target()
    before, said = await _interrupted(path, url, how, _row_count)
    assert before
    if how is signal.SIGINT:
        assert "traceway: interrupted: the same command goes on" in said
    code, out, err = await migrated(str(path), url, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["equal"] is True
    assert result["moved"]["rows_before"] >= before
    assert result["moved"]["rows"] > 0


async def test_behind_ctrl_c_in_the_proof_it_is_said_how_all_rows_are_compared(
    tmp_path: Path,
) -> None:
    path, url = await _many(tmp_path), await new_target()
    process = await _begun(path, url, asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline()  # the first figure
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        _, said = await process.communicate()
    assert process.returncode == 130
    assert b"traceway: interrupted: all rows are there: --proof-only compares them" in said
    code, out, err = await migrated(str(path), url)
    assert (code, out) == (1, "")
    assert "it is not empty" in err
    assert "--proof-only compares what was moved before" in err
    code, out, _ = await migrated(str(path), url, "--proof-only")
    assert (code, out.endswith("all equal\n")) == (0, True)


async def test_ctrl_c_ends_the_search_at_once_and_a_server_does_the_rest(tmp_path: Path) -> None:
    path, url = await _many(tmp_path), await new_target()
    _, said = await _interrupted(path, url, signal.SIGINT, _indexed)
    assert said.count("traceway: interrupted") == 1
    left = await read(url, "SELECT COUNT(*) FROM unindexed")
    assert left > 0
    assert left + await read(url, "SELECT COUNT(*) FROM messages_fts") == MANY + 1
    code, out, _ = await migrated(str(path), url, "--proof-only")
    assert (code, out.endswith("all equal\n")) == (0, True)


async def test_a_search_that_cannot_be_filled_takes_nothing_from_the_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, url = tmp_path / "traceway.db", await new_target()
    await mixed(path)

    def away(*_given: object) -> int:
        raise StorageError("there", "it is away", "wait")

    monkeypatch.setattr("proxy.transporting.index_all", away)
    code = await asyncio.to_thread(main, ["migrate", str(path), url])
    said = capsys.readouterr()
    assert code == 0
    assert said.out.endswith("the search is not complete: any server goes on with it\n")
    assert said.err.endswith("traceway: there: it is away; wait\n")
    assert (await migrated(str(path), url, "--proof-only"))[0] == 0


async def _many(folder: Path) -> Path:
    """Make a database that takes some moments to move."""
    database = opened(folder / "traceway.db")
    for n in range(0, MANY, 500):
        calls = [
            spoken(start(k, session_id=f"s{k % 9}"), [f"u:{k}"], ["a:yes"])
            for k in range(n, n + 500)
        ]
        write(database, calls, indexed=False)
    await database.close()
    return folder / "traceway.db"


async def _begun(path: Path, url: str, stdout: int) -> asyncio.subprocess.Process:
    """Begin the command, as from a terminal: what a shell starts behind it is deaf to Ctrl-C."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "migrate", str(path), url),
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


async def _interrupted(
    path: Path, url: str, how: signal.Signals, far: Callable[[Any], Awaitable[int]]
) -> tuple[int, str]:
    """End the command with a signal as soon as it has come so far; give how far, and its words."""
    process = await _begun(path, url, asyncio.subprocess.DEVNULL)
    connection = await asyncpg.connect(url)
    async with asyncio.timeout(60):
        while not await far(connection):
            pass  # which asks the database
    process.send_signal(how)
    async with asyncio.timeout(20):
        _, said = await process.communicate()
    assert process.returncode == (130 if how is signal.SIGINT else -how)
    reached = await far(connection)
    await connection.close()
    return reached, said.decode()


async def _indexed(connection: Any) -> int:
    """Give how many messages are in the search."""
    if await connection.fetchval("SELECT to_regclass('messages_fts') IS NULL"):
        return 0
    return int(await connection.fetchval("SELECT COUNT(*) FROM messages_fts"))


async def _row_count(connection: Any) -> int:
    """Give how many rows have crossed of a move that is not finished."""
    if await connection.fetchval("SELECT to_regclass('moves') IS NULL"):
        return 0
    return int(await connection.fetchval("SELECT row_count FROM moves"))


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[Database, Database]]:
    """Give a database, and what it was moved into."""
    path, url = tmp_path / "traceway.db", await new_target()
    await mixed(path)
    connection = sqlite3.connect(path)
    with connection:
        for table in ("provider_keys", "api_keys", "sign_ins"):  # so that anybody may ask
            connection.execute(f"DELETE FROM {table}")  # noqa: S608
    connection.close()
    await moved(path, url)
    shutil.copy(path, tmp_path / "copy.db")
    here, there = open_database(tmp_path / "copy.db"), open_postgres(url)
    index_all(here, text_of, untold)
    index_all(there, text_of, untold)
    yield here, there
    await here.close()
    await there.close()


async def test_a_server_answers_the_same_from_both(
    both: tuple[Database, Database], tmp_path: Path
) -> None:
    found = []
    for n, database in enumerate(both):
        async with _serving(database, tmp_path / f"{n}.db") as get:
            found.append(await _answers(get))
    assert found[0].keys() == found[1].keys()
    for path, answer in found[0].items():
        assert found[1][path] == answer, path
    assert sum("/conversation" in path for path in found[0]) > 5
    whole = [path for path, answer in found[0].items() if answer.startswith(b"200")]
    assert sum(path.endswith(("/request", "/response")) for path in whole) > 150
    assert b"alpha" in found[0]["/api/spans?q=alpha"]


@asynccontextmanager
async def _serving(database: Database, beside: Path) -> AsyncIterator[Any]:
    overrides = {"server.port": "0", "database.path": str(beside)}
    config = replace(load(None, {}, overrides), prices=())
    server = Traceway(config, database)
    port = await server.start()
    try:
        async with aiohttp.ClientSession() as client:

            async def get(path: str) -> bytes:
                async with client.get(f"http://127.0.0.1:{port}{path}") as answer:
                    return b"%d " % answer.status + await answer.read()

            yield get
    finally:
        await server.stop(0, asyncio.Event())


async def _answers(get: Any) -> dict[str, bytes]:
    """Ask for everything that a page shows."""
    found: dict[str, bytes] = {}

    async def ask(path: str) -> bytes:
        found[path] = await get(path)
        code, _, body = found[path].partition(b" ")
        assert code in (b"200", b"404"), (path, found[path])
        return body

    orders = ("", "&sort_by=cost", "&sort_by=tokens&sort_order=asc", "&sort_by=duration")
    for order in orders:
        sessions = await ask(f"/api/sessions?limit=200{order}")
    for session in json.loads(sessions)["sessions"]:
        query = urlencode({"id": session["id"]})
        await ask(f"/api/sessions/by-id?{query}")
        await ask(f"/api/sessions/by-id/conversation?{query}")
    for trace in json.loads(await ask("/api/traces?limit=500"))["traces"]:
        await ask(f"/api/traces/{trace['id']}")
    for span in json.loads(await ask("/api/spans?limit=1000"))["spans"]:
        await ask(f"/api/spans/{span['id']}")
        await ask(f"/api/spans/{span['id']}/request")
        await ask(f"/api/spans/{span['id']}/response")
    for word in ("alpha", "beta", "gamma%20delta", '"alpha%20beta"', "hi", "nothing", "waits"):
        for rows in ("sessions", "traces", "spans"):
            await ask(
                f"/api/{rows}?limit=200&q={word}" if rows != "spans" else f"/api/spans?q={word}"
            )
    for query in ("cost:>0", "model:gpt-5*", "status:failed", "user:u1", "-alpha"):
        await ask(f"/api/sessions?limit=200&q={query}")
        await ask(f"/api/sessions/totals?q={query}")
    return found


class _Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_log_a_line_is_written_now_and_then() -> None:
    out, clock = io.StringIO(), _Clock()
    shown = Progress(out, clock)
    for done in range(0, 1001, 100):
        shown.rows("spans", done, 1000)
        clock.now_s += LOGGED_S / 2
    assert out.getvalue().splitlines() == [
        "spans                          0 of 1,000    0%  0/s",
        "spans                        200 of 1,000   20%  40/s  0:20 left",
        "spans                        400 of 1,000   40%  40/s  0:15 left",
        "spans                        600 of 1,000   60%  40/s  0:10 left",
        "spans                        800 of 1,000   80%  40/s  0:05 left",
        "spans                      1,000 of 1,000  100%  40/s  0:00 left",
    ]


def test_in_a_terminal_one_line_changes_and_goes() -> None:
    out, clock = _Terminal(), _Clock()
    shown = Progress(out, clock)
    shown.rows("messages", 0, 4_000_000)
    clock.now_s += SHOWN_S
    shown.rows("spans", 1, 4_000_000)
    shown.rows("spans", 2, 4_000_000)  # too soon
    clock.now_s += SHOWN_S
    shown.step("spans")
    shown.end()
    shown.end()
    wide = len("spans                          1 of 4,000,000    0%  5/s  222:13:20 left")
    assert [line.rstrip() for line in out.getvalue().split("\r")] == [
        "",
        "messages                       0 of 4,000,000    0%  0/s",
        "spans                          1 of 4,000,000    0%  5/s  222:13:20 left",
        "comparing spans",
        "",
        "",
    ]
    assert len(out.getvalue().split("\r")[3]) == wide


def test_what_goes_on_is_not_counted_as_fast() -> None:
    out, clock = io.StringIO(), _Clock()
    shown = Progress(out, clock)
    shown.rows("spans", 1_000_000, 1_000_100)
    clock.now_s += 10
    shown.rows("spans", 1_000_010, 1_000_100)
    assert out.getvalue().endswith("99%  1/s  1:30 left\n")


def test_how_long_other_rows_take_is_told_by_their_own_pace() -> None:
    out, clock = io.StringIO(), _Clock()
    shown = Progress(out, clock)
    shown.rows("spans", 0, 1_000_000)
    clock.now_s += 10
    shown.rows("spans", 1_000_000, 1_000_000)
    clock.now_s += 90
    shown.rows("search", 0, 5_000)
    clock.now_s += 10
    shown.rows("search", 100, 5_000)
    assert out.getvalue().endswith("2%  10/s  8:10 left\n")
