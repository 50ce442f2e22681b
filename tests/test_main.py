"""The command line, run as a process: its first lines, its mistakes, its signals, its end."""

import asyncio
import base64
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from proxy import __version__
from proxy.__main__ import main
from storage.listing import list_traces
from storage.records import DEFAULT_PROJECT, Trace
from storage.sqlite import open_database
from tests.cli.asking import started
from tests.running import CHAT
from tests.served import refused, served
from tests.wire import Peer, ScriptedUpstream, connect

PROVIDER_KEY = "sk-proj-0123456789abcdef"
CALL = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}".encode()
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


EVENT = chunk(b'data: {"choices": [{"index": 0, "delta": {"content": "hi"}}]}\n\n')
LAST_EVENT = chunk(b"data: [DONE]\n\n") + chunk(b"")


async def recorded(folder: Path) -> list[Trace]:
    """Read what a server that has ended left."""
    database = open_database(folder / "traceway.db")
    try:
        return list((await list_traces(database, DEFAULT_PROJECT, 100)).rows)
    finally:
        await database.close()


class Stream:
    """An upstream's stream that sends one event and waits to be told to end."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self.end = asyncio.Event()
        upstream.script = self._script

    async def _script(self, peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD + EVENT)
        await self.end.wait()
        await peer.send(LAST_EVENT)


async def test_a_server_says_where_to_call_and_where_the_data_is(tmp_path: Path) -> None:
    async with served(tmp_path, "--upstream", "local=http://127.0.0.1:9/x") as server:
        at = f"http://127.0.0.1:{server.port}"
        assert server.lines == [
            f"Traceway {__version__} is ready",
            f"  base URL   {at}/api/proxy/openai/v1  ->  https://api.openai.com/v1",
            f"  base URL   {at}/api/proxy/local  ->  http://127.0.0.1:9/x",
            "  sessions   send the header X-Traceway-Session-Id: any text",
            f"  read them  {at}/sessions",
            "  keys       none needed: only this machine can call",
            f"  data       {tmp_path / 'traceway.db'}",
        ]


async def test_a_server_says_whether_one_needs_a_key_and_how_to_have_one(tmp_path: Path) -> None:
    mode = {"TRACEWAY_AUTH_MODE": "keys"}
    async with served(tmp_path, environ=mode) as server:
        assert server.lines[-2] == (
            "  keys       needed, and nobody has one:"
            " traceway keys create --name NAME --scope admin"
        )
        assert await answered(server.port) == 401
        await created(tmp_path)
        assert await answered(server.port) == 401
    async with served(tmp_path) as server:
        assert server.lines[-2] == "  keys       needed: Authorization: Bearer tw_sk_..."
    async with started("keys", "revoke", "1", "--db", str(tmp_path / "traceway.db")) as command:
        assert (await command.ended()).code == 0
    async with served(tmp_path) as server:
        assert "needed, and nobody has one" in server.lines[-2]
        assert await answered(server.port) == 401


async def created(folder: Path, **environ: str) -> str:
    """Make a key as a person does."""
    create = ("keys", "create", "--name", "x", "--scope", "admin")
    async with started(*create, "--db", str(folder / "traceway.db"), **environ) as command:
        said = await command.ended()
    assert said.code == 0, said
    return said.out.strip()


async def answered(port: int, key: str = "") -> int:
    """Give the status of an answer of the API."""
    async with connect(port) as peer:
        head = f"Host: localhost\r\nAuthorization: Bearer {key}\r\n"
        await peer.send(f"GET /api/sessions HTTP/1.1\r\n{head}\r\n".encode())
        return (await peer.response()).status


async def test_a_server_for_other_machines_needs_a_key_first_and_says_so(tmp_path: Path) -> None:
    everywhere = {"TRACEWAY_SERVER_HOST": "0.0.0.0"}  # noqa: S104 (a server with keys may)
    options = ("--port", "0", "--db", str(tmp_path / "traceway.db"))

    code, said = await refused(*options, **everywhere)

    assert (code, said) == (
        1,
        "traceway: cannot listen on 0.0.0.0 without keys, since other machines reach it and"
        " whoever does could spend your provider's money: make a key first (traceway keys create"
        ' --name NAME --scope admin), or set mode = "keys" in [auth]\n',
    )
    key = await created(tmp_path, **everywhere)
    async with served(tmp_path, environ=everywhere) as server:
        assert (await answered(server.port), await answered(server.port, key)) == (401, 200)


async def test_a_server_for_other_machines_without_keys_is_a_mistake_of_the_configuration(
    tmp_path: Path,
) -> None:
    path = tmp_path / "traceway.db"
    code, said = await refused(
        *("--port", "0", "--db", str(path)),
        TRACEWAY_SERVER_HOST="0.0.0.0",  # noqa: S104 (it is refused)
        TRACEWAY_AUTH_MODE="off",
    )
    title, mistake = said.splitlines()
    assert (code, title) == (2, "traceway: the configuration has mistakes:")
    assert mistake.startswith('auth.mode = "off" (host is 0.0.0.0): expected "keys" or "auto"')
    assert not path.exists()


@pytest.mark.parametrize(("host", "at"), [("::1", "[::1]"), ("localhost", "localhost")])
async def test_a_server_answers_at_the_host_that_it_is_given(
    tmp_path: Path, host: str, at: str
) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    async with served(tmp_path, environ={"TRACEWAY_SERVER_HOST": host}) as server:
        assert f"  read them  http://{at}:{server.port}/sessions" in server.lines
        reader, writer = await asyncio.open_connection(host, server.port)
        peer = Peer(reader, writer)
        await peer.send(f"GET /api/live HTTP/1.1\r\nHost: {at}:{server.port}\r\n\r\n".encode())
        assert (await peer.response()).body == b'{"status":"ok"}'
        await peer.close()


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    "arguments", [[], ["nothing"], ["serve", "--no-such-option"], ["serve", "--port"]]
)
def test_a_wrong_option_is_answered_with_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: traceway")


def test_all_mistakes_of_a_configuration_are_reported_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "traceway.toml"
    file.write_text('[server]\nhost = "a:b"\n[recording]\ndurabilty = "safe"\n')
    monkeypatch.setenv("TRACEWAY_SERVER_DRAIN_S", "soon")

    code = main(
        ["serve", "--config", str(file), "--port", "x", "--upstream", "a", "--upstream", "b=ftp:/"]
    )

    title, *mistakes = capsys.readouterr().err.splitlines()
    assert (code, title) == (2, "traceway: the configuration has mistakes:")
    assert sorted(line.split(" ")[0] for line in mistakes) == [
        *("--upstream", "recording.durabilty", "server.drain_s", "server.host", "server.port"),
        "upstreams.b.url",
    ]
    assert all("expected" in line for line in mistakes)


async def test_a_taken_port_ends_in_one_line_and_no_file_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "traceway.db"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = await refused("--port", str(port), "--db", str(path))
    assert (code, said) == (
        1,
        f"traceway: cannot listen on 127.0.0.1:{port}: another program listens there; stop it, or"
        " choose another port with --port\n",
    )
    assert not path.exists()


async def test_a_second_server_on_a_database_ends_in_one_line_that_names_the_first(
    tmp_path: Path,
) -> None:
    path = tmp_path / "traceway.db"
    async with served(tmp_path) as first:
        before = path.read_bytes()
        code, said = await refused("--port", "0", "--db", str(path))
        assert path.read_bytes() == before
    assert code == 1
    assert said == (
        f"traceway: {path}: the process with pid {first.process.pid} has the database open;"
        " stop it, or use another database\n"
    )


def corrupt(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()


def newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id = 0x54574159")
        connection.execute("CREATE TABLE ours (x)")
        connection.execute("PRAGMA user_version = 999")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (corrupt, "save what can be read of a file (traceway doctor --recover-to FILE)"),
        (foreign, "it is a database of another program; name another file"),
        (newer, "its schema is version 999"),
    ],
)
async def test_a_file_that_cannot_be_our_database_is_left_as_it_is(
    tmp_path: Path, spoil: object, complaint: str
) -> None:
    path = tmp_path / "traceway.db"
    assert callable(spoil)
    spoil(path)
    before = path.read_bytes()

    code, said = await refused("--port", "0", "--db", str(path))

    assert (code, len(said.splitlines())) == (1, 1)
    assert said.startswith(f"traceway: {path}: ")
    assert complaint in said
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["missing/traceway.db", ".", "file/traceway.db"])
async def test_a_path_that_cannot_be_written_ends_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    code, said = await refused("--port", "0", "--db", str(tmp_path / name))
    assert (code, len(said.splitlines())) == (1, 1)
    assert "check that its directory exists, can be written and has space" in said


async def test_sigterm_lets_a_running_stream_end_and_then_the_server_ends_well(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    stream = Stream(upstream)
    async with served(tmp_path, "--upstream", f"openai={upstream.url}") as server:
        async with connect(server.port) as client, connect(server.port) as other:
            await client.send(CALL)
            head = await client.head()
            assert head.status == 200

            server.process.send_signal(signal.SIGTERM)
            assert (await server.line()).startswith("stopping: ")
            await other.send(CALL)
            late = await other.response()
            stream.end.set()

            assert b"[DONE]" in await client.body(head)
            assert (late.status, late.get(b"X-Traceway-Error")) == (503, b"stopping")
            assert late.get(b"Connection") == b"close"
        assert await server.ended() == 0
    assert [trace.status for trace in await recorded(tmp_path)] == ["completed"]


@pytest.mark.parametrize(
    ("drain_s", "signals"), [("60", 2), ("0", 1)], ids=["second signal", "after the limit"]
)
async def test_a_stream_that_may_not_end_is_cut_visibly_and_recorded(
    tmp_path: Path, upstream: ScriptedUpstream, drain_s: str, signals: int
) -> None:
    Stream(upstream)
    environ = {"TRACEWAY_SERVER_DRAIN_S": drain_s}
    async with served(tmp_path, "--upstream", f"openai={upstream.url}", environ=environ) as server:
        async with connect(server.port) as client:
            await client.send(CALL)
            head = await client.head()

            server.process.send_signal(signal.SIGTERM)
            await server.line()
            if signals == 2:
                server.process.send_signal(signal.SIGTERM)

            with pytest.raises(asyncio.IncompleteReadError):
                await client.body(head)
        assert await server.ended() == 0
    (trace,) = await recorded(tmp_path)
    assert (trace.status, trace.error) == ("failed", "the server was stopped")


async def test_calls_of_a_server_that_was_killed_are_interrupted_at_the_next_start(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    Stream(upstream)
    async with (
        served(tmp_path, "--upstream", f"openai={upstream.url}") as server,
        connect(server.port) as client,
    ):
        await client.send(CALL)
        await client.head()
        server.process.kill()
        await server.ended()
    async with served(tmp_path) as server:
        server.process.terminate()
        await server.ended()
    (trace,) = await recorded(tmp_path)
    assert trace.status == "failed"
    assert trace.error == "the recording process ended before the call did"


async def doctored(folder: Path, *options: str) -> tuple[int, str]:
    """Run the doctor on the database of a folder; give its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "doctor", "--db", folder / "traceway.db", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return await process.wait(), said.decode()


