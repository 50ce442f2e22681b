"""A server of POST /api/batch on a real socket: takes what it is sent, or answers by a script."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What a script answers with: a status, headers, and a body; None drops the connection.
Reply = tuple[int, dict[str, str], bytes] | None


@dataclass
class Received:
    """One request to the batch route."""

    headers: dict[str, str]
    items: list[dict[str, Any]]
    bytes_sent: int


@dataclass
class Collector:
    """Each entry of `script` answers one request, before all others are taken.

    `other` holds the headers and the path of each request to any other route.
    """

    port: int = 0
    script: list[Callable[[Received], Reply]] = field(default_factory=list)
    requests: list[Received] = field(default_factory=list)
    taken: list[dict[str, Any]] = field(default_factory=list)
    other: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    keep_alive: bool = True
    connections: set[Any] = field(default_factory=set)
    # Requests wait here while it is clear.
    open: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Give the items of a type that it took, without it."""
        return [
            {name: value for name, value in item.items() if name != "type"}
            for item in self.taken
            if item["type"] == kind
        ]

    def spans(self) -> dict[str, dict[str, Any]]:
        """Give the spans that it took, by name."""
        return {item["name"]: item for item in self.of("span")}

    def answer(self, received: Received) -> Reply:
        self.requests.append(received)
        self.arrived.release()
        self.open.wait(10)
        if self.script:
            return self.script.pop(0)(received)
        return self.take(received)

    def take(self, received: Received) -> Reply:
        self.taken += received.items
        results = [{"status": 201, "id": item.get("id")} for item in received.items]
        body = {"results": results, "accepted": len(results), "refused": 0}
        return 200, {}, json.dumps(body).encode()


def refuse(status: int, **headers: str) -> Callable[[Received], Reply]:
    """Answer as the server does where it cannot take anything."""
    body = json.dumps({"error": {"code": "scripted", "message": "as scripted"}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: (status, named, body)


def drop(_: Received) -> Reply:
    """Close the connection without an answer."""
    return None


def _handler(collector: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            collector.connections.add(self.client_address)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply: Reply
            if self.path == "/api/batch":
                plain = gzip.decompress(body) if "content-encoding" in headers else body
                items = json.loads(plain)["items"]
                assert 1 <= len(items) <= 1_000
                reply = collector.answer(Received(headers, items, len(body)))
            else:
                collector.other.append((self.path, headers))
                reply = 200, {"Content-Type": "application/json"}, CHAT
            if reply is None:
                self.close_connection = True
                return
            status, named, said = reply
            self.send_response(status)
            for name, value in named.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)
            # Without a word, as a server does whose client was silent for long.
            self.close_connection = not collector.keep_alive

        def log_message(self, *_: object) -> None:
            pass

    return Handler


CHAT = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Hello."},
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }
).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, *_: object) -> None:
        """Clients of these tests may leave at any time."""


@contextmanager
def collecting(collector: Collector | None = None, port: int = 0) -> Iterator[Collector]:
    """Serve until the block ends; on the same port again, where one is given."""
    collector = collector or Collector()
    server = _Server(("127.0.0.1", port), _handler(collector))
    collector.port = server.server_address[1]
    collector.open.set()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield collector
    finally:
        collector.open.set()
        server.shutdown()
        thread.join()
        server.server_close()
