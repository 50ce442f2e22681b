"""A provider's key that its caller must not know does not come out of any answer."""

import gzip
import json
import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from proxy.vault import checked
from tests.conftest import Serve
from tests.databases import kept
from tests.managed import Keyed, with_keys
from tests.running import CHAT, Running
from tests.wire import Peer, ScriptedUpstream, connect

KEY = "sk-proj-0123456789abcdef"
ODD = 'k/0+&"<1\\=%>'
RAW = KEY.encode()
STARS = b"*" * len(KEY)
EVENTS = b"text/event-stream"
STREAMED = b'{"model":"m","stream":true,"messages":[]}'


@pytest.fixture
async def keyed(tw: Running) -> Keyed:
    return await with_keys(tw)


@pytest.fixture
async def caller(keyed: Keyed) -> str:
    """A key of ours whose project has a provider key."""
    await keyed.sets_provider_key(KEY)
    return await keyed.makes_key()


def files(tw: Running) -> bytes:
    assert Path(f"{tw.config.database.path}.key").exists()
    return kept(tw.config.database.path)


async def everywhere(keyed: Keyed, log: pytest.LogCaptureFixture) -> bytes:
    """Give what the API says of all calls, what is in the files, and what was logged."""
    await keyed.tw.saved()
    spans = (await keyed.asks("GET", "/api/spans")).body["spans"]
    paths = ["/api/traces", "/api/sessions", "/api/health", "/api/stats"]
    paths += [f"/api/spans/{span['id']}" for span in spans]
    said = [spans, *[(await keyed.asks("GET", path)).body for path in paths]]
    return json.dumps(said).encode() + files(keyed.tw) + log.text.encode()


JSON = b'{"model":"m-%b","choices":[{"message":{"role":"assistant","content":"it is %b"}}]}'
STREAM = (
    b'data: {"choices":[{"index":0,"delta":{"content":"it is %b"}}],"usage":null}\n\n'
    b'data: {"error":{"message":"no %b"}}\r\n\r\n: %b\n\ndata: [DONE]\n\n'
)


def quoting(text: bytes, key: bytes) -> bytes:
    return text.replace(b"%b", key)


ECHOES: dict[str, tuple[bytes, dict[str, bytes]]] = {
    "an answer": (JSON, {}),
    "an error": (b'{"error":{"message":"wrong key %b"}}', {"status": b"401 No"}),
    "a page": (b"<pre>Authorization: Bearer %b</pre>", {"status": b"502 No %b"}),
    "a stream": (STREAM, {"content_type": EVENTS}),
    "a stream without an end": (STREAM + b"data: %b", {"content_type": EVENTS}),
    "sound": (b"\x00\xff%b%b\x00", {"content_type": b"audio/mpeg"}),
    "a header": (b"{}", {"headers": b"X-Your-Key: %b\r\nLocation: http://a/?key=%b\r\n"}),
    "a cookie": (b"{}", {"headers": b"Set-Cookie: key=%b; Path=/\r\n"}),
    "a beginning of it": (b'{"a":"%b"} sk-proj', {}),
    "nothing": (b"", {"status": b"400 No %b"}),
}


