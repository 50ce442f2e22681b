"""The units of the API: USD, milliseconds, ISO 8601 in UTC. Pure; unknown stays unknown."""

from datetime import datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1)  # UTC, as all times here


def usd(nusd: int | None) -> float | None:
    """Give nano-USD as USD."""
    return None if nusd is None else exact_usd(nusd)


def exact_usd(nusd: int) -> float:
    """Give nano-USD that are known as USD."""
    return nusd / 1_000_000_000


def ms(duration_us: float | None) -> float | None:
    """Give microseconds as milliseconds."""
    return None if duration_us is None else duration_us / 1000


def iso(time_us: int) -> str:
    """Write a time in microseconds as ISO 8601 with Z."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds") + "Z"


def iso_or_none(time_us: int | None) -> str | None:
    """Write a time that may not have come yet."""
    return None if time_us is None else iso(time_us)
