"""Hostile values: forwarded byte for byte, recorded in one row each, shown as valid JSON."""

import json

import orjson
import pytest

from storage.rebuild import request_body, response_body
from storage.records import DEFAULT_PROJECT
from tests.calling import DONE, delta
from tests.running import Running
from tests.wire import ScriptedUpstream

CHAT = b"/api/proxy/openai/v1/chat/completions"
ASKED = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'
MEGABYTE = b"m" * (1 << 20)


def usage(count: bytes) -> bytes:
    return (
        b'{"model":"gpt-4o-mini","choices":[{"message":{"content":"hi"}}],'
        b'"usage":{"prompt_tokens":%b,"completion_tokens":%b,"total_tokens":%b}}'
        % (count, count, count)
    )


# What a provider may say it used: whole numbers up to 10^9 count, all else is unknown.
COUNTS = {
    b"%d" % 2**70: False,
    b"%d" % (10**9 + 1): False,
    b"9223372036854775807": False,
    b"-1": False,
    b"1.5": False,
    b"1e400": False,
    b"NaN": False,
    b'"12"': False,
    b"true": False,
    b"[1]": False,
    b"null": False,
    b"9" * 5000: False,
    b"12.0": True,
    b"0": True,
    b"%d" % 10**9: True,
}

BODIES = {
    "nothing": b"",
    "null": b"null",
    "a number": b"7",
    "a page": b"<!DOCTYPE html><title>502 Bad Gateway</title><h1>nginx</h1>",
    "cut JSON": ASKED[:-7],
    "invalid UTF-8": b'{"model":"\xff\xfe","messages":[{"role":"user","content":"\xc3("}]}',
    "NUL bytes": b'{"model":"a\x00b\\u0000c","messages":[{"content":"\\u0000"}]}\x00',
    "lone surrogates": b'{"model":"\\ud800","messages":[{"role":"user","content":"\\udfff x"}]}',
    "NaN": b'{"model":"m","temperature":NaN,"choices":[{"message":{"content":-Infinity}}]}',
    "a byte order mark": b"\xef\xbb\xbf" + ASKED,
    "100 levels": b'{"model":"m","messages":' + b"[" * 100 + b"]" * 100 + b"}",
    "100,000 levels": b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100,000 open objects": b'{"a":' * 100_000,
    "an integer of 5,000 digits": b'{"model":"m","seed":%b,"usage":{"n":1}}' % (b"7" * 5000),
    "duplicate keys": b'{"model":"a","model":"b","usage":{},"usage":{"prompt_tokens":1}}',
    "wrong types": b'{"model":{"a":1},"messages":"no","choices":{"x":[1]},"usage":[2],"id":3}',
    "wrong types within": b'{"messages":[1,{"content":{"a":[]}}],"choices":[[],{"message":5}]}',
    "a model's name of 1 MB": b'{"model":"%b","messages":[]}' % MEGABYTE,
    "an id of 1 MB": b'{"id":"%b","model":"m","usage":{"prompt_tokens":1}}' % MEGABYTE,
    "an error of 1 MB": b'{"error":{"message":"%b"}}' % MEGABYTE,
    "one word of 1 MB": MEGABYTE,
    "random bytes": bytes(range(256)) * 100,
}


SAID_TO_FAIL = {"an error of 1 MB"}


async def the_api_is_valid_json(tw: Running) -> None:
    """Read all pages that show a call, each by a parser that takes nothing but JSON."""
    trace = (await tw.api("/api/traces"))["traces"][0]["id"]
    span = (await tw.api(f"/api/traces/{trace}"))["spans"][0]["id"]
    paths = ("/api/sessions", "/api/sessions/s", "/api/traces", f"/api/traces/{trace}")
    for path in (*paths, f"/api/spans/{span}", "/api/stats"):
        async with tw.client.get(tw.url + path) as answer:
            body = await answer.read()
        assert answer.status == 200
        orjson.loads(body)
        json.loads(body, parse_constant=pytest.fail)


async def call(tw: Running, body: bytes, content_type: bytes = b"application/json") -> bytes:
    headers = b"Content-Type: %b\r\nX-Traceway-Session-Id: s\r\n" % content_type
    return (await tw.raw(CHAT, headers=headers, body=body)).body


