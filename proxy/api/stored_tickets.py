"""Tickets that are good at every server of those that share a database.

Invariants: as of those in memory (proxy/tickets.py), for 30 seconds, once, and only for what their
owner still may do; what is none costs the one writer nothing, since anybody may ask with it.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Final

from proxy.access import Denied, Principal
from proxy.keyring import Keyring, hashed, new_secret
from proxy.recorder import Recorder
from proxy.tickets import PREFIX, TICKET_S
from storage import tickets
from storage.database import Readable, StorageError
from storage.tickets import Ticket

_NOT_NOW: Final = "the database cannot be asked now whether this ticket is good: try again"


class StoredTickets:
    """The tickets that are out, in the database. Their clock is that of the wall.

    ``look_again`` has the keyring know whom other servers have let in until now.
    """

    def __init__(
        self,
        database: Readable,
        recorder: Recorder,
        keyring: Keyring,
        look_again: Callable[[], Awaitable[None]],
    ) -> None:
        self._database = database
        self._recorder = recorder
        self._keyring = keyring
        self._look_again = look_again

    async def issue(self, owner: Principal, _: float) -> str:
        """Make a ticket.

        Raises:
            StorageError: the database does not take it.
        """
        ticket = new_secret(PREFIX)
        if owner.key is None:  # whoever needs no key needs no ticket
            return ticket
        now_us = time.time_ns() // 1000
        stored = Ticket(
            sha256=hashed(ticket),
            project_id=owner.project.id,
            key_id=owner.key.id,
            sign_in=None if owner.sign_in is None else owner.sign_in.sha256,
            expires_at_us=now_us + round(TICKET_S * 1_000_000),
        )
        await self._recorder.change(lambda tx: tickets.issue(tx, stored, now_us), ())
        return ticket

    async def take(self, ticket: str, _: float) -> Principal | None:
        """Give the owner of a ticket and end it; None where it is none, or none any more.

        Raises:
            Denied: the database cannot be asked.
        """
        now_us, sha256 = time.time_ns() // 1000, hashed(ticket)
        try:
            if not await tickets.is_stored(self._database, sha256):
                return None
            found = await self._recorder.change(lambda tx: tickets.take(tx, sha256, now_us), ())
        except StorageError:
            raise Denied(503, "storage_unavailable", _NOT_NOW) from None
        if found is None:
            return None
        owner = self._owner(found)
        if owner is None:  # it is used up: whoever had it made may be known here in a moment only
            await self._look_again()
            owner = self._owner(found)
        return owner

    def _owner(self, found: Ticket) -> Principal | None:
        """Give who had a ticket made, as far as that is known here."""
        project = self._keyring.project(found.project_id)
        key = self._keyring.key_by_id(found.key_id)
        if project is None or key is None:
            return None
        if found.sign_in is None:
            return Principal(project=project, scope=key.scope, key=key, way="key")
        sign_in = self._keyring.sign_in_of(found.sign_in)
        if sign_in is None:
            return None
        return Principal(project=project, scope=key.scope, key=key, way="cookie", sign_in=sign_in)
