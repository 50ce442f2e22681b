"""What a body may hold, and that what is wrong with it is named by its place and never quoted."""

from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.ingest_bodies import (
    MAX_ITEMS,
    NewSpan,
    NewTrace,
    SpanCompletion,
    SpanFailure,
    TraceEnd,
    items_of,
    read_item,
    read_one,
)
from proxy.api.params import BadParameter
from tests.timing import cpu_s

ID = "5a6b7c8d9e0f1a2b"
CANARY = "sk-canary-31c0ffee42"
DEEP = b"[" * 3_000 + b"]" * 3_000


def mistake(data: object, kind: type[Any] = NewSpan) -> tuple[str, str | None]:
    body = data if isinstance(data, bytes) else orjson.dumps(data)
    with pytest.raises(BadParameter) as caught:
        read_one(body, kind)
    return str(caught.value), caught.value.name


@pytest.mark.parametrize(
    ("body", "says", "name"),
    [
        (b"", "expected JSON, an object", None),
        (b"{", "expected JSON, an object", None),
        (b"\xff", "expected JSON in UTF-8", None),
        (b'{"input":"\xff"}', "expected JSON in UTF-8", None),
        (b'{"duration_ms":NaN}', "expected JSON, an object", None),
        (b'{"input":[1,]}', "expected JSON, an object", None),
        (b'{"input":"\x01"}', "expected JSON, an object", None),
        (b'{"input":%b}' % DEEP, "expected JSON of fewer levels", None),
        ([], "Expected object, got array", None),
        ("x", "Expected object, got str", None),
        ({"name": 5}, "name: Expected str | null, got int", "name"),
        ({"sessionId": "s"}, "Object contains unknown field sessionId", None),
        ({"started_at": "yesterday"}, "started_at: expected an ISO 8601 time", "started_at"),
        ({"started_at": "2026-11-26T09:00:00"}, "started_at: expected an ISO 8601", "started_at"),
        ({"started_at": 1_795_683_600}, "started_at: expected an ISO 8601 time", "started_at"),
        ({"status": "done"}, "status: expected one of running, completed, failed", "status"),
        ({"user_id": "x" * 513}, "user_id: Expected str of length <= 512", "user_id"),
        ({"duration_ms": "5"}, "duration_ms: Expected float | null, got str", "duration_ms"),
        (b'{"duration_ms":1e999}', "duration_ms: Number out of range", "duration_ms"),
        ({"type": "trace"}, "type: expected one of trace, span, complete, fail, end", "type"),
    ],
)
def test_a_mistake_is_named_by_its_place(body: object, says: str, name: str | None) -> None:
    message, at = mistake(body)
    assert message.startswith(says)
    assert at == name


def test_a_mistake_within_a_list_is_named_too() -> None:
    assert mistake({"tags": ["a", "x" * 65]}, NewTrace) == (
        "tags[1]: Expected str of length <= 64",
        "tags[1]",
    )
    assert mistake({"tags": ["a"] * 65}, NewTrace)[1] == "tags"
    assert mistake({}, SpanFailure) == ("Object missing required field error", None)


@pytest.mark.parametrize("value", [CANARY, f"'{CANARY}", f"{CANARY} - at `$.name`", "tw_sk_x"])
def test_a_value_is_never_quoted(value: str) -> None:
    for field in NewSpan.__struct_fields__:
        for wrong in (value, [value], {value: value}):
            for read in (
                lambda body: read_one(body, NewSpan),
                lambda body: read_item(body.replace(b"{", b'{"type":"span",', 1)),
            ):
                said = ""
                try:
                    read(orjson.dumps({field: wrong}))
                except BadParameter as error:
                    said = str(error)
                assert CANARY not in said
                assert "tw_sk_x" not in said


def test_what_may_be_any_json_stays_as_it_was_written() -> None:
    odd = b'{ "a" : 1.50, "a":1e999, "\\u00e9": [12345678901234567890123] }'
    asked, redacted = read_one(b'{"input":%b,"output": null }' % odd, NewSpan)
    assert bytes(asked.input) == odd
    assert (bytes(asked.output), redacted) == (b"null", False)


def test_a_key_of_ours_is_cut_out_wherever_it_stands() -> None:
    asked, redacted = read_one(b'{"name":"tw_sk_abc","input":["Bearer tw_sk_def"]}', NewSpan)
    assert (asked.name, bytes(asked.input)) == ("[redacted]", b'["Bearer [redacted]"]')
    assert redacted
    _, redacted = read_item(b'{"type":"complete","id":"%b","output":"tw_sk_x"}' % ID.encode())
    assert redacted


