"""Which of the servers that share a database still run, by what they say of themselves.

Owns who is held for dead, of the table ``owners``, which only PostgreSQL has. Invariant: the clock
is the database's, so that servers whose clocks differ agree. A server that was held for dead and
is not loses nothing: the ends of its calls are taken when they come (writes.py).
"""

from typing import Final

from storage.database import Readable, Transaction
from storage.forget import interrupt

# ruff: noqa: S608 (the SQL below is put together from constants of this file, never from values)

# Three times what there is between two signs of life; the process that judges must have had this
# long without a gap itself, since where the database was away nobody could give one.
DEAD_S: Final = 30
# What is left of a server that is gone is for whoever looks into the table.
KEPT_S: Final = 24 * 3600

DEAD: Final = f"""
owner NOT IN (
  SELECT owner FROM owners WHERE heard_at > clock_timestamp() - interval '{DEAD_S} seconds')
"""
FIND: Final = (
    f"SELECT 1 FROM spans WHERE state = 'running' AND owner IS NOT NULL AND {DEAD} LIMIT 1"
)
DROP: Final = f"""
DELETE FROM owners WHERE heard_at < clock_timestamp() - interval '{KEPT_S} seconds'
"""


async def are_some_left(db: Readable) -> bool:
    """Tell whether a server that is dead has left calls that run."""
    return bool(await db.read(FIND, {}))


UNHEARD: Final = "SELECT MIN(content_id) FROM unindexed"


async def oldest_unheard(db: Readable) -> int | None:
    """Give the message that has waited longest to come into full text; None where none waits."""
    ((content_id,),) = await db.read(UNHEARD, {})
    return None if content_id is None else int(content_id)


def interrupt_dead(tx: Transaction) -> int:
    """End the calls that dead servers have left; return how many there were."""
    tx.execute(DROP, {})
    return interrupt(tx, f"AND {DEAD}", {})
