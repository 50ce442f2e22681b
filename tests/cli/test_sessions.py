"""`traceway sessions`: the table, the JSON, pages, what it says when there is nothing."""

import signal

import orjson
import pytest

from proxy.cli import sessions
from storage.records import FAILED
from tests.api.asking import ask as ask_api
from tests.api.asking import save
from tests.cli.asking import Said, ask, started
from tests.running import Running
from tests.storage.calls import end, start


async def fill(tw: Running) -> None:
    """Save three sessions: one that failed, one of great figures, one of which little is known."""
    await save(
        tw,
        end(
            start(1, session_id="user_123:conv_456"),
            state=FAILED,
            error="HTTP 500",
            input_preview="What is a proxy?",
        ),
        end(
            start(2, session_id="日本語の会話"),
            cost_nusd=1_234_567_000_000,
            duration_us=3_725_000_000,
            input_preview="一つ目\nin two lines",
        ),
        start(3, session_id="running"),
    )


WIDE = """\
ID                 TRACES  SPANS  TOKENS         COST  DURATION  LAST ACTIVE  STATUS     FIRST INPUT
running                 1      1       —            —         —  2023-11-14   running    —
日本語の会話            1      1      15       $1,235  1 h 02 m  2023-11-14   completed  一つ目 in two lines
user_123:conv_456       1      1      15  $0.00000010    500 ms  2023-11-14   failed     What is a proxy?
"""  # noqa: E501 (a golden output is as wide as it is)
NARROW = """\
ID                        COST  LAST ACTIVE  STATUS
running                      —  2023-11-14   running
日本語の会話            $1,235  2023-11-14   completed
user_123:conv_456  $0.00000010  2023-11-14   failed
"""
TINY = """\
ID
running
日本語の会…
user_123:c…
"""


@pytest.mark.parametrize(
    ("width", "golden"), [("", WIDE), ("150", WIDE), ("60", NARROW), ("11", TINY)]
)
async def test_sessions_are_a_table_as_wide_as_the_terminal(
    tw: Running,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    width: str,
    golden: str,
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    await fill(tw)
    assert await ask(capsys, "sessions", "--url", tw.url) == Said(0, golden, "")


async def test_as_json_each_session_is_a_line_in_the_bytes_of_the_api(
    tw: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    await fill(tw)
    said = await ask(capsys, "sessions", "--json", "--url", tw.url)
    rows = (await ask_api(tw, "/api/sessions")).body["sessions"]
    assert said == Said(0, "".join(f"{orjson.dumps(row).decode()}\n" for row in rows), "")


async def test_a_query_an_order_and_a_limit_are_the_apis(
    tw: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await save(tw, *(end(start(n, session_id=f"s{n}"), cost_nusd=n * 10**6) for n in range(1, 8)))
    monkeypatch.setattr(sessions, "MAX_LIMIT", 2)  # so that three pages are read
    options = ("--limit", "5", "--sort-by", "cost", "--sort-order", "asc", "--json")
    said = await ask(capsys, "sessions", "cost:>0.001", *options, "--url", tw.url)
    assert [orjson.loads(line)["id"] for line in said.out.splitlines()] == [
        *("s2", "s3", "s4", "s5", "s6")
    ]
    assert (said.code, said.err) == (0, "")


async def test_where_there_is_nothing_it_says_so(
    tw: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("--url", tw.url)
    assert await ask(capsys, "sessions", *at) == Said(0, "", "traceway: no sessions yet\n")
    none = "traceway: no session fulfils the query\n"
    assert await ask(capsys, "sessions", "cost:>5", *at) == Said(0, "", none)
    assert await ask(capsys, "sessions", "cost:>5", "--json", *at) == Said(0, "", "")


@pytest.mark.parametrize("option", ["--limit=0", "--limit=-1", "--limit=x", "--limit=1.5"])
async def test_a_limit_is_a_whole_number_from_1_on(
    capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit):
        await ask(capsys, "sessions", option)
    assert "expected a whole number from 1 on" in capsys.readouterr().err


async def test_who_stops_reading_ends_it_quietly(tw: Running) -> None:
    await save(tw, *(end(start(n, session_id=f"{n:0500}")) for n in range(1, 900)))
    async with started("sessions", "--json", "--limit", "900", "--url", tw.url) as command:
        assert command.process.stdout is not None
        await command.line()
        # The pipe's reader goes away, as that of `| head -1`.
        transport = command.process.stdout._transport  # type: ignore[attr-defined]
        transport.close()
        await command.process.wait()
        assert await command.note() == ""
        assert command.process.returncode == 128 + signal.SIGPIPE
