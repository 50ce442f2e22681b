"""Traces of agents as applications hand them in, of every kind of span, for tests and pictures.

`Agent` tells of one trace, span by span, with values such as an SDK sends.
"""

import time
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from proxy.handing import HandedReader
from proxy.pricing import Prices
from storage.handed import Item, Kind, Said, SpanClosed, SpanOpened, TraceClosed, TraceOpened
from storage.intake import take
from storage.records import COMPLETED, DEFAULT_PROJECT, RUNNING, Tokens
from tests.running import Running
from tests.ui.story import MODEL, T0, S

READER: Final = HandedReader(Prices())


async def hand_in(tw: Running, *items: Item) -> None:
    """Take items as the write API does."""
    now_us = time.time_ns() // 1000
    await tw.server.recorder.write(lambda tx: take(tx, items, now_us, READER))


@dataclass
class Agent:
    """A trace that is told; ``number`` tells it from others, ``at_us`` is when it begins."""

    tw: Running
    number: int = 1
    session: str | None = "agent"
    at_us: int = T0
    spans: list[bytes] = field(default_factory=list)

    @property
    def trace_id(self) -> bytes:
        return (0xA6E << 64 | self.number).to_bytes(16, "big")

    @property
    def path(self) -> str:
        return f"/traces/{self.trace_id.hex()}"

    async def open(self, name: str = "chat-turn", *, tags: tuple[str, ...] = ()) -> None:
        """Open the trace."""
        await hand_in(
            self.tw,
            TraceOpened(
                project_id=DEFAULT_PROJECT,
                trace_id=self.trace_id,
                name=name,
                session_id=self.session,
                session_source=None if self.session is None else "api",
                tags=tags,
                started_at_us=self.at_us,
            ),
        )

    async def close(self, at_s: float) -> None:
        """End the trace, so many seconds after it began."""
        ended_at_us = self.at_us + round(at_s * S)
        await hand_in(
            self.tw,
            TraceClosed(
                project_id=DEFAULT_PROJECT, trace_id=self.trace_id, ended_at_us=ended_at_us
            ),
        )

    async def span(
        self,
        name: str,
        kind: Kind = "custom",
        *,
        at_s: float = 0,
        took_s: float = 1,
        parent: bytes | None = None,
        state: str = COMPLETED,
        error: str | None = None,
        asked: object = None,
        answered: object = None,
        attributes: Any = None,
        metadata: Any = None,
        tokens: tuple[int, int] | None = None,
        cost_nusd: int | None = None,
        model: str | None = None,
        **said: Any,
    ) -> bytes:
        """Hand in a span, which has ended unless it runs; give its id."""
        span_id = (self.number << 32 | len(self.spans) + 1).to_bytes(8, "big")
        self.spans.append(span_id)
        more = {"kind": attributes or {}, "metadata": metadata or {}}
        end = SpanClosed(
            project_id=DEFAULT_PROJECT,
            trace_id=self.trace_id,
            span_id=span_id,
            state=state,
            duration_us=round(took_s * S),
            error=error,
            said=Said(
                output=None if answered is None else orjson.dumps(answered),
                tokens=Tokens() if tokens is None else Tokens(input=tokens[0], output=tokens[1]),
                cost_nusd=cost_nusd,
            ),
        )
        begun = SpanOpened(
            project_id=DEFAULT_PROJECT,
            trace_id=self.trace_id,
            span_id=span_id,
            name=name,
            parent_id=parent,
            started_at_us=self.at_us + round(at_s * S),
            session_id=self.session,
            session_source=None if self.session is None else "api",
            said=Said(
                kind=kind,
                model=model,
                input=None if asked is None else orjson.dumps(asked),
                attributes=orjson.dumps(more) if attributes or metadata else None,
                **said,
            ),
            end=None if state == RUNNING else end,
        )
        await hand_in(self.tw, begun)
        return span_id

    async def every_kind(self) -> None:
        """Tell of a turn with a span of every kind, one of which failed."""
        await self.open(tags=("beta", "eu-west"))
        question = "Where is my order 88213, and what do I get back?"
        root = await self.span(
            "chat-turn",
            took_s=6.2,
            asked=question,
            answered="It was lost on its way. The 49.90 € are on their way to you.",
            metadata={"tenant": "shop-eu", "experiment": {"name": "rerank-2", "arm": "b"}},
        )
        plan = await self.span("plan", parent=root, at_s=0.1, took_s=2.6, label="chain")
        await self.span(
            "load prompts",
            "fs_read",
            parent=plan,
            at_s=0.15,
            took_s=0.02,
            attributes={"path": "prompts/support.md", "bytes": 1841},
            answered="You are the support agent of a shop. Be brief and kind.",
        )
        await self.span(
            "embed question",
            "embedding",
            parent=plan,
            at_s=0.2,
            took_s=0.3,
            model="text-embedding-3-small",
            tokens=(14, 0),
            cost_nusd=280,
            asked=question,
        )
        await self.span(
            "find documents",
            "retrieval",
            parent=plan,
            at_s=0.55,
            took_s=0.9,
            attributes={"top_k": 3, "index": "policies"},
            asked={"query": "lost parcel refund", "top_k": 3},
            answered=[
                {"id": "policy-7", "score": 0.91, "text": "Lost parcels are refunded in full."},
                {"id": "policy-2", "score": 0.74, "text": "Refunds take up to three days."},
            ],
        )
        await self.span(
            "rank",
            parent=plan,
            at_s=1.5,
            took_s=1.1,
            label="reranker",
            attributes={"model": "bge-reranker-v2"},
        )
        talk = [
            {"role": "system", "content": "You are the support agent of a shop."},
            {"role": "user", "content": question},
        ]
        await self.span(
            "gpt-4o-mini",
            "llm_call",
            parent=root,
            at_s=2.8,
            took_s=1.6,
            model=MODEL,
            provider="openai",
            tokens=(688, 52),
            cost_nusd=134_400,
            attributes={"temperature": 0.2},
            asked=talk,
            answered={
                "role": "assistant",
                "content": "It was **lost on its way**. I have refunded the 49.90 €.",
            },
        )
        await self.span(
            "refund",
            "tool_call",
            parent=root,
            at_s=4.5,
            took_s=0.8,
            state="failed",
            error="TimeoutError: the shop did not answer within 0.8 s",
            asked={"order": "88213", "amount": "49.90", "currency": "EUR"},
        )
        await self.span(
            "refund",
            "tool_call",
            parent=root,
            at_s=5.4,
            took_s=0.4,
            asked={"order": "88213", "amount": "49.90", "currency": "EUR"},
            answered={"ok": True, "refund": "re_5511"},
        )
        await self.span(
            "write audit log",
            "fs_write",
            parent=root,
            at_s=5.9,
            took_s=0.05,
            attributes={"path": "audit/2026-11-20.jsonl", "bytes": 212},
        )
        await self.close(6.3)


async def mark(tw: Running, span_id: bytes, call_id: bytes) -> None:
    """Say of a span that it saw this call as well."""
    await tw.server.recorder.write(
        lambda tx: tx.execute(
            "UPDATE spans SET same_call = :call WHERE span_id = :span",
            {"call": call_id, "span": span_id},
        )
    )
