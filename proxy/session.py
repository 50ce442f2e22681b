"""Which session a call belongs to, and how we know: one table. Pure: names in, an id or None out.

Owns every place at which a call may name its session, and how much each is worth. Invariants: the
first row of the table that holds a name wins; what a row reads was meant to name a conversation by
whoever sent it, so a user or a request never becomes a session; a session id is free text, stored
as sent and never interpreted, and never fails a call, but for control characters in our own header.
The rows that look at earlier calls are storage's work (storage/conversation.py).
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from proxy.headers import Index

# "named": said to us. "adopted": said to another tool or to the provider, for its own use of the
# same kind. "inferred": nobody said it, the conversation itself goes on.
Confidence = Literal["named", "adopted", "inferred"]
Place = Literal["header", "body", "earlier calls", "handed in"]

# Exact up to this many bytes. A longer id keeps its beginning and is told apart by a hash of the
# whole, so that an index entry stays far below a database page (4 KiB).
MAX_BYTES: Final = 1024
_KEPT_BYTES: Final = 1007
_HASH_BYTES: Final = 8

# Unicode category Cc.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# What programs send where they have no name: their word for nothing, the nil UUID (RFC 9562 section
# 5.9), a template that nobody filled in; and what we put in place of a secret. All conversations
# without a name would become one.
_NO_NAME: Final = re.compile(
    r"null|none|nil|nan|undefined|new|false|0|[0-]{36}|\{\{.*\}\}|\$\{.*\}|\[object \w+\]"
    r"|\[redacted\]",
    re.IGNORECASE,
)
# Claude Code's user id, which holds its session: `user_HASH_account_UUID_session_UUID`, and since
# 2.1.78 (March 2026) JSON with the key "session_id".
_CLAUDE_USER: Final = re.compile(
    r'(?:_session_|"session_id"\s*:\s*")([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b'
)


class ControlCharacter(ValueError):
    """The session id has a control character; send printable text."""


@dataclass(frozen=True, slots=True)
class SessionRef:
    """A session id and the source that named it."""

    session_id: str
    source: str


@dataclass(frozen=True, slots=True)
class Row:
    """One way in which a call's session is known.

    ``name`` is a header in lower case, a field of the body with dots, what storage compares, or a
    field or an attribute of what an application hands in.
    ``agent`` is how the user agent must begin, in lower case, for a name that others may use for
    something else. ``within`` finds the session in a value that holds more.
    """

    source: str
    place: Place
    name: str
    confidence: Confidence | None
    agent: bytes = b""
    within: re.Pattern[str] | None = None


OURS: Final = Row("header", "header", "x-traceway-session-id", "named")

# First hit wins. Who sends what, as documented or seen in the code of November 2026.
REGISTRY: Final = (
    OURS,
    # Gateways and tracing tools.
    # docs.helicone.ai, "Sessions".
    Row("helicone", "header", "helicone-session-id", "adopted"),
    # LiteLLM groups by either (docs.litellm.ai, "Session Logs"; get_chain_id_from_headers).
    Row("litellm", "header", "x-litellm-session-id", "adopted"),
    Row("litellm", "header", "x-litellm-trace-id", "adopted"),
    # Calls of one trace id are one workflow (portkey.ai/docs, "Tracing"); theirs for one call is
    # the span id.
    Row("portkey", "header", "x-portkey-trace-id", "adopted"),
    # LiteLLM takes Langfuse's fields as headers (docs.litellm.ai, "Langfuse Logging").
    Row("langfuse", "header", "langfuse_session_id", "adopted"),
    # Agents and chat programs.
    # code.claude.com/docs, "Gateway protocol reference".
    Row("claude-code", "header", "x-claude-code-session-id", "adopted"),
    # codex-rs, codex-api/src/requests/headers.rs: `session-id` is a conversation with its
    # subagents, `thread-id` one of them; until 2026 with underscores, and `conversation_id`.
    Row("codex", "header", "session-id", "adopted", agent=b"codex"),
    Row("codex", "header", "session_id", "adopted", agent=b"codex"),
    Row("codex", "header", "conversation_id", "adopted", agent=b"codex"),
    Row("codex", "header", "thread-id", "adopted", agent=b"codex"),
    # opencode, session/llm/request.ts: the first to its own gateway, the second to all others.
    # Others use the second name for a user or a machine.
    Row("opencode", "header", "x-opencode-session", "adopted"),
    Row("opencode", "header", "x-session-affinity", "adopted", agent=b"opencode/"),
    # Open WebUI with ENABLE_FORWARD_USER_INFO_HEADERS (open_webui/env.py).
    Row("open-webui", "header", "x-openwebui-chat-id", "adopted"),
    # Zoo Code, api/providers/lite-llm.ts (June 2026): the task.
    Row("zoo-code", "header", "x-zoo-session-id", "adopted"),
    # docs.x.ai, "Prompt Caching": one value for each conversation.
    Row("grok", "header", "x-grok-conv-id", "adopted"),
    # Names that many share, all for this: OpenRouter and LLM Gateway ("Sessions"), opencode, Azure
    # samples; LibreChat's documentation ("headers" of an endpoint).
    Row("x-session-id", "header", "x-session-id", "adopted"),
    Row("x-conversation-id", "header", "x-conversation-id", "adopted"),
    # Fields of the body.
    # docs.litellm.ai, "Session Logs": at the top, in earlier versions in the metadata.
    Row("litellm", "body", "litellm_session_id", "adopted"),
    Row("litellm", "body", "litellm_trace_id", "adopted"),
    Row("litellm", "body", "metadata.litellm_session_id", "adopted"),
    Row("litellm", "body", "metadata.litellm_trace_id", "adopted"),
    # langfuse.com/docs, "OpenAI SDK integration" and "LangChain integration".
    Row("langfuse", "body", "metadata.langfuse_session_id", "adopted"),
    # LangSmith groups by any of these three (docs.langchain.com, "Configure threads").
    Row("metadata", "body", "metadata.session_id", "adopted"),
    Row("metadata", "body", "metadata.thread_id", "adopted"),
    Row("metadata", "body", "metadata.conversation_id", "adopted"),
    # Open WebUI's own name, and how JavaScript programs write the first.
    Row("metadata", "body", "metadata.chat_id", "adopted"),
    Row("metadata", "body", "metadata.sessionId", "adopted"),
    Row("claude-code", "body", "metadata.user_id", "adopted", within=_CLAUDE_USER),
    # OpenAI's API reference, "Conversations": an object that the provider keeps.
    Row("conversation", "body", "conversation", "adopted"),
    # OpenRouter, "Broadcast"; the others are what chat programs add for their own gateways.
    Row("session_id", "body", "session_id", "adopted"),
    Row("conversation_id", "body", "conversation_id", "adopted"),
    Row("thread_id", "body", "thread_id", "adopted"),
    Row("chat_id", "body", "chat_id", "adopted"),
    # Storage's. The caller said to the provider which answer this call goes on from.
    Row("previous_response", "earlier calls", "previous_response_id", "adopted"),
    # The input extends, by meaning, one conversation that ended in an answer to the same API key.
    Row("continuation", "earlier calls", "messages", "inferred"),
    # It extends several, so there is no session, and nothing to be sure of.
    Row("ambiguous", "earlier calls", "messages", None),
    # Of traces that applications hand in. The write API's own field; then the names that spans of
    # OpenTelemetry have for it. GenAI semantic conventions: the conversation, and nothing else.
    Row("api", "handed in", "session_id", "named"),
    Row("gen_ai.conversation.id", "handed in", "gen_ai.conversation.id", "named"),
    # OpenInference, and OpenTelemetry's general conventions.
    Row("session.id", "handed in", "session.id", "adopted"),
    # langfuse.com/docs, "OpenTelemetry"; mlflow.org/docs, "Track users and sessions".
    Row("langfuse.session.id", "handed in", "langfuse.session.id", "adopted"),
    Row("mlflow.trace.session", "handed in", "mlflow.trace.session", "adopted"),
    # The AI SDK's telemetry writes its caller's metadata under this prefix.
    Row(
        "ai.telemetry.metadata.sessionId",
        "handed in",
        "ai.telemetry.metadata.sessionId",
        "adopted",
    ),
    # OpenLLMetry's association properties.
    Row(
        "traceloop.association.properties.session_id",
        "handed in",
        "traceloop.association.properties.session_id",
        "adopted",
    ),
)

CONFIDENCE: Final = MappingProxyType({row.source: row.confidence for row in REGISTRY})
_HEADERS: Final = tuple(
    (row.name.encode(), row) for row in REGISTRY if row.place == "header" and row is not OURS
)
_FIELDS: Final = tuple((row.name, row) for row in REGISTRY if row.place == "body")


def resolve(index: Index) -> SessionRef | None:
    """Find the session that the call's headers name.

    Raises:
        ControlCharacter: the id in our own header holds a character of Unicode category Cc.
    """
    ours = index.get(OURS.name.encode())
    if ours is not None and (session_id := session_id_of(ours)):
        return SessionRef(session_id, OURS.source)
    for name, row in _HEADERS:
        if name not in index or not index.get(b"user-agent", b"").lower().startswith(row.agent):
            continue
        if (ref := _ref(row, index[name])) is not None:
            return ref
    return None


def from_body(named: Mapping[str, str]) -> SessionRef | None:
    """Find the session among the strings of a JSON body, by their names with dots."""
    if not named:
        return None
    for name, row in _FIELDS:
        value = named.get(name)
        if value is None:
            continue
        if row.within is not None:
            found = row.within.search(value)
            value = found[1] if found else ""
        if (ref := _ref(row, value.encode("utf-8", "replace"))) is not None:
            return ref
    return None


def _ref(row: Row, value: bytes) -> SessionRef | None:
    session_id = adopted(value)
    return SessionRef(session_id, row.source) if session_id is not None else None


def adopted(value: bytes) -> str | None:
    """Read another tool's name: what we could not keep, or what is none, was not said to us."""
    try:
        session_id = session_id_of(value)
    except ControlCharacter:
        return None
    return None if session_id is None or _NO_NAME.fullmatch(session_id) else session_id


def session_id_of(value: bytes) -> str | None:
    """Read one value as a session id: trimmed, UTF-8 or else Latin-1; None where empty.

    Raises:
        ControlCharacter: the id holds a character of Unicode category Cc.
    """
    try:
        text = value.decode("utf-8").strip()
    except UnicodeDecodeError:
        text = value.decode("latin-1").strip()
    if _CONTROL.search(text):
        raise ControlCharacter("the session id has a control character; send printable text")
    encoded = text.encode("utf-8")
    if len(encoded) <= MAX_BYTES:
        return text or None
    kept = encoded[:_KEPT_BYTES].decode("utf-8", "ignore")
    return f"{kept}~{hashlib.blake2b(encoded, digest_size=_HASH_BYTES).hexdigest()}"
