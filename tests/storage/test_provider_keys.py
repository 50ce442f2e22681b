"""Sealed provider keys: one for each project and upstream."""

from dataclasses import replace

from storage import provider_keys
from storage.database import Database
from storage.grants import SealedKey

KEY = SealedKey(project_id=1, upstream="openai", sealed=b"\x01s", last_four="4242", created_at_us=5)
KEYS = [KEY, replace(KEY, upstream="other", sealed=b"o"), replace(KEY, project_id=2)]


def put(db: Database, *keys: SealedKey) -> None:
    with db.transaction() as tx:
        for key in keys:
            provider_keys.put(tx, key)


def stored(db: Database) -> list[SealedKey]:
    with db.transaction() as tx:
        return provider_keys.sealed_keys(tx)


def delete(db: Database, project_id: int, upstream: str) -> bool:
    with db.transaction() as tx:
        return provider_keys.delete(tx, project_id, upstream)


async def test_each_project_has_its_own_key_for_each_upstream(db: Database) -> None:
    put(db, *reversed(KEYS))
    assert stored(db) == KEYS


async def test_a_new_key_takes_the_place_of_the_old_one(db: Database) -> None:
    put(db, *KEYS)
    new = replace(KEY, sealed=b"new", last_four="", created_at_us=6)
    put(db, new)
    assert stored(db) == [new, *KEYS[1:]]


async def test_a_key_is_deleted_once_and_no_other_with_it(db: Database) -> None:
    put(db, *KEYS)
    assert delete(db, 1, "openai")
    assert not delete(db, 1, "openai")
    assert not delete(db, 3, "other")
    assert stored(db) == KEYS[1:]


async def test_all_can_be_deleted_when_the_key_file_is_lost(db: Database) -> None:
    put(db, *KEYS)
    with db.transaction() as tx:
        assert provider_keys.delete_all(tx) == 3
        assert provider_keys.delete_all(tx) == 0
    assert stored(db) == []


def test_a_sealed_key_does_not_show_what_is_in_it() -> None:
    assert repr(KEY.sealed) not in repr(KEY)
