"""Golden cases: one call each, its bytes and what must be made of them.

Bodies follow the documented shapes of November 2026; costs are computed by hand from the unit
prices that genai-prices 0.2.3 publishes for the model, and stand in ``cost_why``. A case names a
request, an answer (``body``, ``body_base64`` or ``events``) and what is expected; token buckets
that are not named are unknown. A body that is an object is sent as compact JSON.
"""

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.records import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call and what is expected of it. ``total`` is the provider's own sum, where it gives one.

    ``tokens`` and ``cost_usd`` (a decimal string, None where no price is known) are those of all
    models that took part. ``events`` holds the stream's events with their blank lines.
    """

    name: str
    method: str
    path: str
    request_type: str
    request: bytes
    status: int
    answer_type: str
    answer: bytes
    streamed: bool
    operation: str
    tokens: Tokens
    cost_usd: str | None = None
    model: str | None = None
    service_tier: str | None = None
    state: str | None = "completed"
    error: str | None = None
    text: str = ""
    total: int | None = None
    pending: bool = False
    settles_id: str | None = None
    seconds: float | None = None
    reported: bool = False
    asked_model: str | None = None
    asked_preview: str | None = None
    notes: tuple[str, ...] = field(default=())


def load() -> list[Case]:
    """Read all cases, in the order of their files."""
    files = sorted(Path(__file__).parent.glob("*.json"))
    return [_case(raw) for file in files for raw in json.loads(file.read_text("utf-8"))]


def _case(raw: dict[str, Any]) -> Case:
    request, answer, expect = raw["request"], raw["answer"], dict(raw["expect"])
    expect.pop("cost_why", None)
    return Case(
        name=raw["name"],
        method=request.get("method", "POST"),
        path=request["path"],
        request_type=request.get("content_type", "application/json"),
        request=_bytes(request),
        status=answer.get("status", 200),
        answer_type=answer.get("content_type", "application/json"),
        answer=_bytes(answer),
        streamed="events" in answer,
        tokens=Tokens(**expect.pop("tokens", {})),
        notes=tuple(expect.pop("notes", ())),
        **expect,
    )


def _bytes(part: dict[str, Any]) -> bytes:
    if "events" in part:
        line_end = part.get("line_end", "\n")
        return "".join(event.replace("\n", line_end) for event in part["events"]).encode()
    if "body_base64" in part:
        return base64.b64decode(part["body_base64"])
    body = part.get("body", "")
    return (
        body.encode() if isinstance(body, str) else json.dumps(body, separators=(",", ":")).encode()
    )
