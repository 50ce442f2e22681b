"""Tickets for the event stream where servers share a database, so that each takes those of all.

Owns the table ``tickets``, which only PostgreSQL has. Invariant: of a ticket there is its hash, and
whoever takes it takes the row: it is good once, whichever server is asked.
"""

from dataclasses import dataclass, field
from typing import Final

from storage.database import Readable, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What a ticket is good for: whose key had it made, where, and by which sign-in, if any."""

    sha256: bytes = field(repr=False)
    project_id: int
    key_id: int
    sign_in: bytes | None = field(default=None, repr=False)
    expires_at_us: int


EXPIRE: Final = "DELETE FROM tickets WHERE expires_at_us <= :now_us"
ISSUE: Final = """
INSERT INTO tickets (sha256, project_id, key_id, sign_in, expires_at_us)
VALUES (:sha256, :project_id, :key_id, :sign_in, :expires_at_us)
ON CONFLICT (sha256) DO NOTHING
"""


def issue(tx: Transaction, ticket: Ticket, now_us: int) -> None:
    """Store a ticket, unless an earlier try did, and forget those whose time is over."""
    tx.execute(EXPIRE, {"now_us": now_us})
    tx.execute(
        ISSUE,
        {
            "sha256": ticket.sha256,
            "project_id": ticket.project_id,
            "key_id": ticket.key_id,
            "sign_in": ticket.sign_in,
            "expires_at_us": ticket.expires_at_us,
        },
    )


IS_STORED: Final = "SELECT 1 FROM tickets WHERE sha256 = :sha256"


async def is_stored(db: Readable, sha256: bytes) -> bool:
    """Tell whether there is such a ticket, in time or not."""
    return bool(await db.read(IS_STORED, {"sha256": sha256}))


TAKE: Final = """
DELETE FROM tickets WHERE sha256 = :sha256
RETURNING sha256, project_id, key_id, sign_in, expires_at_us
"""


def take(tx: Transaction, sha256: bytes, now_us: int) -> Ticket | None:
    """Take a ticket, which is then gone; None where there is none, or none any more."""
    for hashed, project_id, key_id, sign_in, expires_at_us in tx.execute(TAKE, {"sha256": sha256}):
        if now_us < expires_at_us:
            return Ticket(
                sha256=hashed,
                project_id=project_id,
                key_id=key_id,
                sign_in=sign_in,
                expires_at_us=expires_at_us,
            )
    return None
