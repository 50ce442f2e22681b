"""What the doctor says of a PostgreSQL server: its version, its size, and its settings that matter.

Owns from where on one of them is a finding. Invariant: it only reads. What is in the database is
doctor.py's.
"""

from typing import Final, NamedTuple

import asyncpg

from storage.database import StorageError
from storage.doctor import Finding
from storage.doctor_facts import Fact
from storage.owners import DEAD_S
from storage.postgres_address import address_of, connect
from storage.postgres_errors import REFUSALS, refusal
from storage.postgres_migrate import check, latest
from storage.postgres_readers import READERS

# ruff: noqa: S608 (the SQL below is put together from constants of this file, never from values)

# Of one server: those that read, the one that writes, and the one that hears of the others.
CONNECTIONS: Final = READERS + 2
SETTINGS: Final = (
    *("server_version", "max_connections", "superuser_reserved_connections"),
    *("fsync", "full_page_writes", "autovacuum", "synchronous_commit", "data_checksums"),
    *("shared_buffers", "ssl"),
)
READ_SETTINGS: Final = "SELECT name, current_setting(name) FROM unnest(CAST($1 AS text[])) AS name"
READ_SIZE: Final = "SELECT pg_database_size(current_database())"
READ_USE: Final = "SELECT COUNT(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
READ_ALIVE: Final = f"""
SELECT COUNT(*) FROM owners WHERE heard_at > clock_timestamp() - interval '{DEAD_S} seconds'
"""
READ_TABLES: Final = """
SELECT relname, pg_total_relation_size(oid) FROM pg_class
WHERE relnamespace = CAST(quote_ident(current_schema()) AS regnamespace) AND relkind = 'r'
ORDER BY 2 DESC LIMIT 3
"""

RESTORE: Final = (
    "restore a backup (pg_dump and pg_restore, or the point-in-time recovery of whoever runs the"
    " server); --recover-to is for files of SQLite"
)
UNSAFE: Final = (
    "a crash of the server or of its machine may damage everything: set it to on, unless nothing"
    " here is worth keeping"
)
GROWS: Final = "what is deleted is never given back and plans grow stale: set it to on"
FEW: Final = (
    f"each Traceway server takes up to {CONNECTIONS}, and a command as many for a moment: raise"
    " max_connections, or run fewer servers"
)


class Looked(NamedTuple):
    """What there is to say of a server, and what is wrong with it."""

    facts: list[Fact]
    findings: list[Finding]
    database_bytes: int
    servers: int


async def look(url: str) -> Looked:
    """Look at the server and the database at an address.

    Raises a StorageError where there is none, or one that is not of this version.
    """
    address = address_of(url)
    connection = await connect(address, {"default_transaction_read_only": "on"})
    try:
        version = await check(connection, address.place)
        if version != latest():
            problem = "it is of an older version of this program" if version else "it is empty"
            raise StorageError(address.place, problem, "start the server with it once")
        return await _look(connection)
    except REFUSALS as error:
        raise refusal(address.place, error) from None
    finally:
        connection.terminate()


async def _look(connection: asyncpg.Connection) -> Looked:
    settings = dict(map(tuple, await connection.fetch(READ_SETTINGS, list(SETTINGS))))
    size = await connection.fetchval(READ_SIZE)
    used = await connection.fetchval(READ_USE)
    alive = await connection.fetchval(READ_ALIVE)
    tables = await connection.fetch(READ_TABLES)
    most = int(settings["max_connections"]) - int(settings["superuser_reserved_connections"])
    facts = [
        Fact("schema", f"version {latest()}"),
        Fact("PostgreSQL", settings["server_version"]),
        Fact("servers that share it now", f"{alive}"),
        Fact("database", f"{size:,} bytes"),
        *(Fact(f"table {name}", f"{bytes_:,} bytes") for name, bytes_ in tables),
        Fact("connections", f"{used} of {most}"),
        Fact(
            "synchronous_commit",
            settings["synchronous_commit"],
            "a Traceway server sets its own: off with durability fast, else on",
        ),
        *(Fact(name, settings[name]) for name in ("fsync", "full_page_writes", "autovacuum")),
        *(Fact(name, settings[name]) for name in ("data_checksums", "shared_buffers", "ssl")),
    ]
    findings = [
        Finding(f"{name} is off", 1, UNSAFE)
        for name in ("fsync", "full_page_writes")
        if settings[name] == "off"
    ]
    if settings["autovacuum"] == "off":
        findings.append(Finding("autovacuum is off", 1, GROWS))
    if most - used < CONNECTIONS:
        findings.append(Finding("connections left", most - used, FEW))
    return Looked(facts, findings, size, alive)
