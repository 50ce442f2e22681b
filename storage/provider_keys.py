"""The keys with which projects call upstreams, sealed: each function is a part of one transaction.

Invariant: what is stored of a key cannot be read without the key file (proxy/sealing.py), which is
not in the database; a project has at most one for an upstream.
"""

from collections.abc import Sequence
from typing import Final

from storage.database import Row, Transaction
from storage.grants import SealedKey

ALL: Final = """
SELECT project_id, upstream, sealed, last_four, created_at_us FROM provider_keys
ORDER BY project_id, upstream
"""


def sealed_keys(tx: Transaction) -> list[SealedKey]:
    """Read all of them, of every project."""
    return sealed_of(tx.execute(ALL, {}))


def sealed_of(rows: Sequence[Row]) -> list[SealedKey]:
    """Give what the read of ``ALL`` says."""
    return [
        SealedKey(
            project_id=project_id,
            upstream=upstream,
            sealed=sealed,
            last_four=last_four,
            created_at_us=created_at_us,
        )
        for project_id, upstream, sealed, last_four, created_at_us in rows
    ]


PUT: Final = """
INSERT INTO provider_keys (project_id, upstream, sealed, last_four, created_at_us)
VALUES (:project_id, :upstream, :sealed, :last_four, :created_at_us)
ON CONFLICT (project_id, upstream) DO UPDATE SET
  sealed = excluded.sealed, last_four = excluded.last_four, created_at_us = excluded.created_at_us
"""


def put(tx: Transaction, key: SealedKey) -> None:
    """Store a key in the place of the one that the project has for this upstream."""
    tx.execute(
        PUT,
        {
            "project_id": key.project_id,
            "upstream": key.upstream,
            "sealed": key.sealed,
            "last_four": key.last_four,
            "created_at_us": key.created_at_us,
        },
    )


DELETE: Final = """
DELETE FROM provider_keys WHERE project_id = :project_id AND upstream = :upstream
RETURNING upstream
"""


def delete(tx: Transaction, project_id: int, upstream: str) -> bool:
    """Delete a project's key for an upstream; False where there is none."""
    return bool(tx.execute(DELETE, {"project_id": project_id, "upstream": upstream}))


DELETE_ALL: Final = "DELETE FROM provider_keys RETURNING upstream"


def delete_all(tx: Transaction) -> int:
    """Delete all of them, which is what remains when the key file is lost; return how many."""
    return len(tx.execute(DELETE_ALL, {}))
