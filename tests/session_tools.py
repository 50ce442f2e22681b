"""Calls of clients that name their session in their own way, with all their headers.

Written after what each sends in November 2026, with ids and keys that are made up. `$ID` is the
conversation, `$OTHER` an id that is new with every call, `$MESSAGES` the messages so far.
"""

from dataclasses import dataclass
from string import Template

import orjson

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
KEY = "Authorization: Bearer sk-proj-0123456789abcdefghij\r\n"
OPENAI_PYTHON = f"""Accept: application/json
Accept-Encoding: gzip, deflate
Content-Type: application/json
User-Agent: OpenAI/Python 2.8.1
X-Stainless-Lang: python
X-Stainless-Package-Version: 2.8.1
X-Stainless-Runtime-Version: 3.11.9
x-stainless-retry-count: 0
X-Stainless-Idempotency-Key: $OTHER
{KEY}"""
OPENAI_JS = f"""accept: application/json
content-type: application/json
user-agent: OpenAI/JS 6.9.1
x-stainless-lang: js
x-stainless-runtime: node
x-request-id: $OTHER
{KEY}"""
BODY = '{"model":"gpt-5","messages":$MESSAGES}'


@dataclass(frozen=True, slots=True)
class Tool:
    """A client; `session` is the id that its conversation `$ID` must have here."""

    name: str
    source: str
    headers: str
    body: str = BODY
    path: str = CHAT
    session: str = "$ID"

    def call(self, conversation: str, turn: int) -> tuple[bytes, bytes, bytes]:
        """Give path, header lines and body of one turn."""
        messages = [{"role": "user", "content": f"{conversation}: {n}"} for n in range(turn + 1)]
        known = {
            "ID": conversation,
            "OTHER": f"{conversation}-request-{turn}",
            "MESSAGES": orjson.dumps(messages).decode(),
        }
        headers, body = (Template(text).substitute(known) for text in (self.headers, self.body))
        lines = b"".join(line.encode() + b"\r\n" for line in headers.splitlines() if line)
        return self.path.encode(), lines, body.encode()


