"""One connection to the server: POST /api/batch, and what the answer means.

Invariant: `post` gives an Answer, whatever the network does. Not thread-safe: the sender's own.
"""

import email.utils

# Names of servers are looked up with it. Its first import must not be the sender's thread's: in the
# child of a fork meanwhile, the lock of that import is held for ever, and nothing is sent.
import encodings.idna  # noqa: F401
import enum
import gzip
import http.client
import json
import os
import ssl
import time
import urllib.parse
from dataclasses import dataclass
from typing import Any, Final

PATH: Final = "/api/batch"
# Below it a request fits into a few packets, and to compress it costs more than to send it.
_COMPRESSED_FROM_BYTES: Final = 16 << 10
_MAX_ANSWER_BYTES: Final = 8 << 20
_MAX_RETRY_AFTER_S: Final = 60.0
_ABANDONED: Final[list[http.client.HTTPConnection]] = []
_LATER: Final = frozenset((408, 425, 429, 502, 503, 504))


class Verdict(enum.Enum):
    """What is to be done with a batch."""

    TAKEN = "each item has its own result"
    LATER = "send it again"
    TOO_LARGE = "send it in parts"
    ODD = "send it again a few times"
    REFUSED = "drop it"


@dataclass(frozen=True)
class Answer:
    """What came of one request; `results` has a status and a reason for each item."""

    verdict: Verdict
    reason: str = ""
    retry_after_s: float | None = None
    results: tuple[tuple[int, str], ...] = ()


class Connection:
    """Keeps one connection open, and opens it again where it was closed meanwhile."""

    def __init__(self, url: str, api_key: str | None, timeout_s: float) -> None:
        parts = urllib.parse.urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port
        self._path = parts.path.rstrip("/") + PATH
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json", "User-Agent": "traceway-sdk-python"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._open: http.client.HTTPConnection | None = None

    def post(self, items: list[bytes]) -> Answer:
        """Send items, each of them JSON, in one request."""
        body = b'{"items":[' + b",".join(items) + b"]}"
        headers = self._headers
        if len(body) >= _COMPRESSED_FROM_BYTES:
            # mtime=0: the same items are the same bytes.
            body = gzip.compress(body, compresslevel=1, mtime=0)
            headers = {**headers, "Content-Encoding": "gzip"}
        used = self._open is not None
        try:
            try:
                status, retry_after, answer = self._exchange(body, headers)
            except (ConnectionError, http.client.RemoteDisconnected):
                if not used:
                    raise
                # The server closed it while it was idle; that says nothing about the next.
                self.close()
                status, retry_after, answer = self._exchange(body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Answer(Verdict.LATER, f"{type(error).__name__}: {error}")
        return _read(status, retry_after, answer, len(items))

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def abandon(self) -> None:
        """Close it in the child of a fork, where the thread that used it is not."""
        if self._open is not None and self._open.sock is not None:
            # Its buffer may be locked by that thread for ever, so nothing above the descriptor is
            # touched, nor freed.
            _ABANDONED.append(self._open)
            descriptor = self._open.sock.detach()
            if descriptor >= 0:
                os.close(descriptor)
        self._open = None

    def _exchange(self, body: bytes, headers: dict[str, str]) -> tuple[int, str | None, bytes]:
        if self._open is None:
            self._open = self._made()
        self._open.request("POST", self._path, body, headers)
        response = self._open.getresponse()
        answer = response.read(_MAX_ANSWER_BYTES)
        if not response.isclosed():  # longer than any answer to this
            self.close()
        return response.status, response.headers.get("Retry-After"), answer

    def _made(self) -> http.client.HTTPConnection:
        if not self._secure:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout_s, context=context
        )


def _read(status: int, retry_after: str | None, body: bytes, count: int) -> Answer:
    said = _json(body)
    if status == 200:
        results = said.get("results")
        if isinstance(results, list) and len(results) == count:
            return Answer(Verdict.TAKEN, results=tuple(map(_result, results)))
        return Answer(Verdict.ODD, f"200 without {count} results: {_message(said, body)}")
    reason = f"{status} {_message(said, body)}"
    if status in _LATER:
        return Answer(Verdict.LATER, reason, _seconds(retry_after))
    if status == 413:
        return Answer(Verdict.TOO_LARGE, reason)
    return Answer(Verdict.ODD if status >= 500 else Verdict.REFUSED, reason)


def _result(result: Any) -> tuple[int, str]:
    if not isinstance(result, dict) or not isinstance(result.get("status"), int):
        return 400, "a result without a status"
    status, error = result["status"], result.get("error")
    if status < 400:
        return status, ""
    if status == 409 and not (isinstance(error, dict) and error.get("code") == "conflict"):
        return 200, ""  # an earlier attempt arrived, and its answer did not
    return status, f"{status} {_message(result, b'')}"


def _json(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _message(said: dict[str, Any], body: bytes) -> str:
    error = said.get("error")
    if isinstance(error, dict):
        return str(error.get("message"))[:300]
    return body[:100].decode("utf-8", "replace")


def _seconds(retry_after: str | None) -> float | None:
    """Read Retry-After (RFC 9110, section 10.2.3): seconds, or a date."""
    if not retry_after:
        return None
    try:
        wait_s = float(retry_after)
    except ValueError:
        try:
            wait_s = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except ValueError:
            return None
    return min(_MAX_RETRY_AFTER_S, wait_s) if wait_s > 0 else None
