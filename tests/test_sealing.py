"""Secrets are sealed with a key that is in a file of its own, which its owner alone can read."""

import base64
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy import sealing
from proxy.sealing import KeyFile, KeyFileError, key_file_of

KEY = "sk-proj-0123456789abcdef"
OWNER = "project 1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traceway.db.key"


def refused(path: Path, *, first: bool = True) -> str:
    """Give what is said when neither sealing nor opening works."""
    key_file = KeyFile(path)
    with pytest.raises(KeyFileError) as sealing_refused:
        key_file.seal(KEY, OWNER, first=first)
    with pytest.raises(KeyFileError) as opening_refused:
        key_file.open(b"\x01" + bytes(60), OWNER)
    said = str(opening_refused.value)
    assert first is False or str(sealing_refused.value) == said
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said


def test_what_is_sealed_can_be_opened_after_a_restart(path: Path) -> None:
    sealed = KeyFile(path).seal(KEY, OWNER, first=True)
    assert KeyFile(path).open(sealed, OWNER) == KEY


def test_the_first_secret_makes_the_file_for_its_owner_alone(path: Path) -> None:
    old = os.umask(0)
    try:
        KeyFile(path).seal(KEY, OWNER, first=True)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(base64.b64decode(path.read_bytes())) == 32


def test_a_file_that_is_there_is_used_as_it_is(path: Path) -> None:
    path.write_bytes(base64.b64encode(bytes(range(32))))
    path.chmod(0o400)
    sealed = KeyFile(path).seal(KEY, OWNER, first=True)
    assert path.read_bytes() == base64.b64encode(bytes(range(32)))
    assert KeyFile(path).open(sealed, OWNER) == KEY


def test_the_same_secret_is_sealed_anew_each_time_and_shows_nothing(path: Path) -> None:
    key_file = KeyFile(path)
    first, second = (key_file.seal(KEY, OWNER, first=True) for _ in range(2))
    assert first[1:13] != second[1:13]
    assert first[13:] != second[13:]
    assert KEY[:8].encode() not in first


def test_what_is_sealed_for_one_does_not_open_for_another(path: Path) -> None:
    key_file = KeyFile(path)
    sealed = key_file.seal(KEY, OWNER, first=True)
    with pytest.raises(KeyFileError, match="does not open"):
        key_file.open(sealed, "project 2")


@pytest.mark.parametrize("at", [0, 1, 12, 13, -1])
def test_what_was_changed_does_not_open(path: Path, at: int) -> None:
    key_file = KeyFile(path)
    sealed = bytearray(key_file.seal(KEY, OWNER, first=True))
    sealed[at] ^= 1
    with pytest.raises(KeyFileError, match="does not open"):
        key_file.open(bytes(sealed), OWNER)
    for size in (0, 1, 13, 28):
        with pytest.raises(KeyFileError, match="does not open"):
            key_file.open(bytes(sealed[:size]), OWNER)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o777])
def test_a_file_that_others_can_read_or_write_is_refused(path: Path, mode: int) -> None:
    KeyFile(path).seal(KEY, OWNER, first=True)
    path.chmod(mode)
    assert f"chmod 600 {path}" in refused(path)


def test_a_file_of_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    KeyFile(path).seal(KEY, OWNER, first=True)
    monkeypatch.setattr(sealing, "_ROOT_UID", path.stat().st_uid + 1)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert "can read it" in refused(path)


@pytest.mark.parametrize("text", [b"", b"\n", b"short", b"A" * 44, b"A" * 43 + b"=" + b"A" * 300])
def test_a_file_that_holds_no_key_is_refused_and_stays(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    path.chmod(0o600)
    assert "does not hold 32 bytes in base64" in refused(path)
    assert path.read_bytes() == text


def test_what_is_no_file_is_refused(path: Path) -> None:
    path.mkdir(mode=0o700)
    assert "it is not a file" in refused(path)
    path.rmdir()
    os.mkfifo(path, 0o600)
    assert "it is not a file" in refused(path)


def test_a_file_that_is_missing_is_not_made_where_something_is_sealed(path: Path) -> None:
    assert "it is not there" in refused(path, first=False)
    assert not path.exists()


def test_a_file_that_was_exchanged_seals_nothing_beside_what_is_sealed(path: Path) -> None:
    key_file = KeyFile(path)
    sealed = key_file.seal(KEY, OWNER, first=True)
    path.write_bytes(base64.b64encode(bytes(32)))
    with pytest.raises(KeyFileError, match="does not open"):
        key_file.seal(KEY, OWNER, first=False)
    with pytest.raises(KeyFileError, match="does not open"):
        KeyFile(path).open(sealed, OWNER)


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "key"
    with pytest.raises(KeyFileError, match="it cannot be made"):
        KeyFile(path).seal(KEY, OWNER, first=True)


def test_a_full_disk_leaves_no_file_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sealing.os, "write", full)
    with pytest.raises(KeyFileError, match="No space left"):
        KeyFile(path).seal(KEY, OWNER, first=True)
    assert not path.exists()


def test_first_secrets_that_come_together_make_one_file(path: Path) -> None:
    key_file = KeyFile(path)
    with ThreadPoolExecutor(8) as threads:
        work = [threads.submit(key_file.seal, KEY, OWNER, first=True) for _ in range(32)]
        sealed = [one.result() for one in work]
    again = KeyFile(path)
    assert {again.open(one, OWNER) for one in sealed} == {KEY}


def test_nothing_shows_the_key(path: Path) -> None:
    key_file = KeyFile(path)
    key_file.seal(KEY, OWNER, first=True)
    assert repr(key_file) == f"<KeyFile {path}>"


def test_beside_a_file_is_the_key_file_and_elsewhere_it_is_named(tmp_path: Path) -> None:
    assert key_file_of(None, tmp_path / "a.db").path == tmp_path / "a.db.key"
    assert key_file_of(tmp_path / "k", None).path == tmp_path / "k"
    nowhere = key_file_of(None, None)
    with pytest.raises(KeyFileError, match="it is not set, and in PostgreSQL"):
        nowhere.seal(KEY, OWNER, first=True)
    with pytest.raises(KeyFileError, match="it is not set, and in PostgreSQL"):
        nowhere.open(b"sealed", OWNER)
