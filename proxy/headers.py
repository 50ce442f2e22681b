"""Header rules of the relay: what is removed, what is replaced, what is kept secret. Pure.

Invariant: what remains keeps its bytes, its order and its duplicates. A header list is a sequence
of (name, value) pairs of bytes as they were on the wire, never a mapping.
"""

import hashlib
import re
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote_to_bytes

import orjson

RawHeaders = Sequence[tuple[bytes, bytes]]
# The first value of each name in lower case. For looking up only: it knows no order.
Index = Mapping[bytes, bytes]

# RFC 9110 section 7.6.1, and the names that proxies of the field strip with them
# (Proxy-Connection is not in any RFC, but old clients send it).
HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# `Connection: Content-Length` must not be able to take the framing or the target from a request.
NEVER_HOP_BY_HOP: Final = frozenset({b"content-length", b"host"})
# What nearly every `Connection` says; neither names a header that is not hop-by-hop itself.
_CONNECTION_ALONE: Final = frozenset({b"keep-alive", b"close"})
OURS: Final = b"x-traceway-"
# By which a browser is signed in at this server.
OUR_COOKIE: Final = b"traceway_sign_in"

REDACTED: Final = b"[redacted]"
OUR_KEY: Final = re.compile(rb"tw_sk_[A-Za-z0-9_-]*")

# Headers whose whole value is a credential, in either direction. A browser's websocket client puts
# its key into the subprotocol list.
SECRET_HEADERS: Final = frozenset(
    {
        b"api-key",
        b"authorization",
        b"cookie",
        b"ocp-apim-subscription-key",
        b"openai-ephemeral-user-token",
        b"proxy-authorization",
        b"sec-websocket-protocol",
        b"set-cookie",
        b"x-api-key",
        b"x-auth-token",
        b"x-goog-api-key",
        b"x-traceway-api-key",
    }
)
# Names that say the same of others: `Helicone-Auth`, `x-portkey-api-key`, `X-Amz-Security-Token`,
# and of parameters: `access_token`, `subscription-key` (Azure API Management).
_SECRET_NAME: Final = re.compile(
    rb"(?:\A|[-_])(?:auth|authorization|api[-_]?key|subscription[-_]key|token|secret|password)\Z",
    re.IGNORECASE,
)
# Longer names are nobody's; those that are looked up stay in memory.
_NAME_BYTES: Final = 64
# Where a caller's API key stands; the first one there is, is the caller.
KEY_HEADERS: Final = (b"authorization", b"api-key", b"x-api-key", b"x-goog-api-key")
_CALLER_BYTES: Final = 8
# Parameters of a query, beside those that are named as such headers are.
SECRET_PARAMETERS: Final = frozenset({b"key", b"sig", b"signature"})
# API keys by how their providers write them: OpenAI and Anthropic, Google, Groq, xAI, Hugging Face,
# Replicate, Perplexity, NVIDIA, GitHub; and our own. For paths and for what our messages quote.
_ANY_KEY: Final = re.compile(
    rb"\b(?:sk-|AIza|gsk_|xai-|hf_|r8_|pplx-|nvapi-|gh[opsu]_|github_pat_)[A-Za-z0-9_-]{16,}"
    rb"|tw_s[ikt]_[A-Za-z0-9_-]+"
)
_ANY_KEY_BYTES: Final = 19  # the shortest of them
# How many of the pairs in a value are cookies; attributes follow the one that is set.
_COOKIES: Final[Mapping[bytes, int | None]] = MappingProxyType({b"cookie": None, b"set-cookie": 1})
_SCHEME: Final = re.compile(rb"\A[A-Za-z][A-Za-z0-9-]* +")
# A credential is cut out of bodies only where it cannot be an ordinary word of a text: local
# servers are called with keys such as "ollama" or "anything".
_SECRET_MIN_BYTES: Final = 8
_SECRET_CERTAIN_BYTES: Final = 16
# Credentials of one head, API keys aside, that are looked for elsewhere. Each is searched for in
# whole bodies, and a head has room for 12,000. A browser keeps some 50 cookies for one site.
MAX_CREDENTIALS: Final = 64


