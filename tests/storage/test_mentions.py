"""Which sessions have which messages, and which messages have words in full text."""

from storage.database import Database
from storage.forget import delete_session, delete_trace
from storage.fulltext import index
from tests.storage.calls import found, rows, spoken, start, text_of, trace_id, write

ASKED = ["s:be brief", "u:hello"]


def said_in(db: Database) -> list[list[str]]:
    """Give what each session mentions, the sessions in the order of their first call."""
    found: dict[int, list[str]] = {}
    for key, data in rows(
        db,
        "SELECT m.session_key, c.data FROM mentions m JOIN contents c ON c.id = m.content_id "
        "ORDER BY m.span_seq, c.id",
    ):
        found.setdefault(key, []).append(data.decode().split('"')[3])
    return list(found.values())


def words(db: Database) -> int:
    """Count the rows of full text, after those that wait for it are in it."""
    with db.transaction() as tx:
        index(tx, 1_000, text_of)
    return found(db)


async def test_a_session_mentions_each_message_once_with_the_call_that_brought_it(
    db: Database,
) -> None:
    write(db, [spoken(start(1, session_id="s"), ASKED, ["a:hi"])])
    write(db, [spoken(start(2, session_id="s"), [*ASKED, "a:hi;1", "u:2"], ["a:yes"])])
    assert said_in(db) == [["s:be brief", "u:hello", "a:hi", "u:2", "a:yes"]]
    assert rows(db, "SELECT span_seq, COUNT(*) FROM mentions GROUP BY 1 ORDER BY 1") == [
        (1, 3),
        (2, 2),
    ]


async def test_words_are_indexed_once_however_many_sessions_say_them(db: Database) -> None:
    for n in (1, 2, 3):
        write(db, [spoken(start(n, session_id=f"s{n}"), ASKED, ["a:hi"])])
    assert (len(said_in(db)), words(db)) == (3, 3)
    for n in (1, 2):
        with db.transaction() as tx:
            delete_session(tx, 1, f"s{n}", text_of)
        assert words(db) == 3
    with db.transaction() as tx:
        delete_session(tx, 1, "s3", text_of)
    assert words(db) == 0


async def test_a_trace_without_a_session_takes_its_messages_along_when_it_joins_one(
    db: Database,
) -> None:
    write(db, [spoken(start(1), ASKED, ["a:hi"])])
    write(db, [spoken(start(2, trace=1, session_id="s"), ["u:x"], ["a:y"])])
    assert said_in(db) == [["s:be brief", "u:hello", "a:hi", "u:x", "a:y"]]
    assert words(db) == 5


async def test_what_another_call_of_the_session_brought_too_stays_when_one_is_deleted(
    db: Database,
) -> None:
    write(db, [spoken(start(1, session_id="s"), ASKED, ["a:hi"])])
    write(db, [spoken(start(2, session_id="s"), [*ASKED, "u:other"], ["a:hi"])])
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(1), text_of)
    assert said_in(db) == [["s:be brief", "u:hello", "a:hi", "u:other"]]
    assert rows(db, "SELECT DISTINCT span_seq FROM mentions") == [(2,)]
    assert words(db) == 4


async def test_words_that_a_deletion_makes_new_are_found(db: Database) -> None:
    write(db, [spoken(start(1, session_id="s"), ASKED, ["a:hi"])])
    # The answer in other bytes is no message of its own as long as the first is there.
    write(db, [spoken(start(2, session_id="s"), [*ASKED, "a:hi;1", "u:2"], ["a:yes"])])
    assert words(db) == 5
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(1), text_of)
    assert said_in(db) == [["s:be brief", "u:hello", "a:hi;1", "u:2", "a:yes"]]
    assert words(db) == 5
