"""What cannot be stored is refused by what was expected; what is near it is kept as it can be."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import handed_values as values
from proxy.handed_values import BadValue
from proxy.session import session_id_of
from storage.records import Tokens
from tests.timing import cpu_s

TRACE = "019ac8f0a1b27c3d8e4f5a6b7c8d9e0f"


@pytest.mark.parametrize(
    "text",
    [
        TRACE,
        TRACE.upper(),
        "019ac8f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f",
        "019AC8F0-A1B2-7C3D-8E4F-5A6B7C8D9E0F",
    ],
)
def test_a_traces_id_is_hex_digits_or_a_uuid_in_either_case(text: str) -> None:
    assert values.trace_id_of(text).hex() == TRACE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 32,
        "00000000-0000-0000-0000-000000000000",
        TRACE[:-1],
        TRACE + "0",
        "g" * 32,
        TRACE[:-1] + "\n",
        "019ac8f0a1b2-7c3d-8e4f-5a6b7c8d9e0f",
        "{019ac8f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f}",
        "\u0661" * 32,  # a digit, and none of these
    ],
)
def test_anything_else_is_no_id_of_a_trace(text: str) -> None:
    with pytest.raises(BadValue, match="32 hex digits"):
        values.trace_id_of(text)


@pytest.mark.parametrize("text", ["", "0" * 16, "5a6b7c8d9e0f1a2", "5a6b7c8d-9e0f1a2b", "x" * 16])
def test_anything_but_16_hex_digits_is_no_id_of_a_span(text: str) -> None:
    assert values.span_id_of("5A6b7c8d9e0f1a2b").hex() == "5a6b7c8d9e0f1a2b"
    with pytest.raises(BadValue, match="16 hex digits"):
        values.span_id_of(text)


def test_ids_that_are_made_are_new_and_those_of_lone_spans_the_same_each_time() -> None:
    assert len({values.new_trace_id(), values.new_trace_id(), values.new_trace_id()}) == 3
    assert len(values.new_trace_id()) == 16
    assert len({values.new_span_id(), values.new_span_id()}) == 2
    one = values.trace_of_span(1, b"abcdefgh")
    assert one == values.trace_of_span(1, b"abcdefgh")
    assert len({one, values.trace_of_span(2, b"abcdefgh"), values.trace_of_span(1, b"x" * 8)}) == 3


def test_a_time_is_microseconds_in_utc_exactly() -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    assert values.time_us(datetime(2026, 11, 26, 9, 0, 0, 123_457, UTC)) == 1_795_683_600_123_457
    assert values.time_us(datetime(2026, 11, 26, 14, 30, 0, 1, east)) == 1_795_683_600_000_001
    assert values.time_us(datetime(1970, 1, 1, tzinfo=UTC)) == 0
    for odd in (
        datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(2200, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, tzinfo=timezone(timedelta(hours=-14))),
    ):
        with pytest.raises(BadValue, match="from 1970 to 2199"):
            values.time_us(odd)


def test_a_duration_is_microseconds_up_to_a_year() -> None:
    assert values.duration_us(0) == 0
    assert values.duration_us(12.3456) == 12_346
    assert values.duration_us(values.MAX_DURATION_MS) == values.MAX_DURATION_MS * 1_000
    for odd in (-0.001, values.MAX_DURATION_MS + 1, float("inf"), float("nan")):
        with pytest.raises(BadValue, match="milliseconds"):
            values.duration_us(odd)


@given(st.integers(0, 10**13))
def test_every_nano_usd_is_exact_up_to_ten_thousand_usd(nusd: int) -> None:
    assert values.nusd_of(float(f"{nusd}e-9")) == nusd


def test_money_is_usd_from_0_to_ten_thousand() -> None:
    assert values.nusd_of(0) == 0
    assert values.nusd_of(1e-9) == 1
    assert values.nusd_of(4e-10) == 0
    assert values.nusd_of(0.000123) == 123_000
    for odd in (-1e-9, 10_001, float("inf"), float("nan")):
        with pytest.raises(BadValue, match="USD"):
            values.nusd_of(odd)


def test_a_count_is_a_whole_number_however_it_is_written() -> None:
    assert (values.count_of(12), values.count_of(12.0), values.count_of(0)) == (12, 12, 0)
    for odd in (-1, 1.5, 10**9 + 1, 1e300, float("nan")):
        with pytest.raises(BadValue, match="whole number"):
            values.count_of(odd)


def test_a_part_that_is_larger_than_its_whole_is_not_known() -> None:
    assert values.fitted(Tokens(input=5, cached_input=6, output=1)) == Tokens(input=5, output=1)


@given(st.text())
def test_a_session_has_the_id_that_the_header_would_give_it(text: str) -> None:
    try:
        expected = session_id_of(text.encode("utf-8", "replace"))
    except ValueError:
        with pytest.raises(BadValue, match="control"):
            values.session_id_of(text)
    else:
        assert values.session_id_of(text) == expected


def test_text_is_made_fit_to_store_and_cut() -> None:
    assert values.text_of(" a\0b ", 10) == "a\ufffdb"
    assert values.text_of("x" * 20, 10) == "x" * 10
    assert [values.text_of(nothing, 10) for nothing in (None, "", "  ")] == [None] * 3


def test_text_has_no_keys_of_ours_however_json_spelled_them() -> None:
    assert values.text_of("Bearer tw_sk_abc-1, \ud83d", 100) == "Bearer [redacted], \ufffd"
    assert values.text_of("tw_sk_" + "a" * 20, 10) == "[redacted]"
    assert values.session_id_of("s tw_sk_abc") == "s [redacted]"


def test_depth_is_counted_in_brackets_that_are_no_text() -> None:
    assert not values.is_deep(b'{"a":"' + b"[" * 500 + b'"}')
    assert not values.is_deep(b"[" * 100 + b"]" * 100)
    assert values.is_deep(b"[" * 101 + b"]" * 101)
    assert not values.is_deep(b"[" + b"[]," * 500 + b"1]")


def test_a_string_that_does_not_end_is_looked_through_once() -> None:
    hostile = b"[" * 100 + b'"' + b'\\"[' * 20_000
    assert not values.is_deep(hostile)
    assert cpu_s(lambda: values.is_deep(hostile)) < 1  # from each quote anew it takes 10 s


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (rb'"\ud83d"', rb'"\ufffd"'),
        (rb'"\ude00\ud83d"', rb'"\ufffd\ufffd"'),
        (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"'),
        (rb'"\\ud83d"', rb'"\\ud83d"'),
        (rb'"\\\ud83d\""', rb'"\\\ufffd\""'),
        (rb'"\uD83Dx"', rb'"\ufffdx"'),
        (rb'"a\ud83db\ude00c\n"', rb'"a\ufffdb\ufffdc\n"'),
    ],
)
def test_half_a_character_is_replaced_and_a_whole_one_is_not(data: bytes, expected: bytes) -> None:
    assert values.repaired(data) == expected


def test_keys_of_ours_are_cut_out_and_nothing_else() -> None:
    plain = b'{"a":"sk-proj-0123456789abcdef0123"}'
    assert values.without_keys(plain) is plain
    assert values.without_keys(b'{"a":"tw_sk_abc-DEF_1"}') == b'{"a":"[redacted]"}'