@pytest.mark.parametrize("count", COUNTS, ids=lambda count: count[:12].decode())
async def test_a_count_that_is_none_is_unknown_and_its_call_is_recorded(
    tw: Running, upstream: ScriptedUpstream, count: bytes
) -> None:
    upstream.answers(usage(count))
    assert await call(tw, ASKED) == usage(count)
    span = await tw.span()
    kind = span["kind"]
    assert span["status"] == "completed"
    if COUNTS[count]:
        assert (kind["usage_source"], kind["input_tokens"]) == ("provider", int(float(count)))
    else:
        assert kind["usage_source"] == "estimated"
        assert 0 < kind["input_tokens"] < 10
        unspoken = count in (b"null", b"NaN")
        assert unspoken or any("out of range" in note for note in span["metadata"]["notes"])
    await the_api_is_valid_json(tw)


@pytest.mark.parametrize("what", BODIES)
@pytest.mark.parametrize("status", [b"200 OK", b"400 No"])
async def test_a_body_from_anyone_passes_and_is_recorded_as_it_was(
    tw: Running, upstream: ScriptedUpstream, what: str, status: bytes
) -> None:
    body = BODIES[what]
    upstream.answers(body, status=status)

    assert await call(tw, body) == body

    assert upstream.requests[0].body == body
    span = await tw.span()
    if status == b"200 OK" and what not in SAID_TO_FAIL:
        assert span["status"] == "completed"
    else:
        assert "failed" in span["status"]
    assert span["metadata"]["request"]["size"] == len(body)
    assert span["metadata"]["response"]["size"] == len(body)
    for rebuild in (request_body, response_body):
        stored = await rebuild(tw.database, DEFAULT_PROJECT, bytes.fromhex(span["id"]))
        assert (stored.data if stored is not None else b"") == body
    assert tw.server.recorder.losses.counters.unreadable_records == 0
    await the_api_is_valid_json(tw)


@pytest.mark.parametrize("what", BODIES)
async def test_events_from_anyone_pass_and_are_recorded_once(
    tw: Running, upstream: ScriptedUpstream, what: str
) -> None:
    body = BODIES[what]
    stream = b"data: %b\n\n" % body + delta("hi") + DONE
    upstream.answers(stream, content_type=b"text/event-stream")
    assert await call(tw, ASKED) == stream
    span = await tw.span()
    if what in SAID_TO_FAIL:
        assert "failed" in span["status"]
    else:
        assert span["status"] == "completed"
    assert span["metadata"]["response"]["size"] == len(stream)
    assert tw.server.recorder.losses.counters.unreadable_records == 0
    await the_api_is_valid_json(tw)


@pytest.mark.parametrize("name", [b"\xff\xfe", "имя".encode(), b"a b", b"'; DROP TABLE spans;--"])
async def test_a_path_and_a_query_from_anyone_pass_and_are_recorded(
    tw: Running, upstream: ScriptedUpstream, name: bytes
) -> None:
    quoted = b"".join(b"%%%02X" % byte for byte in name)
    upstream.answers(b"{}")
    await tw.raw(b"/api/proxy/openai/v1/%b?x=%b" % (quoted, quoted), method=b"GET",
                 headers=b"X-Traceway-Session-Id: s\r\n")  # fmt: skip
    assert upstream.requests[0].target == b"/v1/%b?x=%b" % (quoted, quoted)
    assert (await tw.span())["metadata"]["path"] == "/v1/" + quoted.decode()
    await the_api_is_valid_json(tw)


async def test_header_bytes_from_anyone_pass_and_are_recorded(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}", headers=b"X-Odd: \xff\xc3( \xe2\x82\xac\r\n")
    headers = b"X-Odd: \xff\xc3( \xe2\x82\xac\r\nX-Traceway-Session-Id: s\r\n"
    got = await tw.raw(CHAT, headers=headers, body=b"{}")
    assert got.get(b"X-Odd") == upstream.requests[0].get(b"X-Odd") == b"\xff\xc3( \xe2\x82\xac"
    span = await tw.span()
    assert ["X-Odd", "\ufffd\ufffd( €"] in span["metadata"]["request_headers"]
    await the_api_is_valid_json(tw)
