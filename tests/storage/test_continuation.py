"""Which session a call is put into that names none, and where in its session it goes on."""

from typing import Any

import pytest

from storage.continuation import FIND_EXTENDED, MAX_CANDIDATES
from storage.database import Database
from storage.doctor import check
from storage.forget import delete_trace
from storage.queries import get_session, get_trace
from storage.records import FAILED, Session
from tests.storage.calls import T0, end, rows, spoken, start, talk, text_of, trace_id, write

ASKED = ["s:be brief", "u:hello"]
FIRST_TRACE = f"auto_{trace_id(1).hex()}"


def say(db: Database, n: int, asked: list[str], *answer: str, **fields: Any) -> None:
    """Write call ``n``; some of the fields are its start's."""
    names = ("session_id", "caller", "trace", "project_id")
    given = {name: fields.pop(name) for name in names if name in fields}
    write(db, [spoken(start(n, **given), asked, answer, **fields)])


async def session_of(db: Database, n: int) -> tuple[str | None, str | None]:
    trace = await get_trace(db, 1, trace_id(n))
    assert trace is not None
    return trace.session_id, trace.session_source


async def session(db: Database, name: str) -> Session:
    found = await get_session(db, 1, name)
    assert found is not None
    return found


def fresh(db: Database) -> list[int | None]:
    """Give the numbers of messages that each call brought, in the order of the calls."""
    return [n for (n,) in rows(db, "SELECT fresh_count FROM spans ORDER BY started_at_us")]


async def test_a_conversation_becomes_a_session_with_its_second_call(db: Database) -> None:
    say(db, 1, ASKED, "a:hi")
    assert await session_of(db, 1) == (None, None)
    say(db, 2, [*ASKED, "a:hi;1", "u:more"], "a:yes")
    assert await session_of(db, 1) == (FIRST_TRACE, "continuation")
    assert await session_of(db, 2) == (FIRST_TRACE, "continuation")
    found = await session(db, FIRST_TRACE)
    assert (found.trace_count, found.source, found.tokens.input) == (2, "continuation", 20)
    assert found.models == ("gpt-5",)
    assert fresh(db) == [1, 1]
    assert await check(db, text_of) == []


async def test_a_call_joins_the_session_that_somebody_named(db: Database) -> None:
    say(db, 1, ASKED, "a:hi", session_id="mine")
    say(db, 2, [*ASKED, "a:hi", "u:more"], "a:yes")
    assert await session_of(db, 2) == ("mine", "continuation")
    say(db, 3, [*ASKED, "a:hi", "u:more", "a:yes", "u:3"], "a:no", session_id="other")
    assert await session_of(db, 3) == ("other", "header")
    assert fresh(db) == [1, 1, 5]


@pytest.mark.parametrize(
    "fields",
    [{"caller": b"another"}, {"infer_session": False}, {"previous_response_id": "unknown"}],
)
async def test_what_is_not_sure_to_go_on_is_in_no_session(
    db: Database, fields: dict[str, Any]
) -> None:
    say(db, 1, ASKED, "a:hi")
    say(db, 2, [*ASKED, "a:hi", "u:more"], "a:yes", **fields)
    assert await session_of(db, 1) == await session_of(db, 2) == (None, None)


async def test_what_another_project_said_is_not_gone_on_with(db: Database) -> None:
    say(db, 1, ASKED, "a:hi", project_id=2)
    say(db, 2, [*ASKED, "a:hi", "u:more"], "a:yes")
    assert await session_of(db, 2) == (None, None)


async def test_an_answer_that_failed_is_not_gone_on_with(db: Database) -> None:
    say(db, 1, ASKED, "a:hi", state=FAILED)
    say(db, 2, [*ASKED, "a:hi", "u:more"], "a:yes")
    assert await session_of(db, 2) == (None, None)


