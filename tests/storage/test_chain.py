"""The hashes that name the places of a conversation."""

from storage.chain import BEGINNING, HASH_BYTES, extend, meanings, node_hash
from tests.storage.calls import talk


def test_a_node_is_named_by_all_that_stands_before_it_and_in_it() -> None:
    names = [
        node_hash(parent, lead, sha256)
        for parent in (BEGINNING, b"p" * HASH_BYTES)
        for lead in (b"", b",", b", ")
        for sha256 in (b"a" * 32, b"b" * 32)
    ]
    assert len({*names, BEGINNING}) == len(names) + 1
    assert {len(name) for name in names} == {HASH_BYTES}


def test_what_says_nothing_adds_no_meaning() -> None:
    assert extend(BEGINNING, b"") == BEGINNING
    assert extend(BEGINNING, b"a") != extend(extend(BEGINNING, b"a"), b"a")


def test_what_instructs_adds_no_meaning_and_order_does() -> None:
    def meaning(*asked: str) -> bytes:
        return meanings(BEGINNING, talk(asked).messages)

    assert meaning("s:one", "u:a", "a:b") == meaning("s:two", "u:a", "r:so", "a:b")
    assert meaning("u:a", "a:b") != meaning("a:b", "u:a")
    assert meaning("s:one") == BEGINNING
