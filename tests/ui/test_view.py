"""How figures, times and ids are written."""

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.units import iso
from proxy.ui import view

NOW = datetime(2026, 11, 26, 11, 0, 0, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0.0, "$0"),
        (0.000000001, "$0.000000001"),
        (0.0000000014, "$0.000000001"),
        (0.000000019, "$0.000000019"),
        (0.000041, "$0.000041"),
        (0.00004149, "$0.000041"),
        (0.0042, "$0.0042"),
        (0.00999, "$0.010"),
        (0.0995, "$0.10"),
        (0.0994, "$0.099"),
        (0.05, "$0.050"),
        (0.42, "$0.42"),
        (0.4, "$0.40"),
        (0.995, "$1.00"),
        (0.999999999, "$1.00"),
        (1.0, "$1.00"),
        (12.34, "$12.34"),
        (12.345678, "$12.35"),
        (123.456, "$123.46"),
        (999.99, "$999.99"),
        (999.996, "$1,000"),
        (1000.0, "$1,000"),
        (1240.4, "$1,240"),
        (1234567.89, "$1,234,568"),
    ],
)
def test_money_keeps_two_digits_that_say_something(usd: float, text: str) -> None:
    assert view.money(usd).text == text


@given(st.integers(1, 10**15))
def test_money_that_is_more_than_nothing_never_reads_as_nothing(nusd: int) -> None:
    figure = view.money(nusd / 10**9)
    shown = Decimal(figure.text.strip("$").replace(",", ""))
    assert shown > 0
    # Two digits, and a third where the first is rounded into the next place.
    assert abs(shown - Decimal(nusd) / 10**9) <= Decimal(nusd) / 10**9 / 19
    assert Decimal(figure.exact.strip("$").replace(",", "")) == Decimal(str(nusd / 10**9)).quantize(
        Decimal("1e-9")
    )


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        ((1.0, 0.25, 0.0), "$0.75 left of $1.00"),
        ((1.0, 0.25, 0.1), "$0.65 left of $1.00, $0.10 reserved"),
        ((1.0, 1.0, 0.0), "$0 left of $1.00"),
        ((1.0, 1.002, 0.04), "$0.042 over its budget of $1.00, $0.040 reserved"),
    ],
)
def test_a_budget_says_what_is_left_of_it(budget: tuple[float, float, float], text: str) -> None:
    assert view.budget(*budget).text == text


def test_a_budget_says_exactly_what_it_is_made_of() -> None:
    assert view.budget(1.0, 0.123456789, 0.1).exact == (
        "spent $0.123456789, reserved $0.1 by calls whose cost is not known yet, of $1"
    )


def test_money_that_is_not_known_says_why() -> None:
    assert view.money(None) == view.Figure("—", "the cost is not known")
    assert view.money(None, unpriced=1) == view.Figure("—", "1 call without a known price")


def test_money_says_what_is_guessed_and_what_is_missing_in_it() -> None:
    assert view.money(0.42, estimated=2) == view.Figure(
        "~$0.42", "$0.42; tokens of 2 calls estimated"
    )
    assert view.money(0.42, unpriced=3, estimated=1) == view.Figure(
        "~$0.42+", "$0.42; 3 calls without a known price; tokens of 1 call estimated"
    )
    assert view.money(1234.5).exact == "$1,234.5"
    assert view.money(0.0).exact == "$0"
    assert view.money(0.000000041).exact == "$0.000000041"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7, "7"),
        (1234, "1,234"),
        (9999, "9,999"),
        (10_000, "10.0k"),
        (12_345, "12.3k"),
        (99_949, "99.9k"),
        (99_950, "100k"),
        (123_456, "123k"),
        (999_499, "999k"),
        (999_500, "1.0M"),
        (4_512_345, "4.5M"),
        (123_456_789, "123M"),
        (999_500_000, "1.0B"),
        (6_700_000_000, "6.7B"),
        (1_234_000_000_000, "1,234B"),
    ],
)
def test_tokens_are_whole_below_ten_thousand_and_short_above(number: int, text: str) -> None:
    assert view.tokens(number).text == text


