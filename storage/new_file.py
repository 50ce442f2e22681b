"""Gives a file that was written under another name its own, as soon as it is whole and on disk.

Invariant: nothing that is there is overwritten, nor what appeared meanwhile.
"""

import os
from pathlib import Path

from storage.database import StorageError


def give_name(part: Path, target: Path) -> None:
    """Give a whole file of the same file system its name, and see that both are on disk.

    Raises a StorageError where another has the name by now, and OSError where it cannot be given.
    """
    _to_disk(part)
    try:
        os.link(part, target)  # a rename would overwrite
    except FileExistsError:
        raise taken(target) from None
    except OSError:  # a file system without links
        if target.exists():
            raise taken(target) from None
        part.rename(target)
    else:
        part.unlink()
    _to_disk(target.absolute().parent)


def taken(target: Path) -> StorageError:
    """Make what is raised where a name is another file's."""
    return StorageError(target, "there is such a file already", "name another, or delete it")


def _to_disk(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
