"""Fields of a body that was cut: what its beginning proves, what its end proves, and no more."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.providers import cut, lenient
from proxy.providers.cut import outer_fields

KEYS = ("id", "model", "usage")


def test_what_stands_before_and_behind_the_cut_is_found() -> None:
    body = b'{"id":"i","text":"%b","usage":{"n":3},"x":[1,{"usage":4}]}' % (b"a" * 1000)
    assert outer_fields(body[:100], body[-100:], KEYS) == {"id": "i", "usage": {"n": 3}}


def test_only_the_keys_that_are_asked_for_are_given() -> None:
    assert outer_fields(b'{"id":"i","model":"m","x":', b'"usage":1}', ("model",)) == {"model": "m"}


@pytest.mark.parametrize(
    "tail",
    [
        b'"usage":{"n":3}}]}',  # inside another object
        b'"usage":{"n":3},"x":[1,2',  # the end is missing
        b'\\"usage\\":{"n":3}}',  # inside a string
        b'{"usage":{"n":3}}}',
        b'["usage"]}',
        b'"x":"usage"}',
        b'usage":{"n":3}}',
        b'"usage"}',
        b'"usage":{"n":3}}{',
        b"}",
        b"",
    ],
)
def test_a_field_of_a_tail_that_is_not_proved_to_be_the_outermost_objects_is_none(
    tail: bytes,
) -> None:
    assert outer_fields(b'{"output":[{"x":"', tail, KEYS) == {}


@pytest.mark.parametrize(
    ("head", "fields"),
    [
        (b' {"a":{"model":"inner"},"b":["model","x"],"id":"i","model":"m"', {"id": "i"}),
        (b'{"model":"m\\"","id":"i', {"model": 'm"'}),
        (b'{"x":"{","model":"m","id":1', {"model": "m"}),
        (b'{"x":"\\\\","model":"m",', {"model": "m"}),
        (b'{"model":"m"}{"id":"i"}', {"model": "m"}),
        (b'{"model":"m"} ', {"model": "m"}),
        (b'{"model":"no","model":"m",', {"model": "m"}),
        (b'{"usage":{"n":[1,{}]},', {"usage": {"n": [1, {}]}}),
        (b'{"model":"\xff","id":NaN,', {"model": "\ufffd"}),
        (b'{model:"m","id":"i",', {"id": "i"}),
        (b'{"model":,"id":"i",', {"id": "i"}),
        (b'[{"model":"m"},', {}),
        (b'"model":"m",', {}),
        (b"]}{", {}),
        (b'{"model', {}),
        (b'{"model\\', {}),
        (b"\xef\xbb\xbf{", {}),
        (b"", {}),
    ],
)
def test_only_whole_fields_of_depth_one_are_read_from_a_beginning(
    head: bytes, fields: dict[str, object]
) -> None:
    found = outer_fields(head, b"", KEYS)
    if "id" in found and found["id"] != found["id"]:  # NaN is a value too
        del found["id"]
    assert found == fields


def test_a_field_at_both_ends_is_that_of_the_end() -> None:
    assert outer_fields(b'{"model":"a",', b'"model":"b"}', KEYS) == {"model": "b"}


@pytest.mark.parametrize("behind", [0, 7, 8])
def test_a_key_is_tried_at_its_last_eight_places(behind: int) -> None:
    tail = b'"usage":3,"x":[%b]}' % b",".join([b'{"usage":4}'] * behind)
    assert outer_fields(b"", tail, KEYS) == ({"usage": 3} if behind < 8 else {})


texts = st.sampled_from(['"', "\\", '"usage":1}', '{"id":"x"}', "}", ",", "id", "é"]) | st.text()
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from((*KEYS, "x")) | texts, inner, max_size=4)
    ),
    max_leaves=15,
)


@given(
    st.dictionaries(st.sampled_from((*KEYS, "x")) | texts, values, max_size=6),
    st.sampled_from([(",", ":"), (", ", ": "), ("\n,", " :\t")]),
    st.booleans(),
    st.data(),
)
def test_wherever_a_body_is_cut_its_ends_tell_nothing_but_what_the_whole_says(
    document: dict[str, object], separators: tuple[str, str], ascii_only: bool, data: st.DataObject
) -> None:
    text = json.dumps(document, separators=separators, ensure_ascii=ascii_only)
    body = text.encode("utf-8", "surrogatepass")
    at = st.integers(0, len(body))
    head, tail = body[: data.draw(at)], body[data.draw(at) :]
    assert outer_fields(head, tail, KEYS).items() <= document.items()
    whole = {key: value for key, value in document.items() if key in KEYS}
    assert outer_fields(body, b"", KEYS) == whole


pieces = st.sampled_from([b'"usage":', b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"1"])
hostile = st.lists(pieces | st.binary(max_size=3)).map(b"".join)


@given(hostile, hostile)
def test_no_bytes_make_it_raise(head: bytes, tail: bytes) -> None:
    assert set(outer_fields(b'{"x":1,' + head, tail + b"}", KEYS)) <= set(KEYS)


@given(hostile)
@example(b'{"a\\')
def test_each_quotation_mark_begins_or_ends_a_string_so_that_none_is_tried_twice(
    head: bytes,
) -> None:
    assert b'"' not in cut._TOKEN.sub(b"", head)


@pytest.mark.parametrize(
    "piece",
    [b'\\"', b'"', b"{", b"[", b"}", b"\\", b'"a":', b'"a":1,', b'"usage"', b'"usage":{', b"{},"],
)
def test_a_hostile_body_is_parsed_a_bounded_number_of_times(
    piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed_bytes = 0

    def decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> object:
        nonlocal parsed_bytes
        parsed_bytes += len(body)
        return lenient.decode(decoder, body)

    monkeypatch.setattr(cut, "decode", decode)
    part = piece * (8_192 // len(piece))
    outer_fields(b"{" + part, part, KEYS)
    # Each pair of the beginning once, in braces; each key of the end at eight places at most.
    assert parsed_bytes <= 2 * len(part) + 3 * 8 * (len(part) + 1)


def test_a_beginning_is_walked_to_a_bound() -> None:
    head = b'{"x":"%b","model":"m","y":1}' % (b"a" * 65_536)
    assert outer_fields(head, b"", KEYS) == {}