def end_to_end(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """Drop hop-by-hop headers, those that `Connection` names, and every header of ours."""
    dropped = HOP_BY_HOP
    for name, value in headers:
        if len(name) == 10 and name.lower() == b"connection" and value not in _CONNECTION_ALONE:
            named = {option.strip().lower() for option in value.split(b",")}
            dropped = dropped | (named - NEVER_HOP_BY_HOP)
    return [
        pair
        for pair in headers
        if (name := pair[0].lower()) not in dropped and not name.startswith(OURS)
    ]


def request_headers(headers: RawHeaders, authority: bytes) -> list[tuple[bytes, bytes]]:
    """Give the headers for the upstream: end-to-end, with its own `Host` where the client's stood.

    `Expect` goes as well: our server has answered it (RFC 9110 section 10.1.1). So does the cookie
    by which a browser is signed in here, which it also sends to what else serves on this host.
    """
    relayed: list[tuple[bytes, bytes]] = []
    host_at = 0
    for name, value in end_to_end(headers):
        lowered = name.lower()
        if lowered == b"host":
            host_at = len(relayed)
        elif lowered == b"cookie" and OUR_COOKIE in value:
            if kept := _without_our_cookie(value):
                relayed.append((name, kept))
        elif lowered != b"expect":
            relayed.append((name, value))
    relayed.insert(host_at, (b"Host", authority))
    return relayed


def _without_our_cookie(value: bytes) -> bytes:
    pairs = value.split(b";")
    return b";".join(p for p in pairs if not p.strip().startswith(OUR_COOKIE + b"=")).strip()


def for_edited_body(headers: RawHeaders, size: int) -> list[tuple[bytes, bytes]]:
    """Give the headers of a request whose body became `size` bytes and whose answer must be plain.

    A declared length is corrected; the answer's coding is `identity`, so that it can be edited.
    """
    edited = [
        (name, b"%d" % size if name.lower() == b"content-length" else value)
        for name, value in headers
    ]
    return with_plain_answer(edited)


def with_plain_answer(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """Give the headers of a request whose answer must come in no content coding."""
    return [*without(headers, b"accept-encoding"), (b"Accept-Encoding", b"identity")]


def without(headers: RawHeaders, *names: bytes) -> list[tuple[bytes, bytes]]:
    """Drop the headers with these names (lower case)."""
    return [pair for pair in headers if pair[0].lower() not in names]


def index(headers: RawHeaders) -> Index:
    """Give the first value of each name, in lower case: one pass for all who look for one."""
    return {name.lower(): value for name, value in reversed(headers)}


def text(index: Index, name: bytes) -> str:
    """Give the value of `name` (lower case) as text, "" where it is missing."""
    return index.get(name, b"").decode("latin-1").strip()


def media_type(index: Index) -> str:
    """Give the media type in lower case without its parameters, "" where there is none."""
    return text(index, b"content-type").partition(";")[0].rstrip().lower()


def holds_our_key(headers: RawHeaders, target: bytes) -> bool:
    """Tell whether a key of ours stands in a header or in the request target."""
    # Joined and looked at once; no key of ours has a NUL in it.
    return b"tw_sk_" in unquote_to_bytes(target) or b"tw_sk_" in b"\0".join(chain(*headers))


def has_our_key_for_theirs(headers: RawHeaders) -> bool:
    """Tell whether a key of ours stands where the provider's would."""
    return any(name.lower() in KEY_HEADERS and _ends_in_our_key(value) for name, value in headers)


def with_provider_key(headers: RawHeaders, key: bytes) -> list[tuple[bytes, bytes]]:
    """Put the provider's key where ours stands, in the same header after the same scheme.

    What `Connection` says of such a header counts for the client's, which ends here.
    """
    swapped = []
    for name, value in headers:
        lowered = name.lower()
        if lowered in KEY_HEADERS and _ends_in_our_key(value):
            scheme = b"".join(value.rpartition(b" ")[:2])
            value = (scheme or (b"Bearer " if lowered == b"authorization" else b"")) + key
        elif lowered == b"connection":
            options = value.split(b",")
            value = b",".join(o for o in options if o.strip().lower() not in KEY_HEADERS)
        swapped.append((name, value))
    return swapped


def _ends_in_our_key(value: bytes) -> bool:
    return value.rpartition(b" ")[2].startswith(b"tw_sk_")


@lru_cache(maxsize=1024)
def _is_secret(name: bytes) -> bool:
    """Tell whether the whole value of a header of this name is a credential."""
    return name.lower() in SECRET_HEADERS or _SECRET_NAME.search(name) is not None


def _is_secret_parameter(name: bytes) -> bool:
    return name.lower() in SECRET_PARAMETERS or (len(name) <= _NAME_BYTES and _is_secret(name))


def caller(index: Index) -> bytes | None:
    """Tell the API keys of callers apart: 8 bytes of a hash, None for a call without a key."""
    for name in KEY_HEADERS:
        if key := _SCHEME.sub(b"", index.get(name, b""), count=1).strip():
            return hashlib.blake2b(key, digest_size=_CALLER_BYTES).digest()
    return None


def credentials(headers: RawHeaders, query: bytes, path: bytes = b"") -> tuple[bytes, ...]:
    """List the call's secrets as they could turn up elsewhere: header values without their scheme,
    query parameters by name, raw and decoded, and elsewhere in the head what looks like a key.

    Of more than ``MAX_CREDENTIALS`` those are listed that stand where API keys do, and the longest
    others; what stands by its name is replaced where it stands, in any case.
    """
    found: set[bytes] = set()
    others = [path, query]
    for name, value in headers:
        if len(name) <= _NAME_BYTES and _is_secret(name):
            found.add(secret := _SCHEME.sub(b"", value, count=1).strip())
            if value[:6].lower() == b"basic ":
                found |= _basic(secret)
            if (lowered := name.lower()) in _COOKIES:
                found |= _cookies(value, _COOKIES[lowered])
        elif len(value) >= _ANY_KEY_BYTES:
            others.append(value)
    for name, value in _parameters(query) if query else ():
        if _is_secret_parameter(name):
            found |= {value, unquote_to_bytes(value)}
    rest = b"\n".join(others)
    found |= set(_ANY_KEY.findall(rest))
    if b"%" in rest:
        found |= set(_ANY_KEY.findall(unquote_to_bytes(rest)))
    if not found:
        return ()
    if len(found) > MAX_CREDENTIALS:
        found = _chosen(headers, found)
    # As JSON is written by PHP and by .NET.
    for plain, escaped in ((b"/", b"\\/"), (b"+", b"\\u002B")):
        found |= {secret.replace(plain, escaped) for secret in found if plain in secret}
    return tuple(sorted((s for s in found if _is_telling(s)), key=len, reverse=True))


def _chosen(headers: RawHeaders, found: set[bytes]) -> set[bytes]:
    keys = {
        _SCHEME.sub(b"", value, count=1).strip()
        for name, value in headers
        if name.lower() in KEY_HEADERS
    }
    chosen: set[bytes] = set()
    for some in (found & keys, found - keys):
        chosen.update(sorted(filter(_is_telling, some), key=len)[-MAX_CREDENTIALS:])
    return chosen


def redact(data: bytes, secrets: Iterable[bytes]) -> bytes:
    """Replace each secret, and anything that looks like a key of ours, by `[redacted]`."""
    for secret in secrets:
        if secret in data:
            data = data.replace(secret, REDACTED)
    return OUR_KEY.sub(REDACTED, data) if b"tw_sk_" in data else data


def redact_any(data: bytes, secrets: Iterable[bytes] = ()) -> bytes:
    """Replace secrets, and what looks like anybody's API key, where no name gives them away."""
    for secret in secrets:
        data = data.replace(secret, REDACTED)
    return _ANY_KEY.sub(REDACTED, data)


def redact_path(path: bytes, secrets: Sequence[bytes]) -> bytes:
    """Replace such keys in a raw path; where one is percent-encoded, give the path decoded."""
    if b"%" in path:
        plain = unquote_to_bytes(path)
        if (redacted := redact_any(plain, secrets)) != plain:
            return redacted
    return redact_any(path, secrets)


def redact_query(query: bytes, secrets: Iterable[bytes]) -> bytes:
    """Replace the values of secret parameters in a raw query, and secrets anywhere in it."""
    if not query:
        return query
    parts = []
    for part in query.split(b"&"):
        name, equals, _ = part.partition(b"=")
        secret = equals and _is_secret_parameter(unquote_to_bytes(name))
        parts.append(name + b"=" + REDACTED if secret else part)
    return redact(b"&".join(parts), secrets)


def redacted_json(headers: RawHeaders, secrets: Sequence[bytes]) -> str:
    """Give the headers as JSON text, a list of [name, value], with every credential replaced."""
    pairs = [
        (name, REDACTED if len(name) <= _NAME_BYTES and _is_secret(name) else value)
        for name, value in headers
    ]
    values = b"\n".join([value for _, value in pairs])
    if redact(values, secrets) is not values:  # rarely, so one look at all of them pays
        pairs = [(name, redact(value, secrets)) for name, value in pairs]
    return orjson.dumps(
        [(name.decode("latin-1"), value.decode("utf-8", "replace")) for name, value in pairs]
    ).decode()


def _parameters(query: bytes) -> Iterable[tuple[bytes, bytes]]:
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        yield unquote_to_bytes(name), value


def _basic(encoded: bytes) -> set[bytes]:
    """Give user and password of RFC 7617, each for itself; none where that is not what it is."""
    try:
        return set(b64decode(encoded).split(b":", 1))
    except ValueError:
        return set()


def _cookies(value: bytes, count: int | None) -> set[bytes]:
    """Give the values of cookies that are long enough to be nothing but a credential."""
    values = {pair.partition(b"=")[2].strip(b' "') for pair in value.split(b";")[:count]}
    return {value for value in values if len(value) >= _SECRET_CERTAIN_BYTES}


def _is_telling(secret: bytes) -> bool:
    if len(secret) >= _SECRET_CERTAIN_BYTES:
        return True
    return len(secret) >= _SECRET_MIN_BYTES and any(48 <= byte <= 57 for byte in secret)