TOOLS = (
    Tool(
        "the openai package behind Helicone",
        "helicone",
        OPENAI_PYTHON
        + "Helicone-Auth: Bearer sk-helicone-0123456789\nHelicone-Session-Id: $ID\n"
        + "Helicone-Session-Path: /chat/$OTHER\nHelicone-Session-Name: Support\n"
        + "Helicone-Request-Id: $OTHER\nHelicone-User-Id: alice\n",
    ),
    Tool(
        "the openai package before LiteLLM",
        "litellm",
        OPENAI_PYTHON + "x-litellm-session-id: $ID\nx-litellm-call-id: $OTHER\n",
    ),
    Tool(
        "Cline with an OpenAI-compatible provider",
        "litellm",
        OPENAI_JS + "http-referer: https://cline.bot\nx-title: Cline\nx-litellm-trace-id: $ID\n",
    ),
    Tool(
        "the openai package with LiteLLM's field",
        "litellm",
        OPENAI_PYTHON,
        '{"messages":$MESSAGES,"model":"gpt-5","user":"alice","litellm_session_id":"$ID"}',
    ),
    Tool(
        "the openai package behind Portkey",
        "portkey",
        OPENAI_PYTHON
        + "x-portkey-api-key: pk-0123456789abcdef\nx-portkey-provider: openai\n"
        + "x-portkey-trace-id: $ID\nx-portkey-span-id: $OTHER\n",
    ),
    Tool(
        "LangChain with Langfuse's metadata",
        "langfuse",
        OPENAI_PYTHON,
        '{"messages":$MESSAGES,"model":"gpt-5","metadata":{"langfuse_session_id":"$ID",'
        '"langfuse_user_id":"alice","trace":"$OTHER"}}',
    ),
    Tool(
        "Claude Code",
        "claude-code",
        "Accept: application/json\nContent-Type: application/json\n"
        "User-Agent: claude-cli/2.1.190 (external, cli)\nanthropic-version: 2023-06-01\n"
        "x-app: cli\nX-Stainless-Lang: js\nX-Claude-Code-Session-Id: $ID\n"
        "x-client-request-id: $OTHER\n" + KEY,
        '{"model":"claude-opus","messages":$MESSAGES,"metadata":{"user_id":"user_0f_account__'
        'session_another-one"}}',
    ),
    Tool(
        "Claude Code before it had a header",
        "claude-code",
        "User-Agent: claude-cli/1.0.60 (external, cli)\nContent-Type: application/json\n" + KEY,
        '{"model":"m","metadata":{"user_id":"user_0f_account_0e_session_$ID"},"messages":$MESSAGES}',
    ),
    Tool(
        "Claude Code with its user as JSON",
        "claude-code",
        "User-Agent: claude-cli/2.1.80 (external, cli)\nContent-Type: application/json\n" + KEY,
        '{"model":"m","metadata":{"user_id":"{\\"device_id\\":\\"0f\\",\\"account_uuid\\":\\"\\",'
        '\\"session_id\\":\\"$ID\\"}"},"messages":$MESSAGES}',
    ),
    Tool(
        "Codex",
        "codex",
        "version: 0.99.0\nsession-id: $ID\nthread-id: $ID\nx-client-request-id: $OTHER\n"
        "content-type: application/json\naccept: text/event-stream\noriginator: codex_cli_rs\n"
        "user-agent: codex_cli_rs/0.99.0 (Ubuntu 24.4.0; x86_64) xterm-256color\n" + KEY,
        '{"model":"gpt-5-codex","instructions":"You are Codex","input":$MESSAGES,"store":false,'
        '"prompt_cache_key":"$OTHER"}',
        RESPONSES,
    ),
    Tool(
        "Codex of 2025",
        "codex",
        "version: 0.50.0\nOpenAI-Beta: responses=experimental\nconversation_id: $ID\n"
        "session_id: $ID\noriginator: codex_vscode\ncontent-type: application/json\n"
        "User-Agent: codex_vscode/0.50.0 (Mac OS 15.6.1; arm64) vscode/1.105\n" + KEY,
        '{"model":"gpt-5-codex","input":$MESSAGES,"store":false}',
        RESPONSES,
    ),
    Tool(
        "opencode with its own gateway",
        "opencode",
        "content-type: application/json\nuser-agent: opencode/1.3.5\nx-opencode-project: 0f0f\n"
        "x-opencode-session: $ID\nx-opencode-request: $OTHER\nx-opencode-client: cli\n" + KEY,
    ),
    Tool(
        "opencode with another provider",
        "opencode",
        "content-type: application/json\nuser-agent: opencode/1.3.5 ai-sdk/openai-compatible\n"
        "x-session-affinity: $ID\nx-parent-session-id: ses_parent\nX-Session-Id: $ID\n" + KEY,
    ),
    Tool(
        "Open WebUI",
        "open-webui",
        "Content-Type: application/json\nUser-Agent: Python/3.11 aiohttp/3.13.2\n"
        "X-OpenWebUI-User-Name: Alice\nX-OpenWebUI-User-Id: 0f0f\nX-OpenWebUI-User-Role: user\n"
        "X-OpenWebUI-Chat-Id: $ID\nX-OpenWebUI-Message-Id: $OTHER\n" + KEY,
    ),
    Tool("Zoo Code", "zoo-code", OPENAI_JS + "X-Zoo-Session-ID: $ID\n"),
    Tool("the openai package for Grok", "grok", OPENAI_PYTHON + "x-grok-conv-id: $ID\n"),
    Tool("OpenRouter's header", "x-session-id", OPENAI_JS + "X-Session-Id: $ID\nX-Title: Chat\n"),
    Tool(
        "OpenRouter's field",
        "session_id",
        OPENAI_JS,
        '{"model":"openai/gpt-5","session_id":"$ID","trace":{"trace_id":"$OTHER"},'
        '"messages":$MESSAGES}',
    ),
    Tool("LibreChat", "x-conversation-id", OPENAI_JS + "X-Conversation-Id: $ID\n"),
    Tool(
        "LangSmith's metadata",
        "metadata",
        OPENAI_PYTHON,
        '{"model":"gpt-5","metadata":{"thread_id":"$ID","run_id":"$OTHER"},"messages":$MESSAGES}',
    ),
    Tool(
        "a conversation of the Responses API",
        "conversation",
        OPENAI_PYTHON,
        '{"model":"gpt-5","input":$MESSAGES,"conversation":"conv_$ID"}',
        RESPONSES,
        "conv_$ID",
    ),
    Tool(
        "a conversation of the Responses API as an object",
        "conversation",
        OPENAI_PYTHON,
        '{"model":"gpt-5","input":$MESSAGES,"conversation":{"id":"conv_$ID"}}',
        RESPONSES,
        "conv_$ID",
    ),
)
