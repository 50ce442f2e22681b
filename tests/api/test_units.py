"""The units of the API."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api import units


def test_a_time_is_iso_8601_in_utc_with_microseconds() -> None:
    assert units.iso(1_700_000_000_000_001) == "2023-11-14T22:13:20.000001Z"
    assert units.iso(0) == "1970-01-01T00:00:00.000000Z"


@given(st.integers(0, 4_000_000_000_000_000))
def test_a_time_keeps_its_microseconds(time_us: int) -> None:
    seconds, rest_us = divmod(time_us, 1_000_000)
    found = datetime.fromisoformat(units.iso(time_us))
    assert (int(found.replace(microsecond=0).timestamp()), found.microsecond) == (seconds, rest_us)


@pytest.mark.parametrize(("nusd", "usd"), [(None, None), (0, 0.0), (1, 1e-9), (1_500_000_000, 1.5)])
def test_money_is_usd_and_unknown_money_is_null(nusd: int | None, usd: float | None) -> None:
    assert units.usd(nusd) == usd


def test_durations_are_milliseconds_and_what_is_unknown_stays_so() -> None:
    assert (units.ms(1500), units.ms(0), units.ms(None)) == (1.5, 0.0, None)
    assert (units.iso_or_none(0), units.iso_or_none(None)) == (units.iso(0), None)
