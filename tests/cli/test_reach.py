"""How a command reaches a server: which way it takes, what it waits for, what it says."""

import argparse
import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy import operator_socket
from proxy.api.keys import SelfView
from proxy.cli import reach
from proxy.cli.client import NoAnswer
from proxy.cli.reach import Taken, reached
from proxy.config import Config, load
from storage.sqlite import open_database
from tests.cli.asking import Said, ask, started
from tests.running import Running, running
from tests.served import served
from tests.wire import ScriptedUpstream

pytestmark = pytest.mark.sqlite_only("commands go by the socket beside the file")

EVERYWHERE = "0.0.0.0"  # noqa: S104 (said, not bound)
CREATE = ("keys", "create", "--name", "ci", "--scope", "read")


def options(url: str | None = None, port: str | None = None) -> argparse.Namespace:
    return argparse.Namespace(url=url, port=port, project=None)


def config_of(path: Path, port: int = 1) -> Config:
    return load(None, {}, {"database.path": str(path), "server.port": str(port)})


@asynccontextmanager
async def nobody(_: Config) -> AsyncIterator[Path]:
    pytest.fail("the application is started though a server is there")
    yield Path()


async def place(config: Config, asked: argparse.Namespace, *, manages: bool) -> str:
    """Give where a command goes, as soon as the server there says that it may."""
    async with reached(config, asked, nobody if manages else None) as client:
        assert (await client.read(SelfView, "/api/self", {})).scope == "admin"
        return client.place


@pytest.mark.parametrize("manages", [False, True])
async def test_the_socket_beside_the_database_is_taken_unless_an_address_is_said(
    tw: Running, manages: bool
) -> None:
    path = tw.config.database.path
    here = config_of(path, tw.port)
    assert await place(here, options(), manages=manages) == f"{path}.sock"
    by_port = await place(here, options(port=str(tw.port)), manages=manages)
    by_url = await place(config_of(path), options(url=tw.url), manages=manages)
    assert by_port == by_url == tw.url


