"""What SQL finds is what plain Python finds, whatever is asked; and no value is ever SQL."""

import asyncio
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import fulltext, listing
from storage.clauses import STATUSES, Alone, Holds, Ids, Name, Query, Rows
from storage.conditions import LOOKS_BACK_US, where
from storage.database import Database
from storage.fulltext import Match
from storage.listing import Order
from storage.search import KEYS, parse
from tests.databases import opened
from tests.storage.calls import T0, end, span_id, spoken, start, trace_id, unknown_usage, write
from tests.storage.mixed import LISTS, MODELS, NOW_US, SESSIONS, TAGS, WORDS, world

NAMES: dict[str, tuple[str | None, ...]] = {
    "session": (*SESSIONS, "nobody", ""),
    "model": (*MODELS, "gpt"),
    "provider": ("openai", "other", "open"),
    "user": ("u1", "U1", "u"),
    "source": ("header", "head"),
    "kind": ("llm_call", "custom", "reranker", "Rerank", "retrieval", "re"),
    "tag": TAGS,
}
FIGURES = {
    "cost": ("0", "0.0000001", "0.5", "2", "2.5"),
    "tokens": ("0", "5", "10", "15", "2k", "2300"),
    "input_tokens": ("0", "10", "20", "2k"),
    "output_tokens": ("0", "5", "300"),
    "duration": ("0", "0.001", "500", "90m", "3h"),
    "traces": ("1", "5", "9"),
    "spans": ("1", "2", "10"),
    "errors": ("0", "1", "3"),
}
TIMES = ("0s", "1h", "90m", "5h", "10h", "20d", "2023-11-14T23:03:20Z", "2023-11-15")


@st.composite
def clauses(draw: st.DrawFn, rows: Rows) -> str:
    key = draw(st.sampled_from(["", *(k for k, v in KEYS.items() if rows in v.rows)]))
    sign = draw(st.sampled_from(["", "", "-"]))
    if key in FIGURES:
        values = FIGURES[key]
        one = st.sampled_from(values)
        compared = st.builds("{}{}".format, st.sampled_from(["", ">", "<", ">=", "<="]), one)
        pair = st.tuples(st.integers(0, len(values) - 1), st.integers(0, len(values) - 1))
        ranges = pair.map(lambda p: f"{values[min(p)]}..{values[max(p)]}")
        value = draw(st.one_of(compared, ranges))
    elif key in NAMES:
        name = draw(st.sampled_from([name for name in NAMES[key] if name is not None]))
        cut = draw(st.integers(0, len(name)))
        value = draw(st.sampled_from([_quoted(name), f"{_quoted(name[:cut])}*"]))
    elif key == "status":
        value = draw(st.sampled_from(STATUSES[rows]))
    elif key == "starred":
        value = draw(st.sampled_from(["true", "false"]))
    elif key in ("since", "until"):
        value = draw(st.sampled_from(TIMES))
    else:
        words = st.lists(st.sampled_from([*WORDS, "n3", "m7", "nobody"]), min_size=1, max_size=2)
        value = f'"{" ".join(draw(words))}"'
    return f"{sign}{key}:{value}" if key else f"{sign}{value}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def queries(draw: st.DrawFn) -> Query:
    rows = draw(st.sampled_from(sorted(LISTS)))
    texts = draw(st.lists(clauses(rows), min_size=1, max_size=3))
    return parse(" ".join(texts), rows)


async def found(db: Database, query: Query) -> list[int]:
    page = await LISTS[query.rows](db, 1, 1000, query=query, now_us=NOW_US)
    assert page.next_after is None
    return sorted(row.seq for row in page.rows)


async def check(folder: Path, seed: int, asked: list[Query]) -> None:
    """Ask all of it in a database of its own."""
    db = opened(folder / "traceway.db")
    try:
        here = await world(db, seed)
        for query in asked:
            expected = sorted(row.seq for row in here.found(query))
            assert await found(db, query) == expected, str(query)
    finally:
        await db.close()


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 20), st.lists(queries(), min_size=20, max_size=60), st.booleans())
def test_a_query_finds_the_rows_that_fulfil_it_and_no_others(
    seed: int, asked: list[Query], are_few: bool
) -> None:
    # Words of few hits are looked up in another way than those of many.
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(fulltext, "FEW", 5_000 if are_few else -1),
    ):
        asyncio.run(check(Path(folder), seed, asked))


