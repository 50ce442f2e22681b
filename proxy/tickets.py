"""Tickets: what opens the event stream once for a page that can send no header.

An `EventSource` of another origin has nothing but its address, and a key in an address ends in logs
and histories. Invariants: a ticket is good once, for 30 seconds, and only for what its owner may
do. Those here are in memory alone, so a restart takes them all; where servers share a database they
are in it (api/stored_tickets.py). Reads no clock.
"""

from collections import OrderedDict
from typing import Final, Generic, Protocol, TypeVar

from proxy.keyring import hashed, new_secret

T = TypeVar("T")

TICKET_S: Final = 30.0
PREFIX: Final = "tw_st_"
# Tickets that are out; the oldest of more is no longer good.
MAX_TICKETS: Final = 10_000


class Office(Protocol[T]):
    """Where tickets are had."""

    async def issue(self, owner: T, now_s: float) -> str:
        """Make a ticket."""
        ...

    async def take(self, ticket: str, now_s: float) -> T | None:
        """Give the owner of a ticket and end it; None where it is none, or none any more."""
        ...


class Tickets(Generic[T]):
    """The tickets that are out, each with its owner."""

    def __init__(self) -> None:
        self._out: OrderedDict[bytes, tuple[T, float]] = OrderedDict()

    async def issue(self, owner: T, now_s: float) -> str:
        """Make a ticket."""
        ticket = new_secret(PREFIX)
        self._out[hashed(ticket)] = (owner, now_s + TICKET_S)
        if len(self._out) > MAX_TICKETS:
            self._out.popitem(last=False)
        return ticket

    async def take(self, ticket: str, now_s: float) -> T | None:
        """Give the owner of a ticket and end it; None where it is none, or none any more."""
        owner, end_s = self._out.pop(hashed(ticket), (None, now_s))
        return owner if now_s < end_s else None