async def test_the_doctor_looks_at_the_database_of_a_server_that_runs(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        code, said = await doctored(tmp_path)
    assert code == 0, said
    lines = said.splitlines()
    assert lines[-1] == f"{tmp_path / 'traceway.db'}: no findings"
    for begin in (
        f"Traceway: {__version__}",
        f"aiohttp: {aiohttp.__version__}",
        "schema: version ",
        f"SQLite: {sqlite3.sqlite_version}",
        f"held by: the process with pid {server.process.pid}",
        "write-ahead log: ",
        "free on its disk: ",
        "open files: ",
    ):
        assert any(line.startswith(begin) for line in lines), begin


async def test_the_doctor_saves_what_can_be_read_of_a_damaged_database(tmp_path: Path) -> None:
    path, new = tmp_path / "traceway.db", tmp_path / "new.db"
    async with served(tmp_path) as server:
        code, said = await doctored(tmp_path, "--recover-to", str(new))
        assert code == 1
        assert f"the process with pid {server.process.pid} has the database open" in said
        server.process.terminate()
        await server.ended()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 4096)
    damaged = path.read_bytes()
    code, said = await doctored(tmp_path)
    assert code == 1
    code, said = await doctored(tmp_path, "--recover-to", str(new))
    assert code == 0, said
    assert "projects: 1 rows saved\n" in said
    assert f"{new}: made of what can be read of {path}, which is as it was\n" in said
    assert said.endswith(f"{new}: no findings\n")
    assert path.read_bytes() == damaged


