"""Seeds of random histories: a few for each run, the others with the tests that take long."""

from typing import Any

import pytest


def seeds(few: int, all_of_them: int) -> list[Any]:
    """Give seeds for a test's parameter; those behind the first few are slow."""
    slow = pytest.mark.slow
    return [pytest.param(n, marks=() if n < few else slow) for n in range(all_of_them)]
