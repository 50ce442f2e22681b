"""What is looked for in SQLite's index: words and phrases that mean nothing but themselves."""

from storage.fts5 import FTS5, quoted, search


def test_a_search_names_what_is_looked_for_and_where() -> None:
    assert search(None, "a b") == 'text : "a b"'
    assert search(7, "a") == 'scope : "p7" AND text : "a"'
    assert search(7, None) == 'scope : "p7"'


def test_what_the_index_takes_for_its_language_is_quoted() -> None:
    assert quoted('say "x" OR y*') == '"say ""x"" OR y*"'


def test_a_text_goes_by_the_words_that_it_came_with() -> None:
    assert FTS5.words(7, "hello") == {"scope": "p7", "text": "hello"}
    assert FTS5.removes_by_words
