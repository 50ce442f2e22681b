"""Exact slices: whatever is split rejoins to its bytes, and a skeleton splits like its body."""

import hashlib
import json
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import slices
from proxy.providers.lenient import MAX_COMMAS
from proxy.slices import (
    Slice,
    Split,
    elements,
    split,
    split_answer,
    split_skeleton,
    without_known,
)
from tests.shaped import filled, requests

KEY = ("messages",)


def rejoined(found: Split) -> bytes:
    return filled(found.envelope, b"".join(lead + data for lead, data in found.slices))


def whole(body: bytes, path: slices.Path = KEY, **how: Any) -> Split:
    """Split a body, which must rejoin."""
    found = split(body, path, **how)
    assert found is not None
    assert rejoined(found) == body
    return found


def data(body: bytes, path: slices.Path = KEY) -> list[bytes]:
    return [piece.data for piece in whole(body, path).slices]


def test_2000_requests_as_clients_send_them_rejoin_byte_for_byte() -> None:
    blobs = 0
    for key, body in requests(2000):
        found = split(body, (key,))
        if found is None:
            blobs += 1
            continue
        assert rejoined(found) == body
        read = json.loads(body.decode("utf-8", "replace"))[key]
        read = [read] if isinstance(read, str) else read
        found_values = [json.loads(p.data.decode("utf-8", "replace")) for p in found.slices]
        assert found_values == read
        for hole in found.envelope.holes:
            assert hole is None or hole.sha256 == hashlib.sha256(hole.data).digest()
    assert 20 < blobs < 120  # those in which a top-level key stands twice


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(["messages", "tools", "a", "", 'q"\\']), values)
padding = st.text(st.sampled_from(" \t\r\n"), max_size=3)


@given(objects, padding, st.booleans(), st.sampled_from([None, 1]), st.integers(0, 300))
def test_any_json_that_is_split_rejoins_byte_for_byte(
    value: dict[str, object], pad: str, ascii_only: bool, indent: int | None, large_bytes: int
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    body = (pad + text + pad).encode("utf-8", "surrogatepass")
    found = split(body, KEY, large_bytes)
    if found is not None:
        assert rejoined(found) == body


@given(st.binary(), st.sampled_from([KEY, (), (0,), ("choices", 0, "message"), ("output",)]))
def test_no_bytes_make_it_raise(body: bytes, path: slices.Path) -> None:
    for text in (body, b'{"messages":[' + body + b"]}", b'{"choices":[' + body + b"]}"):
        found = split(text, path)
        assert found is None or rejoined(found) == text
    without_known(b'{"messages":[1' + body, 13, 14)


def test_messages_keep_the_separator_before_them() -> None:
    found = whole(b'{"messages" : [ {"a":1} ,\n {"b":2}\t] , "model":"m"}')
    assert found.slices == [Slice(b" ", b'{"a":1}'), Slice(b" ,\n ", b'{"b":2}')]
    assert found.envelope.pieces == (b'{"messages" : [', b'\t] , "model":"m"}')
    assert (found.opened, found.end) == (15, 34)


def test_a_string_is_one_message_without_a_separator() -> None:
    found = whole(b'{"input": "Hi \\u00e4" }', ("input",))
    assert found.slices == [Slice(b"", b'"Hi \\u00e4"')]
    assert (found.opened, found.end) == (0, 0)


@pytest.mark.parametrize("body", [b"{}", b'{"messages":[ ]}', b'{"messages":null,"a":1}', b" { } "])
def test_a_body_without_messages_is_all_envelope(body: bytes) -> None:
    found = whole(body)
    assert (found.slices, found.envelope.pieces, found.envelope.holes) == ([], (body,), ())


def test_a_large_value_beside_the_messages_is_a_content_wherever_it_stands() -> None:
    tools, schema = orjson.dumps(["t" * 300]), orjson.dumps({"s": "x" * 300})
    body = b'{"tools":%b,"messages":[{}],"small":[1],"schema": %b}' % (tools, schema)
    found = whole(body)
    holes = [hole and hole.data for hole in found.envelope.holes]
    assert holes == [tools, None, schema]
    assert found.slices == [Slice(b"", b"{}")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"7",
        b'{"messages":[{}]',
        b'{"messages":[{}],}',
        b'{"messages":[{},]}',
        b'{"messages":[{}]} x',
        b'\xef\xbb\xbf{"messages":[{}]}',
        b'{"messages":[NaN]}',
        b'{"a":1,"messages":[{}],"a":22}',
        b'{"messages":[{"role":"user"}],"messages":[]}',
        b'{"messages":[1,2,3]}',
        b'{"messages":[[1],[2]]}',
        b'{"messages":[' + b"[" * 100_000 + b"]}",
        b'{"messages":[{}%b,{}]}' % (b" " * slices.MAX_LEAD_BYTES),
        b'{"messages":[%b]}' % b",".join([b'""'] * (slices.MAX_MESSAGES + 1)),
    ],
)
def test_what_cannot_be_split_with_certainty_is_not_split(body: bytes) -> None:
    assert split(body, KEY) is None


