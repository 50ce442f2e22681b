"""What the commands share: where the server is, what they say of failures, their exit codes."""

import os
import re
import socket
from pathlib import Path

import pytest

from proxy.api.keys import MadeKeyView
from proxy.cli.client import Client
from proxy.operator_socket import path_of
from tests.api.asking import save
from tests.cli.asking import Said, ask, started
from tests.running import Running
from tests.storage.calls import end, start
from tests.wire import ScriptedUpstream

COMMANDS = (["sessions"], ["sessions", "show", "s"], ["tail"])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.mark.parametrize("command", COMMANDS)
async def test_without_a_server_it_is_one_line_that_says_what_to_do(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    port = free_port()
    assert await ask(capsys, *command, "--port", str(port)) == Said(
        1,
        "",
        f"traceway: no server answers at http://127.0.0.1:{port}: start it with `traceway serve`,"
        " or say with --url where it is\n",
    )


async def test_the_server_is_the_configured_one_unless_it_is_said(
    tw: Running,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    await save(tw, end(start(1, session_id="here")))
    file = tmp_path / "traceway.toml"
    file.write_text(f"[server]\nport = {tw.port}\n")
    of_file = await ask(capsys, "sessions", "--config", str(file), "--json")
    monkeypatch.setenv("TRACEWAY_SERVER_PORT", str(tw.port))
    of_environment = await ask(capsys, "sessions", "--json")
    monkeypatch.setenv("TRACEWAY_SERVER_PORT", str(free_port()))
    of_port = await ask(capsys, "sessions", "--json", "--port", str(tw.port))
    of_url = await ask(capsys, "sessions", "--json", "--url", f"{tw.url}/")
    assert '"id":"here"' in of_file.out
    assert of_file == of_environment == of_port == of_url
    monkeypatch.setenv("TRACEWAY_SERVER_HOST", "::1")
    assert "at http://[::1]:" in (await ask(capsys, "sessions")).err


@pytest.mark.parametrize("url", ["localhost", "ftp://x", "http://", "http://u:p@x", "http://x?y"])
async def test_what_is_no_address_of_a_server_is_refused(
    capsys: pytest.CaptureFixture[str], url: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        await ask(capsys, "sessions", "--url", url)
    assert ended.value.code == 2
    assert "argument --url: expected an http or https URL" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["sessions", "tail"])
@pytest.mark.parametrize(
    ("query", "shown", "pointer"),
    [
        ("cost:>1 modell:x", "  cost:>1 modell:x", 8),
        ("漢字 cost:x", "  漢字 cost:x", 10),
        ("a\x1b[2J cost:x", "  a␛[2J cost:x", 11),
        ('"no end', '  "no end', 0),
        (f"{'a' * 500} x:y {'b' * 500}", f"  {'a' * 35} x:y {'b' * 32}", 36),
    ],
)
async def test_a_mistake_in_a_query_is_pointed_at(
    tw: Running,
    capsys: pytest.CaptureFixture[str],
    command: str,
    query: str,
    shown: str,
    pointer: int,
) -> None:
    said = await ask(capsys, command, query, "--url", tw.url)
    assert (said.code, said.out) == (2, "")
    reason, line, caret = said.err.splitlines()
    assert reason.startswith("traceway: expected ")
    assert (line, caret) == (shown, f"  {' ' * pointer}^")


async def test_other_refusals_are_said_in_the_servers_words(
    tw: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await ask(capsys, "sessions", "show", "nobody", "--url", tw.url) == Said(
        2, "", "traceway: there is no such session\n"
    )
    said = await ask(capsys, "sessions", "--sort-by", "luck", "--url", tw.url)
    assert said.code == 2
    assert said.err.startswith("traceway: sort_by must be one of last_active, ")


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_server_that_cannot_answer_now_is_exit_code_1(
    upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    upstream.answers(b'{"error":{"message":"full\\u001b[2J"}}', status=b"503 No")
    said = await ask(capsys, *command, "--url", upstream.url)
    assert said == Said(1, "", "traceway: full␛[2J\n")


@pytest.mark.parametrize("command", [["export", "--all"], ["sessions", "--json"], ["tail"]])
async def test_output_that_finds_no_room_is_one_line(tw: Running, command: list[str]) -> None:
    await save(tw, end(start(1, session_id="s")))
    since = ["--since", "0"] if command == ["tail"] else []
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        path = str(tw.config.database.path)
        async with started(*command, *since, "--db", path, terminal=full) as one:
            said = [await one.note(), await one.note()]
            code = await one.process.wait()
    finally:
        os.close(full)
    assert said == ["traceway: stdout cannot be written: No space left on device", ""]
    assert code == 1


async def two_projects(tw: Running) -> str:
    """Save a session of the same id in each of two projects; give a read key for the second."""
    async with Client(socket=path_of(tw.config.database.path)) as operator:
        await operator.send("POST", "/api/projects", {"name": "b"})
        asked = {"name": "x", "scope": "read", "project": "b"}
        made = operator.decode(MadeKeyView, await operator.send("POST", "/api/keys", asked))
    for n, project in enumerate(tw.server.keyring.projects, 1):
        ours = {"session_id": "s", "project_id": project.id}
        await save(tw, end(start(n, **ours), input_preview=f"call {n}"))
    return made.key


async def calls(*command: str, **environ: str) -> set[str]:
    """Give the calls that the first line of a command's JSON speaks of."""
    async with started(*command, "--json", **environ) as one:
        return set(re.findall(r"call \d", await one.line()))


READING = (["sessions"], ["sessions", "show", "s"], ["tail", "--since", "0"])


@pytest.mark.parametrize("command", READING)
async def test_a_key_shows_its_project_and_the_operator_the_one_that_they_name(
    tw: Running, command: list[str]
) -> None:
    key = await two_projects(tw)
    db = ("--db", str(tw.config.database.path))
    assert await calls(*command, *db) == {"call 1"}
    assert await calls(*command, *db, "--project", "b") == {"call 2"}
    assert await calls(*command, "--url", tw.url, TRACEWAY_API_KEY=key) == {"call 2"}
    port = str(tw.port)
    assert await calls(*command, *db, TRACEWAY_API_KEY=key, TRACEWAY_SERVER_PORT=port) == {"call 2"}


@pytest.mark.parametrize("command", READING)
async def test_without_a_key_and_in_a_project_of_others_it_is_one_line(
    tw: Running,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:
    key = await two_projects(tw)
    without = await ask(capsys, *command, "--url", tw.url)
    monkeypatch.setenv("TRACEWAY_API_KEY", key)
    other = await ask(capsys, *command, "--url", tw.url, "--project", "default")
    assert (without.code, without.out, len(without.err.splitlines())) == (2, "", 1)
    assert "put one into TRACEWAY_API_KEY" in without.err
    assert other == Said(
        2,
        "",
        "traceway: the key in TRACEWAY_API_KEY may not work in project 'default': leave --project"
        " out, or use an admin key\n",
    )


async def test_a_watch_ends_when_its_key_is_revoked(tw: Running) -> None:
    key = await two_projects(tw)
    async with started("tail", "--since", "0", "--url", tw.url, TRACEWAY_API_KEY=key) as command:
        await command.line()
        async with Client(socket=path_of(tw.config.database.path)) as operator:
            await operator.send("DELETE", "/api/keys/1")
        await save(tw, end(start(9, session_id="s", project_id=2)))
        said = await command.ended()
    assert said.code == 2
    assert "it is wrong, or it was revoked" in said.err
