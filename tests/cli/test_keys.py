"""`traceway keys`: a key is made, shown once, listed without it, and revoked at once."""

from pathlib import Path

import orjson
import pytest

from proxy.cli import keys
from storage.grants import SCOPES
from tests.cli.asking import Said, ask, started
from tests.running import Running
from tests.wire import ScriptedUpstream

pytestmark = pytest.mark.sqlite_only("commands go by the socket beside the file")


async def manage(tw: Running, capsys: pytest.CaptureFixture[str], *arguments: str) -> Said:
    """Run a command of the owner of a server's database."""
    return await ask(capsys, *arguments, "--db", str(tw.config.database.path))


async def make(tw: Running, capsys: pytest.CaptureFixture[str], scope: str, *options: str) -> str:
    """Make a key, and give it."""
    said = await manage(
        tw, capsys, "keys", "create", "--name", f"a {scope}", "--scope", scope, *options
    )
    assert said.code == 0, said
    return said.out.strip()


async def status(tw: Running, key: str | None, path: str = "/api/sessions") -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with tw.client.get(tw.url + path, headers=headers) as answer:
        return answer.status


def test_the_scopes_are_those_that_there_are() -> None:
    assert keys.SCOPES == SCOPES


async def test_the_key_stands_alone_in_the_output_and_what_it_is_beside_it(tmp_path: Path) -> None:
    path = str(tmp_path / "traceway.db")
    create = ("keys", "create", "--name", "ci", "--scope", "write", "--db", path)
    async with started(*create) as command:
        first = await command.ended()
    async with started(*create, "--calls-per-minute", "60", "--json") as command:
        second = await command.ended()
    assert first.out.startswith("tw_sk_")
    assert len(first.out) == len("tw_sk_") + 43 + 1
    assert first.err == (
        "traceway: key 1, ci, of scope write in project default; it is shown this once\n"
        "traceway: it is the first: from now on every call and every page needs a key"
        " (docs/keys.md)\n"
    )
    made = orjson.loads(second.out)
    assert (made["id"], made["calls_per_minute"], made["key"][-4:]) == (2, 60, made["last_four"])
    assert second.err == ""


