"""A ticket is good once and for a moment."""

from proxy.keyring import hashed
from proxy.tickets import MAX_TICKETS, PREFIX, TICKET_S, Tickets


def test_a_ticket_is_its_owners_once() -> None:
    tickets = Tickets[str]()
    one, other = tickets.issue("a", 0.0), tickets.issue("b", 0.0)
    assert one.startswith(PREFIX)
    assert len(one) == len(PREFIX) + 43  # 256 bits
    assert one != other
    assert (tickets.take(other, 0.0), tickets.take(one, 0.0)) == ("b", "a")
    assert (tickets.take(other, 0.0), tickets.take(one, 0.0)) == (None, None)


def test_a_ticket_is_good_for_thirty_seconds() -> None:
    tickets = Tickets[str]()
    early, late = tickets.issue("a", 5.0), tickets.issue("a", 5.0)
    assert tickets.take(early, 5.0 + TICKET_S - 0.001) == "a"
    assert tickets.take(late, 5.0 + TICKET_S) is None
    assert tickets.take(late, 5.0) is None  # whoever came too late has used it up


def test_what_is_no_ticket_opens_nothing_and_takes_nobodys() -> None:
    tickets = Tickets[str]()
    one = tickets.issue("a", 0.0)
    for other in (
        "",
        PREFIX,
        one[:-1],
        one + "a",
        one.swapcase(),
        hashed(one).hex(),
        "\udcff\ud800",
    ):
        assert tickets.take(other, 0.0) is None
    assert tickets.take(one, 0.0) == "a"


def test_the_oldest_of_too_many_is_no_longer_good_and_none_is_kept_as_it_is() -> None:
    tickets = Tickets[int]()
    all_of_them = [tickets.issue(n, 0.0) for n in range(MAX_TICKETS + 2)]
    assert [tickets.take(one, 0.0) for one in all_of_them[:3]] == [None, None, 2]
    assert tickets.take(all_of_them[-1], 0.0) == MAX_TICKETS + 1
    assert len(tickets._out) == MAX_TICKETS - 2
    assert all(isinstance(key, bytes) and len(key) == 32 for key in tickets._out)
