"""`traceway export`: what a query finds, or everything, into a file that is whole or not there."""

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import IO, Any, cast

import orjson
import pytest

from proxy.cli import export
from proxy.cli.client import BrokenOff, Client, NoAnswer, Params, Refused
from storage import archive, archive_incoming
from storage.migrate import migrate
from storage.sqlite import APPLICATION_ID
from tests.api.asking import save
from tests.api.test_archive import exported
from tests.cli.asking import Said, ask, started
from tests.cli.test_keys import manage
from tests.running import Running
from tests.storage.calls import spoken, start

Capsys = pytest.CaptureFixture[str]


async def filled(tw: Running) -> None:
    """Make three sessions and a trace without one; a call of the first runs, and one of none."""
    calls: list[Any] = [spoken(start(9), ["U:lone"], ["A:1"])]
    for n, name in enumerate(("b", "a", "Ä"), 1):
        calls.append(spoken(start(n, session_id=name), [f"U:{n}"], [f"A:{n}"]))
    await save(tw, *calls, start(7, session_id="b"), start(8))


async def test_everything_is_written_in_the_order_of_the_sessions_ids(
    tw: Running, capsys: Capsys, tmp_path: Path
) -> None:
    await filled(tw)
    target = tmp_path / "all.jsonl"
    said = await manage(tw, capsys, "export", "--all", "-o", str(target))
    assert (said.code, said.out) == (0, "")
    size = f"{target.stat().st_size / 1000:.1f} kB"
    assert said.err == (
        f"traceway: 3 sessions, {size} in {target}\ntraceway: 2 spans run, and are not in it\n"
    )
    names = [f"/api/sessions/{name}/export" for name in ("a", "b", "%C3%84")]
    parts = [await exported(tw, path) for path in (*names, "/api/traces/export")]
    assert target.read_bytes() == b"".join(parts)
    assert target.stat().st_mode & 0o777 == 0o600
    assert not target.with_name("all.jsonl.part").exists()


async def test_what_a_query_finds_goes_to_stdout(tw: Running) -> None:
    await filled(tw)
    path = str(tw.config.database.path)
    async with started("export", "session:a", "--format", "json", "--db", path) as command:
        said = await command.ended()
    assert said.code == 0
    assert orjson.loads(said.out)["session"]["id"] == "a"
    assert said.err.startswith("traceway: 1 sessions, ")


async def test_a_file_that_is_there_stays_unless_one_says_otherwise(
    tw: Running, capsys: Capsys, tmp_path: Path
) -> None:
    await filled(tw)
    target = tmp_path / "a.jsonl"
    target.write_bytes(b"mine")
    export = ("export", "--all", "-o", str(target))
    said = await manage(tw, capsys, *export)
    assert (said.code, target.read_bytes()) == (2, b"mine")
    assert said.err == f"traceway: {target} is there already: --force overwrites it\n"
    assert (await manage(tw, capsys, *export, "--force")).code == 0
    assert target.read_bytes().startswith(b'{"format":"session"')
    part = tmp_path / "b.jsonl.part"
    part.write_bytes(b"another")
    said = await manage(tw, capsys, "export", "--all", "-o", str(tmp_path / "b.jsonl"))
    assert (said.code, part.read_bytes()) == (1, b"another")
    assert "another export writes it" in said.err


async def test_what_cannot_be_meant_or_written_is_said(
    tw: Running, capsys: Capsys, tmp_path: Path
) -> None:
    await filled(tw)
    for arguments in ((), ("session:a", "--all")):
        said = await manage(tw, capsys, "export", *arguments)
        assert (said.code, said.err) == (2, "traceway: say which sessions: a QUERY, or --all\n")
    said = await manage(tw, capsys, "export", "cost:x")
    assert (said.code, "^" in said.err) == (2, True)
    said = await manage(tw, capsys, "export", "--all", "-o", str(tmp_path / "no" / "x"))
    assert (said.code, "cannot be written: No such file" in said.err) == (1, True)


def held(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir()}


async def test_where_there_is_no_database_none_is_made_and_the_last_export_stays(
    capsys: Capsys, tmp_path: Path
) -> None:
    path, target = tmp_path / "none.db", tmp_path / "all.jsonl"
    target.write_bytes(b"the last one")
    where = ("-o", str(target), "--force", "--db", str(path))
    assert await ask(capsys, "export", "--all", *where) == Said(
        1, "", f"traceway: {path}: there is no database; start the server with it once\n"
    )
    assert held(tmp_path) == {"all.jsonl": b"the last one"}


async def test_a_database_of_an_older_version_is_left_as_it_is(
    capsys: Capsys, tmp_path: Path
) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        migrate(old, path, 12)
    before = path.read_bytes()
    said = await ask(capsys, "export", "--all", "-o", str(tmp_path / "all"), "--db", str(path))
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"traceway: {path}: it is of an older version of this program; ")
    assert held(tmp_path) == {"old.db": before}


