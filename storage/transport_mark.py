"""What tells a database that another is still being moved into: the table ``moves`` is there.

Who opens a database for a server asks here first. Knows nothing of the move itself, so that no
server has to load it.
"""

from typing import Any, Final

from storage.database import StorageError

IS_UNFINISHED: Final = """
SELECT to_regclass(quote_ident(current_schema()) || '.moves') IS NOT NULL
"""


async def refuse_unfinished(connection: Any, place: str) -> None:
    """Refuse a database that is not there whole; ``connection`` is one of asyncpg.

    Raises a StorageError, and what asyncpg raises.
    """
    if await connection.fetchval(IS_UNFINISHED):
        remedy = "run `traceway migrate` again, which goes on with it"
        raise StorageError(place, "a move into it is not finished", remedy)
