"""What a form brings, and where a browser is sent on to: only ever to a page of ours."""

from urllib.parse import urljoin, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.params import BadParameter
from proxy.ui import forms
from tests.keyed import Keyed
from tests.running import Running
from tests.wire import connect

pytestmark = pytest.mark.asyncio(loop_scope="session")

OUR_PAGES = (
    *("/", "/sessions", "/traces", "/settings", "/sessions/user_123:conv_456", "/traces?q=a+b"),
    *("/sessions/a%2Fb%0A", "/sessions/by-id?id=..", "/sessions?q=cost:%3E0.5&sort_by=cost"),
    "/sessions/s?from=50&at=0af7651916cd43dd8448eb211c80319c",
)
ELSEWHERE = (
    *("", "sessions", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example"),
    *("https://evil.example/", "https:evil.example", "javascript:alert(1)", "/sessions:@evil"),
    *("/api/keys", "/api/proxy/openai/v1/models", "/sign-out", "/static/x/y", "/spans/1/curl"),
    *(
        "/sessions\r\nSet-Cookie: a=b",
        "/sessions\n",
        "\t//evil.example",
        " /sessions",
        "/sessionsx",
    ),
    *(
        "/sessions/../api/keys",
        "/sessions/%2e%2E/api/keys",
        "/sessions/./x",
        "/sessions/..//evil.example",
    ),
    *(
        "/sessions#//evil.example",
        "/sessions/é",
        "/sessions?q=<b>",
        "/sessions\0",
        "/.//evil.example",
    ),
    *("/%2f/evil.example", "/?\\evil", "/sessions?" + "a" * 20_000),
)

PIECES = (*"/\\.:@%?#&=2fe\t\n\r\0 é", "/sessions", "//evil", "/..", "%2e")


@pytest.mark.parametrize("address", OUR_PAGES)
async def test_a_page_of_ours_is_gone_back_to(address: str) -> None:
    assert forms.page_of_ours(address) == address


@pytest.mark.parametrize("address", ELSEWHERE)
async def test_any_other_address_leads_to_the_first_page(address: str) -> None:
    assert forms.page_of_ours(address) == "/sessions"


@given(st.lists(st.sampled_from(PIECES)).map("".join))
async def test_no_address_leads_away(address: str) -> None:
    found = forms.page_of_ours(address)
    assert found.isascii()
    assert found.isprintable()
    assert "\\" not in found
    base = urlsplit(urljoin("http://127.0.0.1:3000/sign-in", found))
    assert (base.scheme, base.netloc) == ("http", "127.0.0.1:3000")
    assert base.path == "/" or base.path.split("/")[1] in ("sessions", "traces", "settings")


class Made(msgspec.Struct, forbid_unknown_fields=True):
    """Something that a form makes."""

    name: str
    count: int | None = None


async def test_a_wrong_field_is_told_in_the_forms_words_and_not_what_it_was() -> None:
    said = {"name": "a name is needed", "count": "a count is a number"}
    assert forms.fill(Made, {"name": "x", "count": "7"}, said) == Made("x", 7)
    for fields, name in (({"count": "7"}, "name"), ({"name": "x", "count": "tw_sk_x"}, "count")):
        with pytest.raises(BadParameter) as raised:
            forms.fill(Made, fields, said)
        assert (str(raised.value), raised.value.name) == (said[name], name)
    with pytest.raises(BadParameter, match="the form is not what it should be"):
        forms.fill(Made, {"name": "x", "other": "tw_sk_x"}, said)


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [
        (b"text/plain", b"name=x", "application/x-www-form-urlencoded"),
        (b"multipart/form-data; boundary=a", b"--a--", "application/x-www-form-urlencoded"),
        (b"application/x-www-form-urlencoded", b"a=" + b"x" * 70_000, "at most 65536 bytes"),
        (b"application/x-www-form-urlencoded", b"name=%ff", "cannot be read"),
        (b"application/x-www-form-urlencoded", b"name=\xff", "cannot be read"),
        (b"application/x-www-form-urlencoded", b"a=1&" * 30, "cannot be read"),
    ],
)
async def test_what_is_no_form_is_refused_in_a_page(
    tw: Running, kind: bytes, body: bytes, says: str
) -> None:
    headers = b"Origin: http://127.0.0.1\r\nContent-Type: %b\r\n" % kind
    got = await tw.raw(b"/settings/projects", headers=headers, body=body)
    assert (got.status, got.get(b"Content-Type")) == (400, b"text/html; charset=utf-8")
    assert says in got.body.decode()
    assert (await tw.api("/api/projects"))["count"] == 1


async def test_a_form_that_comes_slowly_is_of_nobody_when_its_key_is_gone(team: Keyed) -> None:
    holder, admin = team["beta", "admin"], await team.by("alpha", "admin")
    head = (
        b"POST /settings/projects HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n"
    )
    async with connect(team.tw.port) as peer:
        await peer.send(head + holder.cookie_header + b"\r\nname=")
        async with admin.client.delete(f"{admin.url}/api/keys/{holder.key_id}") as answer:
            assert answer.status == 200
        await peer.send(b"gamma")
        got = await peer.response()
    assert got.status == 401
    assert (await admin.api("/api/projects"))["count"] == 3
