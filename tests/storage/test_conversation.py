"""Each message is stored once, wherever and however often it is sent."""

from typing import Any

import pytest

from storage.conversation import holes_of
from storage.database import Database, StatementRefused
from storage.forget import delete_trace
from tests.storage.calls import rows, spoken, start, stored, text_of, trace_id, write

ASKED = ["s:be brief", "u:hello"]


def count(db: Database, table: str) -> int:
    return int(rows(db, f"SELECT COUNT(*) FROM {table}")[0][0])  # noqa: S608 (names of this file)


async def test_a_message_that_is_sent_again_is_stored_once(db: Database) -> None:
    said = list(ASKED)
    for n in range(1, 21):
        write(db, [spoken(start(n, session_id="s"), said, [f"a:{n}"])])
        said += [f"a:{n}", f"u:{n}"]
    # What instructs, 20 messages of the user, 20 answers; the last turn was not sent again.
    assert (stored(db), count(db, "nodes"), count(db, "messages")) == (41, 41, 41)
    assert rows(db, "SELECT MAX(depth) FROM nodes") == [(41,)]


async def test_an_answer_that_comes_back_in_other_bytes_is_a_message_of_its_own(
    db: Database,
) -> None:
    write(db, [spoken(start(1, session_id="s"), ASKED, ["a:hi"])])
    write(db, [spoken(start(2, session_id="s"), [*ASKED, "a:hi;1", "u:2"], ["a:yes"])])
    assert count(db, "nodes") == 6
    # And is no other message of the session.
    assert count(db, "mentions") == 5


async def test_the_same_text_in_another_place_is_another_node_and_no_other_content(
    db: Database,
) -> None:
    write(db, [spoken(start(1), ["u:a", "u:a", "u:a"])])
    assert (stored(db), count(db, "nodes"), count(db, "mentions")) == (1, 3, 1)


@pytest.mark.parametrize("known", [0, 1, 2, 3, 4])
async def test_a_call_may_give_only_the_messages_that_are_new(db: Database, known: int) -> None:
    write(db, [spoken(start(1, session_id="s"), [*ASKED, "u:b"], ["a:hi"])])
    more = [*ASKED, "u:b", "a:hi", "u:more"]
    write(db, [spoken(start(2, session_id="s"), more, ["a:yes"], known=known)])
    assert rows(db, "SELECT depth FROM nodes ORDER BY id") == [(n,) for n in range(1, 7)]
    assert rows(db, "SELECT fresh_count FROM spans") == [(2,), (1,)]
    assert count(db, "mentions") == 6


async def test_known_messages_belong_to_the_session_that_hears_them_first(
    db: Database,
) -> None:
    write(db, [spoken(start(1, session_id="s"), ASKED, ["a:hi"])])
    write(db, [spoken(start(2, session_id="t"), [*ASKED, "a:hi", "u:b"], ["a:yes"], known=3)])
    sessions = rows(db, "SELECT session_key, COUNT(*) FROM mentions GROUP BY 1 ORDER BY 2")
    assert [n for _, n in sessions] == [3, 5]


async def test_a_call_that_follows_messages_that_are_not_there_is_refused(
    db: Database,
) -> None:
    first = spoken(start(1), ASKED, ["a:hi"])
    second = spoken(start(2), [*ASKED, "a:hi", "u:b"], known=2)
    with pytest.raises(StatementRefused):
        write(db, [second])
    write(db, [first])
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(1), text_of)
    with pytest.raises(StatementRefused):
        write(db, [second])
    assert count(db, "spans") == 0


async def test_a_large_value_in_a_hole_is_stored_once_and_held_by_each_call(
    db: Database,
) -> None:
    for n in (1, 2):
        write(db, [spoken(start(n), ["u:a"], ["a:b"], tools=b'["t"]')])
    ((tools,),) = rows(db, "SELECT id FROM contents WHERE data = :data", data=b'["t"]')
    assert rows(db, "SELECT content_id, span_seq FROM holes") == [(tools, 1), (tools, 2)]
    assert holes_of(rows(db, "SELECT request_envelope FROM spans")[0][0]) == [tools]


async def test_what_a_call_added_is_counted_with_it(db: Database) -> None:
    for n in (1, 2):
        write(db, [spoken(start(n, session_id="s"), ["u:a"], ["a:b"], tools=b'["t"]')])
    envelopes = "length(request_envelope) + length(response_envelope)"
    ((first, own), (second, other)) = rows(
        db,
        f"SELECT stored_bytes, {envelopes} FROM spans ORDER BY seq",  # noqa: S608
    )
    ((contents,),) = rows(db, "SELECT SUM(length(data)) FROM contents")
    assert (first, second) == (own + contents, other)
    ((sent, kept),) = rows(db, "SELECT received_bytes, stored_bytes FROM sessions")
    assert kept == first + second
    assert sent == rows(db, "SELECT SUM(request_size + response_size) FROM spans")[0][0]
    assert rows(db, "SELECT stored_bytes FROM project_totals") == [(kept,)]


@pytest.mark.sqlite_only("looks at the file")
async def test_a_resent_message_takes_at_most_200_bytes_of_the_file(db: Database) -> None:
    def pages() -> int:
        ((used,),) = rows(db, "PRAGMA page_count")
        return int(used) * 4096

    said: list[str] = []
    calls: list[Any] = []
    for n in range(300):
        said += [f"u:{n} {'x' * 40}"]
        calls.append(spoken(start(n, session_id="s"), said[-20:], [f"a:{n}"]))
        said += [f"a:{n}"]
    write(db, calls[:100])
    before, nodes = pages(), count(db, "nodes")
    write(db, calls[100:])
    # All that the calls take, and with it 20 messages again of each.
    assert (pages() - before) / (count(db, "nodes") - nodes) < 200
