"""`traceway import`: archives come into a project, and what is wrong with one is said in a line."""

from pathlib import Path

import orjson
import pytest

from tests.api.asking import ask as call
from tests.api.asking import save
from tests.api.test_archive import exported
from tests.cli.asking import Said, ask, started
from tests.cli.test_export import filled
from tests.cli.test_keys import manage
from tests.running import Running
from tests.storage.calls import spoken, start

Capsys = pytest.CaptureFixture[str]


async def archive(tw: Running, capsys: Capsys, target: Path) -> None:
    await filled(tw)
    assert (await manage(tw, capsys, "export", "--all", "-o", str(target))).code == 0


async def test_it_comes_into_a_database_that_no_server_has(
    tw: Running, capsys: Capsys, tmp_path: Path
) -> None:
    await archive(tw, capsys, target := tmp_path / "a.jsonl")
    other, again = str(tmp_path / "other.db"), tmp_path / "b.jsonl"
    said = await ask(capsys, "import", str(target), "--db", other)
    assert said == Said(0, "3 sessions: 4 traces, 4 spans\n", "")
    said = await ask(capsys, "import", str(target), "--db", other)
    assert said.out == "3 sessions: 0 traces, 0 spans; 4 spans were there already\n"
    assert (await ask(capsys, "export", "--all", "-o", str(again), "--db", other)).code == 0
    assert again.read_bytes() == target.read_bytes()
    assert (await ask(capsys, "doctor", "--db", other)).code == 0


async def test_it_comes_into_the_project_that_is_named(
    tw: Running, capsys: Capsys, tmp_path: Path
) -> None:
    await archive(tw, capsys, target := tmp_path / "a.jsonl")
    await manage(tw, capsys, "projects", "create", "b")
    said = await manage(tw, capsys, "import", str(target), "--project", "b", "--json")
    assert orjson.loads(said.out) == {"sessions": 3, "traces": 4, "spans": 4, "known_spans": 0}
    path = tmp_path / "b.jsonl"
    await manage(tw, capsys, "export", "--all", "--project", "b", "-o", str(path))
    assert path.read_bytes() == target.read_bytes()


async def test_files_come_one_behind_the_other_also_from_stdin(tw: Running, tmp_path: Path) -> None:
    await filled(tw)
    (tmp_path / "a").write_bytes(await exported(tw, "/api/sessions/a/export"))
    (tmp_path / "b").write_bytes(await exported(tw, "/api/sessions/b/export"))
    with (tmp_path / "b").open("rb") as file:
        other = ("--db", str(tmp_path / "other.db"))
        command = ("import", str(tmp_path / "a"), "-", *other)
        async with started(*command, keyboard=file.fileno()) as running:
            said = await running.ended()
    assert said == Said(0, "2 sessions: 2 traces, 2 spans\n", "")


async def test_a_conflict_is_said_however_much_would_still_come(
    tw: Running, capsys: Capsys, tmp_path: Path
) -> None:
    await save(tw, spoken(start(1, session_id="s"), ["U:1"], ["A:1"]))
    data = await exported(tw, "/api/sessions/s/export")
    await save(tw, spoken(start(2, session_id="t"), ["U:1"], ["A:1"]))
    large = tmp_path / "large.jsonl"
    large.write_bytes(data.replace(b'"version":1', b'"version":2') + b" " * 20_000_000)
    said = await manage(tw, capsys, "import", str(large))
    assert said == Said(
        2,
        "",
        "traceway: line 1: it is of version 2, and this program knows version 1; nothing was"
        " imported\n",
    )
    assert (await call(tw, "/api/traces")).status == 200


async def test_files_that_cannot_be_read_are_said_before_anything_is_sent(
    tw: Running, capsys: Capsys, tmp_path: Path
) -> None:
    said = await manage(tw, capsys, "import", str(tmp_path / "none"))
    assert said == Said(
        2, "", f"traceway: {tmp_path / 'none'} cannot be read: No such file or directory\n"
    )
    (tmp_path / "empty").touch()
    said = await manage(tw, capsys, "import", str(tmp_path / "empty"))
    assert said == Said(0, "0 sessions: 0 traces, 0 spans\n", "traceway: there is nothing in it\n")
