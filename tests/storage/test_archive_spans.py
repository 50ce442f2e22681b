"""Spans in archives: each column of their rows is of a line, or is of one database alone."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from storage.archive_lines import EarlyEnd, SaidLine, SpanLine
from storage.archive_spans import COLUMNS, IDS, IMPORTED, PLAIN, early_end, told_of, values_of
from storage.handed import Said, SpanClosed
from storage.handed_row import HANDED_IN
from storage.records import Tokens
from storage.sqlite import SqliteDatabase
from tests.databases import columns_of
from tests.storage.calls import rows

LINE = SpanLine(
    trace="00" * 16,
    id="11" * 8,
    state="failed",
    kind="custom",
    name="n",
    started_at_us=1,
    duration_us=2,
)


def test_no_column_of_a_span_is_forgotten(db: SqliteDatabase) -> None:
    columns = {name for (name,) in rows(db, columns_of("spans"))}
    # While a span runs it has one; what is exported has ended.
    assert columns - set(COLUMNS) == {"checkpoint_us"}


def test_what_a_line_has_by_name_is_a_field_of_it() -> None:
    assert {*PLAIN, *IDS} <= set(SpanLine.__struct_fields__)


def test_a_call_has_an_owner_that_nobody_is_and_what_was_handed_in_has_none() -> None:
    call = values_of(7, LINE)
    assert (call["project_id"], call["owner"], call["caller"]) == (7, IMPORTED, None)
    told = values_of(7, msgspec.structs.replace(LINE, handed_in=True))
    assert (told["owner"], told["caller"]) == (None, HANDED_IN)


def test_an_early_end_comes_back_in_the_project_that_it_is_imported_into() -> None:
    end = SpanClosed(
        project_id=1,
        span_id=b"\x11" * 8,
        state="failed",
        trace_id=bytes(16),
        duration_us=9,
        error="a\0b",
        said=Said(kind="custom", tokens=Tokens(input=3), input=b'"\xff"', redacted=True),
    )
    told = msgspec.msgpack.encode(end)
    line = early_end(told, 5, bytes(16))
    assert line == EarlyEnd(
        arrived_at_us=5,
        state="failed",
        duration_us=9,
        error="a\0b",
        said=SaidLine(kind="custom", tokens={"input": 3}, input=line.said.input, redacted=True)
        if line and line.said
        else None,
    )
    assert line is not None
    assert told_of(4, LINE, line) == msgspec.msgpack.encode(replace(end, project_id=4))
    assert early_end(told, 5, b"\1" * 16) is None
    assert early_end(b"nonsense", 5, bytes(16)) is None


def test_an_early_end_in_a_state_that_no_application_ends_a_span_in_is_none() -> None:
    end = {"project_id": 1, "span_id": b"\x11" * 8, "trace_id": bytes(16), "duration_us": 9}
    for state, is_one in (("completed", True), ("failed", True), ("running", False)):
        told = msgspec.msgpack.encode({**end, "state": state})
        assert (early_end(told, 5, bytes(16)) is not None) == is_one
    # What a reader of lines would refuse.
    line: Any = EarlyEnd(arrived_at_us=5, state="running")  # type: ignore[arg-type]
    with pytest.raises(msgspec.ValidationError):
        told_of(1, LINE, line)
