"""Commands whose database is PostgreSQL's: beside the servers that run, and without any."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.api.asking import ask as asked
from tests.calling import ANSWER
from tests.cli.asking import ask
from tests.served import served
from tests.sharing import Join, ask_sql, soon
from tests.wire import Peer, ScriptedUpstream

CALL = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello"}]}'
SESSION = b"X-Traceway-Session-Id: s\r\n"


async def test_keys_and_projects_are_made_without_a_server(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await ask(capsys, "keys", "create", "--db", url, "--name", "n", "--scope", "admin")
    assert made.code == 0
    assert made.out.startswith("tw_sk_")
    assert (await ask(capsys, "projects", "create", "--db", url, "team")).code == 0
    listed = await ask(capsys, "projects", "list", "--db", url)
    assert "team" in listed.out
    assert await ask_sql(url, "SELECT COUNT(*) FROM owners") == [(0,)]


async def test_a_key_that_a_command_made_turns_keys_on_at_a_server_that_runs(
    url: str, join: Join, capsys: pytest.CaptureFixture[str]
) -> None:
    tw = await join()
    made = await ask(capsys, "keys", "create", "--db", url, "--name", "n", "--scope", "admin")
    assert made.code == 0

    async def needs_a_key() -> bool:
        return (await asked(tw, "/api/sessions")).status == 401

    await soon(needs_a_key)


async def test_the_doctor_looks_at_a_database_of_a_server_and_finds_nothing_in_it(
    url: str, join: Join, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream.answers(ANSWER)
    tw = await join()
    for _ in range(3):
        assert (await tw.raw(headers=SESSION, body=CALL)).status == 200
    await tw.saved()
    said = await ask(capsys, "doctor", "--db", url)
    lines = said.out.splitlines()
    assert "servers that share it now: 1" in lines
    # The tests' server writes nothing safely; in the database all is as it should be.
    assert lines[-1].endswith(": 2 findings")
    assert [line.split(":")[0] for line in lines[-3:-1]] == [
        "fsync is off",
        "full_page_writes is off",
    ]
    refused = await ask(capsys, "doctor", "--db", url, "--vacuum")
    assert refused.code == 1
    assert "1 servers share it" in refused.err


async def test_what_is_to_be_forgotten_goes_also_where_no_server_runs(
    url: str, join: Join, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream.answers(ANSWER)
    tw = await join()
    assert (await tw.raw(headers=SESSION, body=CALL)).status == 200
    await tw.saved()
    await tw.server.stop(0, asyncio.Event())
    said = await ask(capsys, "erase", "--db", url, "--session", "s")
    assert said.code == 0
    assert said.out.splitlines()[0].endswith("it erased 1 sessions, 1 traces, 1 calls")
    assert await ask_sql(url, "SELECT COUNT(*) FROM spans") == [(0,)]
    assert await ask_sql(url, "SELECT COUNT(*) FROM owners") == [(0,)]


async def test_a_vacuum_needs_no_server_and_a_recovery_is_a_files(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await ask(capsys, "keys", "list", "--db", url)).code == 0
    said = await ask(capsys, "doctor", "--db", url, "--vacuum", "--forget-provider-keys")
    assert "bytes before the vacuum" in said.out
    assert "0 provider keys forgotten" in said.out
    refused = await ask(capsys, "doctor", "--db", url, "--recover-to", str(tmp_path / "new.db"))
    assert refused.code == 1
    assert "pg_dump" in refused.err


async def test_no_password_is_in_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    at = "postgresql://u:hidden@127.0.0.1:9/name"
    for command in (["keys", "list"], ["doctor"]):
        said = await ask(capsys, *command, "--db", at)
        assert said.code == 1
        assert "postgresql://u@127.0.0.1:9/name: it cannot be used" in said.err
        assert "hidden" not in said.err + said.out


async def test_the_calls_of_a_server_that_was_killed_are_ended_by_another(
    url: str,
    join: Join,
    tmp_path: Path,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.api.replicas.BEAT_S", 0.05)
    monkeypatch.setattr("proxy.api.replicas.DEAD_S", 0.2)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    upstream.script = script
    tw = await join()
    where = ("--upstream", f"openai={upstream.url}")
    async with served(tmp_path, *where, database=url) as server:
        assert server.lines[-1].startswith("  data       postgresql://postgres@/shared_")
        process = server.process
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"POST /api/proxy/openai/v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n%b"
            b"Content-Length: %d\r\n\r\n%b" % (SESSION, len(CALL), CALL)
        )

        async def runs() -> bool:
            sql = "SELECT 1 FROM spans WHERE state = 'running'"
            return bool(await ask_sql(url, sql))

        await soon(runs, 30)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        writer.close()
    # As if half a minute had passed.
    await ask_sql(url, "UPDATE owners SET heard_at = heard_at - interval '30 seconds' RETURNING 1")

    async def is_ended() -> bool:
        return bool((await tw.api("/api/sessions/s"))["status"] == "failed")

    await soon(is_ended)
    (trace,) = (await tw.api("/api/sessions/s"))["traces"]
    assert trace["error"] == "the recording process ended before the call did"