async def test_what_could_go_on_from_two_conversations_is_in_no_session_ever(
    db: Database,
) -> None:
    for n in (1, 2):
        say(db, n, ASKED, "a:hi")
    say(db, 3, [*ASKED, "a:hi", "u:more"], "a:yes")
    say(db, 4, [*ASKED, "a:hi", "u:more", "a:yes", "u:3"], "a:no")
    assert await session_of(db, 1) == (None, None)
    assert await session_of(db, 3) == await session_of(db, 4) == (None, "ambiguous")
    assert rows(db, "SELECT * FROM sessions") == []
    # But for a name that somebody gives it.
    say(db, 5, ["u:x"], trace=4, session_id="named")
    assert await session_of(db, 4) == ("named", "header")
    assert await check(db, text_of) == []


async def test_two_answers_of_one_session_are_no_doubt(db: Database) -> None:
    for n in (1, 2):
        say(db, n, ASKED, "a:hi", session_id="s")
    say(db, 3, [*ASKED, "a:hi", "u:more"], "a:yes")
    assert await session_of(db, 3) == ("s", "continuation")


async def test_an_answer_in_a_session_and_one_in_none_are_doubt(db: Database) -> None:
    say(db, 1, ASKED, "a:hi", session_id="s")
    say(db, 2, ASKED, "a:hi")
    say(db, 3, [*ASKED, "a:hi", "u:more"], "a:yes")
    assert await session_of(db, 3) == (None, "ambiguous")


async def test_the_furthest_answer_decides(db: Database) -> None:
    for n in (1, 2):
        say(db, n, ASKED, "a:hi", session_id=f"s{n}")
    say(db, 3, [*ASKED, "a:hi", "u:more"], "a:yes", session_id="s2")
    say(db, 4, [*ASKED, "a:hi", "u:more", "a:yes", "u:3"], "a:no")
    assert await session_of(db, 4) == ("s2", "continuation")


async def test_answers_that_very_many_got_are_not_all_looked_at(db: Database) -> None:
    for n in range(1, MAX_CANDIDATES + 3):
        say(db, n, ASKED, "a:hi", session_id="s")
    say(db, 900, [*ASKED, "a:hi", "u:more"], "a:yes")
    assert await session_of(db, 900) == (None, "ambiguous")


async def test_a_changed_prompt_does_not_make_it_another_conversation(db: Database) -> None:
    say(db, 1, ASKED, "a:hi")
    say(db, 2, ["s:it is noon", "u:hello", "a:hi", "u:more"], "a:yes")
    assert await session_of(db, 2) == (FIRST_TRACE, "continuation")
    assert fresh(db) == [1, 1]
    assert len(rows(db, "SELECT * FROM mentions")) == 6
    assert await check(db, text_of) == []


async def test_an_answer_named_by_its_id_is_gone_on_with_even_where_words_are_doubt(
    db: Database,
) -> None:
    for n in (1, 2):
        say(db, n, ASKED, "a:hi", response_id=f"resp_{n}")
    say(db, 3, ["u:more"], "a:yes", previous_response_id="resp_1", response_id="resp_3")
    say(db, 4, ["u:3"], "a:no", previous_response_id="resp_3")
    assert await session_of(db, 1) == (FIRST_TRACE, "previous_response")
    assert await session_of(db, 2) == (None, None)
    assert await session_of(db, 4) == (FIRST_TRACE, "previous_response")
    # What it means is what a client would mean that sends all of it.
    whole = talk([*ASKED, "a:hi", "u:more", "a:yes", "u:3"], ["a:no"])
    assert rows(db, "SELECT input_meaning, output_meaning FROM spans WHERE seq = 4") == [
        (whole.input_meaning, whole.output_meaning)
    ]
    assert await check(db, text_of) == []


async def test_the_provider_keeps_the_state_of_a_session(db: Database) -> None:
    say(db, 1, ["u:a"], "a:b", session_id="conv", keeps_state=True)
    say(db, 2, ["u:c"], "a:d", session_id="conv", keeps_state=True)
    whole = talk(["u:a", "a:b", "u:c"], ["a:d"])
    assert rows(db, "SELECT base_meaning, output_meaning FROM spans WHERE seq = 2") == [
        (talk(["u:a"], ["a:b"]).output_meaning, whole.output_meaning)
    ]


