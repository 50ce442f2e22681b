"""`traceway export --format html` and `finetune`: the file, and what is said beside it."""

import json
from pathlib import Path

import pytest

from tests.api.asking import save
from tests.cli.asking import ask
from tests.running import Running
from tests.storage.calls import end, start
from tests.test_recording_conversations import Provider, assistant, talk
from tests.test_recording_conversations import ask as call
from tests.wire import ScriptedUpstream


async def fill(tw: Running, upstream: ScriptedUpstream) -> None:
    """Record a session with a retry that said the same, and one of which no message is known."""
    provider = Provider(upstream)
    sent = await talk(tw, provider, 2)
    await call(tw, provider, sent[:1], assistant("answer 0"))
    await tw.saved()
    await save(tw, end(start(1, session_id="t")))


async def test_lines_of_all_sessions_are_in_one_file_and_stderr_says_what_is_in_none(
    tw: Running, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    await fill(tw, upstream)
    file = tmp_path / "all.jsonl"
    where = ("--port", str(tw.port), "-o", str(file))
    said = await ask(capsys, "export", "--all", "--format", "finetune", *where)
    assert (said.code, said.out) == (0, "")
    assert "2 sessions" in said.err
    assert "1 lines; turns that are in none: 1, repeated 1\n" in said.err
    (line,) = file.read_text().splitlines()
    assert [one.get("weight") for one in json.loads(line)["messages"]] == [None, 1, None, 1]


async def test_a_page_is_of_one_session(
    tw: Running, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    await fill(tw, upstream)
    where = ("--port", str(tw.port), "-o", str(tmp_path / "s.html"))
    said = await ask(capsys, "export", "--all", "--format", "html", *where)
    assert said.code != 0
    assert "2 sessions fulfil the query, and html is for one" in said.err
    assert (await ask(capsys, "export", "session:s", "--format", "html", *where)).code == 0
    assert "answer 1" in (tmp_path / "s.html").read_text()
