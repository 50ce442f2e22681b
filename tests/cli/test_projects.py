"""`traceway projects`: they are listed, made, renamed, and given a budget for their sessions."""

import orjson
import pytest

from tests.cli.asking import Said
from tests.cli.test_keys import make, manage, status
from tests.running import Running

pytestmark = pytest.mark.sqlite_only("commands go by the socket beside the file")

Capsys = pytest.CaptureFixture[str]


async def test_projects_are_made_and_listed(tw: Running, capsys: Capsys) -> None:
    assert await manage(tw, capsys, "projects", "create", "team-a") == Said(
        0, "project team-a is made; its sessions may cost what they like\n", ""
    )
    made = await manage(
        tw, capsys, "projects", "create", "b", "--session-budget-usd", "1234.5", "--json"
    )
    assert orjson.loads(made.out)["session_budget_usd"] == 1234.5
    listed = await manage(tw, capsys, "projects", "list")
    rows = await manage(tw, capsys, "projects", "list", "--json")
    titles, _, second, third = listed.out.splitlines()
    assert titles == "NAME     SESSION BUDGET  CREATED"
    assert second == "team-a         no limit  now"
    assert third == "b              $1,234.5  now"
    names = [orjson.loads(row)["name"] for row in rows.out.splitlines()]
    assert names == ["default", "team-a", "b"]


async def test_a_project_is_renamed_and_its_budget_set_and_taken_away(
    tw: Running, capsys: Capsys
) -> None:
    change = ("projects", "set", "default")
    both = await manage(tw, capsys, *change, "--name", "main", "--session-budget-usd", "0.5")
    assert both == Said(0, "project main; a session of it may cost $0.5\n", "")
    assert (await manage(tw, capsys, *change, "--name", "x")) == Said(
        2, "", "traceway: there is no such project\n"
    )
    kept = await manage(tw, capsys, "projects", "set", "main", "--name", "main", "--json")
    assert orjson.loads(kept.out)["session_budget_usd"] == 0.5
    none = await manage(tw, capsys, "projects", "set", "main", "--session-budget-usd", "none")
    assert none == Said(0, "project main; its sessions may cost what they like\n", "")


async def test_a_key_is_for_the_first_project_unless_it_is_said_whatever_it_is_called(
    tw: Running, capsys: Capsys
) -> None:
    await manage(tw, capsys, "projects", "set", "default", "--name", "main")
    await manage(tw, capsys, "projects", "create", "other")
    await make(tw, capsys, "read")
    await make(tw, capsys, "read", "--project", "other")
    rows = (await manage(tw, capsys, "keys", "list", "--json")).out.splitlines()
    assert [orjson.loads(row)["project"] for row in rows] == ["other", "main"]


async def test_what_cannot_be_is_said_in_a_line(tw: Running, capsys: Capsys) -> None:
    assert await manage(tw, capsys, "projects", "create", "default") == Said(
        2, "", "traceway: there is a project 'default' already\n"
    )
    assert await manage(tw, capsys, "projects", "set", "default") == Said(
        2, "", "traceway: say what to change: --name NEW, --session-budget-usd X, or both\n"
    )
    dear = await manage(tw, capsys, "projects", "create", "a", "--session-budget-usd", "1e9")
    assert (dear.code, dear.out, len(dear.err.splitlines())) == (2, "", 1)
    assert await status(tw, None) == 200


@pytest.mark.parametrize(
    "wrong",
    [
        ["create"],
        ["create", "Team"],
        ["create", "a", "--session-budget-usd", "none"],
        ["create", "a", "--session-budget-usd", "-1"],
        ["create", "a", "--session-budget-usd", "nan"],
        ["set", "a", "--session-budget-usd", "much"],
        ["set", "a", "--name", ""],
        ["set"],
        [],
    ],
)
async def test_a_wrong_option_is_answered_with_the_usage(
    tw: Running, capsys: Capsys, wrong: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        await manage(tw, capsys, "projects", *wrong)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: traceway projects")
