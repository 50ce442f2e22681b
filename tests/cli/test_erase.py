"""`traceway erase`: an order is given and watched, listed, shown and cancelled."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from storage import erasures
from tests.api.asking import save
from tests.cli.asking import Said, ask, started
from tests.cli.test_export import held
from tests.cli.test_keys import manage
from tests.databases import opened
from tests.running import Running
from tests.storage.calls import end, rows, start, write

Capsys = pytest.CaptureFixture[str]


async def test_a_user_is_erased_and_told_what_is_gone(tw: Running, capsys: Capsys) -> None:
    await save(tw, end(start(1, session_id="a", user_id="u")))
    await save(tw, end(start(2, session_id="b", user_id="u")), end(start(3, session_id="c")))
    rows(tw.database, "UPDATE sessions SET starred = 1 WHERE session_id = 'b'")
    said = await manage(tw, capsys, "erase", "--user", "u")
    assert said.code == 0
    assert said.out == (
        "order 1 is done; it erased 1 sessions, 1 traces, 1 calls\n"
        "0 messages and bodies of 0 bytes are gone\n"
        "1 sessions with a star are kept (--include-starred)\n"
    )
    assert said.err == "traceway: order 1; `traceway erase --status 1` says how far it is\n"
    said = await manage(tw, capsys, "erase", "--user", "u", "--include-starred", "--json")
    assert orjson.loads(said.out)["sessions"] == 1
    assert rows(tw.database, "SELECT session_id FROM sessions") == [("c",)]


async def test_orders_are_listed_shown_and_cancelled(tw: Running, capsys: Capsys) -> None:
    assert (await manage(tw, capsys, "erase", "--status")).err == (
        "traceway: nothing was ordered to be erased yet\n"
    )
    await save(tw, end(start(1, session_id="a")))
    forgot = await manage(tw, capsys, "erase", "--session", "a", "--content-only")
    assert forgot.out.startswith("order 1 is done; it forgot the content of 1 sessions")
    listed = await manage(tw, capsys, "erase", "--status")
    titles, row = listed.out.splitlines()
    assert titles.split() == ["ORDER", "OF", "EXTENT", "STATE", "DONE", "CALLS", "ASKED"]
    assert row.split()[:4] == ["1", "session", "content", "done"]
    assert orjson.loads((await manage(tw, capsys, "erase", "--status", "--json")).out)["id"] == 1
    shown = await manage(tw, capsys, "erase", "--status", "1")
    assert shown.out == forgot.out
    assert (await manage(tw, capsys, "erase", "--cancel", "1")).out == forgot.out
    missing = await manage(tw, capsys, "erase", "--cancel", "9")
    assert (missing.code, missing.err) == (2, "traceway: there is no such erasure\n")


async def test_an_order_that_is_not_done_whole_is_no_success(
    tw: Running, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **_how: Any) -> bool:
        raise ValueError("a bug")

    await save(tw, end(start(1, session_id="a")))
    monkeypatch.setattr(erasures, "step", failing)
    said = await manage(tw, capsys, "erase", "--session", "a")
    assert said.code == 1
    assert said.out.startswith("order 1 failed; it erased 0 sessions")
    assert "it failed" in said.out
    assert (await manage(tw, capsys, "erase", "--status", "1")).code == 0


async def test_a_query_that_is_none_is_pointed_at(tw: Running, capsys: Capsys) -> None:
    said = await manage(tw, capsys, "erase", "--query", "cost:x")
    assert said.code == 2
    assert said.err.startswith("traceway: query, position 5: expected USD")


async def test_it_needs_no_server_that_runs(tmp_path: Path) -> None:
    database = opened(tmp_path / "traceway.db")
    write(database, [end(start(n, session_id="s")) for n in range(1, 4)])
    await database.close()
    path = str(tmp_path / "traceway.db")
    async with started("erase", "--session", "s", "--db", path) as command:
        said = await command.ended()
    assert said.code == 0, said
    assert said.out.startswith("order 1 is done; it erased 1 sessions, 3 traces, 3 calls\n")


async def test_where_there_is_no_database_none_is_made(capsys: Capsys, tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    assert await ask(capsys, "erase", "--user", "u", "--db", str(path)) == Said(
        1, "", f"traceway: {path}: there is no database; start the server with it once\n"
    )
    assert held(tmp_path) == {}
