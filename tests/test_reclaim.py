"""Space is given back a part at a time, with a rest behind one for which calls had to wait."""

from collections.abc import Iterable

import pytest

from proxy import reclaim as module
from proxy.reclaim import LONG_S, RESTS, Reclaim, rest_s
from storage.database import DatabaseCorrupt


class Asked:
    """What a database was asked for; it has more to give for each True."""

    has_left = False

    def __init__(self, more: Iterable[bool]) -> None:
        self.begun: list[bool] = []
        self._more = iter(more)

    def reclaim(self, *, begin: bool = False) -> bool:
        self.begun.append(begin)
        return next(self._more)


def reclaiming(*more: bool) -> tuple[Reclaim, Asked]:
    asked = Asked(more)
    return Reclaim(asked), asked  # type: ignore[arg-type]


def test_behind_a_deletion_it_goes_on_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE_S", 3600.0)
    reclaim, asked = reclaiming(True, True, False)
    reclaim.begin()
    assert asked.begun == [True, False, False]
    assert not reclaim.is_due
    reclaim.go_on()
    assert len(asked.begun) == 3


def test_the_rest_comes_when_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE_S", -1.0)
    reclaim, asked = reclaiming(True, True, False)
    reclaim.begin()
    assert reclaim.is_due
    for _ in range(3):
        reclaim.go_on()
    assert asked.begun == [True, False, False]
    assert not reclaim.is_due


def test_one_deletion_after_the_other_gives_back_at_once_only_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AT_ONCE_EACH_S", 3600.0)
    reclaim, asked = reclaiming(False, False)
    reclaim.begin()
    reclaim.begin()
    assert asked.begun == [True]
    assert reclaim.is_due
    reclaim.go_on()
    assert asked.begun == [True, True]  # the words of the second deletion as well


def test_what_nobody_had_time_for_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    reclaim, _ = reclaiming(True)
    assert not reclaim.is_overdue
    reclaim.note()
    assert reclaim.is_overdue  # nothing was given back yet
    reclaim.go_on()
    assert reclaim.is_due
    assert not reclaim.is_overdue
    monkeypatch.setattr(module, "OVERDUE_S", 0.0)
    assert reclaim.is_overdue


def test_a_part_for_which_calls_waited_has_a_rest_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AT_ONCE_S", -1.0)
    monkeypatch.setattr(module, "LONG_S", -1.0)
    monkeypatch.setattr(module, "RESTS", 1_000_000_000)
    monkeypatch.setattr(module, "MOST_REST_S", 3600.0)
    reclaim, asked = reclaiming(True, True)
    reclaim.begin()
    reclaim.go_on()
    reclaim.go_on()
    assert asked.begun == [True]
    assert reclaim.is_due
    assert reclaim.part(reclaim.ask())[0]  # an order that waits by itself


class Endless(Asked):
    """Has three parts to give back from each beginning."""

    left = 0

    def reclaim(self, *, begin: bool = False) -> bool:
        self.begun.append(begin)
        self.left = (3 if begin else self.left) - 1
        return self.left > 0


def test_a_round_ends_however_much_is_deleted_meanwhile_which_is_of_the_next() -> None:
    asked = Endless(())
    reclaim = Reclaim(asked)  # type: ignore[arg-type]
    until, more = reclaim.ask(), True
    while more:
        assert len(asked.begun) < 9
        more, _ = reclaim.part(until)
        reclaim.note()
    assert asked.begun == [True, False, False]
    while reclaim.is_due:  # nobody deletes any more
        reclaim.go_on()
    assert asked.begun == [True, False, False] * 2


def test_who_deletes_while_a_round_is_on_waits_for_the_next() -> None:
    reclaim, asked = reclaiming(True, False, True, False)
    reclaim.note()
    reclaim.go_on()
    until = reclaim.ask()
    assert [reclaim.part(until)[0] for _ in range(3)] == [True, True, False]
    assert asked.begun == [True, False, True, False]


def test_without_words_the_round_that_is_on_is_enough() -> None:
    reclaim, asked = reclaiming(False, True, False)
    assert not reclaim.part(reclaim.ask(words=False))[0]
    assert asked.begun == [False]
    reclaim.note()
    reclaim.go_on()
    assert not reclaim.part(reclaim.ask(words=False))[0]
    assert asked.begun == [False, True, False]


def test_whoever_ends_a_round_it_is_over_for_all_who_wait_for_it() -> None:
    reclaim, asked = reclaiming(False)
    until = reclaim.ask()
    reclaim.note()
    reclaim.go_on()
    assert reclaim.part(until) == (False, 0.0)
    assert asked.begun == [True]


def test_who_waits_hears_of_damage_that_another_met(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*, begin: bool = False) -> bool:
        raise DatabaseCorrupt("messages_fts_1", "it cannot be read")

    reclaim, asked = reclaiming(False)
    until = reclaim.ask()
    with monkeypatch.context() as broken:
        broken.setattr(asked, "reclaim", damaged)
        reclaim.begin()
    with pytest.raises(DatabaseCorrupt):
        reclaim.part(until)
    assert not reclaim.part(reclaim.ask())[0]


def test_what_fails_is_still_due() -> None:
    reclaim, asked = reclaiming()
    with pytest.raises(StopIteration):
        reclaim.begin()
    assert reclaim.is_due
    with pytest.raises(StopIteration):
        reclaim.go_on()
    reclaim.go_on()  # not at once
    assert asked.begun == [True, True]


def test_what_a_process_before_left_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AFTER_START_S", 0.0)
    reclaim, asked = reclaiming(False)
    reclaim.look()
    assert not reclaim.is_due
    asked.has_left = True
    reclaim.look()
    assert not reclaim.is_overdue
    reclaim.go_on()
    assert asked.begun == [True]


def test_what_a_process_before_left_waits_until_a_start_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "OVERDUE_S", 0.0)
    monkeypatch.setattr(module, "AFTER_START_S", 3600.0)
    reclaim, asked = reclaiming(False)
    asked.has_left = True
    reclaim.look()
    assert reclaim.is_due
    assert not reclaim.is_overdue
    reclaim.go_on()
    reclaim.begin()
    assert asked.begun == []


def test_nobody_hears_of_a_look_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(_: Asked) -> bool:
        raise DatabaseCorrupt("text_parts", "it cannot be read")

    reclaim, _ = reclaiming()
    monkeypatch.setattr(Asked, "has_left", property(damaged))
    reclaim.look()
    assert not reclaim.is_due


def test_what_is_damaged_is_told_of_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reclaim, asked = reclaiming(True)

    def damaged(*, begin: bool = False) -> bool:
        asked.begun.append(begin)
        raise DatabaseCorrupt("messages_fts_1", "it cannot be read")

    monkeypatch.setattr(asked, "reclaim", damaged)
    reclaim.begin()
    assert "stays in the files: messages_fts_1" in caplog.text
    assert not reclaim.is_due
    reclaim.go_on()
    assert asked.begun == [True]


def test_a_rest_is_so_long_that_less_than_a_call_in_a_hundred_is_held() -> None:
    assert rest_s(LONG_S) == 0.0
    assert rest_s(LONG_S + 0.01) == pytest.approx(0.01 * RESTS)
    assert rest_s(1.0) == module.MOST_REST_S
    assert 1 / (1 + RESTS) < 0.01
