"""Finding out whether the database can be written, where nothing is to be.

Invariant: it writes, and leaves nothing. A transaction without a change writes nothing, nor does
SQLite where a value stays what it was: on a full disk both go well.
"""

from typing import Final

from storage.database import Transaction

ADD: Final = "INSERT INTO counters (name, value) VALUES ('probe', 0)"
DROP: Final = "DELETE FROM counters WHERE name = 'probe'"


def probe(tx: Transaction) -> None:
    """Write something and take it back, in a transaction of no project."""
    tx.execute(ADD, {})
    tx.execute(DROP, {})
