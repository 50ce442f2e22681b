"""The key file, and what is sealed with the key in it.

Owns how a secret is encrypted before it goes into the database. Invariants: a backup of the
database without the key file holds no secret; what was sealed for one project and upstream cannot
be opened for another; only the owner of the file can read it, or it is refused. No secret is in a
message or a repr. The key file is small and rarely read, but it is read: not on the event loop.
"""

import base64
import binascii
import os
import stat
import threading
from pathlib import Path
from typing import Final

KEY_BYTES: Final = 32
# AES-256-GCM with a random nonce of 96 bits for each sealing (NIST SP 800-38D section 8.2.2 allows
# 2^32 of them; a server has dozens).
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
# Of what is sealed, so that another cipher may follow.
_VERSION: Final = b"\x01"
# Who can read every file anyway.
_ROOT_UID: Final = 0
# More than the 44 characters of the key and a line's end: a longer file is no key file.
_READ_BYTES: Final = 256


class KeyFileError(Exception):
    """The key file cannot be used, and its operator can do something about it."""

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: {problem}; {remedy}")


class KeyFile:
    """Seals and opens secrets with the key in one file, which is made with the first secret."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key: bytes | None = None  # what everything sealed so far was sealed with
        self._lock = threading.Lock()  # two first secrets at once make one file

    def __repr__(self) -> str:
        return f"<KeyFile {self.path}>"

    def seal(self, secret: str, owner: str, *, first: bool) -> bytes:
        """Encrypt a secret for its owner; `first`: nothing else is sealed, so a file may be made.

        Raises:
            KeyFileError: the file cannot be used, or is not the one of what is sealed already.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # 15 ms that few need

        with self._lock:
            key = self._read()
            if key is None and not first:
                raise self._missing()
            if key is not None and not first and key != self._key:
                raise self._other()
            key = self._key = key or self._make()
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + AESGCM(key).encrypt(nonce, secret.encode(), owner.encode())

    def open(self, sealed: bytes, owner: str) -> str:
        """Decrypt what was sealed for this owner.

        Raises:
            KeyFileError: the file cannot be used, is not the one that it was sealed with, or what
                is sealed was changed, or sealed for another owner.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        with self._lock:
            if self._key is None:
                self._key = self._read()
            if (key := self._key) is None:
                raise self._missing()
        nonce, text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        if sealed[:1] != _VERSION or len(text) < _TAG_BYTES:
            raise self._other()
        try:
            return AESGCM(key).decrypt(nonce, text, owner.encode()).decode()
        except InvalidTag:
            raise self._other() from None

    def _read(self) -> bytes | None:
        """Read the key; None where there is no file."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed("read", error) from None
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode):
                raise KeyFileError(self.path, "it is not a file", "name another key_file")
            if found.st_mode & 0o077 or found.st_uid not in (_ROOT_UID, os.geteuid()):
                who = "others than its owner, or than this user, can read it"
                raise KeyFileError(self.path, who, f"chmod 600 {self.path}, and chown it")
            text = os.read(file, _READ_BYTES)
        except OSError as error:
            raise self._failed("read", error) from None
        finally:
            os.close(file)
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES:
            problem = f"it does not hold {KEY_BYTES} bytes in base64"
            raise KeyFileError(self.path, problem, "bring the right one back")
        return key

    def _make(self) -> bytes:
        """Make the file; it is on the disk before anything is sealed with it."""
        key = os.urandom(KEY_BYTES)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            file = os.open(self.path, flags, 0o600)
            try:
                os.write(file, base64.b64encode(key) + b"\n")
                os.fsync(file)
            except OSError:
                self.path.unlink()  # an empty one would be in the way of the next try
                raise
            finally:
                os.close(file)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._failed("made", error) from None
        return key

    def _failed(self, what: str, error: OSError) -> KeyFileError:
        problem = f"it cannot be {what} ({error.strerror or 'the system does not say why'})"
        return KeyFileError(self.path, problem, "check its directory, its owner and its mode")

    def _missing(self) -> KeyFileError:
        problem = "it is not there, and the stored provider keys are sealed with it"
        return KeyFileError(self.path, problem, _LOST)

    def _other(self) -> KeyFileError:
        problem = "it does not open a stored provider key, which another key sealed, or who changed"
        return KeyFileError(self.path, f"{problem} the database", _LOST)


class NoKeyFile(KeyFile):
    """What there is where none is named and none can be meant: it says so when it is wanted."""

    def __init__(self) -> None:
        super().__init__(Path("[auth] key_file"))

    def _read(self) -> bytes | None:
        problem = "it is not set, and in PostgreSQL stored provider keys are sealed with it"
        raise KeyFileError(self.path, problem, "name a file, which is the same for every server")


def key_file_of(named: Path | None, database: Path | None) -> KeyFile:
    """Give the key file: the one that is named, or that beside the database, where that is a file.

    ``database`` is None where it is none.
    """
    if named is not None:
        return KeyFile(named)
    return NoKeyFile() if database is None else KeyFile(Path(f"{database.resolve()}.key"))


_LOST: Final = (
    "bring it back; where it is lost, stop the server, forget the stored keys with"
    " `traceway doctor --forget-provider-keys`, and store them anew"
)