def test_tokens_say_the_exact_number_and_what_is_guessed() -> None:
    assert view.tokens(12_345).exact == "12,345 tokens"
    assert view.tokens(1).exact == "1 token"
    assert view.tokens(12_345, estimated=2) == view.Figure(
        "~12.3k", "12,345 tokens; 2 calls estimated"
    )
    assert view.tokens(None, estimated=2).text == "—"


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_more_tokens_never_read_as_fewer(a: int, b: int) -> None:
    def value(text: str) -> float:
        unit = {"k": 10**3, "M": 10**6, "B": 10**9}.get(text[-1], 1)
        return float(text.rstrip("kMB").replace(",", "")) * unit

    low, high = sorted((a, b))
    assert value(view.compact(low)) <= value(view.compact(high))
    assert len(view.compact(high)) <= 6


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (0.4, "<1 ms"),
        (1, "1 ms"),
        (412.4, "412 ms"),
        (999.4, "999 ms"),
        (999.5, "1.0 s"),
        (3_200, "3.2 s"),
        (59_949, "59.9 s"),
        (59_950, "1 m 00 s"),
        (252_000, "4 m 12 s"),
        (3_599_499, "59 m 59 s"),
        (3_599_500, "1 h 00 m"),
        (3_780_000, "1 h 03 m"),
        (86_369_000, "23 h 59 m"),
        (86_370_001, "1 d 00 h"),
        (3 * 86_400_000 + 4 * 3_600_000, "3 d 04 h"),
    ],
)
def test_a_duration_has_the_two_units_that_matter(ms: float, text: str) -> None:
    assert view.duration(ms).text == text


def test_a_duration_says_its_milliseconds() -> None:
    assert view.duration(252_000.25).exact == "252,000.25 ms"
    assert view.duration(1000.0).exact == "1,000 ms"
    assert view.duration(None).text == "—"


@given(st.floats(0, 10**12), st.floats(0, 10**12))
def test_a_longer_duration_never_reads_as_a_shorter(a: float, b: float) -> None:
    sizes = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

    def value(text: str) -> float:
        parts = text.replace("<1", "0.5").replace(",", "").split()
        return sum(float(n) * sizes[unit] for n, unit in zip(parts[::2], parts[1::2], strict=True))

    low, high = sorted((a, b))
    assert value(view.duration(low).text) <= value(view.duration(high).text)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "—"),
        (0, "0%"),
        (0.0001, "<0.1%"),
        (0.034, "3.4%"),
        (0.0994, "9.9%"),
        (0.0995, "10%"),
        (0.25, "25%"),
        (0.9849, "98%"),
        (0.9912, "99.1%"),
        (0.99999, ">99.9%"),
        (1, "100%"),
    ],
)
def test_only_nothing_is_0_percent_and_only_all_is_100(share: float | None, text: str) -> None:
    assert view.percent(share).text == text


def test_a_share_says_its_digits() -> None:
    assert view.percent(1 / 3).exact == "33.333333%"
    assert view.percent(0.5).exact == "50%"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-60, "now"),
        (0, "now"),
        (4.9, "now"),
        (5, "5 s ago"),
        (59.9, "59 s ago"),
        (60, "1 min ago"),
        (119, "1 min ago"),
        (3599, "59 min ago"),
        (3600, "1 h ago"),
        (86_399, "23 h ago"),
        (86_400, "1 d ago"),
        (30 * 86_400 - 1, "29 d ago"),
        (30 * 86_400, "2026-10-27"),
    ],
)
def test_a_time_is_said_as_how_long_ago_it_was(seconds: float, text: str) -> None:
    then = NOW - timedelta(seconds=seconds)
    assert view.ago(iso(round(then.timestamp() * 1e6)), NOW).text == text


def test_a_time_says_when_it_was() -> None:
    assert view.ago("2026-11-26T10:58:03.007999Z", NOW).exact == "2026-11-26 10:58:03.007 UTC"


def test_an_id_is_shortened_in_its_middle() -> None:
    assert view.middle("short", 5) == "short"
    assert view.middle("abcdefghij", 5) == "ab…ij"
    assert view.middle("abcdefghij", 6) == "abc…ij"


@given(TEXT, st.integers(3, 60))
def test_a_shortened_id_keeps_both_ends(text: str, most: int) -> None:
    short = view.middle(text, most)
    assert len(short) == min(len(text), most)
    assert short[0:1] == view.visible(text)[0:1]
    assert short[-1:] == view.visible(text)[-1:]


@given(TEXT, st.integers(2, 60))
def test_a_preview_is_one_line_without_control_characters(text: str, most: int) -> None:
    line = view.one_line(text, most)
    assert len(line) <= most
    assert len(line.splitlines()) <= 1
    assert not re.search(r"[\x00-\x1f\x7f]", line)


