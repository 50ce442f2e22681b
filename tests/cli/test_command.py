"""What the commands share: where the server is, what they say of failures, their exit codes."""

import socket
from pathlib import Path

import pytest

from tests.api.asking import save
from tests.cli.asking import Said, ask
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
