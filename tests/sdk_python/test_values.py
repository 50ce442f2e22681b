"""Values of all kinds as JSON: total, bounded, and true to what they were."""

import dataclasses
import datetime
import enum
import itertools
import json
import pathlib
import threading
import uuid
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any
from unittest.mock import MagicMock

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceway import values

LIMIT = 1 << 20


class Colour(enum.Enum):
    RED = "red"


class Model(pydantic.BaseModel):
    name: str
    at: datetime.date


@dataclasses.dataclass
class Point:
    x: int
    inner: Any


def read(value: object, limit: int = LIMIT) -> Any:
    return json.loads(values.encode(value, limit))


AT = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("é\n", "é\n"),
        ({"a": [1, 2.5, True]}, {"a": [1, 2.5, True]}),
        (AT, "2026-01-02T03:04:05+00:00"),
        (datetime.timedelta(seconds=1.5), 1.5),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.10"), "1.10"),
        (pathlib.Path("/a/b"), "/a/b"),
        (Colour.RED, "red"),
        ({1, 2}, [1, 2]),
        ((1, (2,)), [1, [2]]),
        (b"text", "text"),
        (b"\xff\x00", "data:;base64,/wA="),
        (Model(name="n", at=AT.date()), {"name": "n", "at": "2026-01-02"}),
        (Point(1, Point(2, Colour.RED)), {"x": 1, "inner": {"x": 2, "inner": "red"}}),
        (ValueError("no"), "ValueError: no"),
        (Point, "Point"),
        (
            {1: "int", None: "none", (2, 3): "tuple"},
            {"1": "int", "None": "none", "(2, 3)": "tuple"},
        ),
        ([float("nan"), float("inf")], ["nan", "inf"]),
        ("\ud800 half", "? half"),
        ([1 << 50_000], ["<int of 50001 bits>"]),
    ],
)
def test_what_json_cannot_hold_becomes_what_says_most_about_it(
    value: object, expected: object
) -> None:
    assert read(value) == expected


def test_a_value_that_contains_itself_says_so() -> None:
    circle: dict[str, Any] = {"name": "c"}
    circle["self"] = [circle]
    assert read(circle) == {"name": "c", "self": ["<dict: contains itself>"]}


def test_a_value_that_is_too_deep_is_cut_where_it_is() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "too deep" in values.encode(deep, LIMIT).decode()


def test_a_long_value_is_its_beginning_and_its_size() -> None:
    text = "ab" * 2_000_000
    cut = read(text)["traceway_truncated"]
    assert cut["bytes"] == 4_000_000
    assert text.startswith(cut["beginning"])
    assert len(values.encode([text], LIMIT)) < 64 << 10


def test_a_mock_answers_anything_and_ends() -> None:
    assert "MagicMock" in read(MagicMock())
    assert "MagicMock" in read({"client": MagicMock()})["client"]


def test_what_cannot_be_read_costs_only_itself() -> None:
    class Broken:
        def model_dump(self) -> Any:
            raise RuntimeError

        def __repr__(self) -> str:
            raise RuntimeError

    assert read({"a": 1, "b": Broken()}) == {"a": 1, "b": "<Broken: cannot be read>"}
    circle: list[Any] = [Broken()]
    circle.append(circle)
    assert read(circle)[0] == "<Broken: cannot be read>"


def test_an_iterator_is_not_consumed() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    made = numbers()
    assert "generator" in read(made)
    assert list(made) == [1]


def test_an_endless_mapping_ends() -> None:
    class Endless(Mapping[str, int]):
        def __getitem__(self, key: str) -> int:
            return len(key)

        def __len__(self) -> int:
            return 1 << 62

        def __iter__(self) -> Iterator[str]:
            return map(str, itertools.count())

    assert len(read(Endless())) == 10_000


def test_a_value_that_changes_meanwhile_does_not_raise() -> None:
    changing: dict[int, int] = {}
    stop = threading.Event()

    def change() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            changing[n % 1_000] = n
            changing.pop((n * 7) % 1_000, None)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(200):
            json.loads(values.encode(changing, LIMIT))
    finally:
        stop.set()
        thread.join()


def test_fields_have_no_more_levels_than_the_server_takes() -> None:
    deep: Any = {}
    for _ in range(200):
        deep = {"in": deep}
    assert values.encode_fields({"deep": deep}, LIMIT).count(b"{") < 100
    wide = {"list": [[n] for n in range(500)]}
    assert json.loads(values.encode_fields(wide, LIMIT)) == wide


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, "5", None, 10**400])
def test_what_is_no_count_is_left_out(value: object) -> None:
    assert values.number_of(value) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(JSON)
def test_whatever_it_is_the_server_can_read_it(value: object) -> None:
    json.loads(values.encode(value, LIMIT).decode("utf-8", "strict"), parse_constant=pytest.fail)


@given(st.from_type(type(None)) | st.text() | st.integers() | st.lists(st.text() | st.integers()))
def test_tags_are_short_texts(tags: object) -> None:
    assert all(len(tag) <= 64 for tag in values.tags_of(tags))
