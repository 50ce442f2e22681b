"""What is offered to somebody who types a query: keys, values that were seen, and nothing else."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.clauses import Rows
from storage.database import Database
from storage.search import KEYS, parse
from storage.suggest import MAX_SUGGESTIONS, suggest
from tests.storage.calls import end, start, trace_id, write

PIECES = st.sampled_from([*'ab:-*"\\ \n>é', "session:", "model:", "cost:"])
QUERIES = st.lists(PIECES, max_size=10).map("".join)


async def texts(db: Database, query: str, rows: Rows = "sessions") -> list[str]:
    found = await suggest(db, 1, query, len(query), rows)
    return [one.text for one in found.suggestions]


async def test_an_empty_place_is_offered_every_key_with_its_meaning(db: Database) -> None:
    for query in ("", "cost:>1 ", 'a "b c" '):
        found = await suggest(db, 1, query, len(query), "sessions")
        assert [one.text for one in found.suggestions] == [f"{key}:" for key in KEYS]
        assert all(one.meaning for one in found.suggestions)
        assert (found.start, found.end) == (len(query), len(query))


async def test_a_key_is_completed_for_rows_that_have_it(db: Database) -> None:
    assert await texts(db, "in") == ["input_tokens:", "input:"]
    assert await texts(db, "hi -MOD") == ["-model:"]
    assert await texts(db, "st", "traces") == ["status:"]
    assert await texts(db, "st") == ["status:", "starred:"]
    assert await texts(db, '"st') == []
    assert await texts(db, "nokey:") == []
    assert await texts(db, "starred:", "traces") == []


async def test_a_value_is_completed_from_what_was_seen(db: Database) -> None:
    write(
        db,
        [
            end(start(1, session_id="a b", user_id="u1", provider="openai"), model="gpt-5"),
            end(start(2, session_id="ac", user_id="u2", provider="other"), model="gpt-4o"),
            end(start(3, session_id="b", provider="openai"), model="o4"),
            end(start(4, project_id=2, session_id="ax", user_id="u9"), model="gpt-6"),
        ],
    )
    assert await texts(db, "model:gpt") == ["model:gpt-4o", "model:gpt-5"]
    assert await texts(db, "-model:o") == ["-model:o4"]
    assert await texts(db, "provider:") == ["provider:openai", "provider:other"]
    assert await texts(db, "user:u") == ["user:u1", "user:u2"]
    assert await texts(db, "session:a") == ['session:"a b"', "session:ac"]
    assert await texts(db, 'session:"a ') == ['session:"a b"']
    assert await texts(db, "source:") == ["source:header"]
    assert await texts(db, "session:zz") == []


async def test_kinds_and_tags_are_completed_from_what_applications_told(
    db: Database,
) -> None:
    write(db, [end(start(n)) for n in (1, 2, 3)])
    write(db, [end(start(4, project_id=2))])
    with db.transaction() as tx:
        tx.execute("UPDATE spans SET kind = 'custom', label = 'reranker' WHERE seq = 1", {})
        tx.execute("UPDATE spans SET kind = 'retrieval' WHERE seq = 2", {})
        for seq, tags in ((1, '["beta","a b"]'), (2, '["beta"]'), (4, '["bravo"]')):
            sql = "UPDATE traces SET tags = :tags WHERE project_id = :p AND trace_id = :t"
            project = 2 if seq == 4 else 1
            tx.execute(sql, {"tags": tags, "p": project, "t": trace_id(seq)})
    assert await texts(db, "kind:") == ["kind:llm_call", "kind:reranker", "kind:retrieval"]
    assert await texts(db, "tag:", "traces") == ['tag:"a b"', "tag:beta"]
    assert await texts(db, "-tag:b", "spans") == ["-tag:beta"]


async def test_what_cannot_be_seen_is_offered_by_example(db: Database) -> None:
    assert await texts(db, "status:f") == ["status:failed"]
    assert await texts(db, "status:t", "spans") == ["status:truncated"]
    assert await texts(db, "since:") == ["since:5m", "since:1h", "since:24h", "since:7d"]
    assert await texts(db, "starred:t") == ["starred:true"]


async def test_the_whole_clause_round_the_cursor_is_replaced(db: Database) -> None:
    found = await suggest(db, 1, "a status:comp b", 12, "sessions")
    assert (found.start, found.end) == (2, 13)
    assert [one.text for one in found.suggestions] == ["status:completed"]


async def test_so_many_are_offered_at_most(db: Database) -> None:
    write(db, [end(start(n, session_id=f"s{n:03}", user_id=f"u{n:03}")) for n in range(50)])
    for key in ("session", "user"):
        assert len(await texts(db, f"{key}:")) == MAX_SUGGESTIONS


@pytest.mark.parametrize("rows", ["sessions", "traces", "spans"])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=QUERIES)
async def test_any_place_of_any_text_is_completed(db: Database, rows: Rows, query: str) -> None:
    for at in range(len(query) + 1):
        found = await suggest(db, 1, query, at, rows)
        assert 0 <= found.start <= at <= found.end <= len(query)
        for one in found.suggestions:
            assert one.text.endswith(":") or parse(one.text, rows)
