"""Sessions are found by the words of their messages, and by nothing else in a search."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import fulltext
from storage.clauses import Query, Words
from storage.database import Database
from storage.forget import delete_session
from storage.fts5 import quoted
from storage.fulltext import look_up
from storage.listing import list_sessions
from storage.records import Page, Session
from tests.storage.calls import end, spoken, start, text_of, write


async def sessions_with(
    db: Database, *terms: str, limit: int = 100, after: tuple[int, int] | None = None
) -> Page[Session]:
    query = Query("sessions", tuple(map(Words, terms)))
    return await list_sessions(db, 1, limit, after, query=query)


async def names(db: Database, *terms: str) -> list[str]:
    return [one.session_id for one in (await sessions_with(db, *terms)).rows]


def say(db: Database, n: int, session: str, *asked: str, project: int = 1) -> None:
    begun = start(n, session_id=session, project_id=project)
    write(db, [spoken(begun, [f"u:{words}" for words in asked], ["a:ok"])])


async def test_a_session_has_every_word_in_some_message_and_a_phrase_in_one(
    db: Database,
) -> None:
    say(db, 1, "s", "the quick brown fox", "jumps over")
    say(db, 2, "t", "brown quick")
    assert await names(db, "quick", "brown") == ["t", "s"]
    assert await names(db, "quick", "jumps") == ["s"]
    assert await names(db, "quick brown") == ["s"]
    assert await names(db, "fox jumps") == []
    assert await names(db, "qui") == []
    assert await names(db, "ok") == ["t", "s"]


async def test_neither_case_nor_accents_count(db: Database) -> None:
    say(db, 1, "s", "Ünï CÖDE")
    assert await names(db, "uni") == await names(db, "ÜNÏ code") == ["s"]


async def test_projects_do_not_find_each_other(db: Database) -> None:
    say(db, 1, "s", "secret", project=2)
    assert await names(db, "secret") == []
    # The word that stands for a project in the index is no word of a message.
    assert await names(db, "p1") == await names(db, "p2") == []


async def test_terms_without_a_letter_or_digit_are_passed_over(db: Database) -> None:
    say(db, 1, "s", "a -- b")
    assert await names(db, "a", "--", "b") == ["s"]
    assert await names(db, "--") == await names(db, "") == []


@pytest.mark.parametrize("term", ["a AND", "NOT b", "text:a", "a*", "^a", "NEAR(a b)", "a'--"])
async def test_what_the_index_takes_for_its_language_is_only_words(db: Database, term: str) -> None:
    say(db, 1, "s", "a b")
    say(db, 2, "t", f"x {term} y")
    assert "t" in await names(db, term)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec=None), max_size=20))
async def test_any_text_is_searched_without_an_error(db: Database, term: str) -> None:
    assert await names(db, term, f'"{term}"') == []


def test_a_quoted_term_is_one_string() -> None:
    assert quoted('say "hi"') == '"say ""hi"""'


async def test_pages_go_on_where_the_last_one_ended(db: Database) -> None:
    for n in range(10):
        say(db, n, f"s{n}", "word" if n % 2 else "other")
    write(db, [end(start(99, session_id="s3"))])
    found: list[str] = []
    after = None
    while True:
        page = await sessions_with(db, "word", limit=2, after=after)
        found += [one.session_id for one in page.rows]
        assert not page.truncated
        if page.next_after is None:
            break
        after = page.next_after
    assert found == ["s3", "s9", "s7", "s5", "s1"]


@pytest.fixture
def three_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fulltext, "MAX_HITS", 3)


@pytest.mark.usefixtures("three_hits")
async def test_of_a_very_common_word_the_newest_messages_are_looked_at(db: Database) -> None:
    for n in range(5):
        say(db, n, f"s{n}", f"word {n}")
    page = await sessions_with(db, "word")
    assert [one.session_id for one in page.rows] == ["s4", "s3", "s2"]
    assert page.truncated
    assert not (await sessions_with(db, "4")).truncated


@pytest.mark.usefixtures("three_hits")
async def test_other_projects_do_not_crowd_out_what_a_project_said(db: Database) -> None:
    say(db, 1, "s", "word")
    for n in range(2, 9):
        say(db, n, "s", f"word {n}", project=2)
    page = await sessions_with(db, "word")
    assert [(one.project_id, one.session_id) for one in page.rows] == [(1, "s")]
    assert not page.truncated
    assert (await look_up(db, 1, "word")).hits == 1


async def test_a_message_of_many_sessions_is_none_of_few(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fulltext, "FEW", 3)
    for n in range(3):
        say(db, n, f"s{n}", "be brief")
    say(db, 8, "s8", "else")
    assert (await look_up(db, 1, "brief")).is_few
    say(db, 9, "s9", "be brief")
    match = await look_up(db, 1, "brief")
    assert (match.hits, match.is_few) == (1, False)
    assert await names(db, "brief") == ["s9", "s2", "s1", "s0"]


async def test_large_messages_come_into_the_index_one_at_a_time(db: Database) -> None:
    for n in range(6):
        write(
            db, [spoken(start(n, session_id="s"), [f"u:word {n} {'x' * 1000}"], [])], indexed=False
        )
    taken = []
    while not taken or taken[-1]:
        with db.transaction() as tx:
            taken.append(fulltext.index(tx, 100, text_of, 2_500))
    assert taken == [2, 2, 2, 0]
    with db.transaction() as tx:
        assert fulltext.index(tx, 100, text_of, 1) == 0
    assert (await look_up(db, 1, "word")).hits == 6


async def test_what_came_later_may_go_on_waiting(db: Database) -> None:
    assert await fulltext.newest_waiting(db) is None
    for n in range(4):
        write(db, [spoken(start(n, session_id="s"), [f"u:w{n}"], [])], indexed=False)
        if n == 1:
            up_to = await fulltext.newest_waiting(db)
    assert up_to is not None
    with db.transaction() as tx:
        assert fulltext.index(tx, 100, text_of, up_to=up_to) == 2
        assert fulltext.index(tx, 100, text_of, up_to=up_to) == 0
        assert fulltext.index(tx, 100, text_of) == 2


SPOIL = "UPDATE contents SET encoding = 'zstd' WHERE id = (SELECT MIN(id) FROM contents)"


async def test_a_damaged_message_keeps_nobody_waiting_and_has_no_words(db: Database) -> None:
    for n in (1, 2):
        call = spoken(start(n, session_id="s"), [f"u:word {n}"], [])
        write(db, [call], indexed=False)
    with db.transaction() as tx:
        tx.execute(SPOIL, {})
    with db.transaction() as tx:
        assert fulltext.index(tx, 100, text_of) == 2
    assert (await look_up(db, 1, "word")).hits == 1
    with db.transaction() as tx:
        delete_session(tx, 1, "s", text_of)
    assert (await look_up(db, 1, "word")).hits == 0