@pytest.mark.parametrize("rows", sorted(LISTS))
@pytest.mark.parametrize("key", sorted(KEYS))
async def test_each_key_finds_rows_and_its_negation_all_others(
    db: Database, rows: Rows, key: str
) -> None:
    if rows not in KEYS[key].rows:
        return
    here = await world(db, 1)
    values = {
        **{"session": "a", "model": "gpt-5", "provider": "other", "user": "u1", "source": "h*"},
        **{"cost": ">0.1", "tokens": ">100", "input_tokens": ">9", "output_tokens": ">10"},
        **{"duration": ">1h", "traces": ">8", "spans": ">1", "errors": ">2", "status": "completed"},
        **{"since": "3h", "until": "3h", "starred": "true", "input": "alpha", "output": "alpha"},
        **{"kind": "retrieval", "tag": "a"},
    }
    if rows != "sessions":
        values["errors"] = ">0"
    query = parse(f"{key}:{values[key]}", rows)
    expected = sorted(row.seq for row in here.found(query))
    others = sorted({row.seq for row in here.rows[rows]} - set(expected))
    assert expected
    assert await found(db, query) == expected
    assert await found(db, parse(f"-{query}", rows)) == others


async def test_what_is_unknown_fulfils_no_condition_and_every_negation(db: Database) -> None:
    write(db, [unknown_usage(end(start(1, session_id="s"))), start(2, session_id="t")])
    for text in ("cost:>=0", "cost:<5", "tokens:0", "user:*", "-cost:>=0 cost:0"):
        assert await found(db, parse(text)) == [], text
    for text in ("-cost:>=0", "-cost:<5", "-tokens:0", "-user:*", "-provider:*"):
        assert await found(db, parse(text)) == [1, 2], text
    # A session that was there before its number was has no messages.
    with db.transaction() as tx:
        tx.execute("UPDATE sessions SET session_key = NULL", {})
    assert await found(db, parse("-word")) == [1, 2]


async def test_words_that_no_message_can_have_are_passed_over_beside_others(
    db: Database,
) -> None:
    write(db, [spoken(start(1, session_id="s"), ["u:a -- b"])])
    assert await found(db, parse("a -- b")) == [1]
    assert await found(db, parse("-- a -..")) == [1]
    assert await found(db, parse("--")) == [1]  # not "-"
    for text in ("...", "session:s ...", "... -c"):
        assert await found(db, parse(text)) == [], text


async def test_a_side_is_what_was_sent_or_what_was_answered(db: Database) -> None:
    write(db, [spoken(start(1, session_id="s"), ["s:be brief", "u:question"], ["a:answer"])])
    for text in ("brief", "question", "answer", "input:brief", "input:question", "output:answer"):
        assert await found(db, parse(text)) == [1], text
    for text in ("output:question", "input:answer", '"question answer"'):
        assert await found(db, parse(text)) == [], text


async def test_a_call_is_found_by_what_it_brought_and_not_by_what_it_sent_again(
    db: Database,
) -> None:
    first = spoken(start(1, session_id="s"), ["u:one"], ["a:two"])
    write(db, [first])
    write(db, [spoken(start(2, session_id="s"), ["u:one", "a:two", "u:three"], ["a:four"])])
    for rows in ("traces", "spans"):
        assert [await found(db, parse(w, rows)) for w in ("one", "two")] == [[1], [1]]
        assert [await found(db, parse(w, rows)) for w in ("three", "four")] == [[2], [2]]
    assert await found(db, parse("one four")) == [1]
    assert await found(db, parse("one four", "traces")) == []


async def test_a_name_is_compared_as_it_is(db: Database) -> None:
    names = ["a%b", "a_b", "axb", "A%B", "a'b", "a\\b", "a*", "é", "a%"]
    write(db, [end(start(n, session_id=name)) for n, name in enumerate(names, 1)])
    for n, name in enumerate(names, 1):
        assert await found(db, Query("sessions", (Name("session", name),))) == [n]
    assert await found(db, parse("session:a%*")) == [1, 9]
    assert await found(db, parse("session:a_*")) == [2]
    assert await found(db, Query("sessions", (Name("session", "\ud800"),))) == []


