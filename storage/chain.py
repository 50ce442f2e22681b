"""A conversation as it crosses into storage: messages in a chain, and the hashes that name them.

Two hashes, for two purposes. A **node's hash** covers the exact bytes of a message, of the
separator before it and of all messages before that: it serves storing once and rebuilding. A
**meaning** covers what a message says, in whatever words of JSON, and the meaning of all before it:
it serves recognising a conversation that comes back. Pure. Invariant: equal hashes, equal
conversations.
"""

import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

# 128 bits: 10^12 nodes have a chance of 10^-15 that any two of them share a hash.
HASH_BYTES: Final = 16
# What every conversation extends: before its first message, and before what instructs the model.
BEGINNING: Final = bytes(HASH_BYTES)
# Messages of one input, or of one answer; OpenAI's own limit for `messages` is 2,048. 8 MiB of
# `"",` are 2.8 million.
MAX_MESSAGES: Final = 10_000
# Places from which a call may go on: more than the results of one turn's tool calls.
MAX_POINTS: Final = 64


def node_hash(parent: bytes, lead: bytes, sha256: bytes) -> bytes:
    """Give the hash of a node: of its parent's (``BEGINNING`` for the first), lead and content."""
    # The content's hash has a fixed size and comes last, so no two nodes give the same bytes.
    return hashlib.blake2b(parent + lead + sha256, digest_size=HASH_BYTES).digest()


def extend(meaning: bytes, message_meaning: bytes) -> bytes:
    """Give the meaning of a conversation after one more message; silence adds none."""
    if not message_meaning:
        return meaning
    return hashlib.blake2b(meaning + message_meaning, digest_size=HASH_BYTES).digest()


class Message(NamedTuple):
    """A message as it stood in a body.

    ``lead`` is the separator before it, ``data`` its exact bytes, ``node`` its node's hash.
    ``meaning`` is its own alone, b"" where it counts for nothing (reasoning that a client may leave
    out). ``instructs``: a system or developer message before all others, which may change without
    making it another conversation.
    """

    lead: bytes
    data: bytes
    sha256: bytes
    node: bytes
    role: str
    meaning: bytes
    instructs: bool = False


class Point(msgspec.Struct, frozen=True, gc=False):
    """A place in a call's input at which an earlier call may have stood.

    ``meaning`` is that of the conversation up to there, ``after`` the number of messages behind
    it, ``answered``: the last message before it is the model's.
    """

    meaning: bytes
    after: int
    answered: bool


class Conversation(NamedTuple):
    """The messages of one call.

    ``known`` is the hash of the node that ``messages`` follow, where the last call gave their
    beginning, which is stored already; None where they are the whole input. ``prelude`` is the node
    of the last message (a known one, too) of those that come first and instruct; None without any.
    ``points`` has the places from which this call may go on, the furthest first. The meanings are
    those after the whole input, and after the answer, which may be none.
    """

    known: bytes | None
    messages: tuple[Message, ...]
    answer: tuple[Message, ...]
    points: tuple[Point, ...]
    prelude: bytes | None
    input_meaning: bytes
    output_meaning: bytes | None


def meanings(start: bytes, messages: Iterable[Message]) -> bytes:
    """Give the meaning of a conversation after these messages; those that instruct add none."""
    for message in messages:
        if not message.instructs:
            start = extend(start, message.meaning)
    return start
