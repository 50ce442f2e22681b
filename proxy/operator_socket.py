"""The operator's socket: a Unix socket beside the database, by which its owner needs no key.

Commands that write ask the server by it while one runs. Invariant: only who may read the database
can connect (mode 0600), and the lock of the database is held by whoever makes one.
"""

import contextlib
import logging
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# sun_path of Linux has 108 bytes with its NUL, that of macOS 104.
_MAX_BYTES: Final = 103

_log = logging.getLogger("traceway")


def path_of(database: Path) -> Path:
    """Give where the socket of a database is."""
    return Path(f"{database.resolve()}.sock")


@contextmanager
def address(path: Path) -> Iterator[str]:
    """Give an address for a path that may be longer than one can be, as long as the block runs."""
    if len(os.fsencode(path)) <= _MAX_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def is_there(path: Path) -> bool:
    """Tell whether a process listens there; a dead one has left a socket that nobody answers.

    Raises:
        PermissionError: the socket is another user's.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        # A listener whose backlog is full is one, and connecting would wait for it.
        sock.setblocking(False)
        try:
            with address(path) as at:
                sock.connect(at)
        except BlockingIOError:
            return True
        except PermissionError:
            raise
        except OSError:
            return False
    return True


def listen(path: Path) -> socket.socket:
    """Listen there, in place of the socket that a dead process left.

    Raises:
        OSError: it cannot be; the folder's file system, or a file of that name, may be why.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Before it is there, since for a moment anybody could connect to what is only changed after.
    before = os.umask(0o177)
    try:
        with address(path) as at:
            sock.bind(at)
        sock.listen()
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def at(path: Path | None) -> list[socket.socket]:
    """Listen there if it can be, and say so where it cannot; None is nowhere.

    Whoever can connect to a database of PostgreSQL needs no socket.
    """
    if path is None:
        return []
    try:
        return [listen(path)]
    except OSError as error:
        _log.warning(
            "no socket for commands at %s (%s): they need the server stopped, or a key",
            path,
            error.strerror or error,
        )
        return []


def remove(path: Path | None) -> None:
    """Take it away, for nobody listens any more."""
    if path is None:
        return
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
