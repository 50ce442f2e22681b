"""What a request may come to at most, as far as it says, before anybody has answered it.

Owns where the limits of an answer stand in a body, and what counts for a token beside its text.
Invariants: what cannot be read is None, never small; where two fields could be meant the larger one
counts. What the provider holds (an earlier response, a thread, a file by its id) is not in the
body and not in the weight, nor is what tools of the provider's read. Not on the event loop.

Source: request types of openai-python 3.54.0; OpenAI's guides "Images and vision" and "Audio and
speech" (November 2026).
"""

from typing import Any, Final, Literal, NamedTuple

import msgspec

from proxy.providers.facts import Operation
from proxy.providers.lenient import decode, items, mapping, name
from proxy.providers.multipart import form_fields
from proxy.providers.request import input_text

Medium = Literal["text", "sound", "picture"]

# Tokens round a message and round a call, where OpenAI's models take 4 and 3.
_MESSAGE_TOKENS: Final = 8
_CALL_TOKENS: Final = 32
# A picture takes a model of OpenAI up to 3,800 tokens, but for gpt-4o-mini, where it is 2,833 and
# 5,667 for each of at most 8 tiles. What is only named, by an address or an id, counts the same.
_PART_TOKENS: Final = 4_000
_MINI: Final = "gpt-4o-mini"
_MINI_PICTURE_TOKENS: Final = 2_833 + 8 * 5_667
# A token of sound is a tenth of a second, which is never less than this at 8 kbit/s or more.
_SOUND_BYTES: Final = 100
# Text out of a file, and its pages as pictures: a guess from PDFs, not a bound.
_FILE_BYTES: Final = 16

_PICTURES: Final = frozenset({"image_url", "input_image", "computer_screenshot", "image"})
_SOUNDS: Final = frozenset({"input_audio", "audio"})
_FILES: Final = frozenset({"file", "input_file"})
_SOUND_OPERATIONS: Final = frozenset({"audio.transcriptions", "audio.translations"})
# Larger numbers are mistakes or attacks; house rule for token counts.
_MOST: Final = 1_000_000_000


class Weight(NamedTuple):
    """What a request may come to.

    ``text`` is to be counted as tokens; ``beside_tokens`` come to it, of which ``sound_tokens`` and
    ``picture_tokens`` are such. ``output_tokens`` is the most of each of ``answers`` answers, None
    where the request sets no limit; they are of the ``medium``.
    """

    model: str | None
    service_tier: str | None
    text: str
    beside_tokens: int
    sound_tokens: int
    picture_tokens: int
    output_tokens: int | None
    answers: int
    medium: Medium


class _Body(msgspec.Struct):
    """What limits an answer, and where parts stand; Any, because strangers write it."""

    model: Any = None
    service_tier: Any = None
    messages: Any = None
    input: Any = None
    prompt: Any = None
    additional_messages: Any = None
    thread: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = None
    best_of: Any = None
    modalities: Any = None


_BODY: Final = msgspec.json.Decoder(_Body)


def weigh(operation: Operation, body: bytes, content_type: str) -> Weight | None:
    """Read what a request may come to; None for a body that is neither JSON nor a form."""
    if content_type.lower().startswith("multipart/"):
        return _form(operation, body, content_type)
    request = decode(_BODY, body)
    if request is None:
        return None
    messages = [
        *items(request.messages),
        *items(request.input),
        *items(mapping(request.thread).get("messages")),
        *items(request.additional_messages),
    ]
    prompts = max(1, sum(isinstance(one, str | list) for one in items(request.prompt)))
    model = name(request.model)
    sound, pictures, files = _parts(messages, _picture_tokens(model))
    ids = _token_ids(request.prompt) + _token_ids(request.input)
    frames = _CALL_TOKENS + _MESSAGE_TOKENS * (len(messages) + prompts)
    return Weight(
        model=model,
        service_tier=name(request.service_tier),
        text=input_text(body, content_type),
        beside_tokens=frames + ids + sound + pictures + files,
        sound_tokens=sound,
        picture_tokens=pictures,
        output_tokens=_output_tokens(operation, request),
        answers=min(prompts * max(_count(request.n) or 1, _count(request.best_of) or 1), _MOST),
        medium=_medium(operation, request.modalities),
    )


def _form(operation: Operation, body: bytes, content_type: str) -> Weight:
    fields = form_fields(body, content_type)
    model = name(fields.get("model"))
    sound = pictures = 0
    if operation.name in _SOUND_OPERATIONS:
        sound = max(_PART_TOKENS, len(body) // _SOUND_BYTES)
    else:
        pictures = _picture_tokens(model) * body.count(b"filename")
    number = fields.get("n", "")
    return Weight(
        model=model,
        service_tier=None,
        text=input_text(body, content_type),
        beside_tokens=_CALL_TOKENS + sound + pictures,
        sound_tokens=sound,
        picture_tokens=pictures,
        output_tokens=None,
        answers=int(number) if number.isdecimal() and 0 < len(number) < 10 else 1,
        medium=_medium(operation, None),
    )


def _picture_tokens(model: str | None) -> int:
    return _MINI_PICTURE_TOKENS if model is not None and _MINI in model else _PART_TOKENS


def _medium(operation: Operation, modalities: object) -> Medium:
    if operation.name.startswith("images."):
        return "picture"
    return "sound" if operation.name == "audio.speech" or "audio" in items(modalities) else "text"


def _output_tokens(operation: Operation, request: _Body) -> int | None:
    if operation.name == "embeddings":
        return 0
    limits = (request.max_tokens, request.max_completion_tokens, request.max_output_tokens)
    return max((limit for limit in map(_count, limits) if limit is not None), default=None)


def _count(value: object) -> int | None:
    """Read a number from 1; None for anything else. Some servers take 0 or -1 for no limit."""
    if isinstance(value, float) and value >= 1:
        value = int(min(value, _MOST))
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        return None
    return min(value, _MOST)


def _token_ids(value: object) -> int:
    """Count what is given as numbers of tokens: an array of them, or an array of such arrays."""
    found = 0
    for one in items(value):
        found += sum(isinstance(i, int) for i in one) if isinstance(one, list) else 0
        found += isinstance(one, int)
    return found


def _parts(messages: list[object], picture_tokens: int) -> tuple[int, int, int]:
    """Count the tokens of sound, pictures and files in these messages and items."""
    sound = pictures = files = 0
    for message in map(mapping, messages):
        for place in ("content", "output"):
            value = message.get(place)
            for part in map(mapping, value if isinstance(value, list) else [value]):
                kind = part.get("type")
                if not isinstance(kind, str):
                    continue
                if kind in _PICTURES:
                    pictures += picture_tokens
                elif kind in _SOUNDS:
                    sound += max(_PART_TOKENS, _bytes_in(part) // _SOUND_BYTES)
                elif kind in _FILES:
                    files += max(_PART_TOKENS, _bytes_in(part) // _FILE_BYTES)
    return sound, pictures, files


def _bytes_in(part: object) -> int:
    """Give the bytes that the base64 in a part stands for, however deep it is in it."""
    characters, stack = 0, [part]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, dict):
            stack += value.values()
        elif isinstance(value, list):
            stack += value
    return characters * 3 // 4
