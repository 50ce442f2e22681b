"""The text that a model wrote: out of a whole answer, or put together from a stream's deltas.

Invariant: both ways give the same text for the same answer: for each choice or output item its
content, refusal, transcript, tool calls as ``name(arguments)``, then reasoning, one a line. Audio
and images are not text. Runs in the writer's thread, never on the event loop.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from proxy.providers.facts import Operation
from proxy.providers.lenient import clean, decode, items, mapping
from proxy.sse import Event

_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])

# Typed deltas: which text each adds to. All others (audio, images, logs) are no text.
_TYPED_DELTAS: Final = {
    "response.output_text.delta": "content",
    "response.refusal.delta": "refusal",
    "response.audio.transcript.delta": "transcript",
    "response.function_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "arguments",
    "response.mcp_call_arguments.delta": "arguments",
    "response.code_interpreter_call_code.delta": "arguments",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
    "transcript.text.delta": "content",
}


class _Message:
    """One choice or output item; a whole message is added as one delta."""

    __slots__ = ("names", "pieces", "tools")

    def __init__(self) -> None:
        self.pieces: defaultdict[str, list[str]] = defaultdict(list)
        self.tools: defaultdict[object, list[str]] = defaultdict(list)  # names, then arguments
        self.names: defaultdict[object, list[str]] = defaultdict(list)

    def add(self, kind: str, value: object) -> None:
        if text := content_text(value):
            self.pieces[kind].append(text)

    def add_tool(self, key: object, tool_name: object, arguments: object) -> None:
        # A hostile index may be a list or an object: as text it is a key all the same.
        self.names[str(key)].append(content_text(tool_name))
        self.tools[str(key)].append(content_text(arguments))

    def add_delta(self, delta: Mapping[str, object]) -> None:
        """Add a chat completion's ``delta`` or ``message``."""
        self.add("content", delta.get("content"))
        self.add("refusal", delta.get("refusal"))
        self.add("transcript", mapping(delta.get("audio")).get("transcript"))
        # Not OpenAI's own names; gateways send the one or the other.
        self.add("reasoning", delta.get("reasoning_content") or delta.get("reasoning"))
        for position, call in enumerate(map(mapping, items(delta.get("tool_calls")))):
            function = mapping(call.get("function")) or mapping(call.get("custom"))
            arguments = function.get("arguments") or function.get("input")
            self.add_tool(call.get("index", position), function.get("name"), arguments)
        if call := mapping(delta.get("function_call")):
            self.add_tool("function_call", call.get("name"), call.get("arguments"))

    def add_item(self, item: Mapping[str, object]) -> None:
        """Add an item of a response's ``output``."""
        if item.get("type") == "reasoning":
            self.add("reasoning", item.get("summary"))
            self.add("reasoning", item.get("content"))
        elif item.get("type") == "message":
            for part in map(mapping, items(item.get("content"))):
                refused = part.get("type") == "refusal"
                self.add("refusal" if refused else "content", [part])
        else:
            arguments = item.get("arguments") or item.get("input") or item.get("code")
            if arguments or item.get("name"):
                self.add_tool("", item.get("name"), arguments)

    def text(self) -> str:
        lines = ["".join(self.pieces[kind]) for kind in ("content", "refusal", "transcript")]
        for key, arguments in self.tools.items():
            tool_name, text = "".join(self.names[key]), "".join(arguments)
            lines.append(f"{tool_name}({text})" if tool_name else text)
        lines.append("".join(self.pieces["reasoning"]))
        return "\n".join(line for line in lines if line)


def content_text(value: object) -> str:
    """Return the text of a message's content: a string, or the text parts of a list."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(part if isinstance(part, str) else _part_text(part) for part in value)
    return ""


def _part_text(value: object) -> str:
    part = mapping(value)
    text = part.get("text") or part.get("refusal") or part.get("transcript")
    if isinstance(text, dict):  # threads: {"text": {"value": ...}}
        text = text.get("value")
    return text if isinstance(text, str) else ""


def answer_text(choices: object, output: object, text: object) -> str:
    """Return the model's text of a whole answer: chat or completions, responses, transcript."""
    messages: defaultdict[object, _Message] = defaultdict(_Message)
    for position, choice in enumerate(map(mapping, items(choices))):
        messages[position].add_delta(mapping(choice.get("message")))
        messages[position].add("content", choice.get("text"))
    for position, item in enumerate(map(mapping, items(output))):
        messages[position].add_item(item)
    return _join(messages) or (clean(text) if isinstance(text, str) else "")


def stream_text(operation: Operation, events: Iterable[Event]) -> str:
    """Put the model's text together from the events of a stream, as far as it came."""
    if operation.name.startswith("images.") or operation.name == "audio.speech":
        return ""  # pictures and sound in base64
    messages: defaultdict[object, _Message] = defaultdict(_Message)
    whole = ""
    for event in events:
        if not event.data.startswith(b"{"):
            continue  # comments, [DONE]
        frame: dict[str, Any] = decode(_OBJECT, event.data) or {}
        if choices := items(frame.get("choices")):
            for position, choice in enumerate(map(mapping, choices)):
                message = messages[str(choice.get("index", position))]
                message.add_delta(mapping(choice.get("delta")))
                message.add("content", choice.get("text"))
        else:
            whole = _add_typed(event.name, frame, messages) or whole
    return _join(messages) or whole


def _add_typed(
    event_name: str, frame: Mapping[str, object], messages: defaultdict[object, _Message]
) -> str:
    """Add one typed event; return the whole text if it carries that."""
    kind = frame.get("type") or event_name
    key = str(frame.get("output_index", frame.get("id")))
    if isinstance(kind, str) and (piece := _TYPED_DELTAS.get(kind)):
        if piece == "arguments":
            messages[key].add_tool("", None, frame.get("delta"))
        else:
            messages[key].add(piece, frame.get("delta"))
    elif kind == "response.output_item.added":
        if tool_name := mapping(frame.get("item")).get("name"):
            messages[key].add_tool("", tool_name, None)
    elif kind == "thread.message.delta":
        messages[key].add("content", mapping(frame.get("delta")).get("content"))
    elif kind == "transcript.text.done":
        return answer_text(None, None, frame.get("text"))
    elif response := mapping(frame.get("response")):
        return answer_text(None, response.get("output"), None)
    return ""


def _join(messages: Mapping[object, _Message]) -> str:
    return clean("\n".join(text for message in messages.values() if (text := message.text())))