async def test_who_reads_with_a_key_is_not_the_operator(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = config_of(tw.config.database.path, tw.port)
    monkeypatch.setenv("TRACEWAY_API_KEY", "tw_sk_of_another_project")
    assert await place(here, options(), manages=False) == tw.url
    assert await place(here, options(), manages=True) == f"{tw.config.database.path}.sock"


async def test_who_reads_goes_to_the_configured_address_where_nobody_is_at_the_socket(
    tw: Running, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "other.db"
    assert await place(config_of(elsewhere, tw.port), options(), manages=False) == tw.url
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{elsewhere}.sock")
    assert await place(config_of(elsewhere, tw.port), options(), manages=False) == tw.url


@pytest.mark.parametrize("host", [EVERYWHERE, "::"])
async def test_a_server_that_listens_everywhere_is_asked_here(
    tw: Running, tmp_path: Path, host: str
) -> None:
    config = load(None, {}, {"server.host": host, "database.path": str(tmp_path / "x.db")})
    async with reached(config, options()) as client:
        assert client.place in ("http://127.0.0.1:3000", "http://[::1]:3000")


async def test_another_users_socket_is_no_way_in(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(operator_socket, "is_there", forbidden)
    here = config_of(tw.config.database.path, tw.port)
    assert await place(here, options(), manages=False) == tw.url
    with pytest.raises(
        NoAnswer, match=r"traceway\.db\.sock is another user's: run this as they do"
    ):
        await place(here, options(), manages=True)


@pytest.mark.parametrize("key", ["tw_sk_ä", "tw_sk_a\nX-Traceway-Project: b"])
async def test_what_cannot_be_a_key_is_not_sent_and_not_said(
    tw: Running, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("TRACEWAY_API_KEY", key)
    with pytest.raises(NoAnswer) as refusal:
        await place(config_of(tw.config.database.path), options(), manages=False)
    assert str(refusal.value) == "what TRACEWAY_API_KEY holds is no key: keys begin with tw_sk_"


async def test_a_command_waits_for_a_server_that_starts(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "WAIT_S", 60)
    ready, asked = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def alone(_: Config) -> AsyncIterator[Path]:
        asked.set()
        if not ready.is_set():
            raise Taken("a server starts")
        pytest.fail("the application is started though a server is there")
        yield Path()

    async def command() -> str:
        async with reached(config_of(tmp_path / "traceway.db"), options(), alone) as client:
            return client.place

    waiting = asyncio.create_task(command())
    await asked.wait()
    async with running(tmp_path, upstream.url):
        ready.set()
        assert await waiting == f"{tmp_path / 'traceway.db'}.sock"


async def test_a_database_that_another_process_keeps_is_one_line_with_its_pid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "WAIT_S", 0)
    path = tmp_path / "traceway.db"
    database = open_database(path)  # as a server of an older version has it, without a socket
    try:
        said = await ask(capsys, *CREATE, "--db", str(path))
    finally:
        await database.close()
    assert said == Said(
        1,
        "",
        f"traceway: {path}: the process with pid {os.getpid()} has the database open; stop it, or"
        " use another database; or name its server with --url, and a key in TRACEWAY_API_KEY\n",
    )


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("missing/traceway.db", "check that its directory exists, can be written and has space"),
        ("file/traceway.db", "check that its directory exists, can be written and has space"),
        (".", "check that its directory exists, can be written and has space"),
        ("file", "it is not a database"),
    ],
)
async def test_a_database_that_cannot_be_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, complaint: str
) -> None:
    (tmp_path / "file").write_text("in the way" * 1000)
    said = await ask(capsys, *CREATE, "--db", str(tmp_path / name))
    assert (said.code, said.out, len(said.err.splitlines())) == (1, "", 1)
    assert complaint in said.err or "is not a database" in said.err


async def test_a_command_needs_no_server_and_leaves_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data" / "traceway.db"
    path.parent.mkdir()
    (tmp_path / "tmp").mkdir()
    environ = {"TMPDIR": str(tmp_path / "tmp"), "TRACEWAY_SERVER_HOST": EVERYWHERE}
    async with started(*CREATE, "--db", str(path), **environ) as command:
        said = await command.ended()
    assert (said.code, said.out[:6]) == (0, "tw_sk_")
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "traceway.db",
        "traceway.db.lock",
    ]
    assert list((tmp_path / "tmp").iterdir()) == []


async def test_commands_at_once_without_a_server_wait_for_each_other(tmp_path: Path) -> None:
    path = str(tmp_path / "traceway.db")

    async def create() -> Said:
        # The machine may be so busy that one takes longer than another waits for it.
        async with started(*CREATE, "--db", path) as command:
            return await command.ended()

    said = await asyncio.gather(create(), create(), create())
    assert [one.code for one in said] == [0, 0, 0], said
    async with started("keys", "list", "--json", "--db", path) as command:
        assert len((await command.ended()).out.splitlines()) == 3


async def test_where_a_socket_cannot_be_made_it_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def impossible(_: Path) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(operator_socket, "listen", impossible)
    said = await ask(capsys, *CREATE, "--db", str(tmp_path / "traceway.db"))
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("traceway: there can be no socket in the temporary folder: ")
    assert (await ask(capsys, "doctor", "--db", str(tmp_path / "traceway.db"))).code == 0


async def test_the_socket_of_a_server_that_was_killed_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "traceway.db"
    async with served(tmp_path) as server:
        server.process.kill()
        await server.ended()
    assert operator_socket.path_of(path).is_socket()
    async with started(*CREATE, "--db", str(path)) as command:
        assert (await command.ended()).code == 0
    async with served(tmp_path), started("keys", "list", "--json", "--db", str(path)) as command:
        assert '"name":"ci"' in (await command.ended()).out
