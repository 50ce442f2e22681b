"""The three curl commands of the document that the product started from, in a shell, as they are.

Two projects use the same session id at the same server: each sees its own, and its calls go out
with its own provider key.
"""

import asyncio
import os
import shutil
from pathlib import Path

import orjson
import pytest

from tests.cli.asking import started
from tests.served import served
from tests.wire import ScriptedUpstream

# Verbatim; only the host and the key are put in their place.
HOST = "https://api.traceway.ai"
KEY = "tw_sk_..."
CALL = """\
curl -X POST "https://api.traceway.ai/api/proxy/openai/v1/chat/completions" \\
-H "Authorization: Bearer tw_sk_..." \\
-H "X-Traceway-Session-Id: sess_abc123" \\
-d '{"model": "gpt-4o", "messages": [...]}'"""
LIST = """\
curl "https://api.traceway.ai/api/sessions?limit=20" \\
-H "Authorization: Bearer tw_sk_..."
"""
SHOW = """\
curl "https://api.traceway.ai/api/sessions/sess_abc123" \\
-H "Authorization: Bearer tw_sk_..."
"""
PROJECTS = ("alpha", "beta")
PROVIDER_KEYS = {
    f"TRACEWAY_PROVIDER_KEY_OPENAI__{name.upper()}": f"sk-of-{name}-0123456789" for name in PROJECTS
}


async def shell(command: str, port: int, key: str, home: Path) -> bytes:
    """Run a command of the document; give what it prints."""
    assert HOST in command
    assert KEY in command
    process = await asyncio.create_subprocess_shell(
        command.replace(HOST, f"http://127.0.0.1:{port}").replace(KEY, key),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # No settings of whoever runs the tests.
        env={"PATH": os.environ["PATH"], "HOME": str(home), "no_proxy": "*"},
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err
    return out


async def manage(folder: Path, *command: str) -> str:
    async with started(*command, "--db", str(folder / "traceway.db")) as one:
        said = await one.ended()
    assert said.code == 0, said
    return said.out.strip()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
async def test_the_three_commands_do_what_the_document_says_in_two_projects(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b'{"object":"chat.completion","model":"gpt-4o","choices":[]}')
    options = ("--upstream", f"openai={upstream.url}")
    async with served(tmp_path, *options, environ=PROVIDER_KEYS) as server:
        keys = {}
        for name in PROJECTS:
            await manage(tmp_path, "projects", "create", name)
            create = ("keys", "create", "--name", f"app of {name}", "--project", name)
            keys[name] = [
                await manage(tmp_path, *create, "--scope", scope) for scope in ("write", "read")
            ]
        sessions = {}
        for n, name in enumerate(PROJECTS, 1):
            write, _ = keys[name]
            for _ in range(n):  # as many calls as the project's number, to tell them apart
                called = await shell(CALL, server.port, write, tmp_path)
                assert orjson.loads(called)["object"] == "chat.completion"
        for name in PROJECTS:
            _, read = keys[name]
            page = orjson.loads(await shell(LIST, server.port, read, tmp_path))
            session = orjson.loads(await shell(SHOW, server.port, read, tmp_path))
            assert (page["count"], page["sessions"][0]["id"]) == (1, "sess_abc123")
            assert session["id"] == "sess_abc123"
            assert page["sessions"][0]["trace_count"] == len(session["traces"])
            sessions[name] = {trace["id"] for trace in session["traces"]}
            for trace in session["traces"]:
                assert {"span_count", "cost", "total_tokens", "duration_ms", "status"} <= set(trace)

    assert [len(sessions[name]) for name in PROJECTS] == [1, 2]
    assert not sessions["alpha"] & sessions["beta"]
    sent = [request.get(b"Authorization") for request in upstream.requests]
    assert sent == [
        b"Bearer sk-of-alpha-0123456789",
        b"Bearer sk-of-beta-0123456789",
        b"Bearer sk-of-beta-0123456789",
    ]
    for request in upstream.requests:
        assert request.target == b"/v1/chat/completions"
        assert request.body == b'{"model": "gpt-4o", "messages": [...]}'
        assert b"tw_sk_" not in request.head
        assert b"raceway" not in request.head


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
async def test_a_project_without_a_provider_key_is_told_so_and_nothing_goes_out(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with served(tmp_path, "--upstream", f"openai={upstream.url}") as server:
        key = await manage(tmp_path, "keys", "create", "--name", "app", "--scope", "admin")
        said = orjson.loads(await shell(CALL, server.port, key, tmp_path))
    assert said["error"]["code"] == "no_provider_key"
    assert upstream.connections == 0
