"""Token counts of text, for calls whose provider reported none. They are stored as ``estimated``.

Invariant: offline, and bounded in time whatever the text is. Only the two encodings that bpe-openai
carries are ever asked for; its others would be fetched from the network. It does not count what a
provider adds to a request by itself (the frame of each message, tools, images).

Not for the event loop: a long text takes tens of milliseconds, the first call half a second. Who
cannot wait for that, since others wait for it, asks `is_ready` first.
"""

import re
import threading
from functools import cache
from typing import Final, Protocol

# Characters per piece. bpe-openai refuses texts that come to more than 200,000 tokens, and one
# character is at most 4 bytes, so at most 4 tokens. It also holds the GIL for a piece: 1 ms of
# prose, 9 ms at worst. Each seam costs at most a few tokens.
_PIECE: Final = 32 * 1024
# Pieces that are counted: 1 Mi characters, which takes 20 ms for prose and 300 ms at worst. Few
# models read more. Of a longer text this many pieces, evenly spread, are counted, and the rest is
# taken to be like them.
_COUNTED_PIECES: Final = 32

# OpenAI's models from before gpt-4o, also as Azure spells them, fine-tuned, or behind a gateway's
# prefix (`openai/gpt-4`). Everything newer has o200k_base, and it is the best guess for the models
# of others. Source: model.py of OpenAI's tiktoken (November 2026).
_CL100K: Final = re.compile(
    r"(?:[^/]*/)*(?:ft:)?"
    r"(?:gpt-4(?![.\w])|gpt-3\.?5|text-embedding-|davinci-002|babbage-002)"
)


_ready: set[str] = set()
_loading: set[str] = set()


class _Encoding(Protocol):
    def encode_ordinary(self, text: str) -> list[int]: ...


def tokens_of(text: str, model: str | None) -> int:
    """Estimate how many tokens ``text`` is for ``model``; None or an unknown name is a new model.

    Names of special tokens count as the text that they are; lone surrogates as one U+FFFD each.
    Exact but for a few tokens up to 1 Mi characters, an extrapolation beyond.
    """
    encoding = _encoding(_name(model))
    pieces = -(-len(text) // _PIECE)
    counted = min(pieces, _COUNTED_PIECES)
    tokens = length = 0
    for number in range(counted):
        start = number * pieces // counted * _PIECE
        piece = text[start : start + _PIECE]
        length += len(piece)
        tokens += len(encoding.encode_ordinary(piece))
    return tokens if length == len(text) else round(tokens * len(text) / length)


def is_ready(model: str | None) -> bool:
    """Tell whether `tokens_of` can count for a model at once; if not, begin to load what it needs.

    Not thread-safe.
    """
    name = _name(model)
    if name not in _ready and name not in _loading:
        _loading.add(name)
        threading.Thread(target=_encoding, args=(name,), name="tokenizer", daemon=True).start()
    return name in _ready


def _name(model: str | None) -> str:
    return "cl100k_base" if model and _CL100K.match(model) else "o200k_base"


@cache
def _encoding(name: str) -> _Encoding:
    # Imported on first use: it takes 0.5 s and 140 MB, and most servers never estimate.
    import bpe_openai  # type: ignore[import-untyped]  # it has no py.typed

    encoding: _Encoding = bpe_openai.get_encoding(name)
    _ready.add(name)
    return encoding
