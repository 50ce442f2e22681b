"""What no command that is tested finds: the database of whoever runs the tests, and their key."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have commands that are told no database find one that nobody serves."""
    monkeypatch.setenv("TRACEWAY_DATABASE_PATH", str(tmp_path / "nowhere" / "traceway.db"))
    monkeypatch.delenv("TRACEWAY_API_KEY", raising=False)
