"""Words are cut as SQLite cuts them, and what is found by them is what it finds."""

# ruff: noqa: RUF001 (letters that look alike are what is tested)

import sqlite3

import pytest

from storage.tsvector import MAX_PLACES, search, words_of
from storage.tsvector import TSVECTOR as FULL_TEXT

TEXTS = (
    "Hello, world! it's 3.14 or 1e5, a.b/c x-y me@host.example",
    "École naïve Ångström Śląsk Ởǟ façade İstanbul ſtraße STRASSE",
    "Ελληνικά Άρης ς σ ΟΔΟΣ Привет ЙОД ё",
    "漢字かな カナ 한국어 العربية हिन्दी",
    'e\u0301cole nai\u0308ve a_b __c__ tab\tline\nquote\'quote back\\slash "double" ² ½ ⅷ',
)


@pytest.mark.parametrize("text", TEXTS)
def test_words_are_those_of_sqlite(text: str) -> None:
    with sqlite3.connect(":memory:") as file:
        file.execute(
            "CREATE VIRTUAL TABLE t USING fts5(x, tokenize = 'unicode61 remove_diacritics 2')"
        )
        file.execute("CREATE VIRTUAL TABLE v USING fts5vocab(t, 'row')")
        file.execute("INSERT INTO t VALUES (?)", (text,))
        words = {word for (word,) in file.execute("SELECT term FROM v")}
    file.close()
    assert {word for word in words_of(text) if word} == words


def test_a_text_has_its_words_with_their_places_and_that_of_its_project() -> None:
    assert FULL_TEXT.words(7, "To be, or not to be") == {
        "words": "'p 7' 'to':1,5 'be':2,6 'or':3 'not':4"
    }


def test_what_the_index_takes_for_its_language_is_only_words() -> None:
    assert search(None, "it's a & !b | (c:*)") == "'it' <-> 's' <-> 'a' <-> 'b' <-> 'c'"
    assert search(1, "a") == "'p 1' & 'a'"
    assert search(1, None) == "'p 1'"
    assert search(1, "'\\&") == ""


def test_a_very_long_text_is_within_what_the_database_takes() -> None:
    text = " ".join(f"word{n}" for n in range(200_000)) + " the" * 1_000 + " " + "x" * 5_000
    words = str(FULL_TEXT.words(1, text)["words"])
    assert len(words) < 1_500_000
    often = str(FULL_TEXT.words(1, "the " * 1_000)["words"])
    assert often.count(",") == MAX_PLACES - 1
    (long,) = str(FULL_TEXT.words(1, "é" * 5_000)["words"]).split(" ", 2)[2:]
    assert len(long.encode()) < 1_100
