"""Each example in README.md and docs/: what a reader copies is run, or read by whom it is for.

Commands run in a shell against a server in a process of its own, in the order of the page, with its
address and keys in place of those on the page. Examples without a language show what is seen.
"""

import asyncio
import json
import os
import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest

import traceway
from proxy.config import load
from storage.search import parse
from tests.calling import ANSWER
from tests.served import ROOT, Served, served
from tests.wire import ScriptedUpstream

# docs/api.md is generated, and tests/api/test_reference.py and test_answer_shapes.py read it.
PAGES = ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
PAGES.remove("docs/api.md")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
ADDRESSES = re.compile(r"http://127\.0\.0\.1:3000|https://traceway\.example\.com")
KEY = re.compile(r"tw_sk_[A-Za-z0-9_-]{43}")
SHELL_S = 30.0
ENDLESS = re.compile(r"curl -N|traceway tail")
# These start what runs already, or need a PostgreSQL that is installed; tests/test_main.py and
# tests/test_transporting.py have them.
STARTS = re.compile(r"make run|traceway serve|(npm|pip) install|createdb|traceway migrate")
# What is left out of an example cannot be read.
LEFT_OUT = re.compile(r"\.\.\.|…")


@dataclass
class Reader:
    """Somebody who tries a page's examples, one after the other."""

    server: Served
    folder: Path
    key: str = ""
    outputs: list[str] = field(default_factory=list)

    def put_in(self, text: str) -> str:
        """Put in what a page cannot know."""
        here = f"http://127.0.0.1:{self.server.port}"
        if re.search(r"traceway (sessions|tail)", text) and "--url" not in text:
            text += f" --url {here}"
        text = ADDRESSES.sub(here, text).replace("tw_sk_...", self.key)
        return text.replace("sk-proj-...", "sk-proj-0123456789abcdef").replace(" ...", "")

    async def need_key(self, block: str) -> None:
        """Make a key where an example is for a server with keys."""
        if self.key or not re.search(r"tw_sk_\.\.\.|\$(TRACEWAY_API_)?KEY", block):
            return
        code, out = await self.run("traceway keys create --name reader --scope admin")
        assert code == 0, out
        assert self.key

    async def run(self, command: str) -> tuple[int | None, str]:
        """Run a command in a shell; an endless one for a second."""
        if ENDLESS.search(command):
            command = f"timeout 1 {command} || [ $? = 124 ]"
        environ = os.environ | {
            "OPENAI_API_KEY": "sk-test",
            "TRACEWAY_API_KEY": self.key,
            "KEY": self.key,
            "TRACEWAY_URL": f"http://127.0.0.1:{self.server.port}",
            "TRACEWAY_DATABASE_PATH": str(self.folder / "traceway.db"),
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        shell = await asyncio.create_subprocess_exec(
            "bash",
            "-uo",
            "pipefail",
            "-c",
            command,
            cwd=self.folder,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(SHELL_S):
            out, _ = await shell.communicate()
        text = out.decode()
        if (found := KEY.search(text)) and not self.key:
            self.key = found[0]
            (self.folder / "key").write_text(self.key)
        return shell.returncode, text


@dataclass(frozen=True)
class Command:
    """A command of a page, and what it shows under it."""

    text: str
    shown: str

    @property
    def fails(self) -> bool:
        """Whether the page shows that it is refused."""
        return self.shown.startswith("traceway: expected")


def commands(block: str) -> list[Command]:
    """Take a console's commands out of an example; one that begins with curl is a command."""
    if block.startswith("curl "):
        return [Command(block.strip(), "")]
    found: list[list[str]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], ""])
        elif found and _goes_on(found[-1][0]):
            found[-1][0] += "\n" + line
        elif found:
            found[-1][1] += line + "\n"
    return [Command(text, shown) for text, shown in found]


def _goes_on(command: str) -> bool:
    return command.endswith("\\") or command.count("'") % 2 == 1


async def try_command(reader: Reader, command: Command) -> None:
    if STARTS.search(command.text):
        return
    code, out = await reader.run(reader.put_in(command.text))
    if command.fails:
        assert code != 0, out
        assert command.shown.splitlines()[0].partition(",")[0] in out
        return
    assert code == 0, (command.text, out)
    if '"error":{' not in command.shown:
        assert '{"error":' not in out, (command.text, out)
    assert "Traceback" not in out, (command.text, out)


def try_python(reader: Reader, block: str) -> None:
    """Run a program; a client that it only makes is called."""
    names: dict[str, object] = {"OpenAI": openai.OpenAI}
    exec(compile(reader.put_in(block), "example", "exec"), names)  # noqa: S102 (ours)
    client = names["client"]
    assert isinstance(client, openai.OpenAI)
    with client:
        if "client.chat" not in block:
            messages = [{"role": "user", "content": "Hi"}]
            client.chat.completions.create(model="gpt-4o", messages=messages)
    if isinstance(tw := names.get("tw"), traceway.Traceway):
        tw.close()


@pytest.mark.parametrize("page", PAGES)
async def test_every_example_of_a_page_works(
    page: str, tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.answers(ANSWER, content_type=b"application/json")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    blocks = FENCE.findall((ROOT / page).read_text())
    environ = {"TRACEWAY_PROVIDER_KEY_OPENAI": "sk-project-0123456789abcdef"}
    options = ("--upstream", f"openai={upstream.url}")
    async with served(tmp_path, *options, environ=environ) as server:
        monkeypatch.setenv("TRACEWAY_URL", f"http://127.0.0.1:{server.port}")
        reader = Reader(server, tmp_path)
        program = tmp_path / "traceway"  # what an installation puts there
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m proxy "$@"\n')
        program.chmod(0o700)
        for language, block in blocks:
            await reader.need_key(block)
            if language == "console" or block.startswith("curl "):
                for command in commands(block):
                    await try_command(reader, command)
            elif language == "python" and "(...)" not in block:
                await asyncio.to_thread(try_python, reader, block)
            elif language == "json" and not LEFT_OUT.search(block):
                json.loads(block)
            elif language == "toml":
                tomllib.loads(block)
                (tmp_path / "example.toml").write_text(block)
                load(tmp_path / "example.toml", {}, {})
            elif page == "docs/search.md" and not language:
                for line in block.strip().splitlines():
                    parse(line)


def test_the_pages_have_examples_and_they_are_found() -> None:
    found = [block for page in PAGES for block in FENCE.findall((ROOT / page).read_text())]
    assert len(found) >= 30
    assert sum(len(commands(block)) for language, block in found if language == "console") > 15
