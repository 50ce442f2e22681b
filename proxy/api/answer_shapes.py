"""The shapes of answers that handlers put together from views: what lies beside a view, and where.

Owns nothing that runs: these dataclasses exist to be described (operations.py), and tests compare
them with what the handlers answer. `Maybe` marks what is left out where it says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.api.erasing import ErasureView
from proxy.api.keys import KeyView, ProjectView
from proxy.api.message_views import MessageView, ThreadView
from proxy.api.provider_keys import ProviderKeyView
from proxy.api.schemas import Maybe
from proxy.api.span_views import SpanView
from proxy.api.views import BudgetView, SessionView, TraceView


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionList:
    """A page of sessions."""

    sessions: Sequence[SessionView]
    count: int
    truncated: Maybe[bool]
    cursor: Maybe[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceList:
    """A page of traces."""

    traces: Sequence[TraceView]
    count: int
    truncated: Maybe[bool]
    cursor: Maybe[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanList:
    """A page of spans, in brief."""

    spans: Sequence[SpanView]
    count: int
    truncated: Maybe[bool]
    cursor: Maybe[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionWithTraces(SessionView):
    """A session's fields, its budget, and its traces, oldest first."""

    budget: BudgetView | None
    traces: Sequence[TraceView]
    cursor: Maybe[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceWithSpans(TraceView):
    """A trace's fields, and its spans, oldest first, without their bodies."""

    spans: Sequence[SpanView]
    cursor: Maybe[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A page of the messages of a session."""

    session_id: str
    total: int
    count: int
    threads: Sequence[ThreadView]
    messages: Sequence[MessageView]
    next: Maybe[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyList:
    """All keys."""

    keys: Sequence[KeyView]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectList:
    """All projects."""

    projects: Sequence[ProjectView]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderKeyList:
    """All provider keys of a project."""

    provider_keys: Sequence[ProviderKeyView]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """What is wrong with an item of a batch."""

    code: str
    message: str
    param: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenItem:
    """What became of an item of a batch; `trace_id` is null while the trace is not known."""

    status: int
    id: Maybe[str]
    trace_id: Maybe[str | None]
    error: Maybe[Mistake]


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBatch:
    """What became of the items of a batch."""

    results: Sequence[TakenItem]
    accepted: int
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportTraceServiceRequest:
    """What OTLP exports, in JSON."""

    resourceSpans: Maybe[Sequence[object] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureList:
    """Orders to erase."""

    erasures: Sequence[ErasureView]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialSuccess:
    """What was refused of an export, and why."""

    rejectedSpans: str
    errorMessage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportTraceServiceResponse:
    """What OTLP answers to an export; empty where all was taken."""

    partialSuccess: Maybe[PartialSuccess]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """The server answers."""

    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """The server takes no calls."""

    status: str
    reasons: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong, in the shape of OpenAI's errors; of a budget, with its figures."""

    message: str
    type: str
    param: str | None
    code: str
    session_id: Maybe[str]
    budget_usd: Maybe[float]
    spent_usd: Maybe[float]
    reserved_usd: Maybe[float]
    needed_usd: Maybe[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """An error of this server itself; the header `X-Traceway-Error` has its code."""

    error: Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcStatus(Error):
    """An error as OTLP has it, google.rpc.Status, and as all others are."""

    code: int
    message: str
