"""Projects, keys and sign-ins in the database."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from storage import api_keys
from storage.api_keys import Conflict, begin_change, grants
from storage.database import Database, Transaction
from storage.grants import ApiKey, SignIn
from tests.databases import columns_of


@pytest.fixture
def tx(db: Database) -> Iterator[Transaction]:
    with db.transaction() as transaction:
        yield transaction


def a_key(tx: Transaction, n: int = 1, **fields: Any) -> int:
    given: dict[str, Any] = {
        "project_id": 1,
        "name": f"key {n}",
        "scope": "read",
        "sha256": n.to_bytes(32, "big"),
        "last_four": "abcd",
        "now_us": 10 * n,
    }
    made = api_keys.create_key(tx, **{**given, **fields})
    assert isinstance(made, int)
    return made


def sign_in(key_id: int, n: int, expires_at_us: int = 1_000) -> SignIn:
    return SignIn(
        sha256=n.to_bytes(32, "big"), key_id=key_id, project_id=1, expires_at_us=expires_at_us
    )


def keys(tx: Transaction) -> list[ApiKey]:
    return list(api_keys.grants(tx).keys)


def test_a_new_database_has_the_default_project_and_no_key(tx: Transaction) -> None:
    found = api_keys.grants(tx)
    assert [(p.id, p.name, p.session_budget_nusd) for p in found.projects] == [(1, "default", None)]
    assert found.projects[0].created_at_us > 1_700_000_000_000_000
    assert (found.keys, found.sign_ins) == ((), ())


def test_what_is_made_is_read_as_it_was_made(tx: Transaction) -> None:
    project = api_keys.create_project(tx, "a", 5)
    assert isinstance(project, int)
    api_keys.set_session_budget(tx, project, 2_000_000_000)
    key = a_key(tx, project_id=project, scope="admin", calls_per_minute=60)
    found = api_keys.grants(tx)
    assert (found.projects[1].name, found.projects[1].created_at_us) == ("a", 5)
    assert found.projects[1].session_budget_nusd == 2_000_000_000
    assert found.keys == (
        ApiKey(
            id=key,
            project_id=project,
            name="key 1",
            scope="admin",
            sha256=(1).to_bytes(32, "big"),
            last_four="abcd",
            created_at_us=10,
            calls_per_minute=60,
        ),
    )
    api_keys.set_session_budget(tx, project, None)
    assert api_keys.grants(tx).projects[1].session_budget_nusd is None


def test_a_name_is_of_one_project(tx: Transaction) -> None:
    first = api_keys.create_project(tx, "a", 1)
    assert isinstance(first, int)
    assert api_keys.create_project(tx, "a", 2) == Conflict("there is a project 'a' already")
    assert api_keys.rename_project(tx, 1, "a") == Conflict("there is a project 'a' already")
    assert api_keys.rename_project(tx, first, "a") is None
    assert api_keys.rename_project(tx, first, "b") is None
    assert isinstance(api_keys.create_project(tx, "a", 3), int)
    assert [p.name for p in api_keys.grants(tx).projects] == ["default", "b", "a"]


def test_there_are_so_many_projects_and_keys_and_no_more(
    tx: Transaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "MAX_PROJECTS", 2)
    monkeypatch.setattr(api_keys, "MAX_KEYS", 2)
    assert isinstance(api_keys.create_project(tx, "a", 1), int)
    assert isinstance(api_keys.create_project(tx, "b", 1), Conflict)
    api_keys.revoke_key(tx, a_key(tx, 1), 1)
    a_key(tx, 2)
    made = api_keys.create_key(
        tx, project_id=1, name="c", scope="read", sha256=b"c", last_four="", now_us=1
    )
    assert isinstance(made, Conflict)
    assert (len(keys(tx)), len(api_keys.grants(tx).projects)) == (2, 2)


def test_a_key_is_revoked_once_and_for_ever_and_its_browsers_are_signed_out(
    tx: Transaction,
) -> None:
    revoked, kept = a_key(tx, 1), a_key(tx, 2)
    api_keys.sign_in(tx, sign_in(revoked, 1), 0)
    api_keys.sign_in(tx, sign_in(kept, 2), 0)
    before = keys(tx)
    api_keys.revoke_key(tx, revoked, 50)
    api_keys.revoke_key(tx, revoked, 60)
    api_keys.revoke_key(tx, 99, 60)
    assert keys(tx) == [replace(before[0], revoked_at_us=50), before[1]]
    assert [one.key_id for one in api_keys.grants(tx).sign_ins] == [kept]


def test_the_last_use_is_noted(tx: Transaction) -> None:
    key, other = a_key(tx, 1), a_key(tx, 2)
    api_keys.note_use(tx, key, 70)
    api_keys.note_use(tx, key, 60)  # of another server, which was slower to say it
    assert [(one.id, one.last_used_at_us) for one in keys(tx)] == [(key, 70), (other, None)]


def test_a_browser_is_let_in_looks_elsewhere_and_goes(tx: Transaction) -> None:
    key = a_key(tx)
    one, other = sign_in(key, 1), sign_in(key, 2, 2_000)
    api_keys.sign_in(tx, one, 0)
    api_keys.sign_in(tx, other, 0)
    assert api_keys.grants(tx).sign_ins == (one, other)
    api_keys.switch_project(tx, one.sha256, 3)
    assert api_keys.grants(tx).sign_ins == (replace(one, project_id=3), other)
    api_keys.sign_out(tx, one.sha256)
    assert api_keys.grants(tx).sign_ins == (other,)


def test_who_signs_in_makes_those_go_whose_time_is_over(tx: Transaction) -> None:
    key = a_key(tx)
    api_keys.sign_in(tx, sign_in(key, 1, expires_at_us=100), 0)
    api_keys.sign_in(tx, sign_in(key, 2, expires_at_us=101), 99)
    assert len(api_keys.grants(tx).sign_ins) == 2
    api_keys.sign_in(tx, sign_in(key, 3, expires_at_us=200), 100)
    assert [one.expires_at_us for one in api_keys.grants(tx).sign_ins] == [101, 200]


def test_a_key_has_so_many_browsers_and_the_oldest_of_more_goes(
    tx: Transaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "MAX_SIGN_INS", 3)
    key, other = a_key(tx, 1), a_key(tx, 2)
    api_keys.sign_in(tx, sign_in(other, 100, 1), 0)
    for n in range(1, 6):
        api_keys.sign_in(tx, sign_in(key, n, expires_at_us=10 + n), 0)
    found = api_keys.grants(tx).sign_ins
    assert [(one.key_id, one.expires_at_us) for one in found] == [
        (other, 1),
        (key, 13),
        (key, 14),
        (key, 15),
    ]


def test_a_name_that_a_database_cannot_hold_is_cleaned(tx: Transaction) -> None:
    a_key(tx, name="a\0b\ud800")
    assert keys(tx)[0].name == "a\ufffdb\ufffd"


def test_no_secret_has_a_column(tx: Transaction) -> None:
    for table, secret in (("api_keys", "sha256"), ("sign_ins", "sha256")):
        columns = [name for (name,) in tx.execute(columns_of(table), {})]
        assert secret in columns
        assert not {"key", "secret", "token", "cookie"} & set(columns)


def test_changes_are_numbered(tx: Transaction) -> None:
    assert grants(tx).number == 0
    assert [begin_change(tx), begin_change(tx)] == [1, 2]
    assert grants(tx).number == 2


def test_a_key_that_is_made_again_is_the_same(tx: Transaction) -> None:
    """A transaction whose commit nobody answered is run again."""
    assert a_key(tx, 1) == a_key(tx, 1)
    assert len(keys(tx)) == 1


def test_a_project_that_one_change_makes_again_is_the_same_and_of_another_the_name_is_taken(
    tx: Transaction,
) -> None:
    tries: list[int] = []
    made = api_keys.create_project(tx, "a", 1, tries)
    assert api_keys.create_project(tx, "a", 2, tries) == made
    assert isinstance(api_keys.create_project(tx, "a", 3, []), Conflict)
    assert [(p.name, p.created_at_us) for p in grants(tx).projects[1:]] == [("a", 1)]


def test_a_browser_that_is_let_in_again_by_the_same_sign_in_is_one(tx: Transaction) -> None:
    one = sign_in(a_key(tx), 1)
    api_keys.sign_in(tx, one, 0)
    api_keys.sign_in(tx, replace(one, expires_at_us=2_000), 0)
    assert grants(tx).sign_ins == (one,)