def test_a_key_that_stands_twice_cannot_lead_the_walk_astray() -> None:
    # From the first `a` the walk would go on by the length of the second, to a key that is no key
    # of the body, and from there by the length of the messages to the very end.
    messages = b'[{"%b":1,"text":"some words"}]' % (b"k" * 15)
    body = b'{"a":1,"messages":%b,"a":"%b"}' % (messages, b"x" * 13)
    assert body[5 + 15 :].startswith(b'"kkkkkkkkkkkkkkk":')
    assert split(body, KEY) is None


def test_a_piece_too_long_for_a_row_is_a_content_of_its_own() -> None:
    logprobs = b'{"content":[%b]}' % b",".join([b"-0.5"] * 2000)
    body = b'{"choices":[{"message":{"role":"assistant"},"logprobs":%b}]}' % logprobs
    found = whole(body, ("choices", 0, "message"))
    assert found.slices == [Slice(b"", b'{"role":"assistant"}')]
    assert sum(map(len, found.envelope.pieces)) < 100


def test_a_body_whose_pieces_are_too_many_for_a_row_is_not_split() -> None:
    members = b",".join(b'"%d":"%b"' % (n, b"x" * 300) for n in range(3000))
    assert split(b'{"messages":[{}],%b}' % members, KEY) is None


ANSWERS: list[tuple[slices.Path, bytes, list[bytes]]] = [
    (("choices", 0, "message"), b'{"choices":[{"index":0,"message":{"a":1}},{}]}', [b'{"a":1}']),
    (("choices", 0, "text"), b'{"choices":[{"text":"Hi"}]}', [b'"Hi"']),
    (("choices", 0, "message"), b'{"choices":[{"message":null}]}', []),
    (("choices", 0, "message"), b'{"choices":[]}', []),
    (("choices", 0, "message"), b'{"error":{}}', []),
    (("output",), b'{"id":"r","output":[{"a":1},{"b":2}],"usage":{}}', [b'{"a":1}', b'{"b":2}']),
    ((), b'{"role":"assistant"}', [b'{"role":"assistant"}']),
    ((0,), b'[{"a":1},{"b":2}]', [b'{"a":1}']),
]


@pytest.mark.parametrize(("path", "body", "messages"), ANSWERS)
def test_the_messages_of_an_answer_are_found_by_their_path(
    path: slices.Path, body: bytes, messages: list[bytes]
) -> None:
    assert data(body, path) == messages


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *[(path, body) for path, body, _ in ANSWERS],
        (("choices", 0, "message"), b'{"choices":[{"message":{"a":1}},{"message":{"a":1}}]}'),
        (("choices", 0, "message"), b' {"choices" : [ {"message":\n{"a":1} }],"u": "\xff"}\n'),
        (("choices", 0, "message"), b'{"choices":[{"message":{"a":1}}],"p":"%b"}' % (b"x" * 2000)),
        (("choices", 0, "message"), b'{"choices":[{"message":{}},1],"p":"%b"}' % (b"x" * 1024)),
        (("choices", 0, "text"), b'{"id":"a","choices":[{"text":"a"}]}'),
        (("choices", 0, "message"), b'{"choices":{"0":{"message":{}}}}'),
        (("choices", 0, "message"), b'{"choices":[{"message":{}}]'),
        (("output",), b"{" + b'"output":[' * 100_000),
        ((), b""),
    ],
)
def test_an_answer_that_need_not_be_walked_is_split_alike(path: slices.Path, body: bytes) -> None:
    assert split_answer(body, path) == split(body, path, slices.LARGE_IN_ANSWER_BYTES)


def test_of_an_answers_key_that_stands_twice_the_last_counts() -> None:
    body = b'{"choices":[{"message":{"a":1}}],"choices":[{"message":{"b":2}}]}'
    found = split_answer(body, ("choices", 0, "message"))
    assert found is not None
    assert (found.slices, rejoined(found)) == ([Slice(b"", b'{"b":2}')], body)


@given(st.lists(values, max_size=3), values, st.sampled_from([None, 1]))
def test_any_answer_that_is_split_rejoins_byte_for_byte(
    messages: list[object], beside: object, indent: int | None
) -> None:
    answer = {"choices": [{"message": message} for message in messages], "x": beside}
    body = json.dumps(answer, indent=indent).encode()
    found = split_answer(body, ("choices", 0, "message"))
    full = split(body, ("choices", 0, "message"), slices.LARGE_IN_ANSWER_BYTES)
    assert found == full
    assert found is None or rejoined(found) == body