@pytest.mark.parametrize("durability", ["safe", "strict"])
@pytest.mark.parametrize("echo", ECHOES)
async def test_a_provider_key_that_an_upstream_gives_back_reaches_nobody(
    serve: Serve,
    upstream: ScriptedUpstream,
    caplog: pytest.LogCaptureFixture,
    echo: str,
    durability: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    keyed = await with_keys(await serve({"recording.durability": durability}))
    await keyed.sets_provider_key(KEY)
    caller = await keyed.makes_key()
    text, how = ECHOES[echo]
    upstream.answers(
        quoting(text, RAW), **{name: quoting(value, RAW) for name, value in how.items()}
    )
    request = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'
    got = await keyed.calls(caller, body=request)
    assert got.body == quoting(text, STARS)
    assert RAW not in got.head
    assert got.head.count(STARS) == sum(value.count(b"%b") for value in how.values())
    assert RAW not in await everywhere(keyed, caplog)
    # Part of it would be a beginning.
    assert RAW[8:] not in await everywhere(keyed, caplog)


async def test_a_key_split_over_two_events_of_a_stream_is_not_kept_in_what_they_add_up_to(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = RAW[:9], RAW[9:]
    part = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
    upstream.answers(part % first + part % second + b"data: [DONE]\n\n", content_type=EVENTS)
    await keyed.calls(caller, body=b'{"model":"m","messages":[{"role":"user","content":"a"}]}')
    assert RAW not in await everywhere(keyed, caplog)


async def test_a_stream_is_masked_wherever_its_chunks_are_cut(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream
) -> None:
    stream = b"data: a %b\n\n: %b\n\n" % (RAW, RAW[:-1])
    hidden = stream.replace(RAW, STARS)
    cuts = iter(range(1, len(stream)))

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            at = next(cuts)
            await peer.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (at, stream[:at])
            )
            rest = stream[at:]
            await peer.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))

    upstream.script = script
    for _ in range(1, len(stream)):
        assert (await keyed.calls(caller)).body == hidden


async def test_an_event_is_not_held_back_until_the_next(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        event = b"data: %b\n\n" % RAW[:-1]
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(event), event)
        )
        await peer.gone()

    upstream.script = script
    async with connect(keyed.tw.port) as client:
        await client.send(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n"
            b"Content-Length: 2\r\n\r\n{}" % (CHAT.encode(), caller.encode())
        )
        await client.head()
        assert await anext(client.chunks()) == b"data: %b\n\n" % RAW[:-1]


async def test_what_a_masked_answer_declares_of_its_length_holds(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream
) -> None:
    upstream.answers(JSON % (RAW, RAW))
    got = await keyed.calls(caller)
    assert got.get(b"Content-Length") == b"%d" % len(got.body)


async def test_the_head_of_an_answer_without_a_body_stays_as_it_is_but_for_the_key(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\nX-Key: %b\r\nContent-Encoding: compress\r\n"
            b"Content-Length: 77\r\n\r\n" % RAW
        )
        await peer.gone()

    upstream.script = script
    got = await keyed.calls(caller, method=b"HEAD", body=b"")
    assert (got.status, got.get(b"X-Key")) == (200, STARS)
    assert (got.get(b"Content-Encoding"), got.get(b"Content-Length")) == (b"compress", b"77")


def _gzip_in_two(data: bytes) -> bytes:
    return gzip.compress(data[:70]) + gzip.compress(data[70:])


@pytest.mark.parametrize("durability", ["safe", "strict"])
@pytest.mark.parametrize(
    ("coding", "compress"),
    [(b"gzip", gzip.compress), (b"gzip", _gzip_in_two), (b"deflate", zlib.compress)],
)
@pytest.mark.parametrize("what", ["an answer", "a stream"])
async def test_an_answer_that_comes_compressed_all_the_same_goes_on_plain_and_masked(
    serve: Serve,
    upstream: ScriptedUpstream,
    caplog: pytest.LogCaptureFixture,
    coding: bytes,
    compress: Callable[[bytes], bytes],
    what: str,
    durability: str,
) -> None:
    keyed = await with_keys(await serve({"recording.durability": durability}))
    await keyed.sets_provider_key(KEY)
    caller = await keyed.makes_key()
    text, how = ECHOES[what]
    upstream.answers(
        compress(quoting(text, RAW)), headers=b"Content-Encoding: %b\r\n" % coding, **how
    )
    got = await keyed.calls(caller, headers=b"Accept-Encoding: gzip\r\n")
    assert got.body == quoting(text, STARS)
    assert got.get(b"Content-Encoding") is None
    assert RAW not in await everywhere(keyed, caplog)


