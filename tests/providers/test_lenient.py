"""JSON and text from strangers: as much as can be read is read, and all of it can be stored."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.lenient import (
    MAX_COMMAS,
    MAX_CONTAINERS,
    clean,
    decode,
    encode,
    items,
    key,
    mapping,
    name,
    preview,
)


class Fields(msgspec.Struct):
    model: Any = None
    x: Any = None


FIELDS = msgspec.json.Decoder(Fields)
OBJECT = msgspec.json.Decoder(dict[str, Any])
any_text = st.text(st.characters() | st.sampled_from("\0\ud83d\ude00\udfff \n"))


def model(body: bytes) -> object:
    found = decode(FIELDS, body)
    return None if found is None else found.model


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m"}',
        b' \r\n{"model":"m"}\n',
        b"\xef\xbb\xbf" + b'{"model":"m"}',
        b'{"model":"m","x":NaN}',
        b'{"model":"m","x":-Infinity}',
        b'{"model":"m","x":1e999}',
        b'{"model":"m","x":"\\ud800"}',
        b'{"model":"m","x":"\xff"}',
        b'{"\xff":1,"model":"m"}',
        b'{"model":"m","x":' + b"9" * 5000 + b"}",
        b'{"model":"m","x":-' + b"9" * 5000 + b"}",
        b'{"model":"m","x":NaN,"y":' + b"9" * 5000 + b"}",
        b'{"model":"m","x":' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"model":"no","model":"m"}',
    ],
)
def test_odd_json_is_read_all_the_same(body: bytes) -> None:
    assert model(body) == "m"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[]",
        b'["model"]',
        b"null",
        b"7",
        b'"model"',
        b"NaN",
        b"{",
        b'{"model":"m"',
        b'{"model":"m"}}',
        b'{"model":"m"}{"model":"m"}',
        b"{'model':'m'}",
        b"<html>",
        b"\xff\xfe",
        b"\0",
        '{"model":"m"}'.encode("utf-16"),
        b'{"model":' + b"[" * 200_000,
        b'{"model":"m","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"model":"m","x":' + b'{"x":' * 200_000 + b"1" + b"}" * 200_000 + b"}",
    ],
)
def test_what_is_no_object_or_too_deep_is_none(body: bytes) -> None:
    assert decode(FIELDS, body) is None


def test_a_number_too_long_for_python_is_infinite_where_the_strict_parser_refuses_it() -> None:
    found = decode(FIELDS, b'{"x":[NaN,' + b"9" * 5000 + b"]}")
    assert found is not None
    assert found.x[1] == float("inf")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(any_text, json_values, max_size=4))
def test_any_object_is_read_as_the_standard_library_reads_it(value: dict[str, object]) -> None:
    body = json.dumps(value).encode()
    assert decode(OBJECT, body) == json.loads(body)


@given(st.binary(), st.sampled_from([b"", b"{", b'{"model":', b'{"model":"', b"\xef\xbb\xbf{"]))
def test_no_bytes_make_it_raise(body: bytes, start: bytes) -> None:
    for end in (b"", b"}", b'"}'):
        assert isinstance(decode(FIELDS, start + body + end), Fields | None)


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "x", b"x", (1,)])
def test_what_is_neither_object_nor_array_is_an_empty_one(value: object) -> None:
    assert (mapping(value), items(value)) == ({}, [])


def test_an_object_is_no_array_and_an_array_no_object() -> None:
    assert (mapping({"a": 1}), items({"a": 1})) == ({"a": 1}, [])
    assert (mapping([1]), items([1])) == ({}, [1])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("gpt-5", "gpt-5"),
        ("x" * 512, "x" * 512),
        ("x" * 513, None),
        ("", None),
        (None, None),
        (7, None),
        (["gpt-5"], None),
        ("a\0\ud800b", "a\ufffd\ufffdb"),
    ],
)
def test_a_name_is_text_of_1_to_512_characters(value: object, expected: str | None) -> None:
    assert name(value) == expected


@given(any_text)
def test_clean_text_can_be_stored_and_is_otherwise_what_it_was(text: str) -> None:
    cleaned = clean(text)
    assert "\0" not in cleaned
    cleaned.encode()
    # A pair of surrogates that stand side by side is the character that they mean.
    pairs = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert cleaned == pairs.replace("\0", "\ufffd")
    assert clean(cleaned) == cleaned


def test_a_pair_of_surrogates_is_its_character_and_a_lone_one_is_replaced() -> None:
    assert clean("a\ud83d\ude00b") == "a\U0001f600b"
    assert clean("a\ude00\ud83db") == "a\ufffd\ufffdb"
    assert clean("\ufeffa\ud83d") == "\ufeffa\ufffd"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        (" \n\t\u3000", None),
        (" a\n\n  b ", "a b"),
        ("x" * 600, "x" * 240),
        ("x  " * 6000, "x " * 120),
    ],
)
def test_a_preview_is_one_line_of_at_most_240_characters(text: str, expected: str | None) -> None:
    assert preview(text) == expected


@given(st.lists(st.sampled_from(["a", "bc", " ", "\n", "\u3000"]), max_size=2000).map("".join))
def test_a_preview_is_the_beginning_of_the_folded_text(text: str) -> None:
    assert preview(text) == (" ".join(text.split())[:240] or None)


def test_a_preview_of_a_long_text_looks_at_its_beginning_only() -> None:
    class Watched(str):
        splits = 0

        def split(self, sep=None, maxsplit=-1):  # type: ignore[no-untyped-def]
            self.splits = maxsplit
            return super().split(sep, maxsplit)

    text = Watched("a      " * 100_000)
    preview(text)
    assert 0 < text.splits <= 500


@pytest.mark.parametrize(("value", "text"), [(0, "0"), ("a", "a"), (None, ""), ([], ""), (1.5, "")])
def test_only_numbers_and_texts_tell_things_apart(value: object, text: str) -> None:
    assert key(value) == text


def test_what_is_written_is_compact_json_and_halves_of_a_character_are_joined() -> None:
    assert encode({"a": ["\u00e9", None]}) == '{"a":["\u00e9",null]}'.encode()
    assert json.loads(encode({"a": "\ud83d" + "\ude00"})) == {"a": "\U0001f600"}
    assert encode("\ud83d") == b'"\\ud83d"'


def test_a_body_of_very_many_arrays_is_not_parsed() -> None:
    for count, found in ((MAX_CONTAINERS - 1, "m"), (MAX_CONTAINERS, None)):
        assert model(b'{"model":"m","x":[0%b]}' % (b",[]" * (count - 1))) == found
    assert model(b'{"model":"m","x":"%b"}' % (b"0," * MAX_CONTAINERS)) == "m"


def test_a_body_of_very_many_values_is_not_parsed() -> None:
    for count, found in ((MAX_COMMAS - 1, "m"), (MAX_COMMAS, None)):
        assert model(b'{"model":"m","x":[0%b]}' % (b",1" * count)) == found