@pytest.mark.parametrize("path", [("choices", 0, "message"), ("choices", "x"), (0,), ("a", 1)])
@pytest.mark.parametrize("body", [b'{"choices":{"0":{}}}', b'{"choices":"x"}', b'{"a":[1]}'])
def test_a_path_through_another_shape_finds_nothing_or_is_not_split(
    path: slices.Path, body: bytes
) -> None:
    found = split(body, path)
    assert found is None or (found.slices == [] and rejoined(found) == body)


# Skeletons.


def behind(body: bytes, first: Split) -> Split | None:
    skeleton = without_known(body, first.opened, first.end)
    return split_skeleton(skeleton, KEY) if skeleton is not None else None


FIRST = b'{"model":"m","messages": [ {"a":1}, {"b":2} ], "n":1}'


@pytest.mark.parametrize(
    "body",
    [
        FIRST,
        b'{"model":"m","messages": [ {"a":1}, {"b":2}]}',
        b'{"model":"m","messages": [ {"a":1}, {"b":2} ,\n {"c":3}, "d" ], "tools":[%b]}'
        % (b"1," * 200 + b"1"),
    ],
)
def test_a_body_that_goes_on_from_another_splits_alike_behind_it(body: bytes) -> None:
    first = whole(FIRST)
    found, full = behind(body, first), whole(body)
    assert found is not None
    assert found.envelope == full.envelope
    assert (found.opened, found.end) == (full.opened, full.end)
    assert [*first.slices, *found.slices] == full.slices


@pytest.mark.parametrize(
    "rest",
    [
        b",]}",
        b", ]}",
        b",,{}]}",
        b"}]}",
        b"",
        b",",
        b'{"c":3}]}',
        b"],}",
        b']} ,"messages":[]',
        b'],"model":"twice"}',
        b'],"messages":[]}',
        b",{}]",
        b',{"c":"}]}',
        b",NaN]}",
        b",7]}",
        b"%b,{}]}" % (b" " * slices.MAX_LEAD_BYTES),
    ],
)
def test_behind_a_known_beginning_nothing_is_split_that_would_not_be_in_full(rest: bytes) -> None:
    first = whole(FIRST)
    body = FIRST[: first.end] + rest
    assert split(body, KEY) is None
    assert behind(body, first) is None


@given(
    st.binary(max_size=40) | st.text(st.sampled_from('{}[],:" \\1am'), max_size=30).map(str.encode)
)
def test_any_rest_behind_a_known_beginning_splits_as_in_full(rest: bytes) -> None:
    first = whole(FIRST)
    body = FIRST[: first.end] + rest
    full, found = split(body, KEY), behind(body, first)
    if full is None or not full.end:
        assert found is None
    else:
        assert found is not None
        assert found.envelope == full.envelope
        assert [*first.slices, *found.slices] == full.slices


def test_a_number_of_which_only_the_beginning_is_known_is_not_taken_over() -> None:
    assert without_known(b"[1,23]", 1, 4) is None
    assert without_known(b"[1,23]", 1, 5) is not None


def test_an_arrays_elements_are_given_with_what_stands_between() -> None:
    array = b'[ {"a":"],["} ,\n 2, [3]]'
    assert elements(array) == [(b" ", b'{"a":"],["}'), (b" ,\n ", b"2"), (b", ", b"[3]")]
    assert elements(b" []") == []
    for odd in (b"{}", b"5", b"[1", b""):
        with pytest.raises(ValueError, match=r"Expected|truncated|^$"):
            elements(odd)


@pytest.mark.parametrize("value", [b'"",', b"1,", b'"a":1,'])
def test_of_what_has_too_many_values_not_one_is_held(value: bytes) -> None:
    values = value * (MAX_COMMAS + 1) + value[:-1]
    whole = b"{%b}" if b":" in value else b'{"messages":[%b]}'
    body = whole % values
    tracemalloc.start()
    assert split(body, KEY) is None
    assert split_answer(body, ("choices", 0, "message")) is None
    with pytest.raises(ValueError, match=r"^$"):
        elements(b"[%b]" % values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * len(body)


def test_what_has_too_many_elements_or_members_is_not_walked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slices, "_SEPARATOR", None)
    assert split(b'{"messages":[%b]}' % b",".join([b'""'] * (slices.MAX_MESSAGES + 1)), KEY) is None
    monkeypatch.setattr(slices, "_KEY", None)
    many = b",".join(b'"%d":1' % n for n in range(slices.MAX_MEMBERS + 1))
    assert split(b"{%b}" % many, KEY) is None


def test_an_answer_that_would_be_too_large_to_put_together_is_kept_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = b'{"choices":[{"message":{"role":"assistant"}}]}'
    path = ("choices", 0, "message")
    monkeypatch.setattr(slices, "MAX_ENVELOPED_BYTES", len(body))
    assert split_answer(body, path) is not None
    assert split_answer(body + b" ", path) is None