def test_a_preview_says_that_it_goes_on() -> None:
    assert view.one_line("a  b\n\tc") == "a b c"
    assert view.one_line("abcdef", 4) == "abc…"
    assert view.one_line(None) == ""


@given(TEXT)
def test_visible_changes_control_characters_only(text: str) -> None:
    assert all(
        a == b or unicodedata.category(a) == "Cc"
        for a, b in zip(text, view.visible(text), strict=True)
    )
    assert view.visible("a\0\x1b\x7f") == "a␀␛␡"


@given(TEXT.filter(bool))
def test_the_path_of_any_session_names_it_and_nothing_else(session_id: str) -> None:
    path = view.session_path(session_id)
    parts = urlsplit(path)
    assert parts.fragment == ""
    assert re.fullmatch(r"/sessions/[A-Za-z0-9%._~-]+", parts.path)
    assert unquote((parts.query or parts.path).rpartition("=" if parts.query else "/")[2]) == (
        session_id
    )


@pytest.mark.parametrize("session_id", [".", "..", "by-id", "rows", "totals"])
def test_ids_that_a_path_cannot_carry_go_by_the_query(session_id: str) -> None:
    assert view.session_path(session_id) == f"/sessions/by-id?id={session_id}"


def test_the_path_of_a_trace_is_its_id() -> None:
    assert view.trace_path("0a" * 16) == f"/traces/{'0a' * 16}"
    assert view.trace_path("a/b") == "/traces/a%2Fb"


def test_a_time_of_a_day_has_its_date_on_hover() -> None:
    found = view.clock("2026-11-20T09:00:04.125000Z")
    assert (found.text, found.exact) == ("09:00:04", "2026-11-20 09:00:04.125 UTC")
    assert view.day("2026-11-05T23:59:59.999999Z") == "Thursday, 5 November 2026"


def test_an_offset_is_never_negative() -> None:
    start = "2026-11-20T09:00:00.000000Z"
    assert view.after("2026-11-20T09:04:12.000000Z", start).text == "+4 m 12 s"
    assert view.after("2026-11-20T08:59:59.000000Z", start).text == "+0 ms"


def test_a_stretch_names_its_days_where_they_differ() -> None:
    start = "2026-11-20T09:00:00.000000Z"
    assert view.stretch(start, None).text == "since 09:00:00 UTC"
    assert view.stretch(start, "2026-11-20T09:00:03.000000Z").text == "09:00:00 to 09:00:03 UTC"
    other = view.stretch(start, "2026-11-21T05:02:30.000000Z")
    assert other.text == "20 Nov 09:00 to 21 Nov 05:02 UTC"
    assert other.exact.endswith("to 2026-11-21 05:02:30.000 UTC")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        *((None, "—"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_960, "100 kB")),
        *((999_600, "1.0 MB"), (4_300_000, "4.3 MB"), (5_000_000_000, "5.0 GB")),
    ],
)
def test_sizes_have_three_digits(count: int | None, text: str) -> None:
    assert view.size(count).text == text


def test_lines_keep_their_breaks_and_show_what_cannot_be_seen() -> None:
    assert view.lines("a\r\nb\tc\x1b[0m\x00") == "a\nb\tc␛[0m␀"
    assert view.lines(None) == ""


def test_an_address_has_only_what_is_given() -> None:
    assert view.address("/a", view="", at=None, branch=[]) == "/a"
    assert view.address("/a?id=x", view="b c", branch=["d", "e"]) == (
        "/a?id=x&view=b+c&branch=d&branch=e"
    )


def test_a_part_of_a_session_has_a_path_for_any_id() -> None:
    assert view.session_path("a/b", "/live") == "/sessions/a%2Fb/live"
    assert view.session_path("..", "/live") == "/sessions/by-id/live?id=.."


def test_pages_lead_to_each_other() -> None:
    first, middle, last = (
        view.Pages(start, count, 120, 50) for start, count in ((0, 50), (50, 50), (100, 20))
    )
    assert (first.text, last.text) == ("1 to 50 of 120", "101 to 120 of 120")
    assert [page.previous for page in (first, middle, last)] == [None, 0, 50]
    assert [page.next for page in (first, middle, last)] == [50, 100, None]
    assert {page.last for page in (first, middle, last)} == {100}
    assert {page.tail for page in (first, middle, last)} == {50}
    assert view.Pages(0, 0, 0, 50).last == 0
    assert view.Pages(0, 50, 50, 50).tail == 0
