from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from proxy import config_values as values

Reader = Callable[[object], object]


@pytest.mark.parametrize(
    ("read", "value", "result"),
    [
        (values.integer(0, 10, "bytes"), 0, 0),
        (values.integer(0, 10, "bytes"), 10, 10),
        (values.number(0.5, 10, "seconds"), Decimal("0.5"), 0.5),
        (values.number(0.5, 10, "seconds"), 10, 10.0),
        (values.choice("a", "b"), "b", "b"),
        (values.boolean, False, False),
        (values.name, "my_own-1", "my_own-1"),
        (values.host, "localhost", "localhost"),
        (values.host, "127.8.9.1", "127.8.9.1"),
        (values.host, "0.0.0.0", "0.0.0.0"),  # noqa: S104  # nothing listens there
        (values.host, "::", "::"),
        (values.origins, ["https://App.example.com:8443"], ("https://app.example.com:8443",)),
        (values.origins, [], ()),
        (values.maybe_file_path, "", None),
        (values.host_names, ["Proxy.Local", "10.0.0.1"], ("proxy.local", "10.0.0.1")),
        (values.file_path, "~/a.db", Path.home() / "a.db"),
        (values.http_url, "https://api.openai.com/", "https://api.openai.com"),
        (values.http_url, "http://[::1]:8080/v1/", "http://[::1]:8080/v1"),
        (values.http_url, "HTTP://Host:80", "http://host"),
        (values.maybe_http_url, "", ""),
        (values.maybe_http_url, "http://h:4318/v1/traces", "http://h:4318/v1/traces"),
        (values.header_pairs, "", ""),
        (values.header_pairs, "a=b, x-c=%20d%2C=", "a=b, x-c=%20d%2C="),
        (values.money, 3, Decimal(3)),
        (values.money, Decimal("0.1"), Decimal("0.1")),
        (values.model, "acme-*", "acme-*"),
        (values.model, "acme-large", "acme-large"),
    ],
)
def test_a_reader_accepts_what_it_describes(read: Reader, value: object, result: object) -> None:
    assert read(value) == result


@pytest.mark.parametrize(
    ("read", "value"),
    [
        *[(values.integer(0, 10, "bytes"), v) for v in (-1, 11, 1.0, True, "1", None)],
        *[(values.number(0, 10, "seconds"), v) for v in (-0.1, 10.1, True, "1", 10**400)],
        *[(values.number(0, 10, "seconds"), Decimal(v)) for v in ("nan", "inf", "1e999999")],
        *[(values.choice("a", "b"), v) for v in ("A", "", 1, ["a"])],
        *[(values.boolean, v) for v in ("true", 1, 0, None)],
        *[(values.header_pairs, v) for v in (1, None, "a", "a=", "a b=c", "a=%0d%0ab", "=b")],
        *[(values.name, v) for v in ("", "A", "a.b", "a/b", "a" * 33, "a\n", 1)],
        *[(values.host, v) for v in ("a:80", "http://a", "a b", "", 1)],
        *[(values.origins, v) for v in ("https://a", ["*"], ["null"], ["https://a/"], ["a.com"])],
        *[(values.host_names, v) for v in ("a", [1], ["a:80"], ["http://a"], [""], ["a b"])],
        *[(values.file_path, v) for v in ("", " ", "a\0b", 1)],
        *[(values.money, v) for v in (-1, 1_000_001, True, 0.1, "1", Decimal("nan"))],
        *[(values.money, Decimal(v)) for v in ("inf", "-0.1", "1e-19", "1e999999")],
        *[(values.model, v) for v in ("", "*", "a*b", "a**", 1)],
    ],
)
def test_a_reader_refuses_all_else_with_a_sentence(read: Reader, value: object) -> None:
    with pytest.raises(ValueError, match=r"^(a|one of|the|bytes,|seconds,|USD) .+[^.]$"):
        read(value)


@pytest.mark.parametrize(
    "url",
    [
        "api.openai.com",
        "//host",
        "ftp://host",
        "http://",
        "http:///path",
        "http://host:0",
        "http://host:70000",
        "http://host:port",
        "http://user:secret@host",
        "http://@host",
        "http://host?",
        "http://host?a=b",
        "http://host/#part",
        "http://ho st",
        "http://host\n",
        "http://a\\b",
        "http://[::1",
        "http://h%2f",
        "http://..",
        7,
    ],
)
def test_a_url_that_is_more_or_less_than_scheme_host_port_and_path_is_refused(url: object) -> None:
    with pytest.raises(ValueError, match="http or https URL"):
        values.http_url(url)


def test_headers_are_decoded_as_opentelemetry_has_them() -> None:
    pairs = values.header_pairs_of("authorization=Bearer%20x=,, x-team = a ")
    assert pairs == [(b"authorization", b"Bearer x="), (b"x-team", b"a")]