def test_half_a_character_does_not_cost_the_whole() -> None:
    asked, _ = read_one(rb'{"name":"a\ud83d","input":"\udc00"}', NewSpan)
    assert (asked.name, bytes(asked.input)) == ("a\ufffd", rb'"\ufffd"')


def test_of_a_key_that_stands_twice_the_last_counts() -> None:
    asked, _ = read_one(b'{"name":"a","name":"b","input":1,"input":2}', NewSpan)
    assert (asked.name, bytes(asked.input)) == ("b", b"2")


def test_an_end_takes_its_id_from_the_path_and_may_have_no_body() -> None:
    for body in (b"", b" ", b"{}", b'{"id":"%b"}' % ID.encode(), b'{"id":null}'):
        asked, _ = read_one(body, SpanCompletion, ID)
        assert asked.id == ID
    with pytest.raises(BadParameter, match="that of the path"):
        read_one(b'{"id":"x"}', TraceEnd, ID)


# Batches.


def test_a_batch_is_divided_into_items_as_they_were_written() -> None:
    assert items_of(b' { "items" : [ {"a": 1} , 2,"]" ] } ') == [b'{"a": 1}', b"2", b'"]"']
    assert items_of(b'{"items":[]}') == []
    assert len(items_of(b'{"items":[%b]}' % b",".join([b"{}"] * MAX_ITEMS))) == MAX_ITEMS


@pytest.mark.parametrize(
    ("body", "says", "name"),
    [
        (b"{}", "Object missing required field items", None),
        (b"[]", "Expected object, got array", None),
        (b'{"items":{}}', "items: Expected array, got object", "items"),
        (b'{"items":null}', "items: Expected array, got null", "items"),
        (b'{"items":[],"x":1}', "Object contains unknown field x", None),
        (b'{"items":[%b]}' % b",".join([b"{}"] * 1_001), "items: expected at most 1000", "items"),
        (b'{"items":[%b', "expected JSON, an object", None),
        (b'{"items":[' + b"[" * 3_000, "expected JSON of fewer levels", None),
        (b'{"x":%b}' % DEEP, "Object contains unknown field x", None),
        (b'{"items":[' + b"[" * 600_000 + b"]" * 600_000 + b"]}", "expected JSON of fewer", None),
    ],
)
def test_what_is_no_batch_is_a_mistake_of_the_whole(
    body: bytes, says: str, name: str | None
) -> None:
    with pytest.raises(BadParameter) as caught:
        items_of(body)
    assert str(caught.value).startswith(says)
    assert caught.value.name == name


def test_an_item_that_is_too_deep_does_not_cost_the_others() -> None:
    items = [b'{"a":"[,\\"]"}', DEEP, b" 3 ", b'{"b":[{},[1,2]]}']
    assert items_of(b' {"items" :[' + b",".join(items) + b"] }\n") == [
        items[0],
        DEEP,
        b"3",
        items[3],
    ]
    with pytest.raises(BadParameter, match="fewer levels"):
        items_of(b'{"items":[' + DEEP + b"] , 5}")


def test_a_string_that_does_not_end_is_read_once() -> None:
    def read() -> None:
        with pytest.raises(BadParameter, match="fewer levels"):
            items_of(b'{"items":[' + b"[" * 3_000 + b'"' + b'\\"' * 20_000)

    assert cpu_s(read) < 1  # from each quote anew it takes 10 s


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (b"{}", "Object missing required field type"),
        (b'{"type":5}', "type: expected one of trace, span, complete, fail, end"),
        (b'{"type":"x"}', "type: expected one of trace, span, complete, fail, end"),
        (b'{"type":"span","status":"x"}', "status: expected one of running, completed, failed"),
        (b'{"type":"fail","id":"x"}', "Object missing required field error"),
        (b'{"type":"span",}', "expected JSON, an object"),
        (DEEP, "Expected object, got array"),
    ],
)
def test_an_item_is_what_its_type_says(item: bytes, says: str) -> None:
    with pytest.raises(BadParameter) as caught:
        read_item(item)
    assert str(caught.value) == says


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_batch_or_a_mistake(body: bytes) -> None:
    for data in (body, b'{"items":[' + body + b"]}"):
        with suppress(BadParameter):
            for item in items_of(data):
                read_item(item)
