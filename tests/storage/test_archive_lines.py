"""The lines of an archive: one value is one line, and what is none of the format is refused."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.ingest_bodies import MAX_TAGS, TAG_CHARS
from proxy.handed_values import ERROR_CHARS, NAME_CHARS
from proxy.reaper import MAX_LINE_BYTES
from storage import archive_lines
from storage.archive_lines import (
    BadArchive,
    Chain,
    ContentLine,
    NodeLine,
    OpenedLine,
    SessionLine,
    SpanLine,
    data_of,
    decoded,
    encoded,
    is_the_same,
    plain,
)
from storage.squeeze import MAX_BYTES

SPAN: dict[str, Any] = {
    "type": "span",
    "trace": "0" * 32,
    "id": "1" * 16,
    "state": "completed",
    "kind": "llm_call",
    "name": "m",
    "started_at_us": 5,
    "duration_us": 1,
}


def span(**fields: Any) -> SpanLine:
    found = decoded(msgspec.json.encode({**SPAN, **fields}))
    assert isinstance(found, SpanLine)
    return found


@given(st.binary(max_size=40))
def test_any_bytes_come_back(data: bytes) -> None:
    line = encoded(ContentLine(sha256="a" * 64, data=data_of(data)))
    assert line.count(b"\n") == 1
    found = decoded(line)
    assert isinstance(found, ContentLine)
    assert plain(found.data) == data


def test_a_line_is_sorted_and_leaves_out_what_is_unknown() -> None:
    line = NodeLine(hash="0" * 32, lead=", ", content="1" * 64, role="user", meaning="")
    assert encoded(line) == (
        b'{"content":"%b","hash":"%b","lead":", ","meaning":"","role":"user","type":"node"}\n'
        % (b"1" * 64, b"0" * 32)
    )


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b'{"type":"nonsense"}\n',
        b'{"type":"content","sha256":"00","data":""}\n',
        b'{"type":"content","sha256":"%b","data":"\xff"}\n' % (b"a" * 64),
        b'{"type":"content","sha256":"%b","data":"\\ud800"}\n' % (b"a" * 64),
        b'{"type":"content","sha256":"%b","data":{"base64":"?"}}\n' % (b"a" * 64),
        b'{"type":"content","sha256":"%b","data":"","more":1}\n' % (b"a" * 64),
        b'{"type":"end","lines":-1,"sha256":"%b"}\n' % (b"a" * 64),
        b'{"type":"content","sha256":' + b"[" * 100_000,
    ],
)
def test_what_is_no_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadArchive):
        decoded(line)


@pytest.mark.parametrize(
    "fields",
    [
        {"trace": "0" * 31},
        {"trace": "0" * 32 + "\n"},
        {"id": "A" * 16},
        {"state": "running"},
        {"name": "a\0b"},
        {"name": None},
        {"started_at_us": -1},
        {"started_at_us": 1.5},
        {"duration_us": 10**14},
        {"cost_nusd": 10**16},
        {"input_tokens": True},
        {"handed_in": 1},
        {"request": {"media_type": "text/plain\r\nX-Evil: 1"}},
        {"request": {"encoding": "gzip\x0b"}},
        {"response": {"media_type": "\x08"}},
        {"response": {"encoding": "\x7f"}},
        {"request_headers": "no JSON"},
        {"request_headers": "{}"},
        {"request_headers": "[" * 5_000 + "]" * 5_000},
        {"attributes": "[]"},
        {"attributes": '{"a":}'},
        {"attributes": '{"a":{"b":[1e]}}'},
        {"attributes": '{"a":1} x'},
        {"attributes": '{"a":' * 5_000 + "1" + "}" * 5_000},
    ],
)
def test_a_span_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(BadArchive):
        span(**fields)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400, "1.500", "-0"])
def test_attributes_have_any_number_as_it_was_written(number: str) -> None:
    said = f'{{"kind":{{"n":[{number}]}},"metadata":{{"n":{number}}}}}'
    assert span(attributes=said).attributes == said


@pytest.mark.parametrize("said", ["text/plain;\tcharset=utf-8", "text/plain; n=\x80\xff"])
def test_what_a_header_may_have_within_its_value_is_taken(said: str) -> None:
    found = span(request={"media_type": said, "encoding": said})
    assert found.request is not None
    assert (found.request.media_type, found.request.encoding) == (said, said)


KEYS = ("model", "model_requested", "response_id", "user_id")
OPENED: dict[str, Any] = {"type": "opened", "trace": "0" * 32, "at_us": 5}
KEYED = [*({**SPAN, name: ""} for name in KEYS), {**OPENED, "user_id": ""}]


@pytest.mark.parametrize("line", KEYED)
def test_a_text_that_no_index_could_have_whole_is_cut(line: dict[str, Any]) -> None:
    (name,) = [name for name, value in line.items() if value == ""]
    for kept, text in (("x" * 1_024, "x" * 1_025), ("\u00e9" * 512, "\u00e9" * 513)):
        for said in (kept, text):
            found = decoded(msgspec.json.encode({**line, name: said}))
            assert getattr(found, name) == kept


TEXTS = ("name", "path", "query", "label", "user_id", "model")
SHOWN = ("error", "input_preview", "output_preview", "notes")


def opened_line(**fields: Any) -> OpenedLine:
    found = decoded(msgspec.json.encode({**OPENED, **fields}))
    assert isinstance(found, OpenedLine)
    return found


def test_texts_are_taken_as_long_as_any_version_recorded_them() -> None:
    # A line of a head whose keys were cut out, the first version's previews, the longest errors.
    line = "POST /" + "[redacted]/" * (MAX_LINE_BYTES // 7)
    found = span(name=line, query=line, input_preview="x" * 500, error="\u00e9" * ERROR_CHARS)
    assert (found.name, found.query, found.error) == (line, line, "\u00e9" * ERROR_CHARS)
    tags = [f"{n:>{TAG_CHARS}}" for n in range(MAX_TAGS)]
    opened = opened_line(name="x" * NAME_CHARS, tags=tags)
    assert (opened.name, opened.tags) == ("x" * NAME_CHARS, tags)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        *((name, archive_lines.MAX_TEXT_CHARS) for name in TEXTS),
        *((name, archive_lines.MAX_SHOWN_CHARS) for name in SHOWN),
    ],
)
def test_a_text_that_is_longer_than_any_that_was_recorded_is_refused(name: str, most: int) -> None:
    assert span(**{name: "x" * most})
    with pytest.raises(BadArchive, match=f"length <= {most}"):
        span(**{name: "x" * (most + 1)})


@pytest.mark.parametrize(
    "said",
    [
        {"name": "x" * (archive_lines.MAX_TEXT_CHARS + 1)},
        {"tags": ["x" * (archive_lines.MAX_TAG_CHARS + 1)]},
        {"tags": ["x"] * (archive_lines.MAX_TAGS + 1)},
        {"tags": ["a\0b"]},
    ],
)
def test_names_and_tags_of_a_trace_that_nobody_could_give_it_are_refused(
    said: dict[str, Any],
) -> None:
    with pytest.raises(BadArchive):
        opened_line(**said)


@pytest.mark.parametrize("name", ["error", "label", "model", "provider", "response_id"])
def test_a_text_of_an_early_end_is_bounded_as_those_that_are_shown(name: str) -> None:
    def end_of(length: int) -> dict[str, Any]:
        own = {name: "x" * length}
        return early(**own) if name == "error" else early(said=own)

    assert span(**end_of(archive_lines.MAX_SHOWN_CHARS))
    with pytest.raises(BadArchive, match="length <= "):
        span(**end_of(archive_lines.MAX_SHOWN_CHARS + 1))


def early(**fields: Any) -> dict[str, Any]:
    """Say of a span that was handed in that an end of it waits."""
    return {"handed_in": True, "early_end": {"arrived_at_us": 1, "state": "completed", **fields}}


@pytest.mark.parametrize("state", ["completed", "failed"])
def test_an_early_end_has_a_state_in_which_an_application_ends_a_span(state: str) -> None:
    found = span(**early(state=state, said={"attributes": '{"kind":{"n":1e999}}'}))
    assert found.early_end is not None
    assert found.early_end.state == state


@pytest.mark.parametrize(
    "fields",
    [
        *({"state": state} for state in ("running", "interrupted", "nonsense", "", None)),
        *({"said": {"attributes": text}} for text in ("[]", "1", '{"a":}', '{"a":1} x', "")),
        {"said": {"attributes": '{"a":' * 5_000 + "1" + "}" * 5_000}},
        {"said": {"attributes": '{"a":"%s"}' % ("x" * MAX_BYTES)}},
    ],
)
def test_an_early_end_that_no_application_could_hand_in_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(BadArchive):
        span(**early(**fields))


def test_spans_are_the_same_whatever_the_calls_beside_them_make_of_them() -> None:
    chain = Chain(input="0" * 32, base_meaning="00", fresh_count=3)
    one = span(handed_in=True, same_call="2" * 16, chain=msgspec.to_builtins(chain))
    other = span(handed_in=True, chain={"input": "0" * 32})
    assert is_the_same(one, other)
    assert not is_the_same(one, span(handed_in=True))
    assert not is_the_same(one, span(chain={"input": "0" * 32}))


def test_a_call_is_the_same_wherever_it_moved_and_whatever_it_is_below_there() -> None:
    there, elsewhere = "2" * 32, "3" * 32
    one = span(label="x")
    moved = {"moved_from": SPAN["trace"], "label": "x"}
    others = [span(trace=there, parent_id="4" * 16, **moved), span(trace=elsewhere, **moved)]
    for other in others:
        assert is_the_same(one, other)
        assert is_the_same(other, one)
    assert is_the_same(*others)
    assert not is_the_same(one, span(trace=there, label="x"))
    assert not is_the_same(one, span(trace=there, moved_from=SPAN["trace"]))
    assert not is_the_same(one, span(parent_id="4" * 16, label="x"))


@pytest.mark.parametrize(
    "session",
    [
        {"id": "x" * 1_025},
        {"id": "\u00e9" * 513},
        {"id": "a\nb"},
        {"id": "a\x85b"},
        {"id": " a"},
        {"id": "a "},
        {"id": "a\u2003"},
        {"id": ""},
        {"id": "a", "name": "x" * 201},
        {"id": "a", "name": "x\ny"},
        {"id": "a", "name": " "},
    ],
)
def test_a_session_that_nothing_here_could_name_or_call_so_is_refused(
    session: dict[str, str],
) -> None:
    with pytest.raises(BadArchive):
        decoded(json.dumps({"type": "session", **session}).encode())


def test_a_session_has_an_id_and_a_name_as_long_as_they_may_be() -> None:
    session = {"id": "\u00e9 " * 341 + "x", "name": "\u00e9" * 200}
    assert isinstance(decoded(json.dumps({"type": "session", **session}).encode()), SessionLine)
