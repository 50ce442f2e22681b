"""Traceway's Python SDK: traces, spans and sessions from code, sent in the background.

from traceway import Traceway

tw = Traceway()
with tw.trace("chat-turn", session_id="sess_abc123") as trace:
    with trace.span("retrieve", kind="retrieval", input="query") as span:
        span.set_output(["document"])
"""

from traceway.client import Traceway, openai_headers
from traceway.context import current_span, current_trace
from traceway.spans import KINDS, Span, Trace

__version__ = "0.1.0"
__all__ = [
    "KINDS",
    "Span",
    "Trace",
    "Traceway",
    "__version__",
    "current_span",
    "current_trace",
    "openai_headers",
]
