"""Text of attackers does nothing to a terminal, and nothing is wider than it may be."""

# ruff: noqa: RUF001 (people write in all scripts)

import asyncio
import json
import os
import re
import unicodedata
from datetime import datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cli.terminal import (
    Column,
    Screen,
    clip,
    clock,
    columns,
    safe,
    safe_json,
    screen,
    table,
    wrap,
)
from storage.records import FAILED
from tests.api.asking import save
from tests.cli.asking import started
from tests.running import Running
from tests.storage.calls import end, start

# What terminals obey: titles, colours, the cursor, the clipboard, queries that answer as if typed.
HOSTILE = (
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x1b]52;c;cm0gLXJmIC8=\x07",
    "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x1b[2J\x1b[H",
    "\x1b[1A\x1b[2Koverwritten",
    "\x1b[6n\x1b[c\x1b[>0q",
    "\x1bP+q544e\x1b\\",
    "\x1b_Gf=100;AAAA\x1b\\",
    "\x1bc\x1b(0\x1b#8",
    "\x9b31mred\x9bm",
    "\x9d0;title\x9c",
    "\x90q\x9c\x98\x9e\x9f",
    "\x85next\x84index\x8dreverse",
    "over\rwritten",
    "back\b\b\bspace",
    "bell\x07 null\x00 shift\x0e\x0f del\x7f",
    "a\nb\x0bc\x0cd\x1ce\x1de\x1ee",
    "\u202egnp.exe\u202d abc \u2066\u2069",
    "\u2067\u2068\u202a\u202b never closed",
    "\u200e\u200f\u061c marks",
    "line\u2028break\u2029here",
    "soft\u00adhyphen\u200bzero\u2060width\ufeffmark",
    "tags \U000e0001\U000e0041\U000e007f",
    "\ufff9annotated\ufffabelow\ufffb",
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
WIDE = st.text(st.sampled_from("ab c漢字é️👩‍🇺́ \t\x1b\u202e"), max_size=60)
OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def obeyed(text: str) -> set[str]:
    """Give what a terminal would obey in a text, but for line ends."""
    found = {c for c in text if unicodedata.category(c) in OBEYED}
    return found - {"\n", "\u200c", "\u200d"}


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_a_terminal_obeys_is_left_of_a_text(text: str) -> None:
    assert obeyed(text) or "\n" in text
    shown = safe(text)
    assert (obeyed(shown), len(shown)) == (set(), len(text))
    assert "\n" not in shown
    assert obeyed("".join(wrap(text, 20))) == set()
    written = safe_json(orjson.dumps({"text": text}))
    assert obeyed(written) == set()
    assert json.loads(written) == {"text": text}


@given(TEXT)
def test_any_text_is_safe_and_what_is_safe_stays_itself(text: str) -> None:
    shown = safe(text)
    assert obeyed(shown) | ({"\n"} & set(shown)) == set()
    assert safe(shown) == shown
    assert json.loads(safe_json(orjson.dumps(text))) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode 漢字", "plain ünïcode 漢字"),
        ("\x1b[31m", "␛[31m"),
        ("\x9b31m", "\ufffd31m"),
        ("a\u202eb", "a\ufffdb"),
        ("\ud800", "\ufffd"),
        ("می\u200cخواهم 👩\u200d👧", "می\u200cخواهم 👩\u200d👧"),
        ("a\xa0b\u3000c", "a\xa0b\u3000c"),
    ],
)
def test_what_would_be_obeyed_is_seen_instead(text: str, shown: str) -> None:
    assert safe(text) == shown


@pytest.mark.parametrize(
    ("text", "count"),
    [("abc", 3), ("漢字", 4), ("é", 1), ("ｗ", 2), ("❤\ufe0f", 2), ("👩\u200d👧", 4), ("", 0)],
)
def test_wide_characters_take_two_columns_and_marks_none(text: str, count: int) -> None:
    assert columns(text) == count


@given(st.one_of(TEXT, WIDE).map(safe), st.integers(1, 40))
def test_what_is_cut_is_never_wider_and_begins_as_it_did(text: str, width: int) -> None:
    cut = clip(text, width)
    assert columns(cut) <= width or (width == 1 and cut == "…")
    assert cut == text or text.startswith(cut.removesuffix("…"))
    assert cut == text or (cut.endswith("…") and columns(text) > width)
    assert clip(text, None) == text


