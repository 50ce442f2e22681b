"""The way out: to an upstream directly, or through the proxy that the environment names for it.

Reads HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY as curl and Python do, in lower case first.
Invariants: nothing on this machine is reached through a proxy; a proxy's credentials stand in no
text and no repr of ours. Opens no connection (dial.py does).
"""

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from yarl import URL

from proxy.config_values import is_loopback

# One variable for the upstreams of each scheme, and one for all that have none of their own.
_VARIABLES: Final = MappingProxyType({"https": "HTTPS_PROXY", "http": "HTTP_PROXY"})
_FOR_ALL: Final = "ALL_PROXY"
_FOR_NONE: Final = "NO_PROXY"


class BadProxy(ValueError):
    """What a variable says is no proxy that we can use; the text says what was expected."""

    def __init__(self, variable: str, value: str) -> None:
        super().__init__(
            "an http or https proxy, as http://proxy.example:3128, or nothing; NO_PROXY names the"
            " hosts that are reached without it"
        )
        self.variable = variable
        self.value = value if "@" not in value else "[not shown]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """A proxy: `tls` is how it is spoken to, `authorization` the value of its header."""

    host: str
    port: int
    tls: bool = False
    authorization: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Give what a request to the proxy itself carries (RFC 9110 section 11.7.2)."""
        if self.authorization is None:
            return []
        return [(b"Proxy-Authorization", self.authorization)]


@dataclass(frozen=True, slots=True)
class Egress:
    """What the environment says of proxies; without it every way is direct."""

    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    spared: tuple[str, ...] = ()

    def hop(self, url: str) -> Hop | None:
        """Give the proxy on the way to a URL, None where there is none.

        Raises:
            BadProxy: the variable for it names none that we can use.
        """
        target = URL(url)
        variable = _VARIABLES[target.scheme]
        if variable not in self.proxies:
            variable = _FOR_ALL
        text = self.proxies.get(variable, "")
        host, port = target.raw_host or "", target.port or 0
        on_this_machine = is_loopback(host) or host.endswith(".localhost")
        if not text or on_this_machine or any(_covers(e, host, port) for e in self.spared):
            return None
        hop = _parsed(text)
        if hop is None:
            raise BadProxy(variable, text)
        return hop


def from_environment(environ: Mapping[str, str]) -> Egress:
    """Read the variables; an empty one counts as not set."""
    found = {}
    for name in (*_VARIABLES.values(), _FOR_ALL, _FOR_NONE):
        for spelling in (name, name.lower()):
            if text := environ.get(spelling, "").strip():
                found[name] = text
    spared = found.pop(_FOR_NONE, "").replace(",", " ").lower().split()
    return Egress(found, tuple(spared))


def _parsed(text: str) -> Hop | None:
    try:
        url = URL(text if "://" in text else f"http://{text}")
        host, port = url.raw_host, url.port
    except ValueError:
        return None
    if url.scheme not in {"http", "https"} or not host or not port:
        return None
    authorization = None
    if url.user is not None:
        pair = f"{url.user}:{url.password or ''}".encode()
        authorization = b"Basic " + base64.b64encode(pair)
    return Hop(host=host, port=port, tls=url.scheme == "https", authorization=authorization)


def _covers(entry: str, host: str, port: int) -> bool:
    """Tell whether an entry of NO_PROXY means a host: by name and below it, by address or network.

    `*` means every host, and `:PORT` behind a name or an address that port alone.
    """
    if entry == "*":
        return True
    bare, colon, number = entry.rpartition(":")
    if colon and number.isdigit() and (":" not in bare or bare.endswith("]")):
        if number.lstrip("0") != str(port):  # of any length, in digits of any script
            return False
        entry = bare
    entry = entry.removeprefix("[").removesuffix("]")
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        name = entry.removeprefix("*").removeprefix(".")
        return bool(name) and (host == name or host.endswith("." + name))
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False