async def test_since_looks_back_an_hour_for_what_is_active_later(db: Database) -> None:
    hour_us = LOOKS_BACK_US
    now_us = T0 + 10 * hour_us
    starts = [8.5, 8.0, 7.99, 9.5]
    write(
        db,
        [
            end(
                start(n, session_id=f"s{n}", started_at_us=T0 + int(hours * hour_us)),
                duration_us=2 * hour_us,
            )
            for n, hours in enumerate(starts, 1)
        ],
    )
    write(db, [start(5, session_id="s5", started_at_us=T0 + 8 * hour_us)])
    write(db, [start(6, session_id="s6", started_at_us=T0 + 7 * hour_us)])
    for rows in LISTS:
        page = await LISTS[rows](db, 1, 10, query=parse("since:1h", rows), now_us=now_us)
        assert sorted(row.seq for row in page.rows) == [1, 2, 4, 5]


async def test_projects_do_not_find_each_other(db: Database) -> None:
    # Two projects may use the same ids.
    for project, said in ((1, "word"), (2, "word secret")):
        write(db, [spoken(start(1, session_id="s", project_id=project), [f"u:{said}"])])
    write(db, [spoken(start(3, session_id="t", project_id=2), ["u:word"])])
    for rows in LISTS:
        for text in ("word", "session:s", "session:s word", "model:gpt-5", "since:100000d"):
            page = await LISTS[rows](db, 1, 10, query=parse(text, rows), now_us=NOW_US)
            assert [row.project_id for row in page.rows] == [1], (rows, text)
        assert await found(db, parse("secret", rows)) == []


async def test_rows_are_found_by_their_ids_as_far_as_they_fulfil_the_rest(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT", 1)  # however many rows are newer
    write(db, [end(start(n, session_id="s")) for n in range(1, 6)])
    write(db, [spoken(start(9, project_id=2), ["u:word"])])
    for rows, name in (("traces", trace_id), ("spans", span_id)):
        one_of = Ids(tuple(name(n) for n in (1, 4, 9)))
        assert await found(db, Query(rows, (one_of,))) == [1, 4]
        assert await found(db, Query(rows, (Name("model", "gpt-5"), one_of))) == [1, 4]
        assert await found(db, Query(rows, (Name("model", "gpt-6"), one_of))) == []


async def test_traces_of_no_session_are_found(db: Database) -> None:
    write(db, [end(start(1)), end(start(2, session_id="s")), end(start(3))])
    write(db, [end(start(4, project_id=2))])
    assert await found(db, Query("traces", (Alone(),))) == [1, 3]
    assert await found(db, Query("traces", (Alone(), Name("model", "gpt-6")))) == []


async def test_spans_are_found_by_a_part_of_their_name_in_any_case(db: Database) -> None:
    names = ["Search docs", "SEARCH", "re-search%", "sea_rch", "Größe", ""]
    write(db, [end(start(n, name=name)) for n, name in enumerate(names, 1)])
    write(db, [end(start(9, name="search", project_id=2))])
    for text, expected in (
        *(("search", [1, 2, 3]), ("SEARCH D", [1]), ("%", [3]), ("_", [4]), ("ß", [5])),
        *(("x", []), ("\ud800", [])),
    ):
        assert await found(db, Query("spans", (Holds(text),))) == expected, text


async def test_spans_are_found_by_their_trace_however_many_are_newer(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT", 1)
    write(db, [end(start(n, trace=n % 2 + 1)) for n in range(1, 7)])
    write(db, [end(start(9, trace=1, project_id=2))])
    of_trace = Ids((trace_id(1),), "trace")
    assert await found(db, Query("spans", (of_trace,))) == [2, 4, 6]
    assert await found(db, Query("spans", (of_trace, Name("model", "gpt-6")))) == []
    by_cost = Order("cost", descending=False)
    page = await listing.list_outlines(db, 1, 9, query=Query("spans", (of_trace,)), order=by_cost)
    assert [row.seq for row in page.rows] == [2, 4, 6]


def test_no_value_is_part_of_the_sql() -> None:
    texts: dict[str, set[str]] = {}
    for value in ("x'; DROP TABLE sessions; --", "another", ":q0", "{x}", "%s"):
        names = " ".join(
            f'{key}:"{value}"' for key in ("session", "model", "user", "source", "kind")
        )
        names += f' tag:"{value}" -tag:"{value}"*'
        query = parse(f'"{value}" -input:"{value}" {names} provider:"{value}"*', "sessions")
        match = Match("text : found", 1, "SELECT content_id FROM found WHERE :{term}", is_few=True)
        made = where(query, 0, {value: match})
        texts[value] = {made.sql}
        assert value in made.params.values()
    assert len(set.union(*texts.values())) == 1
