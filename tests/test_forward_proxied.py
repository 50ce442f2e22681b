"""Calls of a server whose environment names a proxy: where they go, and what nobody gets to see."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests import tls
from tests.forward_proxy import forward_proxy
from tests.running import CHAT
from tests.served import Served, refused, served
from tests.wire import Received, ScriptedUpstream, connect

USER = "joe:canary-of-the-proxy"
TOLD = b"Basic " + base64.b64encode(USER.encode())
BODY = b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hi"}]}'
ANSWER = (
    b'{"id":"c","model":"gpt-4o","choices":[{"message":{"role":"assistant","content":"Hello"}}],'
    b'"usage":{"prompt_tokens":7,"completion_tokens":2}}'
)
# Whatever this machine's environment says.
NOTHING = {
    spelling: ""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
    for spelling in (name, name.lower())
}


@pytest.fixture
async def another_upstream() -> AsyncIterator[ScriptedUpstream]:
    scripted = ScriptedUpstream()
    await scripted.start()
    yield scripted
    await scripted.stop()


async def call(server: Served, upstream: str = "openai") -> Received:
    async with connect(server.port) as client:
        await client.send(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b"
            % (CHAT.replace("openai", upstream).encode(), len(BODY), BODY)
        )
        return await client.response()


async def ended(server: Served) -> str:
    """Stop a server; give all that it said."""
    server.process.terminate()
    out, err = await server.process.communicate()
    return "\n".join(server.lines) + out.decode() + err.decode()


def assert_kept_secret(said: str, folder: Path) -> None:
    stored = b"".join(path.read_bytes() for path in folder.glob("traceway.db*") if path.is_file())
    for secret in (b"canary-of-the-proxy", TOLD.removeprefix(b"Basic ")):
        assert secret not in said.encode()
        assert secret not in stored


async def test_an_upstream_over_tls_is_called_through_the_proxys_tunnel(
    tmp_path: Path, another_upstream: ScriptedUpstream
) -> None:
    (tmp_path / "authority.pem").write_bytes(tls.authority().pem)
    upstream = another_upstream
    await upstream.stop()
    await upstream.start(tls.server("up.test"))
    upstream.answers(ANSWER)
    async with forward_proxy(upstream) as proxy:
        environ = {
            **NOTHING,
            "https_proxy": f"http://{USER}@127.0.0.1:{proxy.port}",
            "SSL_CERT_FILE": str(tmp_path / "authority.pem"),
        }
        options = ("--upstream", "openai=https://up.test")
        async with served(tmp_path, *options, environ=environ) as server:
            at = f"http://127.0.0.1:{server.port}/api/proxy/openai/v1"
            through = f"http://127.0.0.1:{proxy.port}"
            assert f"  base URL   {at}  ->  https://up.test/v1  through {through}" in server.lines
            for _ in range(2):
                assert (await call(server)).body == ANSWER
            assert_kept_secret(await ended(server), tmp_path)
    (asked,) = proxy.asked
    assert asked.start == b"CONNECT up.test:443 HTTP/1.1"
    assert asked.get(b"Proxy-Authorization") == TOLD
    assert all(request.get(b"Host") == b"up.test" for request in upstream.requests)
    assert not any(request.get(b"Proxy-Authorization") for request in upstream.requests)


async def test_other_upstreams_are_asked_for_in_full_and_this_machine_is_called_directly(
    tmp_path: Path, upstream: ScriptedUpstream, another_upstream: ScriptedUpstream
) -> None:
    upstream.answers(b'{"direct":true}')
    proxy = another_upstream
    proxy.answers(ANSWER, headers=b"Connection: close\r\n")  # the next call has another script
    environ = {**NOTHING, "ALL_PROXY": f"http://{USER}@127.0.0.1:{proxy.port}"}
    options = ("--upstream", "far=http://up.test:81/base", "--upstream", f"near={upstream.url}")
    async with served(tmp_path, *options, environ=environ) as server:
        assert (await call(server, "far")).body == ANSWER
        assert (await call(server, "near")).body == b'{"direct":true}'
        proxy.answers(b"", status=b"407 x", headers=b"Proxy-Authenticate: Basic\r\n")
        refused = await call(server, "far")
        assert (refused.status, refused.get(b"X-Traceway-Error")) == (502, b"upstream_unreachable")
        assert_kept_secret(await ended(server) + refused.body.decode(), tmp_path)
    assert proxy.requests[0].target == b"http://up.test:81/base/v1/chat/completions"
    assert proxy.requests[0].get(b"Host") == b"up.test:81"
    assert proxy.requests[0].get(b"Proxy-Authorization") == TOLD
    (direct,) = upstream.requests
    assert direct.get(b"Proxy-Authorization") is None


@pytest.mark.parametrize("text", ["socks5://joe:canary@127.0.0.1:1080", "http://joe:canary@:0"])
async def test_a_proxy_that_cannot_be_one_ends_the_start_in_one_line(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "traceway.db"
    code, said = await refused("--db", str(path), **{**NOTHING, "https_proxy": text})
    title, mistake = said.splitlines()
    assert (code, title) == (2, "traceway: the configuration has mistakes:")
    assert mistake.startswith('HTTPS_PROXY = "[not shown]" (environment): expected an http or')
    assert "canary" not in said
    assert not path.exists()
