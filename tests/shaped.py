"""Requests in the shapes and spellings in which real clients send them, made deterministically."""

import base64
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from storage.records import Envelope

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

WORDS = [
    "the model",
    "read a file",
    "na\u00efve \u03a9 \u6f22\u5b57 \U0001f600",
    '"quoted" back\\slash',
    "tab\t</x>",
]
SPACES = (b"", b"", b"", b" ", b"\n", b"\r\n\t", b"\n    ")
BIG = (b"1e999", b"-0.0", b"123456789012345678901234567890", b"1E+2", b"0.1000000000000000055")


@dataclass(frozen=True)
class Raw:
    """JSON as it is to stand in the body."""

    data: bytes


class Twice(dict[str, object]):
    """An object in which the first key stands twice."""


class Plainly(random.Random):
    """Spells JSON without spaces and escapes."""

    def choice(self, seq: "SupportsLenAndGetItem[Any]") -> Any:
        return seq[0]

    def random(self) -> float:
        return 1.0


def filled(envelope: Envelope, messages: bytes) -> bytes:
    """Put a body together again."""
    assert len(envelope.pieces) == len(envelope.holes) + 1
    assert envelope.holes.count(None) <= 1
    parts = [envelope.pieces[0]]
    for hole, piece in zip(envelope.holes, envelope.pieces[1:], strict=True):
        parts += [messages if hole is None else hole.data, piece]
    return b"".join(parts)


def spelled(rng: random.Random, value: object) -> bytes:
    """Write a value as JSON in one of its many spellings."""

    def space() -> bytes:
        return rng.choice(SPACES)

    match value:
        case Raw():
            return value.data
        case str():
            return b'"%b"' % b"".join(_character(rng, c) for c in value)
        case dict():
            pairs = list(value.items())
            if isinstance(value, Twice):
                pairs.append((pairs[0][0], "again"))
            members = [
                b"%b%b%b:%b%b%b"
                % (space(), spelled(rng, k), space(), space(), spelled(rng, v), space())
                for k, v in pairs
            ]
            return b"{%b}" % (b",".join(members) or space())
        case list():
            inner = [space() + spelled(rng, item) + space() for item in value]
            return b"[%b]" % (b",".join(inner) or space())
    return orjson.dumps(value)


def _character(rng: random.Random, character: str) -> bytes:
    if character in '"\\':
        return b"\\" + character.encode()
    if character < " " or rng.random() < 0.02:
        units = character.encode("utf-16-be")
        return b"".join(b"\\u%b" % units[i : i + 2].hex().encode() for i in range(0, len(units), 2))
    return character.encode()


def text(rng: random.Random, longest: int = 40) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(0, longest)))


def _content(rng: random.Random, kind: str) -> object:
    if rng.random() < 0.1:
        return Raw(b'"not \xff\xfe UTF-8 \xc3"')
    if rng.random() < 0.6:
        return text(rng)
    parts: list[object] = [{"type": kind, "text": text(rng)}]
    if rng.random() < 0.3:
        picture = base64.b64encode(rng.randbytes(rng.randint(10, 3000))).decode()
        parts.append(
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
        )
    return parts


def message(rng: random.Random) -> object:
    """Make one message of a chat."""
    kind = rng.random()
    if kind < 0.15:
        function = {"name": "read", "arguments": '{"path": "' + text(rng, 3) + '"}'}
        call = {"id": f"call_{rng.randrange(99)}", "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind < 0.3:
        return {"role": "tool", "tool_call_id": "call_1", "content": _content(rng, "text")}
    made = {"role": rng.choice(["user", "assistant"]), "content": _content(rng, "text")}
    if rng.random() < 0.05:
        return Twice(made)
    if rng.random() < 0.1:
        made["weight"] = Raw(rng.choice(BIG))
    return made


def item(rng: random.Random) -> object:
    """Make one item of a response's input."""
    kind = rng.random()
    if kind < 0.2:
        call_id = f"call_{rng.randrange(99)}"
        if rng.random() < 0.5:
            return {"type": "function_call_output", "call_id": call_id, "output": text(rng)}
        call = {"type": "function_call", "call_id": call_id, "name": "read"}
        return {**call, "arguments": '{"a": ' + str(rng.random()) + "}", "id": "fc_1"}
    if kind < 0.3:
        return {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gA" * 200}
    made = {"role": rng.choice(["user", "assistant"]), "content": _content(rng, "input_text")}
    return {**made, "type": "message"} if rng.random() < 0.5 else made


def tools(rng: random.Random) -> list[object]:
    """Make the tools of an agent, some kilobytes."""
    names = [f"tool_{n}" for n in range(rng.randint(1, 8))]
    return [
        {"type": "function", "function": {"name": n, "description": text(rng, 80), "strict": True}}
        for n in names
    ]


def body(rng: random.Random, key: str, messages: list[object] | str) -> dict[str, object]:
    """Make a request round its messages, its fields in any order."""
    fields: list[tuple[str, object]] = [("model", "gpt-5.1"), (key, messages)]
    others: list[tuple[str, object]] = [
        ("stream", True),
        ("temperature", Raw(rng.choice(BIG))),
        ("tools", tools(rng)),
        ("metadata", {"session": text(rng, 4)}),
        ("instructions", text(rng, 120)),
        ('naïve "key"', [1, [2, {"messages": [3]}]]),
        ("stop", None),
    ]
    fields += rng.sample(others, rng.randint(0, len(others)))
    rng.shuffle(fields)
    return dict(fields)


def requests(count: int, seed: int = 3) -> Iterator[tuple[str, bytes]]:
    """Make requests: the key of their messages, and their bytes."""
    rng = random.Random(seed)  # noqa: S311
    for _ in range(count):
        key = rng.choice(["messages", "input"])
        make = message if key == "messages" else item
        messages = [make(rng) for _ in range(rng.choice([0, 1, 2, 3, 5, 8, 20]))]
        as_string = key == "input" and rng.random() < 0.2
        made = body(rng, key, text(rng) if as_string else messages)
        data = spelled(rng, Twice(made) if rng.random() < 0.03 else made)
        yield key, rng.choice(SPACES) + data + rng.choice(SPACES)
