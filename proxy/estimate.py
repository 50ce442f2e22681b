"""Token counts of text, for calls whose provider reported none. They are stored as ``estimated``.

Invariant: offline, and bounded in time whatever the text is. Only the two encodings that bpe-openai
carries are ever asked for; its others would be fetched from the network. It does not count what a
provider adds to a request by itself (the frame of each message, tools, images).

Not for the event loop: a long text takes tens of milliseconds.
"""

import re
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any, Final, Protocol

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


class _Encoding(Protocol):
    def count(self, text: str) -> int: ...


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
        tokens += _count(encoding, piece)
    return tokens if length == len(text) else round(tokens * len(text) / length)


def warm() -> None:
    """Load the encoding of all newer models, which takes 50 ms and 60 MB.

    On first use that time would be taken from the recorder while calls end, and those of the last
    50 ms would not be on disk. The encoding of the older models is still loaded on first use.
    """
    _encoding(_name(None))


def _name(model: str | None) -> str:
    return "cl100k_base" if model and _CL100K.match(model) else "o200k_base"


def _count(encoding: _Encoding, text: str) -> int:
    try:
        return encoding.count(text)
    except UnicodeEncodeError:  # lone surrogates
        return encoding.count(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


@cache
def _encoding(name: str) -> _Encoding:
    encoding: _Encoding = _bindings().tokenizer_for_encoding(name)
    return encoding


@cache
def _bindings() -> Any:
    # Only its compiled part is loaded: the package itself reads every encoding that it knows, in
    # Python, when it is imported, which takes half a second and 140 MB.
    package = find_spec("bpe_openai")
    places = package.submodule_search_locations if package is not None else None
    spec = PathFinder.find_spec("bpe_openai._bindings", places)
    if spec is None or spec.loader is None:
        raise ImportError("bpe-openai has no compiled part: reinstall it from a wheel")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
