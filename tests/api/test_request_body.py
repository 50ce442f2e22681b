"""A body is read strictly and within a bound; a mistake is named, and never quoted."""

from typing import Any, Final

import orjson
import pytest

from proxy.api.request_body import MAX_BYTES
from tests.conftest import Serve
from tests.keyed import Keyed
from tests.running import Running
from tests.wire import connect

CANARY: Final = "sk-canary-31c0ffee42"


async def post(tw: Running, body: bytes, path: str = "/api/keys") -> tuple[int, Any]:
    async with tw.client.post(tw.url + path, data=body) as answer:
        return answer.status, orjson.loads(await answer.read()).get("error")


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        (b"", "must be JSON", None),
        (b"{", "must be JSON", None),
        (b"\xff", "must be JSON", None),
        (b'{"name":"\\ud800"}', "must be JSON", None),
        (b'{"name":"a\xff"}', "must be JSON", None),
        (b'{"calls_per_minute":NaN}', "must be JSON", None),
        (b"[" * 60_000, "Expected object, got array", None),
        (b'{"name":' + b"[" * 60_000, "name: Expected str, got array", "name"),
        (b'{"x":' + b"[" * 60_000, "unknown field x", None),
        (b"null", "Expected object, got null", None),
        (b'{"name":"a"}', "missing required field scope", None),
        (b'{"scope":"read"}', "missing required field name", None),
        (b'{"name":1,"scope":"read"}', "name: Expected str, got int", "name"),
        (b'{"name":"","scope":"read"}', "name: Expected str of length >= 1", "name"),
        (b'{"name":"a","scope":"root"}', "scope: expected one of read, write, admin", "scope"),
        (b'{"name":"a","scope":"read","calls_per_minute":0}', "calls_per_minute: Expected", None),
        (b'{"name":"a","scope":"read","scopes":1}', "unknown field scopes", None),
        (b'{"name":"a","scope":"read","callsPerMinute":1}', "unknown field callsPerMinute", None),
    ],
)
async def test_a_mistake_is_a_400_that_names_it(
    tw: Running, body: bytes, says: str, param: str | None
) -> None:
    status, error = await post(tw, body)
    assert (status, error["code"]) == (400, "bad_parameter")
    assert says in error["message"]
    assert error["param"] in (param, "calls_per_minute")
    assert (await tw.api("/api/keys"))["keys"] == []


# With quotes of each kind in it, and with what follows a value in a message.
@pytest.mark.parametrize(
    "value",
    [CANARY, f"'{CANARY}", f'"{CANARY}', f"{CANARY}'\"", f"{CANARY} - at `$.name`", "tw_sk_x"],
)
async def test_a_value_is_never_quoted(tw: Running, value: str) -> None:
    for field in ("name", "scope", "project", "calls_per_minute"):
        right = {"name": "a", "scope": "read", "project": "default", "calls_per_minute": 1}
        for wrong in (value, [value], {value: value}):
            if field == "name" and wrong is value:
                continue
            status, error = await post(tw, orjson.dumps({**right, field: wrong}))
            assert status in (400, 404)  # 404: a project's name that no project has
            assert CANARY not in str(error)
            assert "tw_sk_x" not in str(error)


async def test_a_key_for_the_name_of_a_field_is_not_quoted(tw: Running) -> None:
    for name in (CANARY, "tw_sk_canary", "tw_si_canary"):
        status, error = await post(tw, orjson.dumps({name: 1}))
        assert status == 400
        assert name not in str(error)
        assert "unknown field" in error["message"]


async def test_the_bound_is_exact(tw: Running) -> None:
    body = b'{"name":"a"}'
    assert (await post(tw, body.ljust(MAX_BYTES), "/api/projects"))[0] == 201
    status, error = await post(tw, body.ljust(MAX_BYTES + 1), "/api/projects")
    assert status == 400
    assert str(MAX_BYTES) in error["message"]


@pytest.mark.parametrize("ending", [b"zz\r\n", b"-1\r\n", b"5\r\nabcdefgh\r\n"])
async def test_a_body_that_breaks_off_is_a_4xx(
    tw: Running, caplog: pytest.LogCaptureFixture, ending: bytes
) -> None:
    async with connect(tw.port) as peer:
        await peer.send(
            b"POST /api/keys HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b'1b\r\n{"name":"a","scope":"read"}\r\n' + ending
        )
        got = await peer.head()
    assert got.status == 400
    assert (await tw.api("/api/keys"))["keys"] == []
    assert caplog.text == ""


@pytest.mark.parametrize("rest", [b"", b"zz\r\n", b"5\r\nabcdefgh\r\n"])
async def test_a_body_that_stands_still_or_turns_out_malformed_is_a_4xx_in_time(
    serve: Serve, caplog: pytest.LogCaptureFixture, rest: bytes
) -> None:
    tw = await serve({"server.body_timeout_s": "0.2" if rest == b"" else "300"})
    async with connect(tw.port) as peer:
        await peer.send(
            b"POST /api/keys HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await peer.send(b'1b\r\n{"name":"a","scope":"read"}\r\n')
        assert (await tw.client.get(f"{tw.url}/api/live")).status == 200  # what came is read by now
        await peer.send(rest)
        got = await peer.response()
    assert got.status == 400
    assert b"did not come whole" in got.body
    assert (await tw.api("/api/keys"))["keys"] == []
    assert caplog.text == ""


async def test_a_compressed_body_is_no_json(tw: Running) -> None:
    headers = {"Content-Encoding": "gzip"}
    async with tw.client.post(tw.url + "/api/keys", data=b"\x1f\x8b", headers=headers) as answer:
        assert answer.status == 400


async def test_who_sends_a_body_slowly_must_still_be_let_in_at_its_end(team: Keyed) -> None:
    """Else whoever lost a key could hold requests open, and make a new key when it is revoked."""
    admin, other = team["alpha", "admin"], await team.by("beta", "admin")
    body = b'{"name":"a way back","scope":"admin"}'
    async with connect(team.tw.port) as peer:
        await peer.send(
            b"POST /api/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%b\r\n{"
            % (len(body), admin.bearer)
        )
        async with other.client.delete(f"{other.url}/api/keys/{admin.key_id}") as answer:
            assert answer.status == 200
        await peer.send(body[1:])
        got = await peer.response()
    assert (got.status, got.get(b"WWW-Authenticate")) == (401, b'Bearer realm="traceway"')
    assert "a way back" not in str(await other.api("/api/keys"))