async def test_the_first_key_turns_keys_on_and_each_does_what_its_scope_says(
    tw: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await status(tw, None) == 200
    read = await make(tw, capsys, "read")
    write = await make(tw, capsys, "write")
    admin = await make(tw, capsys, "admin")
    assert await status(tw, None) == 401
    assert [await status(tw, key) for key in (read, write, admin)] == [200, 403, 200]
    assert [await status(tw, key, "/api/keys") for key in (read, write, admin)] == [403, 403, 200]


async def test_a_server_that_asks_for_none_does_not_say_that_it_does(
    serve: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(serve)
    tw: Running = await serve({"auth.mode": "off"})
    said = await manage(tw, capsys, "keys", "create", "--name", "x", "--scope", "read")
    assert len(said.err.splitlines()) == 1
    assert await status(tw, None) == 200


async def test_the_list_shows_all_but_the_keys(
    tw: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    none = await manage(tw, capsys, "keys", "list")
    assert none == Said(
        0,
        "",
        "traceway: no keys yet: `traceway keys create --name NAME --scope admin` makes the first\n",
    )
    first = await make(tw, capsys, "read")
    second = await make(tw, capsys, "admin", "--calls-per-minute", "1200")
    await status(tw, second)
    await manage(tw, capsys, "keys", "revoke", "1")
    monkeypatch.delenv("COLUMNS", raising=False)

    said = await manage(tw, capsys, "keys", "list")
    rows = await manage(tw, capsys, "keys", "list", "--json")

    assert said.out == (
        "ID  NAME     PROJECT  SCOPE  KEY          CALLS/MIN  CREATED  LAST USED  REVOKED\n"
        f" 2  a admin  default  admin  tw_sk_…{second[-4:]}      1,200  now      now\n"
        f" 1  a read   default  read   tw_sk_…{first[-4:]}             now      never      now\n"
    )
    assert [orjson.loads(row)["id"] for row in rows.out.splitlines()] == [2, 1]
    assert first not in said.out + rows.out
    assert second not in said.out + rows.out


async def test_a_revoked_key_lets_nobody_in_from_the_next_request_on(
    tw: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    first, last = await make(tw, capsys, "read"), await make(tw, capsys, "read")
    said = await manage(tw, capsys, "keys", "revoke", "1")
    assert said == Said(0, "key 1, a read, lets nobody in any more\n", "")
    assert [await status(tw, first), await status(tw, last)] == [401, 200]

    row = await manage(tw, capsys, "keys", "revoke", "2", "--json")
    assert orjson.loads(row.out)["revoked_at"] is not None
    assert row.err == "traceway: it was the last: nobody has a good key now\n"
    assert [await status(tw, last), await status(tw, None)] == [401, 401]


async def test_a_key_has_no_place_on_the_command_line(
    tw: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        await manage(tw, capsys, "keys", "revoke", "tw_sk_canary")
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "give its number in `traceway keys list`" in said
    assert "canary" not in said


@pytest.mark.parametrize(
    "wrong",
    [
        ["create", "--name", "x"],
        ["create", "--scope", "read"],
        ["create", "--name", "x", "--scope", "all"],
        ["create", "--name", "x\udcff", "--scope", "read"],
        ["create", "--name", "x", "--scope", "read", "--calls-per-minute", "0"],
        ["create", "--name", "x", "--scope", "read", "--project", "A b"],
        ["create", "--name", "x", "--scope", "read", "--project", "a\n"],
        ["revoke"],
        ["revoke", "-1"],
        ["revoke", "x"],
        [],
    ],
)
async def test_a_wrong_option_is_answered_with_the_usage(
    tw: Running, capsys: pytest.CaptureFixture[str], wrong: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        await ask(capsys, "keys", *wrong)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: traceway keys")


async def test_what_the_server_refuses_is_said_in_a_line(
    tw: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    create = ("keys", "create", "--scope", "read", "--name")
    no_project = await manage(tw, capsys, *create, "x", "--project", "team-a")
    assert no_project == Said(
        2,
        "",
        "traceway: there is no project 'team-a': `traceway projects list` shows all, and"
        " `traceway projects create team-a` makes it\n",
    )
    too_long = await manage(tw, capsys, *create, "x" * 101)
    assert (too_long.code, too_long.out) == (2, "")
    assert too_long.err.startswith("traceway: the body is not what it should be")
    assert (await manage(tw, capsys, "keys", "revoke", "7")) == Said(
        2, "", "traceway: there is no such key\n"
    )
    assert not tw.server.keyring.keys


async def test_a_server_elsewhere_needs_an_admins_key_from_the_environment(
    tw: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    admin, read = await make(tw, capsys, "admin"), await make(tw, capsys, "read")
    remote = ("keys", "list", "--json", "--url", tw.url)
    without = await ask(capsys, *remote)
    monkeypatch.setenv("TRACEWAY_API_KEY", f" {admin}\n")
    listed = await ask(capsys, *remote)
    made = await ask(
        capsys, "keys", "create", "--name", "x", "--scope", "admin", "--port", str(tw.port)
    )
    monkeypatch.setenv("TRACEWAY_API_KEY", read)
    forbidden = await ask(capsys, *remote)
    monkeypatch.setenv("TRACEWAY_API_KEY", "tw_sk_canary")
    wrong = await ask(capsys, *remote)
    assert without == Said(
        2,
        "",
        f"traceway: the server at {tw.url} needs a key: put one into TRACEWAY_API_KEY"
        " (`traceway keys create --name NAME --scope read` makes one, where the server is)\n",
    )
    assert (listed.code, len(listed.out.splitlines())) == (0, 2)
    assert await status(tw, made.out.strip()) == 200
    assert (forbidden.code, forbidden.out) == (2, "")
    assert "this needs admin" in forbidden.err
    assert wrong == Said(
        2,
        "",
        f"traceway: the server at {tw.url} does not know the key in TRACEWAY_API_KEY: it is wrong,"
        " or it was revoked\n",
    )


async def test_the_first_key_of_a_server_elsewhere_locks_out_whoever_made_it_and_says_so(
    tw: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    said = await ask(capsys, "keys", "create", "--name", "x", "--scope", "read", "--url", tw.url)
    assert said.code == 0
    assert "from now on every call and every page needs a key" in said.err
    assert await status(tw, said.out.strip()) == 200


async def test_an_admin_who_revokes_their_own_key_is_told_that_it_is_done(
    tw: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEWAY_API_KEY", await make(tw, capsys, "admin"))
    said = await ask(capsys, "keys", "revoke", "1", "--url", tw.url)
    assert said == Said(0, "key 1, a admin, lets nobody in any more\n", "")


async def test_a_change_that_is_led_elsewhere_is_not_made_there(
    upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream.answers(b"", status=b"302 Found", headers=b"Location: /api/keys\r\n")
    said = await ask(capsys, "keys", "revoke", "1", "--url", upstream.url)
    assert (said.code, said.out) == (1, "")
    assert "is not Traceway (status 302)" in said.err
    assert upstream.connections == 1


async def test_names_of_others_do_nothing_to_the_terminal(
    tw: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    body = orjson.dumps({"name": "a\u202eb", "scope": "read"})
    async with tw.client.post(f"{tw.url}/api/keys", data=body) as answer:
        assert answer.status == 201
    listed = await manage(tw, capsys, "keys", "list")
    ended = await manage(tw, capsys, "keys", "revoke", "1")
    assert "a�b" in listed.out
    assert "a�b" in ended.out
