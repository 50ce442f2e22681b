"""Until intake.py is merged: writes what was handed in by calls' own writer and a few updates."""

import msgspec

from storage.database import Transaction
from storage.handed import Item, SpanClosed, SpanOpened, TraceClosed, TraceOpened
from storage.parameters import prepare
from storage.records import SpanEnd, SpanStart
from storage.squeeze import squeeze
from storage.writes import apply
from tests.storage.calls import body


def take(tx: Transaction, *items: Item) -> None:
    for item in items:
        match item:
            case TraceOpened():
                tx.execute(
                    "INSERT INTO traces (project_id, trace_id, seq, status, started_at_us, span_count,"
                    " unpriced_count, estimated_count, received_bytes, session_id, session_source,"
                    " user_id, name, opened_seq, opened_at_us, opened_name, tags)"
                    " VALUES (1, :t, :seq, 'running', :at, 0, 0, 0, 0, :s, 'header', :u, :n, :seq,"
                    " :at, :n, :tags) ON CONFLICT DO NOTHING",
                    {
                        "t": item.trace_id,
                        "seq": 10**6 + item.started_at_us % 10**6,
                        "at": item.started_at_us,
                        "s": item.session_id,
                        "u": item.user_id,
                        "n": item.name or "trace",
                        "tags": msgspec.json.encode(item.tags).decode() if item.tags else None,
                    },
                )
            case SpanOpened():
                _span(tx, item)
            case SpanClosed() | TraceClosed():
                raise NotImplementedError


def _span(tx: Transaction, item: SpanOpened) -> None:
    said, end = item.said, item.end
    begun = SpanStart(
        project_id=1,
        trace_id=item.trace_id,
        span_id=item.span_id,
        started_at_us=item.started_at_us or 0,
        name=item.name,
        parent_id=item.parent_id,
        session_id=item.session_id,
        session_source="header" if item.session_id else None,
        user_id=item.user_id,
        kind=said.kind or "custom",
        provider=said.provider,
    )
    change = begun
    if end is not None:
        billed = said.kind in ("llm_call", "embedding")
        out = end.said.output
        change = SpanEnd(
            start=begun,
            state=end.state,
            duration_us=end.duration_us or 0,
            error=end.error,
            model=said.model,
            response_id=said.response_id,
            tokens=end.said.tokens,
            usage_source="reported" if billed else None,
            cost_nusd=end.said.cost_nusd,
            cost_status="priced" if billed else None,
            price_version="reported" if billed else None,
            input_preview=None if said.input is None else said.input.decode()[:240],
            output_preview=None if out is None else out.decode()[:240],
            request=None
            if said.input is None
            else body(said.input, content_type="application/json"),
            response=None if out is None else body(out, content_type="application/json"),
        )
    apply(tx, prepare([change]))
    tx.execute(
        "UPDATE spans SET label = :l, attributes = :a WHERE trace_id = :t AND span_id = :s",
        {
            "l": said.label,
            "a": None if said.attributes is None else squeeze(said.attributes),
            "t": item.trace_id,
            "s": item.span_id,
        },
    )
    tx.execute(
        "UPDATE traces SET name = opened_name WHERE trace_id = :t AND opened_name IS NOT NULL",
        {"t": item.trace_id},
    )
