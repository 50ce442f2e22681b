"""Asking the API of a running server, and putting calls there that nobody had to make."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson
from yarl import URL

from storage.parameters import Change, prepare
from storage.squeeze import MARK
from storage.writes import apply
from tests.running import Running


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the API; `body` is its JSON, None where it has no body."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def error(self) -> tuple[int, str]:
        """Status and code of an answer that must be an error in the documented shape."""
        error = self.body["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert len(error["message"].split()) > 2
        assert self.headers["X-Traceway-Error"] == error["code"]
        return self.status, error["code"]


async def ask(tw: Running, path: str, method: str = "GET") -> Reply:
    """Make a request with the path as it is, and read JSON."""
    async with tw.client.request(method, URL(tw.url + path, encoded=True)) as answer:
        body = await answer.read()
        assert answer.content_type == "application/json"
        headers = dict(answer.headers)
        return Reply(answer.status, headers, orjson.loads(body) if body else None)


async def save(tw: Running, *changes: Change) -> None:
    """Save starts and ends as the recorder would."""
    await tw.server.recorder.write(lambda tx: apply(tx, prepare(changes)))


async def pages(tw: Running, path: str, rows: str) -> AsyncIterator[list[Any]]:
    """Give the rows of each page, by the cursor of the page before."""
    cursor: str | None = ""
    while cursor is not None:
        reply = await ask(tw, f"{path}&cursor={cursor}")
        assert reply.status == 200
        cursor = reply.body.get("cursor")
        yield reply.body[rows]


async def damage(tw: Running, span_id: bytes) -> None:
    """Leave of a span's attributes and headers what nobody can unpack."""
    sql = """
    UPDATE spans SET attributes = :said, request_head = :said, response_head = :said
    WHERE span_id = :span_id
    """
    given = {"said": MARK + b"damaged", "span_id": span_id}
    await tw.server.recorder.write(lambda tx: tx.execute(sql, given))
