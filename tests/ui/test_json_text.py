"""JSON with white space between its values, and nothing else changed."""

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.ui.json_text import MAX_INDENT, indented

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def test_each_value_has_a_line() -> None:
    assert indented('{"a":[1,{"b":null}],"c":{},"d":[]}') == (
        '{\n  "a": [\n    1,\n    {\n      "b": null\n    }\n  ],\n  "c": {},\n  "d": []\n}'
    )


def test_what_was_written_stays() -> None:
    assert indented('[1.10,12345678901234567890123,"\\u00e9 { , :"]') == (
        '[\n  1.10,\n  12345678901234567890123,\n  "\\u00e9 { , :"\n]'
    )


def test_what_is_no_json_stays_as_it_is() -> None:
    for text in ("", "{", "NaN", "hello {a: 1}", '{"a":1} x'):
        assert indented(text) == text


@settings(deadline=None)
@given(VALUES)
def test_it_means_the_same(value: object) -> None:
    data = orjson.dumps(value).decode() if not _is_big(value) else "[]"
    assert orjson.loads(indented(data)) == orjson.loads(data)


@settings(deadline=None)
@given(VALUES)
def test_it_is_written_as_others_write_it(value: object) -> None:
    if not _is_big(value):
        written = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
        assert indented(orjson.dumps(value).decode()) == written


def test_depth_costs_no_square() -> None:
    deep = "[" * 1000 + "]" * 1000
    assert len(indented(deep)) < 2000 * (2 * MAX_INDENT)


def _is_big(value: object) -> bool:
    """Tell whether orjson, which writes up to 64 bits, would refuse a value."""
    try:
        orjson.dumps(value)
    except TypeError:
        return True
    return False
