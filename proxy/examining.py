"""`traceway doctor`: mends what is asked for, looks at all that is stored, says what it found.

It needs no server, as it opens the database itself; what is looked at is storage.doctor's.
"""

import argparse
import asyncio
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from proxy import __version__
from proxy.config import Config
from proxy.providers.messages import text_of
from storage import doctor, doctor_facts
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
    path = config.database.path.resolve()
    if options.recover_to is not None:
        path = _recover(path, options.recover_to)
    open_snapshot(path)  # refuses what is no database of ours before anything is written
    if options.forget_provider_keys:
        print(f"{path}: {asyncio.run(_forget_provider_keys(path))} provider keys forgotten")
    if options.vacuum:
        before_bytes = path.stat().st_size
        asyncio.run(_vacuum(path))
        print(f"{path}: {before_bytes:,} bytes before the vacuum, {path.stat().st_size:,} after")
    has_parser = HttpRequestParser is not HttpRequestParserPy
    for fact in (
        doctor_facts.Fact("Traceway", __version__),
        doctor_facts.Fact("aiohttp", aiohttp.__version__, "" if has_parser else _NO_PARSER),
        *doctor_facts.facts(path),
    ):
        print(f"{fact.what}: {fact.value}{fact.note and '; '}{fact.note}")
    findings = [*doctor_facts.examine(path), *asyncio.run(_check(path))]
    if not has_parser:
        findings.append(doctor.Finding("aiohttp without its C parser", 1, _NO_PARSER))
    for finding in findings:
        print(f"{finding.what}: {finding.count:,}; {finding.remedy}")
    print(f"{path}: {len(findings) or 'no'} findings")
    return 1 if findings else 0


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


async def _forget_provider_keys(path: Path) -> int:
    database = open_database(path)
    try:
        with database.transaction() as transaction:
            return delete_all(transaction)
    finally:
        await database.close()


async def _vacuum(path: Path) -> None:
    database = open_database(path)
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
