"""How figures, times and ids are written on the pages. Pure; takes no clock.

Invariant: what is unknown reads `—`, what is more than nothing never reads as nothing, and beside
every rounded figure stands the exact one. static/clock.js repeats `ago` for ticking times, and a
test compares the two. Escaping is the templates' business.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final
from urllib.parse import quote, urlencode

UNKNOWN: Final = "—"
# A price is kept in nano-USD; no more digits than that are true.
_NANO: Final = Decimal("1e-9")
# Paths of /sessions/ that are no ids, and segments that browsers resolve away.
_NO_PATH: Final = frozenset({".", "..", "by-id", "rows", "totals"})
_STEPS: Final = ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h"), (30 * 86_400, 86_400, "d"))
# Control characters get the pictures that Unicode has for them, and mark-free text stays itself.
_PICTURES: Final = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421}


@dataclass(frozen=True, slots=True)
class Figure:
    """What a page shows, and what it says on hover; both are text."""

    text: str
    exact: str

    def __str__(self) -> str:
        return self.text


def money(usd: float | None, *, unpriced: int = 0, estimated: int = 0) -> Figure:
    """Write USD with two significant digits, at least cents, and dollars only from $1,000 on.

    `unpriced` and `estimated` count the calls whose part is missing (`+`) or a guess (`~`).
    """
    notes = [f"{calls(unpriced)} without a known price"] if unpriced else []
    if usd is None:
        return Figure(UNKNOWN, "; ".join(notes) or "the cost is not known")
    if estimated:
        notes.append(f"tokens of {calls(estimated)} estimated")
    amount = Decimal(str(usd)).quantize(_NANO)
    exact = f"${amount.normalize():,f}"
    text = f"{'~' if estimated else ''}{_dollars(amount)}{'+' if unpriced else ''}"
    return Figure(text, "; ".join([exact, *notes]))


def _dollars(amount: Decimal) -> str:
    if not amount:
        return "$0"
    places = 2
    if amount < 1:
        places = min(max(2, 1 - amount.adjusted()), 9)
    rounded = amount.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN)
    # 0.00996 rounds to 0.0100, which has a digit too many.
    if places > 2 and rounded.adjusted() > amount.adjusted():
        rounded = rounded.quantize(Decimal(1).scaleb(1 - places))
    return f"${rounded:,.0f}" if rounded >= 1000 else f"${rounded:,f}"


def budget(limit_usd: float, spent_usd: float, reserved_usd: float) -> Figure:
    """Write what is left of a session's budget, and what calls may still take of it."""
    left = Decimal(str(limit_usd)) - Decimal(str(spent_usd)) - Decimal(str(reserved_usd))
    reserved = f", {money(reserved_usd)} reserved" if reserved_usd else ""
    if left < 0:
        text = f"{money(-float(left))} over its budget of {money(limit_usd)}{reserved}"
    else:
        text = f"{money(float(left))} left of {money(limit_usd)}{reserved}"
    spent, held, limit = (money(usd).exact for usd in (spent_usd, reserved_usd, limit_usd))
    notes = f"spent {spent}, reserved {held} by calls whose cost is not known yet, of {limit}"
    return Figure(text, notes)


def calls(number: int) -> str:
    """Write a number of calls."""
    return plural(number, "call")


def plural(number: int, word: str) -> str:
    """Write a number with its word."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def tokens(number: int | None, *, estimated: int = 0) -> Figure:
    """Write a number of tokens: whole below 10,000, then 12.3k, 123k, 4.5M, 6.7B."""
    if number is None:
        return Figure(UNKNOWN, "the tokens are not known")
    mark, note = ("~", f"; {calls(estimated)} estimated") if estimated else ("", "")
    return Figure(mark + compact(number), plural(number, "token") + note)


def compact(number: int) -> str:
    """Write a count in at most five characters, up to a million million."""
    if number < 10_000:
        return f"{number:,}"
    for size, unit in ((10**3, "k"), (10**6, "M")):
        # Not 1000k, which is what rounding makes of 999,999.
        if number < 999.5 * size:
            return f"{_three(number / size)}{unit}"
    return f"{_three(number / 10**9)}B"


def _three(value: float) -> str:
    return f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def duration(ms: float | None) -> Figure:
    """Write milliseconds as 412 ms, 3.2 s, 4 m 12 s, 1 h 03 m or 2 d 03 h."""
    if ms is None:
        return Figure(UNKNOWN, "the end is not known yet")
    return Figure(_duration(ms), f"{ms:,.3f}".rstrip("0").rstrip(".") + " ms")


def _duration(ms: float) -> str:
    if 0 < ms < 1:
        return "<1 ms"
    if ms < 999.5:
        return f"{ms:.0f} ms"
    if ms < 59_950:
        return f"{ms / 1000:.1f} s"
    seconds = round(ms / 1000)
    if seconds < 3600:
        return f"{seconds // 60} m {seconds % 60:02} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02} m"
    hours = round(minutes / 60)
    return f"{hours // 24:,} d {hours % 24:02} h"


def percent(share: float | None) -> Figure:
    """Write a share of 1; only nothing is 0% and only all is 100%."""
    if share is None:
        return Figure(UNKNOWN, "not known")
    return Figure(_percent(share), f"{share * 100:.6f}".rstrip("0").rstrip(".") + "%")


def _percent(share: float) -> str:
    if share in (0, 1):
        return f"{share:.0%}"
    if share < 0.001:
        return "<0.1%"
    if share > 0.999:
        return ">99.9%"
    return f"{share:.1%}" if share < 0.0995 or share > 0.985 else f"{share:.0%}"


def ago(iso: str, now: datetime) -> Figure:
    """Write a time of the API as how long it is past, a date from 30 days on."""
    then = datetime.fromisoformat(iso)
    exact = f"{then:%Y-%m-%d %H:%M:%S}.{then.microsecond // 1000:03} UTC"
    seconds = int((now - then).total_seconds())
    if seconds < 5:
        return Figure("now", exact)
    for end, size, unit in _STEPS:
        if seconds < end:
            return Figure(f"{seconds // size} {unit} ago", exact)
    return Figure(f"{then:%Y-%m-%d}", exact)


def middle(text: str, most: int = 32) -> str:
    """Shorten an id by its middle, since its ends tell it apart."""
    text = visible(text)
    if len(text) <= most:
        return text
    head = (most - 1 + 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def one_line(text: str | None, most: int = 240) -> str:
    """Give the beginning of a text in one line; "" for none."""
    line = visible(" ".join((text or "")[: most * 4].split()))
    return line if len(line) <= most else f"{line[: most - 1]}…"


def visible(text: str) -> str:
    """Show control characters, which browsers drop or obey."""
    return text.translate(_PICTURES)


def session_path(session_id: str, part: str = "") -> str:
    """Give the path of a session's page, or of a part of it ("/live"), for any id."""
    if session_id in _NO_PATH:
        return f"/sessions/by-id{part}?id={quote(session_id, safe='')}"
    return f"/sessions/{quote(session_id, safe='')}{part}"


