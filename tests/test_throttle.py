"""Guessing waits: after some wrong keys of one address each further answer, within bounds."""

from proxy import throttle
from proxy.throttle import FREE_FAILURES, MAX_PEERS, MAX_WAITING, PAUSE_S, WINDOW_S, Throttle


def test_the_first_failures_of_an_address_are_answered_at_once_and_the_others_wait() -> None:
    one = Throttle()
    assert [one.failed("a", 0.0) for _ in range(FREE_FAILURES)] == [0.0] * FREE_FAILURES
    assert [one.failed("a", 1.0) for _ in range(3)] == [PAUSE_S] * 3
    assert one.failed("b", 1.0) == 0.0


def test_a_minute_after_the_first_failure_all_begins_anew() -> None:
    one = Throttle()
    for _ in range(FREE_FAILURES + 5):
        one.failed("a", 100.0)
    assert one.failed("a", 100.0 + WINDOW_S - 0.001) == PAUSE_S
    assert one.failed("a", 100.0 + WINDOW_S) == 0.0
    assert [one.failed("a", 161.0) for _ in range(FREE_FAILURES)][-2:] == [0.0, PAUSE_S]


def test_no_more_answers_wait_than_there_is_room_for() -> None:
    one = Throttle()
    for _ in range(FREE_FAILURES):
        one.failed("a", 0.0)
    one.waiting = MAX_WAITING
    assert one.failed("a", 0.0) == 0.0
    one.waiting = MAX_WAITING - 1
    assert one.failed("a", 0.0) == PAUSE_S


def test_who_guesses_from_many_addresses_takes_no_more_memory_and_no_more_than_the_oldest() -> None:
    one = Throttle()
    for _ in range(FREE_FAILURES + 1):
        one.failed("first", 0.0)
    for n in range(MAX_PEERS - 2):
        one.failed(f"{n}", 0.0)
    assert one.failed("first", 0.0) == PAUSE_S  # and with it the youngest again
    for n in range(2 * MAX_PEERS):
        one.failed(f"x{n}", 0.0)
    assert len(one._failures) == MAX_PEERS
    assert one.failed("first", 0.0) == 0.0


def test_guessing_takes_longer_than_anybody_has() -> None:
    guesses_per_s = throttle.MAX_WAITING / PAUSE_S + MAX_PEERS * FREE_FAILURES / WINDOW_S
    assert 2**256 / guesses_per_s > 1e60
