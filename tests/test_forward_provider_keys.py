"""Calls that come with a key of ours alone: they go out with their project's, which nobody sees."""

import json
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.databases import kept
from tests.managed import Keyed, with_keys
from tests.running import CHAT, Running, running
from tests.wire import ScriptedUpstream

KEY = "sk-proj-0123456789abcdef"
OTHER = "sk-other-abcdef0123456789"
RAW = KEY.encode()
KEY_HEADERS = {
    b"Authorization: Bearer %b": b"Bearer %b",
    b"authorization: bearer   %b": b"bearer   %b",
    b"Authorization: %b": b"Bearer %b",
    b"api-key: %b": b"%b",
    b"X-Api-Key: %b": b"%b",
    b"x-goog-api-key: %b": b"%b",
}


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


@pytest.mark.parametrize("line", KEY_HEADERS)
async def test_the_projects_key_stands_where_ours_stood_as_ours_did(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream, line: bytes
) -> None:
    upstream.answers(b"{}")
    ours = line % caller.encode()
    got = await keyed.tw.raw(headers=b"A: 1\r\n%b\r\nB: 2\r\nA: 3\r\n" % ours, body=b"{}")
    assert got.status == 200
    (sent,) = upstream.requests
    name = line.partition(b":")[0]
    kept = [pair for pair in sent.headers if pair[0] in (b"A", b"B", name)]
    assert kept == [(b"A", b"1"), (name, KEY_HEADERS[line] % RAW), (b"B", b"2"), (b"A", b"3")]
    assert b"tw_sk_" not in sent.head


async def test_a_project_without_a_key_gets_a_422_and_nothing_is_sent(
    keyed: Keyed, upstream: ScriptedUpstream
) -> None:
    got = await keyed.calls(await keyed.makes_key())
    error = json.loads(got.body)["error"]
    assert (got.status, error["code"], upstream.connections) == (422, "no_provider_key", 0)
    assert "'default'" in error["message"]
    assert "'openai'" in error["message"]
    assert got.get(b"X-Traceway-Error") == b"no_provider_key"
    assert got.get(b"x-should-retry") == b"false"
    await keyed.tw.saved()
    (span,) = (await keyed.asks("GET", "/api/spans")).body["spans"]
    assert "failed" in span["status"]


async def test_the_callers_own_provider_key_stays_and_nothing_is_hidden(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream
) -> None:
    """Way (b): the caller knows the key that it sent, and bytes are transparent."""
    body = b'{"error":"no %b nor %b"}' % (OTHER.encode(), RAW)
    upstream.answers(body)
    got = await keyed.tw.raw(
        headers=b"X-Traceway-Api-Key: %b\r\nAuthorization: Bearer %b\r\nAccept-Encoding: gzip\r\n"
        % (caller.encode(), OTHER.encode()),
        body=b"{}",
    )
    assert got.body == body
    (sent,) = upstream.requests
    assert sent.get(b"Authorization") == b"Bearer " + OTHER.encode()
    assert sent.get(b"Accept-Encoding") == b"gzip"
    assert b"tw_sk_" not in sent.head


async def test_an_answer_is_asked_for_in_no_coding(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    await keyed.calls(caller, headers=b"Accept-Encoding: gzip, br\r\n")
    assert upstream.requests[0].all(b"Accept-Encoding") == [b"identity"]


@pytest.mark.parametrize(
    "line",
    [
        b"X-Else: %b",
        b"X-Else: Bearer %b",
        b"%b: 1",
        b"Cookie: a=%b",
        b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.%b",
        b"Referer: http://127.0.0.1/?key=%b",
        b"Proxy-Authenticate-Too: %b",
        b"Authorization: Bearer %b, again",
        b"X-Api-Key: a %b b",
    ],
)
async def test_our_key_anywhere_else_in_a_head_is_refused_before_anything_is_sent(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream, line: bytes
) -> None:
    got = await keyed.calls(caller, headers=line % caller.encode() + b"\r\n")
    assert (got.status, upstream.connections) == (400, 0)
    assert json.loads(got.body)["error"]["code"] == "misplaced_key"
    assert caller.encode() not in got.body


@pytest.mark.parametrize("query", ["?key={}", "?{}=1", "?a=b#{}", "/{}", "?key=%74w_sk_x"])
@pytest.mark.parametrize("way", ["a", "b"])
async def test_our_key_in_a_target_is_refused_before_anything_is_sent(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream, query: str, way: str
) -> None:
    target = CHAT.encode() + query.format(caller).encode()
    ours = b"Authorization: Bearer %b\r\n" if way == "a" else b"X-Traceway-Api-Key: %b\r\n"
    got = await keyed.tw.raw(target, headers=ours % caller.encode(), body=b"{}")
    assert (got.status, upstream.connections) == (400, 0)
    assert caller.encode() not in got.body
    await keyed.tw.saved()
    assert caller.encode() not in files(keyed.tw)


async def test_headers_that_are_for_us_alone_do_not_go_upstream(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    await keyed.calls(
        caller,
        headers=b"X-Traceway-Api-Key: %b\r\nX-Traceway-Project: default\r\n"
        b"Cookie: a=1; traceway_sign_in=tw_si_x; b=2\r\n" % caller.encode(),
    )
    (sent,) = upstream.requests
    assert b"traceway" not in sent.head.lower()
    assert b"tw_s" not in sent.head
    assert sent.get(b"Cookie") == b"a=1; b=2"


async def test_two_projects_call_one_upstream_each_with_its_own_key(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream
) -> None:
    await keyed.makes_project("team-b")
    await keyed.sets_provider_key(OTHER, project="team-b")
    other = await keyed.makes_key(project="team-b")
    upstream.answers(b'{"a":"%b","b":"%b"}' % (RAW, OTHER.encode()))
    first, second = await keyed.calls(caller), await keyed.calls(other)
    assert [sent.get(b"Authorization") for sent in upstream.requests] == [
        b"Bearer " + RAW,
        b"Bearer " + OTHER.encode(),
    ]
    # Each is kept from its own; an upstream that tells one project the other's key is not ours.
    assert RAW not in first.body
    assert OTHER.encode() not in second.body


async def test_a_new_key_is_that_of_the_next_call_and_a_deleted_one_of_none(
    keyed: Keyed, caller: str, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    await keyed.calls(caller)
    await keyed.sets_provider_key(OTHER)
    await keyed.calls(caller)
    await keyed.asks("DELETE", "/api/provider-keys/openai")
    assert (await keyed.calls(caller)).status == 422
    sent = [one.get(b"Authorization") for one in upstream.requests]
    assert sent == [b"Bearer " + RAW, b"Bearer " + OTHER.encode()]


async def test_a_key_of_the_environment_serves_projects_that_have_none(
    serve: Serve, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEWAY_PROVIDER_KEY_OPENAI", OTHER)
    keyed = await with_keys(await serve())
    upstream.answers(b"no " + OTHER.encode())
    got = await keyed.calls(await keyed.makes_key())
    assert upstream.requests[0].get(b"Authorization") == b"Bearer " + OTHER.encode()
    assert got.body == b"no " + b"*" * len(OTHER)


async def test_a_stored_key_is_used_after_a_restart(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"no " + RAW)
    async with running(tmp_path, upstream.url) as tw:
        keyed = await with_keys(tw)
        await keyed.sets_provider_key(KEY)
        caller = await keyed.makes_key()
    async with running(tmp_path, upstream.url) as tw:
        got = await Keyed(tw, keyed.admin).calls(caller)
    assert got.body == b"no " + b"*" * len(KEY)
    assert upstream.requests[0].get(b"Authorization") == b"Bearer " + RAW
