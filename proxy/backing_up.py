"""`traceway backup`: copies the database as it is at one moment, while a server goes on with it.

It needs no server, as it reads the file itself; how is storage.backup's.
"""

import argparse
import re
import shlex
import sys
from typing import Final

from proxy.config import Config
from storage.backup import copy
from storage.database import StorageError
from storage.postgres_address import address_of, is_address

_POSTGRES: Final = re.compile(r"postgres(?:ql)?:/")


def back_up(config: Config, options: argparse.Namespace) -> int:
    """Copy the database to a new file; 2 where it is none that is a file.

    Raises:
        StorageError: there is no database, or the copy cannot be made, or the address is none.
    """
    address = str(getattr(config.database, "url", None) or options.db or "")
    if _POSTGRES.match(address):
        if not is_address(address):
            raise StorageError("the address of the database", "it is none", "write postgresql://")
        shown = address_of(address).place
        command = shlex.join(["pg_dump", "--format=custom", f"--file={options.file}", shown])
        print(
            f"traceway: that is a PostgreSQL database, which its own tool copies: {command}",
            file=sys.stderr,
        )
        return 2
    path = config.database.path.resolve()
    size_bytes = copy(path, options.file)
    print(f"{options.file}: {size_bytes:,} bytes, all that was saved when the copy began")
    key_file = config.auth.key_file or path.with_name(f"{path.name}.key")
    if key_file.exists():
        print(
            f"not in it: {key_file}, without which nobody opens the provider keys that are stored;"
            " keep that elsewhere"
        )
    return 0
