"""A file has its name when it is whole and on disk, and never the name of another."""

import os
from pathlib import Path

import pytest

from storage import new_file
from storage.database import StorageError
from storage.new_file import give_name


@pytest.fixture(params=["links", "no links"])
def part(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a file that is whole, on a file system with links or without."""
    if request.param == "no links":

        def link(*_: Path) -> None:
            raise PermissionError

        monkeypatch.setattr(new_file.os, "link", link)
    path = tmp_path / "new.part"
    path.write_bytes(b"ours")
    return path


def held(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir()}


def test_it_has_its_name_and_no_other(part: Path, tmp_path: Path) -> None:
    give_name(part, tmp_path / "new")
    assert held(tmp_path) == {"new": b"ours"}


def test_what_is_there_stays(part: Path, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"mine")
    with pytest.raises(StorageError, match=r"/new: there is such a file already; name another"):
        give_name(part, tmp_path / "new")
    assert held(tmp_path) == {"new": b"mine", "new.part": b"ours"}


def test_the_file_is_on_disk_before_its_name_and_the_name_then(
    part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []

    def fsync(file: int) -> None:
        flushed.append((os.fstat(file).st_ino, (tmp_path / "new").exists()))

    monkeypatch.setattr(new_file.os, "fsync", fsync)
    own = part.stat().st_ino
    give_name(part, tmp_path / "new")
    assert flushed == [(own, False), (tmp_path.stat().st_ino, True)]
