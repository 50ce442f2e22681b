"""Numbers with suffixes are read as integers of their smallest unit, and written so again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.amounts import AGO, COUNT, DURATION, MAX_AMOUNT, USD, Scale

SCALES = (COUNT, USD, DURATION, AGO)


@pytest.mark.parametrize(
    ("scale", "text", "value"),
    [
        (COUNT, "0", 0),
        (COUNT, "10000", 10_000),
        (COUNT, "10k", 10_000),
        (COUNT, "1.5K", 1_500),
        (COUNT, "2M", 2_000_000),
        (USD, "0.50", 500_000_000),
        (USD, ".000000001", 1),
        (USD, "1k", 10**12),
        (DURATION, "1500", 1_500_000),
        (DURATION, "1500ms", 1_500_000),
        (DURATION, "0.001", 1),
        (DURATION, "30s", 30_000_000),
        (DURATION, "5m", 300_000_000),
        (DURATION, "2h", 7_200_000_000),
        (AGO, "7d", 7 * 86_400_000_000),
    ],
)
def test_a_number_is_read_in_the_smallest_unit(scale: Scale, text: str, value: int) -> None:
    assert scale.read(text) == value


@pytest.mark.parametrize(
    ("scale", "text"),
    [
        *(
            (COUNT, text)
            for text in ("", "k", "-1", "+1", "1.5", "1e3", "1 k", "٣", "1m", "1kk", ".")
        ),
        *((COUNT, text) for text in ("1" * 19, "1000000000001M", "1,000", "1_000", "0x1", "1.")),
        *((USD, text) for text in ("0.0000000001", "$1", "1000000001", "1s")),
        *((DURATION, text) for text in ("0.0001", "1w", "1k")),
        *((AGO, text) for text in ("5", "5ms", "1.5", "0.0000001s")),
    ],
)
def test_anything_else_is_no_number(scale: Scale, text: str) -> None:
    assert scale.read(text) is None


@pytest.mark.parametrize(
    ("scale", "value", "text"),
    [
        (COUNT, 10_000, "10000"),
        (USD, 500_000_000, "0.5"),
        (USD, 1, "0.000000001"),
        (DURATION, 90_000_000, "90s"),
        (DURATION, 7_200_000_000, "2h"),
        (DURATION, 1_500_500, "1500.5"),
        (DURATION, 0, "0"),
        (AGO, 86_400_000_000, "1d"),
        (AGO, 0, "0s"),
        (AGO, 1_500_000, "1.5s"),
        (COUNT, MAX_AMOUNT, "9" * 18),
    ],
)
def test_a_number_is_written_short(scale: Scale, value: int, text: str) -> None:
    assert scale.write(value) == text
    assert scale.read(text) == value


@settings(deadline=None)
@given(st.sampled_from(SCALES), st.integers(0, MAX_AMOUNT))
def test_a_number_is_read_as_it_was_written(scale: Scale, value: int) -> None:
    assert scale.read(scale.write(value)) == value


@settings(deadline=None)
@given(st.sampled_from(SCALES), st.text(max_size=30))
def test_any_text_is_a_number_that_fits_or_none(scale: Scale, text: str) -> None:
    value = scale.read(text)
    assert value is None or 0 <= value <= MAX_AMOUNT
