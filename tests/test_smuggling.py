"""No request that two readers could read in two ways reaches an upstream: the table's cases.

The data are those of `make differential`, where nginx plays them too; here a server in this process
plays all that are about where a request begins, ends and goes. They are played at once, each with
an upstream of its own, because most of a case is waiting for nothing to come.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.differential.cases import SMUGGLING
from tests.differential.run import BASE, Proxy, lane_name, run
from tests.differential.script import Case, get, posted, relayed, says
from tests.differential.stage import Stage, judge
from tests.running import running
from tests.wire import ScriptedUpstream

LANES = 16
QUIET_S = 0.05


async def play(folder: Path, cases: Sequence[Case]) -> dict[str, str]:
    """Play cases against a server; give what went wrong, by the case's name."""
    upstreams = [ScriptedUpstream() for _ in range(LANES)]
    for upstream in upstreams:
        await upstream.start()
    urls = {
        f"upstreams.{lane_name(number).decode()}.url": upstream.url + BASE
        for number, upstream in enumerate(upstreams)
    }
    proxy = Proxy("Traceway", "")
    async with running(folder, upstreams[0].url, urls) as tw:
        await run(proxy, cases, upstreams, [tw.port] * LANES, QUIET_S)
    for upstream in upstreams:
        await upstream.stop()
    return proxy.failures


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return asyncio.run(play(tmp_path_factory.mktemp("smuggling"), SMUGGLING))


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in SMUGGLING])
def test_an_upstream_sees_what_is_clean_and_meant_or_nothing(
    failures: dict[str, str], case: Case
) -> None:
    assert failures.get(case.id) is None, case.why


async def test_a_neighbour_that_hands_bytes_on_as_they_are_would_fail(
    upstream: ScriptedUpstream,
) -> None:
    stage = Stage(upstream, upstream.port, QUIET_S)  # no proxy at all
    hidden = {"CL.TE", "TE.CL", "TE twice", "TE folded", "HTTP/1.0 with CL and TE", "CL negative"}
    cases = [replace(case, limit_s=0.05) for case in SMUGGLING if case.id in hidden]
    cases.append(Case("..", (says(get(b"/a/%2e./b")),), (relayed(b""),), ""))
    wrong = {case.id for case in cases if judge(case, await stage.play(case)) is not None}
    assert wrong == {*hidden, ".."}
    plain = Case("", (says(posted(b"hello")),), (relayed(b"hello"),), "")
    assert judge(plain, await stage.play(plain)) is None
