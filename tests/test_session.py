"""A session id is free text: stored as it was sent, found again, and never a reason to fail."""

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import session
from proxy.session import OURS, REGISTRY, Row, SessionRef
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


async def test_an_id_as_long_as_a_header_may_be_breaks_no_call_and_one_of_200_kb_goes_nowhere(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    refused = await tw.raw(headers=b"X-Traceway-Session-Id: %b\r\n" % (b"y" * 200_000))
    assert refused.status in (400, 431)
    assert upstream.requests == []
    assert await tw.spans() == []
    got = await tw.raw(headers=b"X-Traceway-Session-Id: %b\r\n" % (b"y" * 60_000))
    assert got.status == 200
    assert b"y" * 100 not in upstream.requests[0].head
    (found,) = (await tw.api("/api/sessions"))["sessions"]
    assert len(found["id"]) == 1024
    assert found["id"].startswith("y" * 1007 + "~")
    assert (await tw.api(f"/api/sessions/{found['id']}"))["id"] == found["id"]


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


# The table of other ways to name a session.

UUID = "01a2b3c4-0000-4000-8000-5e6f70819203"
HEADER_ROWS = [row for row in REGISTRY if row.place == "header" and row is not OURS]
BODY_ROWS = [row for row in REGISTRY if row.place == "body"]
NO_NAMES = [
    "",
    "  ",
    "null",
    "undefined",
    "None",
    "NEW",
    "0",
    "00000000-0000-0000-0000-000000000000",
]
NO_NAMES += ["{{CHAT_ID}}", "${SESSION}", "[object Object]", "[redacted]", "a\tb", "a\x85b"]


def from_header(row: Row, value: bytes, **others: bytes) -> SessionRef | None:
    """Resolve a call that has a header and, where the row asks for it, its sender's user agent."""
    agent = {b"user-agent": row.agent + b"/1.0"} if row.agent else {}
    return session.resolve(
        {**agent, row.name.encode(): value, **{k.encode(): v for k, v in others.items()}}
    )


def in_its_form(row: Row, name: str) -> str:
    return f"user_0f_account__session_{name}" if row.within else name


@pytest.mark.parametrize("row", HEADER_ROWS, ids=lambda row: row.name)
def test_each_header_of_the_table_names_a_session_under_its_source(row: Row) -> None:
    assert from_header(row, f" {UUID} ".encode()) == SessionRef(UUID, row.source)


@pytest.mark.parametrize("row", BODY_ROWS, ids=lambda row: row.name)
def test_each_field_of_the_table_names_a_session_under_its_source(row: Row) -> None:
    assert session.from_body({row.name: in_its_form(row, UUID)}) == SessionRef(UUID, row.source)


@pytest.mark.parametrize("row", HEADER_ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("value", NO_NAMES)
def test_what_is_no_name_in_another_tools_header_is_no_session_and_no_mistake(
    row: Row, value: str
) -> None:
    assert from_header(row, value.encode()) is None


@pytest.mark.parametrize("row", BODY_ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("value", NO_NAMES)
def test_what_is_no_name_in_a_field_is_no_session(row: Row, value: str) -> None:
    assert session.from_body({row.name: in_its_form(row, value)}) is None


def test_our_own_header_wins_over_every_other() -> None:
    index = {row.name.encode(): b"theirs" for row in HEADER_ROWS}
    assert session.resolve({**index, b"x-traceway-session-id": b"null"}) == SessionRef(
        "null", "header"
    )
    assert session.resolve({**index, b"x-traceway-session-id": b" "}) == SessionRef(
        "theirs", "helicone"
    )


def test_of_several_names_the_first_of_the_table_wins_and_an_empty_one_gives_way() -> None:
    index = {row.name.encode(): row.name.encode() for row in HEADER_ROWS}
    index[b"user-agent"] = b"codex_cli_rs/0.99.0 (Linux)"
    named = {row.name: row.name for row in BODY_ROWS}
    won = []
    while (ref := session.resolve(index)) is not None:
        won.append(ref.session_id)
        index[ref.session_id.encode()] = b""
    while (ref := session.from_body(named)) is not None:
        won.append(ref.session_id)
        named[ref.session_id] = ""
    agents = {row.name for row in HEADER_ROWS if row.agent == b"opencode/"}
    unnamed = {row.name for row in BODY_ROWS if row.within}
    assert won == [r.name for r in (*HEADER_ROWS, *BODY_ROWS) if r.name in won]
    assert set(won) == {row.name for row in (*HEADER_ROWS, *BODY_ROWS)} - agents - unnamed


@pytest.mark.parametrize(
    ("name", "agent", "source"),
    [
        ("session-id", b"codex_cli_rs/0.99.0 (Ubuntu 24.4; x86_64)", "codex"),
        ("session-id", b"Codex Desktop/26.1", "codex"),
        ("session_id", b"codex_vscode/0.60.1", "codex"),
        ("session-id", b"OpenAI/Python 2.8.1", None),
        ("session-id", b"my-codex/1", None),
        ("session-id", b"", None),
        ("x-session-affinity", b"opencode/1.3.0", "opencode"),
        ("x-session-affinity", b"OpenAI/JS 6.1", None),
    ],
)
def test_a_name_that_others_use_for_something_else_counts_only_from_its_agent(
    name: str, agent: bytes, source: str | None
) -> None:
    ref = session.resolve({name.encode(): UUID.encode(), b"user-agent": agent})
    assert (ref.source if ref else None) == source


@pytest.mark.parametrize(
    ("user_id", "found"),
    [
        (f"user_{'0f' * 32}_account_{UUID[::-1]}_session_{UUID}", UUID),
        (f'{{"device_id":"0f","account_uuid":"","session_id":"{UUID}"}}', UUID),
        (f'{{"session_id" : "{UUID}" , "device_id":"0f"}}', UUID),
        ("user-1234567890", None),
        ("alice_session_", None),
        ("alice_session_manager-of-everything", None),
        ('{"session_id":""}', None),
        ('{"session_id":null}', None),
    ],
)
def test_of_claude_codes_user_only_its_session_counts(user_id: str, found: str | None) -> None:
    ref = session.from_body({"metadata.user_id": user_id})
    assert (ref.session_id if ref else None) == found


@pytest.mark.parametrize(
    "name",
    [
        *("user", "metadata.user", "metadata.request_id", "metadata.trace_id", "id"),
        *("prompt_cache_key", "safety_identifier", "previous_response_id"),
    ],
)
def test_a_user_a_request_and_a_cache_are_no_session(name: str) -> None:
    assert session.from_body({name: UUID}) is None


@pytest.mark.parametrize(
    "name",
    [
        *("x-request-id", "x-client-request-id", "x-litellm-call-id", "x-portkey-span-id"),
        *("traceparent", "x-trace-id", "idempotency-key", "cookie", "x-parent-session-id"),
    ],
)
def test_a_header_that_names_a_request_or_another_session_is_no_session(name: str) -> None:
    index = {name.encode(): UUID.encode(), b"user-agent": b"codex/1"}
    assert session.resolve(index) is None


def test_every_source_has_one_confidence_and_the_ambiguous_one_none() -> None:
    for row in REGISTRY:
        assert session.CONFIDENCE[row.source] == row.confidence
    assert session.CONFIDENCE["header"] == "named"
    assert session.CONFIDENCE["helicone"] == "adopted"
    assert session.CONFIDENCE["continuation"] == "inferred"
    assert session.CONFIDENCE["ambiguous"] is None


def test_each_place_is_in_the_table_once() -> None:
    places = [(row.place, row.name, row.source) for row in REGISTRY]
    assert len(set(places)) == len(places)


@given(st.dictionaries(st.sampled_from([row.name for row in BODY_ROWS]), st.text(max_size=60)))
def test_any_strings_of_a_body_give_an_id_that_can_be_stored_or_none(named: dict[str, str]) -> None:
    ref = session.from_body(named)
    assert ref is None or ref.session_id == session.session_id_of(ref.session_id.encode())


@given(
    st.dictionaries(
        st.sampled_from([row.name.encode() for row in HEADER_ROWS]), st.binary(max_size=60)
    )
)
def test_any_bytes_of_other_tools_headers_are_an_id_or_none_and_never_a_mistake(
    index: dict[bytes, bytes],
) -> None:
    ref = session.resolve(index)
    assert ref is None or 0 < len(ref.session_id.encode()) <= session.MAX_BYTES


async def test_another_tools_header_goes_upstream_as_it_came(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    got = await tw.raw(headers=b"HeLiCoNe-Session-Id:  a/b \r\nX-Session-Id: c\r\n")
    (sent,) = upstream.requests
    assert sent.get(b"Helicone-Session-Id") == b"a/b"
    assert b"HeLiCoNe-Session-Id" in sent.head
    assert sent.get(b"X-Session-Id") == b"c"
    assert got.get(b"X-Traceway-Session-Id") == b"a%2Fb"
    assert got.get(b"X-Traceway-Session-Source") == b"helicone"
    (trace,) = (await tw.api("/api/traces"))["traces"]
    assert (trace["session_id"], trace["session_source"]) == ("a/b", "helicone")


def test_the_documentation_has_the_table_as_it_is() -> None:
    text = (Path(__file__).parent.parent / "docs/sessions.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith(("| source", "| ---"))
    ]
    assert [(source, place, name, confidence) for source, place, name, _, confidence in rows] == [
        (row.source, row.place, f"`{row.name}`", row.confidence or "") for row in REGISTRY
    ]
    for row, (*_, condition, _) in zip(REGISTRY, rows, strict=True):
        assert row.agent.decode() in condition
