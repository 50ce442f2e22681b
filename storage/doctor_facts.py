"""What the doctor says of the database as a file, and of the machine that it is on.

Owns which versions and limits matter, and from where on one of them is a finding. Invariant: it
only reads, and it takes no lock for longer than it takes to ask for it. What is in the database is
doctor.py's.
"""

import fcntl
import os
import resource
import shutil
import sqlite3
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from storage.doctor import Finding
from storage.migrate import latest
from storage.sqlite import holder
from storage.wal import WAL_BYTES

# Of SQLite's own list (sqlite.org/wal.html): from 3.7.0 on, but for these and what follows them.
WAL_RESET_FIXED: Final = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
# Four times what the WAL takes when nobody keeps it from being cut back.
LARGE_WAL_BYTES: Final = 4 * WAL_BYTES
# A day of a busy team, and what a vacuum of a small database needs.
FEW_BYTES: Final = 1 << 30
# Each call in flight takes two connections; a thousand of them, and some for the rest.
FEW_FILES: Final = 4_096

BUG: Final = (
    "it has the WAL-reset bug, which damages a file that two programs write at once: let no other"
    " program write to the database while a server runs; a Python with SQLite 3.51.3 is without it"
)
CUT_BACK: Final = (
    "a program has been reading the database for long: end it (lsof names it), and a server that"
    " runs cuts the log back within a second"
)
MAKE_ROOM: Final = "make room, or move the database to another disk"
RAISE: Final = "raise it (ulimit -n, LimitNOFILE= of systemd), or few calls can run at once"
NARROW: Final = "others can read it: chmod 600"


@dataclass(frozen=True, slots=True)
class Fact:
    """A version or a figure, and what there is to know about it."""

    what: str
    value: str
    note: str = ""


def facts(path: Path) -> list[Fact]:
    """Give versions and figures of a database that can be opened."""
    version = sqlite3.sqlite_version_info
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    return [
        Fact("schema", f"version {latest()}"),
        Fact("SQLite", sqlite3.sqlite_version, BUG if has_wal_reset_bug(version) else ""),
        Fact("held by", _held_by(path)),
        Fact("database", f"{_size(path):,} bytes"),
        Fact("write-ahead log", f"{_size(_wal(path)):,} bytes"),
        Fact("free on its disk", f"{shutil.disk_usage(path.parent).free:,} bytes"),
        Fact("open files", "no limit" if files == resource.RLIM_INFINITY else f"{files:,} at most"),
    ]


def examine(path: Path) -> list[Finding]:
    """Give what is wrong with the file, or too little on its machine."""
    free_bytes = shutil.disk_usage(path.parent).free
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = []
    if _size(_wal(path)) > LARGE_WAL_BYTES:
        found.append(Finding("bytes in the write-ahead log", _size(_wal(path)), CUT_BACK))
    if free_bytes < FEW_BYTES:
        found.append(Finding("bytes free on the disk of the database", free_bytes, MAKE_ROOM))
    if files != resource.RLIM_INFINITY and files < FEW_FILES:
        found.append(Finding("files that a process may have open", files, RAISE))
    wide = filter(_is_wide, (path, _wal(path), Path(f"{path}.key")))
    found += [Finding(f"{one} is not its owner's alone", 1, f"{NARROW} {one}") for one in wide]
    return found


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Tell whether a version of SQLite can damage a file that two connections write at once."""
    if version >= WAL_RESET_FIXED[-1]:
        return False
    return not any(version[:2] == fixed[:2] and version >= fixed for fixed in WAL_RESET_FIXED)


def _held_by(path: Path) -> str:
    try:
        lock = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return "nobody"
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return f"the process with pid {holder(path)}"
    finally:
        os.close(lock)  # which lets it go
    return "nobody"


def _wal(path: Path) -> Path:
    return Path(f"{path}-wal")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _is_wide(path: Path) -> bool:
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
    except OSError:
        return False
