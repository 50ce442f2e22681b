"""The names of the columns of a span's row, by who sets them and what they hold.

Invariant: statements and parameters are both made from these, so a column is named once. The
schema itself is in migrations/.
"""

from typing import Final

from storage.records import TOKEN_BUCKETS

TOKEN_COLUMNS: Final = tuple(f"{bucket}_tokens" for bucket in TOKEN_BUCKETS)

BODY_PARTS: Final = (
    *("size", "sha256", "content_id", "envelope"),
    *("truncated", "redacted", "type", "encoding"),
)
# Only an answer can be one that was put together from a stream.
ASSEMBLED: Final = "response_assembled"
BODY_COLUMNS: Final = {
    "request": tuple(f"request_{part}" for part in BODY_PARTS),
    "response": (*(f"response_{part}" for part in BODY_PARTS), ASSEMBLED),
}

# Where a call stands among those of its session: of conversation.py and continuation.py.
CONVERSATION_COLUMNS: Final = (
    *("input_node_id", "output_node_id", "prelude_node_id"),
    *("base_meaning", "fresh_count", "input_meaning", "output_meaning"),
)

# What indexes have whole: PostgreSQL takes no entry of more than 2,704 bytes.
KEY_TEXT: Final = frozenset({"response_id", "model", "model_requested", "user_id"})

START_TEXT: Final = (
    "kind",
    "upstream",
    "provider",
    "operation",
    "name",
    "user_id",
    "method",
    "path",
    "query",
)
CHECKPOINT_TEXT: Final = ("response_type", "response_encoding")
SETTLEMENT_TEXT: Final = (
    "response_id",
    "model",
    "service_tier",
    "cost_status",
    "price_version",
)
END_TEXT: Final = (
    "state",
    "usage_source",
    "cost_status",
    "price_version",
    "ended_by",
    "phase",
    "model_requested",
    "model",
    "service_tier",
    "response_id",
    "error",
    "input_preview",
    "output_preview",
    "request_type",
    "request_encoding",
    "response_type",
    "response_encoding",
    "notes",
    "name",
    "user_id",
)

START_COLUMNS: Final = (
    "project_id",
    "trace_id",
    "span_id",
    "seq",
    "owner",
    "caller",
    "parent_id",
    "external_trace_id",
    "external_parent_id",
    "moved_from",
    "state",
    "kind",
    "started_at_us",
    "upstream",
    "provider",
    "operation",
    "name",
    "user_id",
    "method",
    "path",
    "query",
    "notes",
)
CHECKPOINT_COLUMNS: Final = (
    "checkpoint_us",
    "first_byte_us",
    "first_token_us",
    *BODY_COLUMNS["response"],
    "stored_bytes",
)
# What an end sets in a row that runs.
END_COLUMNS: Final = (
    "state",
    "duration_us",
    "checkpoint_us",
    "first_byte_us",
    "first_token_us",
    "http_status",
    *TOKEN_COLUMNS,
    "usage_source",
    "cost_nusd",
    "cost_status",
    "price_version",
    "ended_by",
    "phase",
    "model_requested",
    "model",
    "service_tier",
    "response_id",
    "error",
    *BODY_COLUMNS["request"],
    *BODY_COLUMNS["response"],
    "name",
    "user_id",
    "input_preview",
    "output_preview",
    "request_head",
    "response_head",
    "notes",
    "session_key",
    "stored_bytes",
    *CONVERSATION_COLUMNS,
)
