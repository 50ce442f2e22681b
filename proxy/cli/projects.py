"""`traceway projects list | create | set`: the rooms that sessions are in."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from proxy.api.keys import ProjectView
from proxy.cli.client import Client, Refused
from proxy.cli.command import Add, project
from proxy.cli.terminal import Column, Screen, safe_json, table
from proxy.ui import view

_BUDGET = "--session-budget-usd"


@dataclass(frozen=True, slots=True)
class _Projects:
    """All projects, each in the very bytes of the API."""

    projects: list[msgspec.Raw]


def add_commands(add: Add) -> None:
    """Add the commands, with what they take."""
    add("list", "list all projects", show)
    making = add("create", "make a project", create)
    making.add_argument("name", type=project, metavar="NAME")
    making.add_argument(_BUDGET, type=_usd, metavar="X", help="what a session may cost (no limit)")
    changing = add("set", "change a project", change)
    changing.add_argument("project_name", type=project, metavar="NAME")
    changing.add_argument("--name", type=project, metavar="NEW", help="what it is called from now")
    changing.add_argument(
        _BUDGET, type=_maybe_usd, metavar="X", help="what a session may cost; none: no limit"
    )


def _usd(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = -1
    if math.isfinite(amount) and amount >= 0:
        return amount
    raise argparse.ArgumentTypeError(f"expected an amount of USD, as 2.50, not {text!r}")


def _maybe_usd(text: str) -> float | str:
    return text if text == "none" else _usd(text)


async def show(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    """List all projects, oldest first."""
    rows = (await client.read(_Projects, "/api/projects", {})).projects
    if options.json:
        for row in rows:
            print(safe_json(bytes(row)))
        return
    found = [client.decode(ProjectView, bytes(row)) for row in rows]
    print("\n".join(table(_columns(found, datetime.now(UTC)), screen)))


async def create(client: Client, options: argparse.Namespace, _: Screen) -> None:
    """Make a project."""
    asked = {"name": options.name, "session_budget_usd": options.session_budget_usd}
    answer = await client.send("POST", "/api/projects", asked)
    made = client.decode(ProjectView, answer)
    print(safe_json(answer) if options.json else f"project {made.name} is made{_limit(made)}")


async def change(client: Client, options: argparse.Namespace, _: Screen) -> None:
    """Change a project's name, or what its sessions may cost."""
    asked: dict[str, str | int | float | None] = {}
    if options.name is not None:
        asked["name"] = options.name
    if (budget := options.session_budget_usd) is not None:
        asked["session_budget_usd"] = None if budget == "none" else budget
    if not asked:
        raise Refused(400, f"say what to change: --name NEW, {_BUDGET} X, or both")
    answer = await client.send("PATCH", f"/api/projects/{options.project_name}", asked)
    changed = client.decode(ProjectView, answer)
    print(safe_json(answer) if options.json else f"project {changed.name}{_limit(changed)}")


def _limit(made: ProjectView) -> str:
    if made.session_budget_usd is None:
        return "; its sessions may cost what they like"
    return f"; a session of it may cost {view.money(made.session_budget_usd).exact}"


def _columns(projects: Sequence[ProjectView], now: datetime) -> list[Column]:
    return [
        Column("NAME", [one.name for one in projects], 9, least=16),
        Column("SESSION BUDGET", [_budget(one) for one in projects], 5, right=True),
        Column("CREATED", [str(view.ago(one.created_at, now)) for one in projects], 2),
    ]


def _budget(project: ProjectView) -> str:
    usd = project.session_budget_usd
    return "no limit" if usd is None else view.money(usd).exact