def trace_path(trace_id: str) -> str:
    """Give the path of a trace's page."""
    return f"/traces/{quote(trace_id, safe='')}"


def clock(iso: str) -> Figure:
    """Write a time of the API as the time of its day, in UTC."""
    then = datetime.fromisoformat(iso)
    return Figure(f"{then:%H:%M:%S}", f"{then:%Y-%m-%d %H:%M:%S}.{then.microsecond // 1000:03} UTC")


def day(iso: str) -> str:
    """Write the day of a time of the API, in UTC."""
    then = datetime.fromisoformat(iso)
    return f"{then:%A}, {then.day} {then:%B %Y}"


def after(iso: str, start: str) -> Figure:
    """Write how long after a start a time is: +3.2 s."""
    passed = datetime.fromisoformat(iso) - datetime.fromisoformat(start)
    figure = duration(max(0.0, passed.total_seconds() * 1000))
    return Figure(f"+{figure.text}", f"{figure.exact} after the start of the session")


def stretch(start: str, end: str | None) -> Figure:
    """Write from when to when something was, in UTC, with the days where they differ."""
    then = datetime.fromisoformat(start)
    if end is None:
        return Figure(f"since {then:%H:%M:%S} UTC", f"{clock(start).exact}; it has not ended yet")
    until = datetime.fromisoformat(end)
    if then.date() == until.date():
        text = f"{then:%H:%M:%S} to {until:%H:%M:%S} UTC"
    else:
        text = f"{then.day} {then:%b %H:%M} to {until.day} {until:%b %H:%M} UTC"
    return Figure(text, f"{clock(start).exact} to {clock(end).exact}")


def size(count: int | None) -> Figure:
    """Write a number of bytes: 812 B, 4.3 kB, 1.2 MB."""
    if count is None:
        return Figure(UNKNOWN, "the size is not known")
    text = f"{_three(count / 10**9)} GB"
    for scale, unit in ((10**6, "MB"), (10**3, "kB")):
        if count < 999.5 * scale:
            text = f"{_three(count / scale)} {unit}"
    return Figure(f"{count} B" if count < 1000 else text, plural(count, "byte"))


# Lines and tabs are what they are; other control characters are shown.
_LINES: Final = {code: mark for code, mark in _PICTURES.items() if code not in (0x09, 0x0A)}


def lines(text: str | None) -> str:
    """Give a text of several lines, with its control characters shown."""
    return (text or "").replace("\r\n", "\n").translate(_LINES)


def address(path: str, **query: object) -> str:
    """Give a path with these parameters; those that are empty are left out."""
    given = {name: value for name, value in query.items() if value}
    return f"{path}{'&' if '?' in path else '?'}{urlencode(given, doseq=True)}" if given else path


@dataclass(frozen=True, slots=True)
class Pages:
    """Where a page stands in its list: from `start`, `count` of `total`, `limit` to a page."""

    start: int
    count: int
    total: int
    limit: int

    @property
    def text(self) -> str:
        """Say which these are."""
        if not self.count:
            return f"none of {self.total:,}"
        return f"{self.start + 1:,} to {self.start + self.count:,} of {self.total:,}"

    @property
    def previous(self) -> int | None:
        """The start of the page before; None on the first."""
        return max(0, self.start - self.limit) if self.start else None

    @property
    def next(self) -> int | None:
        """The start of the next page; None on the last."""
        stop = self.start + self.count
        return stop if stop < self.total else None

    @property
    def last(self) -> int:
        """The start of the last page."""
        return max(0, self.total - 1) // self.limit * self.limit

    @property
    def tail(self) -> int:
        """The start of the page before the last one; of the first one where there is none."""
        return max(0, self.last - self.limit)