@given(st.one_of(TEXT, WIDE), st.integers(12, 40))
def test_a_wrapped_text_is_all_there_and_no_line_is_too_wide(text: str, width: int) -> None:
    lines = list(wrap(text, width, "  "))
    assert all(columns(line) <= width for line in lines)
    assert all(line == "" or line.startswith("  ") for line in lines)
    whole = [safe(line) for line in text.expandtabs(4).splitlines()]
    assert "".join("".join(lines).split()) == "".join("".join(whole).split())


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one two three four", ["one two", "three four"]),
        ("a\n\nb\r\nc", ["a", "", "b", "c"]),
        ("    indented = code()", ["    indented", "= code()"]),
        ("abcdefghijklmno", ["abcdefghijkl", "mno"]),
        ("\tx", ["    x"]),
        ("", []),
    ],
)
def test_lines_break_at_spaces_where_there_are_some(text: str, lines: list[str]) -> None:
    assert list(wrap(text, 12)) == lines
    assert list(wrap("a " * 200, None)) == [("a " * 200).strip()]


@given(
    st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[WIDE.map(safe)] * n), min_size=1)),
    st.integers(8, 60),
    st.data(),
)
def test_a_table_is_never_wider_than_the_terminal(
    rows: list[tuple[str, ...]], width: int, data: st.DataObject
) -> None:
    given_columns = [
        Column(
            f"C{n}",
            [row[n] for row in rows],
            n,
            right=data.draw(st.booleans()),
            least=data.draw(st.sampled_from([None, 2, 9])),
        )
        for n in range(len(rows[0]))
    ]
    lines = list(table(given_columns, Screen(width)))
    assert len(lines) == len(rows) + 1
    assert all(columns(line) <= width for line in lines)


def test_columns_stand_one_below_the_other() -> None:
    name = Column("NAME", ["漢字", "a", "longer name"], 9, least=6)
    number = Column("N", ["1", "1,234", "—"], 5, right=True)
    about = Column("ABOUT", ["x", "", "z"], 1)
    assert list(table([name, number, about], Screen())) == [
        "NAME             N  ABOUT",
        "漢字             1  x",
        "a            1,234",
        "longer name      —  z",
    ]
    assert list(table([name, number, about], Screen(20))) == [
        "NAME        N  ABOUT",
        "漢字        1  x",
        "a       1,234",
        "longe…      —  z",
    ]
    assert list(table([name, number, about], Screen(13))) == [
        "NAME        N",
        "漢字        1",
        "a       1,234",
        "longe…      —",
    ]


def test_a_state_is_coloured_and_stays_a_word() -> None:
    states = Column("STATUS", ["failed", "completed", "other"], 1, states=True)
    coloured = list(table([states], Screen(None, colours=True)))
    assert coloured[1:] == ["\x1b[31mfailed\x1b[0m", "\x1b[32mcompleted\x1b[0m", "other"]
    plain = [re.sub(r"\x1b\[\d*m", "", line).rstrip() for line in coloured]
    assert plain == list(table([states], Screen()))


def test_times_are_those_of_the_clock_on_the_wall() -> None:
    iso = "2026-01-31T12:00:00.000000Z"
    there = datetime.fromisoformat(iso).astimezone()
    assert clock(iso) == there.strftime("%H:%M:%S")
    assert clock(iso, with_date=True) == there.strftime("%Y-%m-%d %H:%M:%S")


def test_what_is_no_terminal_has_no_width_unless_it_is_given_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert screen() == Screen(None, colours=False)
    monkeypatch.setenv("COLUMNS", "33")
    assert screen() == Screen(33, colours=False)


@pytest.mark.parametrize(
    ("environ", "colours"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
    ],
)
async def test_a_terminal_gets_colours_unless_the_environment_says_no(
    tw: Running, environ: dict[str, str], colours: bool
) -> None:
    await save(tw, end(start(1, session_id="s"), state=FAILED))
    ours, theirs = os.openpty()
    try:
        async with started(
            "sessions", "--url", tw.url, terminal=theirs, COLUMNS="200", **environ
        ) as command:
            await command.process.wait()
            said = (await asyncio.to_thread(os.read, ours, 10_000)).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert ("\x1b[31mfailed\x1b[0m" in said) is colours
    assert ("\x1b" in said) is colours
    assert "failed" in said