async def test_the_doctor_says_what_does_not_fit(tmp_path: Path) -> None:
    async with served(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "traceway.db") as connection:
        connection.execute("INSERT INTO messages VALUES (7, 'user', x'00')")
    code, said = await doctored(tmp_path)
    assert code == 1
    assert "messages that stand nowhere: 1; please report this as a bug" in said


async def test_a_vacuum_is_refused_while_a_server_has_the_database(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        code, said = await doctored(tmp_path, "--vacuum")
        assert f"the process with pid {server.process.pid} has the database open" in said
    assert code == 1
    assert (await doctored(tmp_path, "--vacuum"))[0] == 0


async def stores_a_provider_key(folder: Path) -> None:
    async with served(folder) as server, aiohttp.ClientSession() as client:
        url = f"http://127.0.0.1:{server.port}/api/provider-keys/openai"
        async with client.put(url, json={"key": PROVIDER_KEY}) as answer:
            assert answer.status == 200
        server.process.terminate()
        out, err = await server.process.communicate()
        assert PROVIDER_KEY.encode() not in out + err


def without_its_file(key_file: Path) -> str:
    key_file.unlink()
    return "it is not there"


def with_another_file(key_file: Path) -> str:
    key_file.write_bytes(base64.b64encode(bytes(32)))
    return "it does not open a stored provider key"


def with_a_file_for_all(key_file: Path) -> str:
    key_file.chmod(0o644)
    return f"chmod 600 {key_file}"


def with_a_row_of_another_project(key_file: Path) -> str:
    with sqlite3.connect(key_file.with_suffix("")) as connection:
        connection.execute("UPDATE provider_keys SET project_id = 2")
    return "it does not open a stored provider key"


def with_a_row_that_was_changed(key_file: Path) -> str:
    with sqlite3.connect(key_file.with_suffix("")) as connection:
        connection.execute("UPDATE provider_keys SET sealed = zeroblob(60)")
    return "it does not open a stored provider key"


@pytest.mark.parametrize(
    "spoil",
    [
        without_its_file,
        with_another_file,
        with_a_file_for_all,
        with_a_row_of_another_project,
        with_a_row_that_was_changed,
    ],
)
async def test_stored_provider_keys_that_cannot_be_opened_are_one_clear_line(
    tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    await stores_a_provider_key(tmp_path)
    key_file = tmp_path / "traceway.db.key"
    why = spoil(key_file)
    code, said = await refused("--port", "0", "--db", str(tmp_path / "traceway.db"))
    assert code == 1
    assert said.startswith(f"traceway: {key_file}: ")
    assert said.count("\n") == 1
    assert why in said
    assert PROVIDER_KEY not in said


async def test_where_the_key_file_is_lost_the_doctor_forgets_what_it_sealed(
    tmp_path: Path,
) -> None:
    await stores_a_provider_key(tmp_path)
    without_its_file(tmp_path / "traceway.db.key")
    code, said = await doctored(tmp_path, "--forget-provider-keys")
    assert (code, said.splitlines()[0]) == (
        0,
        f"{tmp_path / 'traceway.db'}: 1 provider keys forgotten",
    )
    await stores_a_provider_key(tmp_path)


async def test_a_key_file_may_stand_elsewhere(tmp_path: Path) -> None:
    key_file = tmp_path / "elsewhere"
    environ = {"TRACEWAY_AUTH_KEY_FILE": str(key_file)}
    async with served(tmp_path, environ=environ) as server, aiohttp.ClientSession() as client:
        url = f"http://127.0.0.1:{server.port}/api/provider-keys/openai"
        async with client.put(url, json={"key": PROVIDER_KEY}) as answer:
            assert answer.status == 200
    assert key_file.is_file()
    assert not (tmp_path / "traceway.db.key").exists()


async def test_a_provider_key_of_the_environment_that_cannot_be_one_is_one_clear_line(
    tmp_path: Path,
) -> None:
    variable = "TRACEWAY_PROVIDER_KEY_OPENAI"
    database = str(tmp_path / "traceway.db")
    code, said = await refused("--port", "0", "--db", database, **{variable: "sk two"})
    assert code == 1
    assert said.startswith(f"traceway: {variable} (environment): a provider key has 8 to")
    assert "sk two" not in said


def test_the_doctor_makes_no_database(tmp_path: Path) -> None:
    code, said = asyncio.run(doctored(tmp_path))
    assert (code, list(tmp_path.iterdir())) == (1, [])
    assert "there is no database; start the server with it once" in said