@pytest.mark.parametrize("coding", [b"compress", b"gzip, gzip", b"sdch"])
async def test_an_answer_in_a_coding_that_nobody_can_look_into_is_refused(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream, coding: bytes
) -> None:
    upstream.answers(b"who knows", headers=b"Content-Encoding: %b\r\n" % coding)
    got = await keyed.calls(caller)
    assert got.status == 502
    assert json.loads(got.body)["error"]["code"] == "upstream_malformed"
    assert "content coding that nobody asked for" in json.loads(got.body)["error"]["message"]


async def test_an_answer_that_is_not_in_its_coding_is_cut_visibly(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"plain %b" % RAW, headers=b"Content-Encoding: gzip\r\n")
    with pytest.raises(Exception) as raised:  # noqa: PT011 (the connection ends within its body)
        await keyed.calls(caller)
    assert type(raised.value).__name__ in {"IncompleteReadError", "ConnectionResetError"}


SPELLED = {
    "as it is": ODD,
    "JSON": json.dumps(ODD)[1:-1],
    "JSON of PHP": json.dumps(ODD)[1:-1].replace("/", "\\/"),
    "a URL": quote(ODD, ""),
}


@pytest.mark.parametrize("spelling", SPELLED)
async def test_a_key_is_hidden_as_json_and_urls_spell_it(
    keyed: Keyed, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture, spelling: str
) -> None:
    await keyed.sets_provider_key(checked(ODD))
    caller = await keyed.makes_key()
    spelled = SPELLED[spelling].encode()
    upstream.answers(
        b'{"error":{"message":"no %b"}}' % spelled,
        status=b"401 No",
        headers=b"Location: /%b\r\n" % spelled,
    )
    got = await keyed.calls(caller)
    assert upstream.requests[0].get(b"Authorization") == b"Bearer " + ODD.encode()
    assert spelled not in got.head + got.body
    assert b"*" * len(spelled) in got.body
    assert spelled not in await everywhere(keyed, caplog)


async def test_usage_is_still_asked_for_and_taken_out(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream
) -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    stream = quoting(STREAM, RAW).replace(b"data: [DONE]", usage + b"data: [DONE]")
    upstream.answers(stream, content_type=EVENTS)
    got = await keyed.calls(caller, body=STREAMED)
    assert b"include_usage" in upstream.requests[0].body
    assert got.body == quoting(STREAM, STARS).replace(b',"usage":null', b"")


async def test_what_is_no_stream_is_masked_though_usage_was_asked_for(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream
) -> None:
    upstream.answers(JSON.replace(b"%b", RAW))
    got = await keyed.calls(caller, body=STREAMED)
    assert b"include_usage" in upstream.requests[0].body
    assert got.body == JSON.replace(b"%b", STARS)


async def test_a_stream_in_a_coding_that_nobody_can_look_into_is_refused_too(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"?", content_type=EVENTS, headers=b"Content-Encoding: compress\r\n")
    assert (await keyed.calls(caller, body=STREAMED)).status == 502


async def test_a_call_that_was_sent_twice_is_masked_as_well(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream
) -> None:
    async def script(peer: Peer) -> None:
        while True:
            upstream.requests.append(await peer.request())
            if b"include_usage" in upstream.requests[-1].body:
                body = b"unknown: stream_options; your key: %b" % RAW
                await peer.respond(body, status=b"400 No")
            else:
                await peer.respond(b"fine, %b" % RAW)

    upstream.script = script
    got = await keyed.calls(caller, body=STREAMED)
    assert got.body == b"fine, " + STARS
    assert [one.get(b"Authorization") for one in upstream.requests] == [b"Bearer " + RAW] * 2


async def test_a_key_of_the_project_that_its_caller_knows_and_quotes_is_not_kept(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.answers(b"{}")
    await keyed.calls(
        caller,
        target=b"/api/proxy/openai/v1/%b?a=%b" % (RAW, RAW),
        headers=b"X-Traceway-Session-Id: %b\r\nX-Else: %b\r\n" % (RAW, RAW),
        body=b'{"messages":[{"role":"user","content":"%b"}]}' % RAW,
    )
    assert RAW not in await everywhere(keyed, caplog)