async def test_a_trace_of_many_calls_joins_with_all_that_they_said(db: Database) -> None:
    say(db, 1, ASKED, "a:hi", trace=9)
    say(db, 2, ["u:apart"], "a:indeed", trace=9)
    say(db, 3, ["u:apart", "a:indeed", "u:more"], "a:yes")
    assert await session_of(db, 9) == (f"auto_{trace_id(9).hex()}", "continuation")
    assert rows(db, "SELECT COUNT(DISTINCT session_key) FROM mentions") == [(1,)]
    assert await check(db, text_of) == []


async def test_calls_of_one_batch_find_each_other(db: Database) -> None:
    first = spoken(start(1), ASKED, ["a:hi"])
    second = spoken(start(2), [*ASKED, "a:hi", "u:more"], ["a:yes"])
    third = spoken(start(3), [*ASKED, "a:hi", "u:more", "a:yes", "u:3"], ["a:no"])
    write(db, [first, second, third])
    assert (await session(db, FIRST_TRACE)).trace_count == 3
    assert fresh(db) == [1, 1, 1]


async def test_of_retries_one_brings_what_all_of_them_ask(db: Database) -> None:
    turn = [*ASKED, "a:hi", "u:more"]
    say(db, 1, ASKED, "a:hi", session_id="s")
    for n in (2, 3, 4):
        say(db, n, turn, f"a:{n}", session_id="s")
    assert fresh(db) == [1, 1, 0, 0]
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(2), text_of)
    assert fresh(db) == [1, 1, 0]
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(1), text_of)
    assert fresh(db) == [3, 0]
    assert await check(db, text_of) == []


async def test_a_call_goes_on_elsewhere_when_the_turn_before_it_is_deleted(
    db: Database,
) -> None:
    said = list(ASKED)
    for n in (1, 2, 3):
        say(db, n, said, f"a:{n}", session_id="s")
        said += [f"a:{n};1", f"u:{n}"]
    assert fresh(db) == [1, 1, 1]
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(2), text_of)
    assert fresh(db) == [1, 3]
    assert await check(db, text_of) == []


async def test_two_hundred_conversations_that_begin_alike_are_two_hundred_sessions(
    db: Database,
) -> None:
    said = {who: list(ASKED) for who in range(200)}
    for turn in range(5):
        calls = []
        for who, asked in said.items():
            begun = start(1 + turn * 200 + who, started_at_us=T0 + turn * 200 + who)
            calls.append(spoken(begun, asked, [f"a:{who}"]))
            said[who] = [*asked, f"a:{who};1" if who % 2 else f"a:{who}", "u:go on"]
        write(db, calls)
    assert rows(db, "SELECT trace_count, COUNT(*) FROM sessions GROUP BY 1") == [(5, 200)]
    assert rows(db, "SELECT COUNT(*) FROM traces WHERE session_id IS NULL") == [(0,)]


async def test_conversations_that_are_alike_to_the_last_word_are_never_put_together(
    db: Database,
) -> None:
    asked = list(ASKED)
    for turn in range(3):
        write(db, [spoken(start(1 + turn * 20 + n), asked, ["a:same"]) for n in range(20)])
        asked += ["a:same", "u:go on"]
    assert rows(db, "SELECT COUNT(*) FROM sessions") == [(0,)]


async def test_a_call_without_words_is_in_no_session(db: Database) -> None:
    write(db, [end(start(1)), end(start(2))])
    assert await session_of(db, 2) == (None, None)


@pytest.mark.sqlite_only("counts what SQLite's own machine does")
async def test_to_find_what_a_call_goes_on_from_takes_as_long_in_a_large_project(
    db: Database,
) -> None:
    def steps() -> int:
        counted: list[None] = []
        db._writer.set_progress_handler(lambda: counted.append(None), 1)
        params = {"project_id": 1, "meaning": b"none", "caller": None, "limit": 3}
        assert rows(db, FIND_EXTENDED, **params) == []
        db._writer.set_progress_handler(None, 0)
        return len(counted)

    say(db, 1, ASKED, "a:1")
    small = steps()
    write(db, [spoken(start(n), [f"u:{n}"], ["a:1"]) for n in range(2, 102)])
    assert steps() <= small + 10