async def test_a_session_that_changes_meanwhile_is_read_again(
    tw: Running, capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(tw)
    whole = await exported(tw, "/api/sessions/a/export")
    page, calls = archive._Block._page, 0

    def broken(block: Any, items: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise archive.ArchiveChanged
        return page(block, items)

    monkeypatch.setattr(archive._Block, "_page", broken)
    target = tmp_path / "a.jsonl"
    said = await manage(tw, capsys, "export", "session:a", "-o", str(target))
    assert (said.code, calls) == (0, 2)
    assert target.read_bytes() == whole


async def test_a_session_that_never_comes_whole_is_named_with_what_to_do(
    tw: Running,
    capsys: Capsys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await filled(tw)

    def broken(block: Any, items: Any) -> Any:
        raise archive.ArchiveChanged("a message")

    monkeypatch.setattr(archive._Block, "_page", broken)
    target = tmp_path / "a.jsonl"
    said = await manage(tw, capsys, "export", "session:a", "-o", str(target))
    assert (said.code, target.exists()) == (1, False)
    assert "the session 'a' broke off 5 times: leave it out of the query" in said.err
    assert "`traceway doctor` looks for damage" in said.err
    told = "the export of a session broke off: a message was changed, or is not there"
    assert caplog.text.count(told) == 5


async def test_a_session_that_changes_each_time_before_it_begins_is_named_as_well(
    tmp_path: Path,
) -> None:
    class Changing:
        tries = 0

        async def download(self, *_: object) -> Mapping[str, str]:
            self.tries += 1
            raise Refused(409, "it was changed while it was read: ask again")

    client = Changing()
    with (tmp_path / "all").open("wb") as file:
        done = export._Export(
            cast(Client, client), "jsonl", file, export._Progress(1), is_ours=True
        )
        with pytest.raises(BrokenOff, match="the session 'a b' broke off 5 times"):
            await done.session("a b")
    assert client.tries == 5


async def test_a_session_with_a_line_that_no_import_takes_is_named(
    tw: Running, capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(tw)
    await save(tw, spoken(start(20, session_id="long"), ["U:" + "x" * 10_000], ["A:20"]))
    monkeypatch.setattr(export, "MAX_LINE_BYTES", 9_000)
    said = await manage(tw, capsys, "export", "--all", "-o", str(tmp_path / "all.jsonl"))
    assert said.code == 0
    told = [line for line in said.err.splitlines() if "a line of more than" in line]
    assert told == [
        "traceway: the session 'long' has a line of more than 9,000 bytes:"
        " `traceway import` does not take it"
    ]
    where = ("--format", "json", "-o", str(tmp_path / "all.json"))
    said = await manage(tw, capsys, "export", "--all", *where)
    assert (said.code, "a line of more than" in said.err) == (0, False)


def test_what_no_import_takes_is_what_an_export_tells_of() -> None:
    assert export.MAX_LINE_BYTES == archive_incoming.MAX_LINE_BYTES == 64 * 1024 * 1024


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_lines_are_measured_with_their_ends_whatever_the_pieces(size: int) -> None:
    for longest, is_too_long in ((9, False), (10, True)):
        lines = export._Lines(10)
        data = b"a\n\n%b\nab\n" % (b"x" * longest)
        for at in range(0, len(data), size):
            lines.add(data[at : at + size])
        assert lines.are_too_long is is_too_long


class Breaking:
    """A server whose first answer breaks off behind ``begun``."""

    def __init__(self, begun: bytes) -> None:
        self.begun: bytes | None = begun

    async def download(
        self, path: str, params: Params, take: Callable[[bytes], object]
    ) -> Mapping[str, str]:
        if (begun := self.begun) is not None:
            self.begun = None
            if begun:
                take(begun)
            raise BrokenOff("it broke off")
        take(b"whole")
        return {}


def export_to(file: IO[bytes], begun: bytes, *, is_ours: bool) -> export._Export:
    client = cast(Client, Breaking(begun))
    return export._Export(client, "jsonl", file, export._Progress(1), is_ours=is_ours)


async def test_what_stood_in_a_file_before_ours_stays_where_an_answer_breaks_off(
    tmp_path: Path,
) -> None:
    target = tmp_path / "all"
    for is_ours, begun, kept in (
        (False, b"half", b"minehalf"),
        (False, b"", b"minewhole"),
        (True, b"half", b"whole"),
    ):
        target.write_bytes(b"" if is_ours else b"mine")
        with target.open("ab") as file:
            fetched = export_to(file, begun, is_ours=is_ours).fetch("/", {}, "all")
            if kept.endswith(b"half"):
                with pytest.raises(BrokenOff, match="all broke off, and half of it is written"):
                    await fetched
            else:
                await fetched
        assert target.read_bytes() == kept


@pytest.mark.parametrize("name", [".", "..", "there"])
async def test_a_directory_is_no_file_to_write_to(
    tw: Running, capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    said = await manage(tw, capsys, "export", "--all", "-o", name, "--force")
    assert said.code == 2
    assert said.err == f"traceway: {name} is a directory: name a file in it\n"
    assert "there.part" not in os.listdir(tmp_path)  # noqa: PTH208 (a test waits for it)


def test_a_file_that_appeared_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "a"

    def meanwhile() -> None:
        with export._target(target, force=False) as file:
            file.write(b"ours")
            target.write_bytes(b"another")

    with pytest.raises(NoAnswer, match="appeared meanwhile"):
        meanwhile()
    assert target.read_bytes() == b"another"
    with export._target(target, force=True) as file:
        file.write(b"ours")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("a", b"ours")]
