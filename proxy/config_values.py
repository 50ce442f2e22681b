"""What one configuration value may be: readers that turn a TOML value into a field's value.

Each reader returns the value or raises `ValueError` with what was expected, so that a message can
say "KEY = VALUE: expected ...". Knows no keys and no defaults; these are in config.py.
"""

import ipaddress
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlsplit

from yarl import URL

from proxy.capture import CapturePolicy, parse_capture

_NAME: Final = re.compile(r"[a-z0-9_-]{1,32}")
_HOST: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_ORIGIN: Final = re.compile(
    r"https?://([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9a-fA-F:]+\])(:\d{1,5})?"
)
# Far above every price there is (USD 600 for o1-pro's output): more is a slip of the pen.
_MAX_USD_PER_MILLION: Final = 1_000_000
# RFC 9110 section 5.6.2, and text without control characters.
_HEADER_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_POSTGRES: Final = re.compile(r"\s*postgres(ql)?:", re.IGNORECASE)
_A_DATABASE: Final = "the address of a PostgreSQL database, as postgresql://user:password@host/name"
_HEADER_VALUE: Final = re.compile(rb"[\x20-\x7e\x80-\xff]+")


def integer(low: int, high: int, unit: str) -> Callable[[object], int]:
    """Make a reader for an integer; `unit` begins the sentence of what was expected."""

    def read(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise ValueError(f"{unit}, an integer from {low} to {high}")

    return read


def number(low: float, high: float, unit: str) -> Callable[[object], float]:
    """Make a reader for a finite number, with or without a fraction."""

    def read(value: object) -> float:
        # In this order: a comparison with Decimal("nan") raises, one of float("nan") is False.
        if isinstance(value, Decimal):
            value = float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        raise ValueError(f"{unit}, a number from {low:g} to {high:g}")

    return read


def boolean(value: object) -> bool:
    """Read true or false."""
    if isinstance(value, bool):
        return value
    raise ValueError("one of true, false")


def choice(*words: str) -> Callable[[object], Any]:
    """Make a reader for one of some words (`Any`: the field's Literal is narrower than str)."""

    def read(value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise ValueError("one of " + ", ".join(f'"{word}"' for word in words))

    return read


def name(value: object) -> str:
    """Read a name that can stand in a path and in an environment variable."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise ValueError('a name of 1 to 32 characters out of a-z, 0-9, "_" and "-"')


def host(value: object) -> str:
    """Read an address of this machine, or its name."""
    if isinstance(value, str) and (_HOST.fullmatch(value) or _address(value) is not None):
        return value
    raise ValueError('the address or name of this machine, as "127.0.0.1", "0.0.0.0" or "::1"')


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def origins(value: object) -> tuple[str, ...]:
    """Read a list of origins, as browsers send them: scheme, host and perhaps a port."""
    if isinstance(value, list) and all(isinstance(o, str) and _ORIGIN.fullmatch(o) for o in value):
        return tuple(origin.lower() for origin in value)
    raise ValueError('a list of origins, as ["https://app.example.com"]')


def capture(value: object) -> CapturePolicy:
    """Read how much is kept of bodies."""
    policy = parse_capture(value) if isinstance(value, str) else None
    if policy is None:
        raise ValueError('"full", "preview", "preview(N)" with N bytes, or "off"')
    return policy


def host_names(value: object) -> tuple[str, ...]:
    """Read a list of host names as they stand in a `Host` header, in lower case, without port."""
    if isinstance(value, list) and all(isinstance(h, str) and _HOST.fullmatch(h) for h in value):
        return tuple(host.lower() for host in value)
    raise ValueError('a list of host names without port, as ["traceway.local"]')


def file_path(value: object) -> Path:
    """Read a path; a leading ~ is the home directory."""
    if isinstance(value, str) and value.strip() and "\0" not in value:
        if _POSTGRES.match(value):
            raise ValueError(f"the path of a file; url in [database] is for {_A_DATABASE}")
        return Path(value).expanduser()
    raise ValueError("the path of a file")


def maybe_database_url(value: object) -> str:
    """Read the address of a PostgreSQL database, or nothing where the text is empty."""
    if value == "":
        return ""
    if isinstance(value, str) and not re.search(r"[\s\x00-\x1f\x7f]", value):
        try:
            parts = urlsplit(value)
            _ = parts.port if "," not in parts.netloc else None
        except ValueError:  # a bracket that does not end, a port that is none
            parts = urlsplit("")
        if parts.scheme in {"postgresql", "postgres"} and value.startswith(f"{parts.scheme}://"):
            return value
    raise ValueError(
        f"{_A_DATABASE}; what is none of A-Z, a-z, 0-9, - and _ in a password is percent-encoded"
    )


def maybe_file_path(value: object) -> Path | None:
    """Read a path, or nothing where the text is empty."""
    return None if value in ("", None) else file_path(value)


def http_url(value: object) -> str:
    """Read an upstream's URL; the result has no slash at its end."""
    # yarl drops white space, an empty query and an empty user silently: refuse them first.
    if isinstance(value, str) and not re.search(r"[\s?#@\\]", value):
        try:
            url = URL(value)
        except ValueError:
            url = URL()
        host = url.raw_host or ""
        named = _HOST.fullmatch(host) or ":" in host
        if url.scheme in {"http", "https"} and named and url.port:
            return str(url).rstrip("/")
    raise ValueError(
        'an http or https URL with a host, perhaps a port and a path, as "https://api.openai.com";'
        " no user, query or fragment"
    )


def maybe_http_url(value: object) -> str:
    """Read a URL, or nothing where the text is empty."""
    return "" if value == "" else http_url(value)


def header_pairs(value: object) -> str:
    """Read headers as `name=value,name=value`, percent-encoded, as OTEL_EXPORTER_OTLP_HEADERS."""
    if isinstance(value, str):
        pairs = header_pairs_of(value)
        if all(_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(v) for name, v in pairs):
            return value
    raise ValueError("a list of headers as name=value, with commas between")


def header_pairs_of(text: str) -> list[tuple[bytes, bytes]]:
    """Give the headers of such a text."""
    pairs = (part.strip().partition("=") for part in text.split(",") if part.strip())
    return [(name.strip().encode(), unquote_to_bytes(value.strip())) for name, _, value in pairs]


def money(value: object) -> Decimal:
    """Read USD per million tokens, exactly; 18 decimal places are what pricing.py can hold."""
    price = Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else value
    # `is_finite` comes first: a comparison with Decimal("nan") raises.
    if (
        isinstance(price, Decimal)
        and price.is_finite()
        and 0 <= price <= _MAX_USD_PER_MILLION
        and price == round(price, 18)
    ):
        return price
    raise ValueError(
        f"USD per million tokens, a number from 0 to {_MAX_USD_PER_MILLION} with at most 18"
        " decimal places"
    )


def model(value: object) -> str:
    """Read a model's name, or the beginning of names and a `*`."""
    if isinstance(value, str) and value.strip("*") and "*" not in value[:-1]:
        return value
    raise ValueError('a model, as "acme-large", or the beginning of several, as "acme-*"')
