"""Transactions of the one writer: tried again, refused, withdrawn, given up at the end."""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from proxy import commits as module
from proxy.backlog import Item
from proxy.commits import Commits
from storage.database import (
    Database,
    DatabaseCorrupt,
    DatabaseLocked,
    StatementRefused,
    StorageError,
    TookTooLong,
    Transaction,
)

AWAY = StorageError("the database", "it is away", "wait")
LOCKED = DatabaseLocked("the database", None)


class Scripted:
    """A database whose transactions end as told: None commits, an error is raised at the commit."""

    def __init__(self, *ends: Exception | None) -> None:
        self.ends = [*ends]
        self.projects: list[Collection[int] | None] = []
        self.has_waited = False

    @contextmanager
    def transaction(self, projects: Collection[int] | None = None) -> Iterator[Transaction]:
        self.projects.append(projects)
        yield cast("Transaction", None)
        if (end := self.ends.pop(0)) is not None:
            raise end


Begin = Callable[..., tuple[Commits, Scripted, list[Exception]]]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Begin:
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    monkeypatch.setattr(module, "RETRY_MAX_S", 0.001)

    def beginning(*ends: Exception | None) -> tuple[Commits, Scripted, list[Exception]]:
        database, failures = Scripted(*ends), list[Exception]()

        def failed(error: Exception, _: bool) -> None:
            failures.append(error)

        commits = Commits(cast("Database", database), threading.Condition(), failed)
        return commits, database, failures

    return beginning


def order(**how: Any) -> Item:
    return Item(None, lambda _: None, cast("Any", None), 0, urgent=True, **how)


def test_what_may_pass_is_tried_until_it_is_committed(begin: Begin) -> None:
    commits, database, failures = begin(AWAY, AWAY, None)
    done: list[str] = []
    commits.after_commit = lambda: done.append("committed")
    assert commits.run(lambda _: done.append("work"), (7,)) == ("saved", None)
    assert done == ["work", "work", "work", "committed"]
    assert (database.projects, failures) == ([(7,), (7,), (7,)], [AWAY, AWAY])
    assert (commits.error, commits.away_since_us) == (None, None)


def test_while_it_is_tried_it_says_what_is_wrong_and_since_when(begin: Begin) -> None:
    commits, _, _ = begin(AWAY, AWAY, None)
    since = []
    commits.run(lambda _: since.append((commits.error, commits.away_since_us)), ())
    assert since[0] == (None, None)
    assert since[1][0] == str(AWAY)
    assert since[1][1] is not None
    assert since[2] == since[1]


@pytest.mark.parametrize("refusal", [StatementRefused("x", "no"), RuntimeError("a bug")])
def test_what_is_refused_is_not_tried_again(begin: Begin, refusal: Exception) -> None:
    commits, _, failures = begin(refusal, None)
    assert commits.run(lambda _: None, None) == ("refused", refusal)
    assert failures == [refusal]
    assert commits.away_since_us is None


def test_what_is_withdrawn_before_its_commit_does_not_happen(begin: Begin) -> None:
    commits, database, _ = begin(None)
    item = order()

    def work(_: Transaction) -> None:
        item.withdrawn = True

    assert commits.run(work, (), item) == ("given up", None)
    assert (database.ends, item.sealed) == ([None], False)


def test_what_failed_can_be_withdrawn_until_it_is_tried_again(begin: Begin) -> None:
    commits, database, _ = begin(AWAY, None)
    item = order()
    tries: list[bool] = []

    def work(_: Transaction) -> None:
        tries.append(item.sealed)

    def failed(_: Exception, is_final: bool) -> None:
        item.withdrawn = not (item.sealed or is_final)

    commits._failed = failed
    assert commits.run(work, (), item) == ("given up", None)
    assert (tries, database.ends) == ([False], [None])


def test_at_the_end_it_is_tried_for_a_while_and_then_given_up(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST_TRY_S", 0.0)
    commits, _, failures = begin(AWAY, AWAY)
    commits.close_by()
    assert commits.run(lambda _: None, ()) == ("given up", None)
    assert failures == [AWAY]
    assert commits.run(lambda _: None, ()) == ("given up", None)
    assert failures == [AWAY]


def test_what_is_to_be_tried_but_once_is_given_up_after_its_first_failure(begin: Begin) -> None:
    commits, database, failures = begin(AWAY, None)
    assert commits.run(lambda _: None, (), once=True) == ("given up", AWAY)
    assert (database.ends, failures, commits.away_since_us) == ([None], [AWAY], None)


def test_projects_are_written_apart_for_a_while_behind_a_wait_for_another_server(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, database, _ = begin(None, LOCKED, None, None)
    commits.run(lambda _: None, (1, 2))
    assert not commits.are_apart
    database.has_waited = True
    commits.run(lambda _: None, (1, 2), once=True)
    database.has_waited = False
    commits.run(lambda _: None, (1,))
    assert commits.are_apart
    monkeypatch.setattr(module, "APART_S", 0.0)
    assert not commits.are_apart
    database.has_waited = True
    commits.run(lambda _: None, (1,))
    monkeypatch.undo()
    assert commits.are_apart


def test_work_that_always_takes_too_long_is_refused_and_records_never_are(begin: Begin) -> None:
    long = TookTooLong("the database", "60 s")
    commits, database, _ = begin(long, AWAY, long, long, None)
    assert commits.run(lambda _: None, (), order()) == ("refused", long)
    assert database.ends == [None]
    commits, _, _ = begin(long, long, long, long, None)
    assert commits.run(lambda _: None, ()) == ("saved", None)


def test_that_it_passed_is_found_also_where_nothing_comes(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, database, _ = begin(StatementRefused("the database", "no"), AWAY, None)
    commits.run(lambda _: None, (1,))
    commits.look_again(lambda _: None)  # it failed just now
    assert len(database.ends) == 2
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.0)
    commits.look_again(lambda _: None)
    assert commits.error == str(AWAY)
    commits.look_again(lambda _: None)
    assert (commits.error, commits.away_since_us) == (None, None)
    commits.look_again(lambda _: None)  # there is nothing to find out
    assert database.projects == [(1,), (), ()]


def test_other_work_that_meets_damage_is_refused_at_once_and_records_never_are(
    begin: Begin,
) -> None:
    damaged = DatabaseCorrupt("contents", "a stored body does not unpack")
    commits, database, _ = begin(AWAY, damaged, None)
    told: list[bool] = []
    commits._failed = lambda _, is_final: told.append(is_final)
    assert commits.run(lambda _: None, (), order()) == ("refused", damaged)
    assert (database.ends, told) == ([None], [False, True])
    commits, _, failures = begin(damaged, damaged, None)
    assert commits.run(lambda _: None, ()) == ("saved", None)
    assert failures == [damaged, damaged]
