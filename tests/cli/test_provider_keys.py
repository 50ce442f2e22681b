"""`traceway provider-keys`: a key goes in unseen, is used at once, is never shown again."""

import os
import pty
from pathlib import Path

import orjson
import pytest

from tests.cli.asking import Said, started
from tests.cli.test_keys import make, manage
from tests.running import CHAT, Running
from tests.wire import ScriptedUpstream

pytestmark = pytest.mark.sqlite_only("commands go by the socket beside the file")

Capsys = pytest.CaptureFixture[str]
SECRET = "sk-canary-0123456789"  # noqa: S105 (no real one)


async def piped(given: bytes, *arguments: str) -> Said:
    """Run a command that reads this from a pipe."""
    read_end, write_end = os.pipe()
    os.write(write_end, given)
    os.close(write_end)
    try:
        async with started(*arguments, keyboard=read_end) as command:
            return await command.ended()
    finally:
        os.close(read_end)


def db(tw: Running) -> tuple[str, str]:
    return "--db", str(tw.config.database.path)


async def test_a_piped_key_is_what_calls_of_its_project_go_out_with(
    tw: Running, capsys: Capsys, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    await manage(tw, capsys, "projects", "create", "b")
    key_of_b = await make(tw, capsys, "write", "--project", "b")
    key = await make(tw, capsys, "write")
    said = await piped(
        SECRET.encode() + b"\n", *("provider-keys", "set", "openai", "--project", "b"), *db(tw)
    )
    assert said == Said(0, "the key for openai is stored: …6789\n", "")
    of_b = await tw.raw(headers=f"Authorization: Bearer {key_of_b}\r\n".encode(), body=b"{}")
    other = await tw.raw(headers=f"Authorization: Bearer {key}\r\n".encode(), body=b"{}")
    assert (of_b.status, other.get(b"X-Traceway-Error")) == (200, b"no_provider_key")
    assert upstream.requests[0].get(b"Authorization") == f"Bearer {SECRET}".encode()
    assert upstream.requests[0].target == CHAT.removeprefix("/api/proxy/openai").encode()


async def test_the_list_shows_where_each_is_from_and_none_of_it(
    tw: Running, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert await manage(tw, capsys, "provider-keys", "list") == Said(
        0,
        "",
        "traceway: no provider keys yet: `traceway provider-keys set UPSTREAM` stores one\n",
    )
    stored = await piped(SECRET.encode(), "provider-keys", "set", "openai", "--json", *db(tw))
    listed = await manage(tw, capsys, "provider-keys", "list")
    rows = await manage(tw, capsys, "provider-keys", "list", "--json")
    ended = await manage(tw, capsys, "provider-keys", "delete", "openai")
    again = await manage(tw, capsys, "provider-keys", "delete", "openai")
    assert listed.out == "UPSTREAM  SOURCE  KEY    STORED\nopenai    stored  …6789  now\n"
    assert orjson.loads(rows.out) == orjson.loads(stored.out)
    assert ended == Said(0, "the key for openai is deleted: …6789\n", "")
    assert again == Said(2, "", "traceway: there is no such stored provider key\n")
    assert "canary" not in f"{stored}{listed}{rows}{ended}"


async def test_a_terminal_is_asked_and_does_not_show_what_is_typed(tmp_path: Path) -> None:
    path = str(tmp_path / "traceway.db")
    screen, keyboard = pty.openpty()
    try:
        async with started(
            *("provider-keys", "set", "openai", "--db", path), keyboard=keyboard
        ) as command:
            assert command.process.stderr is not None
            asked = await command.process.stderr.readuntil(b"(not shown): ")
            os.write(screen, SECRET.encode() + b"\n")
            said = await command.ended()
        os.write(keyboard, b"end")
        shown = os.read(screen, 1000)
    finally:
        os.close(screen)
        os.close(keyboard)
    assert b"provider key for openai (not shown): " in asked
    assert (said.code, said.out) == (0, "the key for openai is stored: …6789\n")
    assert b"canary" not in shown


@pytest.mark.parametrize("given", [b"", b" \n"])
async def test_where_no_key_is_given_nothing_is_touched(tmp_path: Path, given: bytes) -> None:
    path = tmp_path / "traceway.db"
    said = await piped(given, "provider-keys", "set", "openai", "--db", str(path))
    assert said == Said(2, "", "traceway: no key was given: type it, or pipe it in\n")
    assert not path.exists()


async def test_what_cannot_be_is_one_line_without_the_key(tw: Running) -> None:
    unknown = await piped(SECRET.encode(), "provider-keys", "set", "a/..\u202e", *db(tw))
    short = await piped(b"canary", "provider-keys", "set", "openai", *db(tw))
    odd = await piped(b"canary \xff 0123456789", "provider-keys", "set", "openai", *db(tw))
    project = ("--project", "nobody")
    elsewhere = await piped(SECRET.encode(), "provider-keys", "set", "openai", *project, *db(tw))
    ours = await piped(b"tw_sk_canary_0123456789", "provider-keys", "set", "openai", *db(tw))
    for said in (unknown, short, odd, elsewhere, ours):
        assert (said.code, said.out) == (2, "")
        assert "canary" not in said.err
    for said in (short, odd, elsewhere, ours):
        assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("wrong", [["set"], ["set", "openai", SECRET], ["delete"], []])
async def test_a_wrong_option_is_answered_with_the_usage(
    tw: Running, capsys: Capsys, wrong: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        await manage(tw, capsys, "provider-keys", *wrong)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: traceway")
