"""The way out: which proxy the environment names for an upstream, and what nobody gets to see."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.egress import BadProxy, Egress, from_environment

PROXY = "http://proxy.example:3128"


def way(url: str, **environ: str) -> str | None:
    hop = from_environment(environ).hop(url)
    return None if hop is None else str(hop)


def test_without_variables_every_way_is_direct() -> None:
    assert from_environment({}) == Egress()
    assert way("https://api.openai.com") is None


@pytest.mark.parametrize(
    ("environ", "https", "http"),
    [
        ({"HTTPS_PROXY": "http://a:1"}, "http://a:1", None),
        ({"HTTP_PROXY": "http://a:1"}, None, "http://a:1"),
        ({"ALL_PROXY": "http://a:1"}, "http://a:1", "http://a:1"),
        ({"all_proxy": "http://a:1", "https_proxy": "http://b:2"}, "http://b:2", "http://a:1"),
        ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2"}, "http://a:1", None),
        ({"https_proxy": "", "HTTPS_PROXY": "http://b:2"}, "http://b:2", None),
        ({"HTTPS_PROXY": "", "ALL_PROXY": "http://b:2"}, "http://b:2", "http://b:2"),
        ({"HTTPS_PROXY": " "}, None, None),
        ({"FTP_PROXY": "http://a:1"}, None, None),
    ],
)
def test_each_scheme_has_its_variable_and_lower_case_goes_first(
    environ: dict[str, str], https: str | None, http: str | None
) -> None:
    assert way("https://up.example", **environ) == https
    assert way("http://up.example", **environ) == http


@pytest.mark.parametrize(
    ("text", "hop"),
    [
        ("http://proxy.example", "http://proxy.example:80"),
        ("https://proxy.example", "https://proxy.example:443"),
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("http://[2001:db8::1]:8080/", "http://[2001:db8::1]:8080"),
        ("http://user:pass@10.0.0.1:8080", "http://10.0.0.1:8080"),
    ],
)
def test_a_proxy_is_written_as_its_url(text: str, hop: str) -> None:
    assert way("https://up.example", HTTPS_PROXY=text) == hop


@pytest.mark.parametrize(
    ("user", "pair"),
    [("joe:pass", b"joe:pass"), ("joe", b"joe:"), ("j%40e:p%3Ass%2F", b"j@e:p:ss/")],
)
def test_the_user_of_its_url_is_what_a_proxy_is_told_and_nobody_else(
    user: str, pair: bytes
) -> None:
    egress = from_environment({"HTTPS_PROXY": f"http://{user}@proxy.example:3128"})
    hop = egress.hop("https://up.example")
    assert hop is not None
    ((name, value),) = hop.headers
    assert (name, base64.b64decode(value.removeprefix(b"Basic "))) == (b"Proxy-Authorization", pair)
    for shown in (repr(egress), repr(hop), str(hop)):
        assert user not in shown
        assert value.decode() not in shown


def test_a_proxy_without_a_user_is_told_nothing() -> None:
    hop = from_environment({"ALL_PROXY": PROXY}).hop("http://up.example")
    assert hop is not None
    assert hop.headers == []


@pytest.mark.parametrize(
    "text",
    ["socks5://a:1", "ftp://a", "http://", "http://a:99999", "http://a:x", "://", "http://[::1"],
)
def test_what_is_no_proxy_of_ours_is_a_mistake_where_it_would_be_used(text: str) -> None:
    egress = from_environment({"ALL_PROXY": text, "NO_PROXY": "spared.example"})
    assert egress.hop("https://spared.example") is None
    with pytest.raises(BadProxy, match="http or https proxy") as raised:
        egress.hop("https://up.example")
    assert (raised.value.variable, raised.value.value) == ("ALL_PROXY", text)


def test_a_mistake_quotes_no_password() -> None:
    egress = from_environment({"HTTPS_PROXY": "socks5://joe:pass@a:1"})
    with pytest.raises(BadProxy) as raised:
        egress.hop("https://up.example")
    assert raised.value.value == "[not shown]"
    assert "pass" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:11434",
        "https://localhost",
        "http://models.localhost",
        "http://127.0.0.1:8000",
        "http://127.9.9.9",
        "http://[::1]:8000",
    ],
)
def test_nothing_on_this_machine_is_reached_through_a_proxy(url: str) -> None:
    assert way(url, ALL_PROXY=PROXY) is None


@pytest.mark.parametrize(
    ("spared", "url", "is_spared"),
    [
        ("*", "https://up.example", True),
        ("up.example", "https://up.example", True),
        ("UP.Example", "https://up.example", True),
        (".up.example", "https://up.example", True),
        ("*.up.example", "https://a.up.example", True),
        ("up.example", "https://a.b.up.example", True),
        ("up.example", "https://backup.example", False),
        ("example", "https://up.example", True),
        ("a.example, up.example", "https://up.example", True),
        ("a.example up.example", "https://up.example", True),
        ("up.example:443", "https://up.example", True),
        ("up.example:8443", "https://up.example", False),
        ("up.example:8443", "https://up.example:8443", True),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("10.0.0.0/8", "http://ten.example", False),
        ("10.1.2.3", "http://10.1.2.3:81", True),
        ("10.1.2.3:80", "http://10.1.2.3:81", False),
        ("2001:db8::/32", "http://[2001:db8::7]", True),
        ("2001:db8::7", "http://[2001:db8::7]:81", True),
        ("[2001:db8::7]:81", "http://[2001:db8::7]:81", True),
        ("[2001:db8::7]:80", "http://[2001:db8::7]:81", False),
        ("up.example:0443", "https://up.example", True),
        ("up.example:¹", "https://up.example", False),
        (f"up.example:{'9' * 5_000}", "https://up.example", False),
        ("", "https://up.example", False),
        (",", "https://up.example", False),
        (".", "https://up.example", False),
    ],
)
def test_no_proxy_names_hosts_domains_addresses_networks_and_ports(
    spared: str, url: str, is_spared: bool
) -> None:
    assert (way(url, ALL_PROXY=PROXY, NO_PROXY=spared) is None) == is_spared


@given(proxy=st.text(), spared=st.text())
def test_no_text_of_a_variable_is_more_than_a_mistake(proxy: str, spared: str) -> None:
    egress = from_environment({"ALL_PROXY": proxy, "NO_PROXY": spared})
    with contextlib.suppress(BadProxy):
        egress.hop("https://up.example")
