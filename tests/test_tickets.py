"""A ticket is good once and for a moment."""

from proxy.keyring import hashed
from proxy.tickets import MAX_TICKETS, PREFIX, TICKET_S, Tickets


async def test_a_ticket_is_its_owners_once() -> None:
    tickets = Tickets[str]()
    one, other = await tickets.issue("a", 0.0), await tickets.issue("b", 0.0)
    assert one.startswith(PREFIX)
    assert len(one) == len(PREFIX) + 43  # 256 bits
    assert one != other
    assert (await tickets.take(other, 0.0), await tickets.take(one, 0.0)) == ("b", "a")
    assert (await tickets.take(other, 0.0), await tickets.take(one, 0.0)) == (None, None)


async def test_a_ticket_is_good_for_thirty_seconds() -> None:
    tickets = Tickets[str]()
    early, late = await tickets.issue("a", 5.0), await tickets.issue("a", 5.0)
    assert await tickets.take(early, 5.0 + TICKET_S - 0.001) == "a"
    assert await tickets.take(late, 5.0 + TICKET_S) is None
    assert await tickets.take(late, 5.0) is None  # whoever came too late has used it up


async def test_what_is_no_ticket_opens_nothing_and_takes_nobodys() -> None:
    tickets = Tickets[str]()
    one = await tickets.issue("a", 0.0)
    for other in (
        "",
        PREFIX,
        one[:-1],
        one + "a",
        one.swapcase(),
        hashed(one).hex(),
        "\udcff\ud800",
    ):
        assert await tickets.take(other, 0.0) is None
    assert await tickets.take(one, 0.0) == "a"


async def test_the_oldest_of_too_many_is_no_longer_good_and_none_is_kept_as_it_is() -> None:
    tickets = Tickets[int]()
    all_of_them = [await tickets.issue(n, 0.0) for n in range(MAX_TICKETS + 2)]
    assert [await tickets.take(one, 0.0) for one in all_of_them[:3]] == [None, None, 2]
    assert await tickets.take(all_of_them[-1], 0.0) == MAX_TICKETS + 1
    assert len(tickets._out) == MAX_TICKETS - 2
    assert all(isinstance(key, bytes) and len(key) == 32 for key in tickets._out)
