"""The operator's socket: who can connect, what is found in its place, how long its name may be."""

import asyncio
import errno
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest

from proxy import operator_socket
from tests.running import Running, running
from tests.served import refused, served
from tests.wire import ScriptedUpstream


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def listening(path: Path) -> Iterator[Path]:
    sock = operator_socket.listen(path)
    try:
        yield path
    finally:
        sock.close()


async def whoami(path: Path) -> dict[str, object]:
    """Ask the server at a socket who one is there."""
    with operator_socket.address(path) as at:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(at)) as client,
            client.get("http://localhost/api/self") as answer,
        ):
            assert answer.status == 200
            found: dict[str, object] = orjson.loads(await answer.read())
            return found


def test_it_is_beside_the_database_that_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    assert operator_socket.path_of(tmp_path / "link.db") == tmp_path / "a.db.sock"


def test_only_its_owner_can_connect(tmp_path: Path) -> None:
    with listening(tmp_path / "sock") as path:
        assert mode(path) == 0o600
    (tmp_path / "file").touch()
    assert mode(tmp_path / "file") & 0o044, "other files have the modes that they had before"


def test_one_tells_whether_somebody_listens(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    assert not operator_socket.is_there(path)
    with listening(path):
        assert operator_socket.is_there(path)
    assert path.is_socket()
    assert not operator_socket.is_there(path), "who has died listens no more"
    path.unlink()
    path.touch()
    assert not operator_socket.is_there(path)
    assert not operator_socket.is_there(tmp_path / "missing" / "sock")


def test_who_is_too_busy_to_accept_listens_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with socket.socket(socket.AF_UNIX) as late:
            late.setblocking(False)
            assert late.connect_ex(str(path)) == errno.EAGAIN
        assert operator_socket.is_there(path)


def test_what_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with listening(path):
        pass
    with listening(path):
        assert operator_socket.is_there(path)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    path.write_text("mine")
    with pytest.raises(OSError, match="in use"):
        operator_socket.listen(path)
    operator_socket.remove(path)
    assert path.read_text() == "mine"


def test_what_is_not_there_is_removed_without_a_word(tmp_path: Path) -> None:
    operator_socket.remove(tmp_path / "missing")


@pytest.mark.parametrize("size", [103, 104, 107, 108, 400])
async def test_a_path_of_any_length_will_do(
    tmp_path: Path, upstream: ScriptedUpstream, size: int
) -> None:
    room = size - len(str(tmp_path)) - len("/traceway.db.sock")
    folder = tmp_path
    while room > 1:  # a name has 255 bytes at most
        folder /= "d" * min(room - 1, 200)
        room -= min(room, 201)
    folder.mkdir(parents=True, exist_ok=True)
    async with running(folder, upstream.url):
        path = operator_socket.path_of(folder / "traceway.db")
        assert len(str(path)) == size or size < 108
        assert (mode(path), operator_socket.is_there(path)) == (0o600, True)
        assert (await whoami(path))["project"] == "default"
    assert not path.exists()
    assert not operator_socket.is_there(path)


async def test_who_comes_by_it_needs_no_key_where_all_others_do(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with running(tmp_path, upstream.url, {"auth.mode": "keys"}) as tw:
        found = await whoami(operator_socket.path_of(tw.config.database.path))
        async with tw.client.get(f"{tw.url}/api/self") as answer:
            assert answer.status == 401
    assert found == {"project": "default", "scope": "admin", "keys_are_on": True, "key": None}


async def test_it_is_gone_after_a_stop(tw: Running) -> None:
    path = operator_socket.path_of(tw.config.database.path)
    assert path.is_socket()
    await tw.server.stop(0, asyncio.Event())
    assert not path.exists()


async def test_a_server_serves_without_it_where_it_cannot_be(
    tmp_path: Path, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "traceway.db.sock"
    path.write_text("mine")
    async with running(tmp_path, upstream.url) as tw:
        assert (await tw.raw(b"/api/live", method=b"GET")).status == 200
    assert f"no socket for commands at {path}" in caplog.text
    assert path.read_text() == "mine"


async def test_a_second_server_does_not_take_it_from_the_first(tmp_path: Path) -> None:
    path = tmp_path / "traceway.db"
    async with served(tmp_path):
        await refused("--port", "0", "--db", str(path))
        assert (await whoami(operator_socket.path_of(path)))["scope"] == "admin"
