"""The grammar of the search language: what is accepted, what it means, where it is wrong."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.clauses import STATUSES, Amount, Name, Rows, Starred, Time, Words
from storage.search import KEYS, MAX_CHARS, MAX_CLAUSES, MAX_WORDS, SearchError, parse

DAY_US = 86_400_000_000


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("", ()),
        ("  ", ()),
        ("weather", (Words("weather"),)),
        (' weather  in "New York" ', (Words("weather"), Words("in"), Words("New York"))),
        ('a"b c"d', (Words("a"), Words("b c"), Words("d"))),
        ('"" " " x', (Words("x"),)),
        ("-no", (Words("no", negated=True),)),
        ('-"no way"', (Words("no way", negated=True),)),
        ("a - b -- c", (Words("a"), Words("-"), Words("b"), Words("-", negated=True), Words("c"))),
        ("12:30 c++ a-b", (Words("12:30"), Words("c++"), Words("a-b"))),
        ("http://host:80/a?b", (Words("http://host:80/a?b"),)),
        ('"model:gpt" "say \\"hi\\" \\\\ \\n"', (Words("model:gpt"), Words('say "hi" \\ \\n'))),
        ("日本 élan", (Words("日本"), Words("élan"))),
        ("input:hello", (Words("hello", "input"),)),
        ('-output:"rate limit"', (Words("rate limit", "output", negated=True),)),
        ("session:sess_abc123", (Name("session", "sess_abc123"),)),
        ("session:user_123:conv_456", (Name("session", "user_123:conv_456"),)),
        ("session:sess*", (Name("session", "sess", prefix=True),)),
        ('session:"a b"*', (Name("session", "a b", prefix=True),)),
        ('session:"a*"', (Name("session", "a*"),)),
        ('session:""', (Name("session", ""),)),
        ("session:*", (Name("session", "", prefix=True),)),
        ("MODEL:GPT-5", (Name("model", "GPT-5"),)),
        ('-model:"gpt 5"', (Name("model", "gpt 5", negated=True),)),
        ("status:failed", (Name("status", "failed"),)),
        ("cost:>0.50", (Amount("cost", ">", 500_000_000),)),
        ("cost:0.5", (Amount("cost", "=", 500_000_000),)),
        ("cost:<=.5", (Amount("cost", "<=", 500_000_000),)),
        ("tokens:>10000", (Amount("tokens", ">", 10_000),)),
        ("tokens:>=10k", (Amount("tokens", ">=", 10_000),)),
        ("tokens:1k..2M", (Amount("tokens", "..", 1_000, 2_000_000),)),
        ("cost:.1...2", (Amount("cost", "..", 100_000_000, 200_000_000),)),
        ("duration:<30s", (Amount("duration", "<", 30_000_000),)),
        ("-errors:0", (Amount("errors", "=", 0, negated=True),)),
        ("starred:true", (Starred(True),)),
        ("since:24h", (Time("since", DAY_US, ago=True),)),
        ("until:7d", (Time("until", 7 * DAY_US, ago=True),)),
        ("since:1970-01-02", (Time("since", DAY_US),)),
        ("since:1970-01-01T01:00:00.5+01:00", (Time("since", 500_000),)),
        ("since:1970-01-01T00:00:01Z", (Time("since", 1_000_000),)),
    ],
)
def test_a_query_is_its_conditions(text: str, conditions: tuple[Any, ...]) -> None:
    assert parse(text).conditions == conditions


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("a modle:gpt-5", 2, "one of the keys session, model,"),
        ("-foo:bar", 1, "or quotes round a text, not 'foo'"),
        ("error: timeout", 0, "quotes round a text"),
        ('a "b', 2, "a closing quote"),
        ('a "b" "', 6, "a closing quote"),
        ('session:"a', 8, "a closing quote"),
        ("cost:", 5, "USD such as"),
        ("cost: 5", 5, "USD such as"),
        ("cost:x", 5, "USD such as 0.50, >0.5, or 0.1..2, not 'x'"),
        ("cost:>", 5, "USD"),
        ("cost:=1", 5, "USD"),
        ("cost:-1", 5, "USD"),
        ("cost:1..", 5, "USD"),
        ("cost:..1", 5, "USD"),
        ("cost:1..2..3", 5, "USD"),
        ("tokens:1.5", 7, "a whole number"),
        ("tokens:10d", 7, "a whole number"),
        ("tokens:2..1", 7, "a range from a smaller number to a larger"),
        ("tokens:>1..2", 7, "a range from a smaller"),
        ('tokens:"1"*', 7, "a whole number"),
        ("duration:5w", 9, "milliseconds"),
        ("status:broken", 7, "one of running, completed, failed, cancelled, not 'broken'"),
        ("status:interrupted", 7, "one of running"),
        ("starred:yes", 8, "true or false"),
        ("since:yesterday", 6, "a time such as 5m"),
        ("since:5", 6, "a time"),
        ("since:2026-13-01", 6, "a time"),
        ("since:0001-01-01T00:00+14:00", 6, "a time"),
        ('input:""', 6, "a word"),
        ('input:"a"*', 6, "a word"),
        ("a" * (MAX_CHARS + 1), MAX_CHARS, "at most 2000 characters"),
        ("cost:1 " * (MAX_CLAUSES + 1), 7 * MAX_CLAUSES, "at most 50 clauses"),
        ("x " * (MAX_WORDS + 1), 2 * MAX_WORDS, "at most 32 words and phrases"),
    ],
)
def test_a_mistake_says_where_it_is_and_what_was_expected(
    text: str, position: int, expected: str
) -> None:
    with pytest.raises(SearchError) as raised:
        parse(text)
    assert raised.value.position == position
    assert expected in str(raised.value)
    assert str(raised.value).startswith(f"position {position}: expected ")


@pytest.mark.parametrize(
    ("text", "rows", "expected"),
    [
        ("traces:>1", "traces", "a key that traces have; traces: is one of sessions"),
        ("spans:>1", "spans", "a key that spans have; spans: is one of sessions and traces"),
        ("starred:true", "traces", "is one of sessions"),
        ("source:header", "spans", "is one of sessions and traces"),
    ],
)
def test_a_key_that_rows_do_not_have_is_a_mistake(text: str, rows: Rows, expected: str) -> None:
    with pytest.raises(SearchError, match=expected):
        parse(text, rows)


def test_spans_have_states_that_traces_have_not() -> None:
    assert parse("status:truncated", "spans").conditions == (Name("status", "truncated"),)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ('  COST:>0.50   "word" "two words" ', 'cost:>0.5 word "two words"'),
        ('"-x" "a:b" "http://x" -y', '"-x" "a:b" http://x -y'),
        ('input:"//x" session:"a*"', 'input:"//x" session:"a*"'),
        (
            'session:"plain" session:"a*" session:"a b"*',
            'session:plain session:"a*" session:"a b"*',
        ),
        ("tokens:10k..2M duration:90000", "tokens:10000..2000000 duration:90s"),
        ("since:48h until:2026-01-31", "since:2d until:2026-01-31T00:00:00Z"),
    ],
)
def test_a_query_has_one_form(text: str, printed: str) -> None:
    assert str(parse(text)) == printed


PIECES = st.sampled_from(
    [
        *(f"{key}:" for key in KEYS),
        *(
            "-",
            ":",
            '"',
            "\\",
            "*",
            "..",
            ">",
            "<",
            ">=",
            "<=",
            " ",
            "\n",
            "\u3000",
            "0.5",
            "10k",
            "1",
        ),
        *(
            "5m",
            "2M",
            "7d",
            "true",
            "failed",
            "2026-01-01",
            "2026-01-01T10:00:00.123456+02:00",
            "a",
        ),
        *("http://", "word", "é", "\ud800", "\0", "x:y"),
    ]
)
QUERIES = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=12).map("".join))


@settings(deadline=None)
@given(QUERIES, st.sampled_from(sorted(STATUSES)))
def test_what_is_accepted_prints_itself_and_is_read_as_the_same(text: str, rows: Rows) -> None:
    try:
        query = parse(text, rows)
    except SearchError as error:
        position = error.position
    else:
        position = 0
        assert parse(str(query), rows) == query
        assert str(parse(str(query), rows)) == str(query)
    assert 0 <= position <= len(text)
