"""`traceway doctor`: mends what is asked for, looks at all that is stored, says what it found.

It needs no server, as it opens the database itself; what is looked at is storage.doctor's.
"""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from proxy import __version__
from proxy.config import Config
from proxy.providers.messages import text_of
from storage import doctor, doctor_facts
from storage.api_keys import begin_change
from storage.database import Database, StorageError
from storage.opening import check_client, open_at, shown, snapshot_at
from storage.provider_keys import delete_all
from storage.recover import recover
from storage.sqlite import open_database, open_snapshot


def examine(config: Config, options: argparse.Namespace) -> int:
    """Look at everything that is stored, and say what does not fit; 1 where something does not.

    A server may go on with the database meanwhile; with `--vacuum` it must not, since the file is
    written anew first, without anything that was deleted; nor with `--forget-provider-keys` or
    `--recover-to`, after which it is the new database that is looked at.

    Raises:
        StorageError: the database cannot be used.
    """
    if config.database.url:
        check_client()
        return asyncio.run(_examine_server(config.database.url, options))
    path = config.database.path.resolve()
    if options.recover_to is not None:
        path = _recover(path, options.recover_to)
    open_snapshot(path)  # refuses what is no database of ours before anything is written
    if options.forget_provider_keys:
        count = asyncio.run(_forget_provider_keys(open_database(path)))
        print(f"{path}: {count} provider keys forgotten")
    if options.vacuum:
        before_bytes = path.stat().st_size
        asyncio.run(_vacuum(open_database(path)))
        print(f"{path}: {before_bytes:,} bytes before the vacuum, {path.stat().st_size:,} after")
    _print_facts(doctor_facts.facts(path))
    return _print_findings(str(path), [*doctor_facts.examine(path), *asyncio.run(_check(path))])


async def _examine_server(url: str, options: argparse.Namespace) -> int:
    """Do the same with a database of a PostgreSQL server, beside the servers that share it."""
    from storage.server_facts import RESTORE, look

    place = shown(Path(), url)
    if options.recover_to is not None:
        raise StorageError(place, "it is not a file", RESTORE)
    found = await look(url)
    if options.forget_provider_keys:
        print(
            f"{place}: {await _forget_provider_keys(open_at(Path(), url))} provider keys forgotten"
        )
    if options.vacuum:
        if found.servers:
            problem = f"{found.servers} servers share it, and would wait for as long as it takes"
            raise StorageError(place, problem, "stop them; autovacuum needs no such thing")
        await _vacuum(open_at(Path(), url))
        after_bytes = (await look(url)).database_bytes
        print(f"{place}: {found.database_bytes:,} bytes before the vacuum, {after_bytes:,} after")
        found = await look(url)
    _print_facts(found.facts)
    snapshot = snapshot_at(url)
    try:
        findings = await doctor.check(snapshot, text_of)
    finally:
        await snapshot.close()
    return _print_findings(place, [*found.findings, *findings])


def _print_facts(facts: Sequence[doctor_facts.Fact]) -> None:
    for fact in (
        doctor_facts.Fact("Traceway", __version__),
        doctor_facts.Fact("aiohttp", aiohttp.__version__, "" if _HAS_PARSER else _NO_PARSER),
        *facts,
    ):
        print(f"{fact.what}: {fact.value}{fact.note and '; '}{fact.note}")


def _print_findings(place: str, findings: list[doctor.Finding]) -> int:
    if not _HAS_PARSER:
        findings.append(doctor.Finding("aiohttp without its C parser", 1, _NO_PARSER))
    for finding in findings:
        print(f"{finding.what}: {finding.count:,}; {finding.remedy}")
    print(f"{place}: {len(findings) or 'no'} findings")
    return 1 if findings else 0


_HAS_PARSER: Final = HttpRequestParser is not HttpRequestParserPy
_NO_PARSER: Final = "no server starts without its C parser: reinstall it from a wheel"


def _recover(path: Path, target: Path) -> Path:
    """Save what can be read of a damaged database, say what was lost, and give the new one."""
    recovery = recover(path, target)
    for table in recovery.tables:
        lost = "not known how many" if table.lost is None else f"{table.lost:,}"
        print(
            f"{table.table}: {table.rows:,} rows saved{'' if table.lost == 0 else f', {lost} lost'}"
        )
    for what, count in recovery.lost.items():
        print(f"{what}: {count:,}")
    print(f"{target}: made of what can be read of {path}, which is as it was")
    return target.resolve()


async def _forget_provider_keys(database: Database) -> int:
    try:
        with database.transaction(()) as transaction:
            begin_change(transaction)
            return delete_all(transaction)
    finally:
        await database.close()


async def _vacuum(database: Database) -> None:
    try:
        database.vacuum()
    finally:
        await database.close()


async def _check(path: Path) -> list[doctor.Finding]:
    database = open_snapshot(path)
    try:
        return await doctor.check(database, text_of)
    finally:
        await database.close()
