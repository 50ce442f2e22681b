"""What applications hand in: traces and spans of their own. See operations.py."""

from typing import Final

from proxy.access import WRITE
from proxy.api.answer_shapes import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
    RpcStatus,
    TakenBatch,
)
from proxy.api.described import Answer, Operation, Parameter
from proxy.api.ingest_bodies import (
    Batch,
    NewSpan,
    NewTrace,
    SpanCompletion,
    SpanFailure,
    TraceEnd,
)
from proxy.api.ingest_views import EndedSpanView, EndedTraceView, TakenSpanView, TakenTraceView
from proxy.api.otlp import PROTOBUF

_TAG: Final = "Write API"
_CODES: Final = (
    *("bad_parameter", "body_too_large", "unknown_encoding", "too_much_at_once"),
    "conflict",
)
_SPAN: Final = Parameter(
    name="id",
    place="path",
    meaning="the span's id: 16 hex digits",
    schema={"type": "string", "pattern": "^[0-9a-fA-F]{16}$"},
    example="5a6b7c8d9e0f1a2b",
)
_TRACE: Final = Parameter(
    name="id",
    place="path",
    meaning="the trace's id: 32 hex digits, or a UUID",
    schema={"type": "string", "pattern": "^[0-9a-fA-F-]{32,36}$"},
    example="019ac8f0a1b27c3d8e4f5a6b7c8d9e0f",
)
_EXPLAINED: Final = " docs/ingest.md says more."


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        method="POST",
        path="/api/traces",
        id="openTrace",
        tag=_TAG,
        summary="Open a trace",
        description="With an `id` it may be sent again." + _EXPLAINED,
        need=WRITE,
        body=NewTrace,
        answers={
            "201": Answer(meaning="The trace.", body=TakenTraceView),
            "200": Answer(
                meaning="It was there; what was unknown is filled in.", body=TakenTraceView
            ),
        },
        codes=_CODES,
    ),
    Operation(
        method="POST",
        path="/api/traces/{id}/end",
        id="endTrace",
        tag=_TAG,
        summary="End a trace",
        need=WRITE,
        parameters=(_TRACE,),
        body=TraceEnd,
        optional=True,
        answers={
            "200": Answer(meaning="It has ended.", body=EndedTraceView),
            "202": Answer(meaning="It is not there yet, and will have ended.", body=EndedTraceView),
        },
        codes=(*_CODES, "already_ended"),
    ),
    Operation(
        method="POST",
        path="/api/spans",
        id="startSpan",
        tag=_TAG,
        summary="Begin a span, or hand in one that has ended",
        description="With an `id` it may be sent again. `ended_at`, `duration_ms`, `error`, or a"
        " `status` that is an end, hand it in ended." + _EXPLAINED,
        need=WRITE,
        body=NewSpan,
        answers={
            "201": Answer(meaning="The span.", body=TakenSpanView),
            "200": Answer(meaning="It was there.", body=TakenSpanView),
        },
        codes=_CODES,
    ),
    Operation(
        method="POST",
        path="/api/spans/{id}/complete",
        id="completeSpan",
        tag=_TAG,
        summary="End a span that went well",
        need=WRITE,
        parameters=(_SPAN,),
        body=SpanCompletion,
        optional=True,
        answers={
            "200": Answer(meaning="It has ended.", body=EndedSpanView),
            "202": Answer(meaning="It is not there yet, and will have ended.", body=EndedSpanView),
        },
        codes=(*_CODES, "already_ended"),
    ),
    Operation(
        method="POST",
        path="/api/spans/{id}/fail",
        id="failSpan",
        tag=_TAG,
        summary="End a span that failed",
        need=WRITE,
        parameters=(_SPAN,),
        body=SpanFailure,
        answers={
            "200": Answer(meaning="It has ended.", body=EndedSpanView),
            "202": Answer(meaning="It is not there yet, and will have ended.", body=EndedSpanView),
        },
        codes=(*_CODES, "already_ended"),
    ),
    Operation(
        method="POST",
        path="/api/batch",
        id="handInBatch",
        tag=_TAG,
        summary="Many of these at once, each for itself",
        description="In order. An item that is wrong is refused, and all others are taken: the"
        " answer is 200 all the same." + _EXPLAINED,
        need=WRITE,
        body=Batch,
        answers={"200": Answer(meaning="What became of each.", body=TakenBatch)},
        codes=_CODES,
    ),
    Operation(
        method="POST",
        path="/v1/traces",
        id="exportTraces",
        tag=_TAG,
        summary="Take traces of OpenTelemetry (OTLP/HTTP)",
        description="Protobuf or JSON; answers and errors are in the same encoding, as OTLP has"
        " them. docs/opentelemetry.md says which attributes mean what.",
        need=WRITE,
        body=ExportTraceServiceRequest,
        also=(PROTOBUF,),
        failure=RpcStatus,
        answers={
            "200": Answer(
                meaning="Taken, but for what `partialSuccess` says.",
                body=ExportTraceServiceResponse,
                example={},
            )
        },
        codes=(
            *("bad_parameter", "body_too_large", "unknown_encoding", "unknown_media_type"),
            "too_much_at_once",
        ),
    ),
)
