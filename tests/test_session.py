"""A session id is free text: stored as it was sent, found again, and never a reason to fail."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import session
from tests.running import Running
from tests.wire import ScriptedUpstream

IDS = [
    "x",
    "user_123:conv_456",
    "a/b//c",
    "a%2Fb",
    "100%",
    "%",
    "_",
    "{id}",
    "{}",
    "..",
    ".",
    "../..",
    "?q=1#f",
    "a b  c",
    "'; DROP TABLE sessions; --",
    '"quoted"',
    "\\back\\slash",
    "<script>alert(1)</script>",
    "été",
    "日本語 \U0001f600",
    "e\u0301",
    "\u202eltr",
    "by-id",
    "null",
    "0",
    "*",
    "a&b=c+d",
    "x" * 1024,
]


@pytest.mark.parametrize("session_id", IDS)
async def test_any_id_is_stored_as_sent_and_found_again(
    tw: Running, upstream: ScriptedUpstream, session_id: str
) -> None:
    upstream.answers(b"{}")
    got = await tw.raw(headers=b"X-Traceway-Session-Id: %b\r\n" % session_id.encode())
    assert got.status == 200
    assert got.get(b"X-Traceway-Session-Id") == quote(session_id, safe="").encode()

    (listed,) = (await tw.api("/api/sessions"))["sessions"]
    assert (listed["id"], listed["source"], listed["trace_count"]) == (session_id, "header", 1)
    for path in readable_at(session_id):
        got = await tw.raw(path.encode(), method=b"GET")
        assert got.status == 200, path
        assert session_id.encode() in got.body.replace(b'\\"', b'"').replace(b"\\\\", b"\\")
    (sent,) = upstream.requests
    assert sent.get(b"X-Traceway-Session-Id") is None


def readable_at(session_id: str) -> list[str]:
    quoted = quote(session_id, safe="")
    paths = [f"/api/sessions/by-id?id={quoted}"]
    if session_id not in (".", "..", "by-id"):  # a path cannot carry these
        paths.append(f"/api/sessions/{quoted}")
    return paths


@pytest.mark.parametrize(
    ("header", "session_id"),
    [
        (b"", None),
        (b"X-Traceway-Session-Id:\r\n", None),
        (b"X-Traceway-Session-Id:   \r\n", None),
        (b"X-Traceway-Session-Id:   padded  \r\n", "padded"),
        (b"x-traceway-SESSION-id: any case\r\n", "any case"),
        (b"X-Traceway-Session-Id: first\r\nX-Traceway-Session-Id: second\r\n", "first"),
        (b"X-Traceway-Session-Id: caf\xe9\r\n", "café"),
    ],
)
async def test_a_header_is_read_leniently(
    tw: Running, upstream: ScriptedUpstream, header: bytes, session_id: str | None
) -> None:
    upstream.answers(b"{}")
    assert (await tw.raw(headers=header)).status == 200
    sessions = (await tw.api("/api/sessions"))["sessions"]
    assert [found["id"] for found in sessions] == ([session_id] if session_id else [])
    (trace,) = (await tw.api("/api/traces"))["traces"]
    assert trace["session_id"] == session_id


async def test_an_id_of_8_kb_is_cut_and_told_apart_by_a_hash(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    for end in (b"a", b"b", b"a"):
        await tw.raw(headers=b"X-Traceway-Session-Id: %b%b\r\n" % (b"x" * 8191, end))
    sessions = (await tw.api("/api/sessions"))["sessions"]
    assert sorted(found["trace_count"] for found in sessions) == [1, 2]
    for found in sessions:
        assert len(found["id"]) == 1024
        assert found["id"].startswith("x" * 1007 + "~")


@pytest.mark.parametrize(
    "value", [b"a\tb", b"a\x00b", b"a\x7fb", b"a\x01b", b"\xc2\x85 a\xc2\x80b", b"a\x80b"]
)
async def test_a_control_character_is_a_400_and_nothing_is_forwarded(
    tw: Running, value: bytes
) -> None:
    got = await tw.raw(headers=b"X-Traceway-Session-Id: %b\r\n" % value)
    assert got.status == 400
    assert await tw.spans() == []


@given(st.binary(max_size=3000))
def test_any_bytes_are_an_id_of_at_most_1024_bytes_or_a_control_character(value: bytes) -> None:
    try:
        session_id = session.session_id_of(value)
    except session.ControlCharacter:
        return
    assert session_id is None or 0 < len(session_id.encode()) <= session.MAX_BYTES


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=300))
def test_printable_text_up_to_the_limit_is_kept_exactly(text: str) -> None:
    if len(text.encode()) <= session.MAX_BYTES:
        assert session.session_id_of(text.encode()) == (text.strip() or None)


def test_a_long_id_is_cut_at_a_character() -> None:
    session_id = session.session_id_of("é".encode() * 600)
    assert session_id is not None
    kept, mark, hashed = session_id.rpartition("~")
    assert (kept, mark, len(hashed)) == ("é" * 503, "~", 16)
