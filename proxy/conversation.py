"""The conversation of a call, out of the bytes of its request and of its answer.

Owns how messages become a chain: their nodes, their meanings, and the places from which a call may
go on. Invariant: a request gives the same conversation whether it was read whole or only behind
what an earlier call of the same owner gave (prefixes.py); what it gives is free of secrets. It
neither stores nor looks anything up: storage decides what a call goes on from.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from proxy.headers import redact
from proxy.prefixes import Head, Owner, Prefix, Prefixes
from proxy.providers.facts import RequestFacts
from proxy.providers.lenient import preview
from proxy.providers.openai import MessageFacts, messages_key, read_message, read_request
from proxy.slices import Slice, split, split_skeleton, without_known
from storage.chain import (
    BEGINNING,
    MAX_MESSAGES,
    MAX_POINTS,
    Conversation,
    Message,
    Point,
    extend,
    meanings,
    node_hash,
)
from storage.records import MAX_ENVELOPED_BYTES, Envelope

# Ids of messages that a later call may send in place of the messages: those of the last thousands
# of answers, some 200 bytes each.
MAX_ITEM_IDS: Final = 20_000
_JSON: Final = "application/json"
_START: Final = Head()
_INSTRUCTS: Final = frozenset({"system", "developer"})


class Question(NamedTuple):
    """A request that was split: its facts, its envelope, and the messages of its conversation.

    ``messages`` follow the node ``known``, or are all. ``sha256`` is that of the whole body; None
    where a secret was cut out of it.
    """

    facts: RequestFacts
    envelope: Envelope
    sha256: bytes | None
    known: bytes | None
    messages: tuple[Message, ...]
    head: Head

    @property
    def preview(self) -> str | None:
        """What was asked last: the newest message of the user's, else the newest with text."""
        return self.head.asked or self.head.newest


class Conversations:
    """Reads the conversations of calls, in the order in which they ended. Not thread-safe."""

    def __init__(self) -> None:
        self._prefixes = Prefixes()
        self._item_meanings: OrderedDict[tuple[int, str], bytes] = OrderedDict()

    def forget(self) -> None:
        """Read the next requests whole: what is known of earlier ones may not be stored."""
        self._prefixes.clear()

    def question(self, owner: Owner, body: bytes, secrets: Collection[bytes]) -> Question | None:
        """Read a whole request; None where it is of no conversation, or cannot be split."""
        if messages_key(owner.operation) is None or len(body) > MAX_ENVELOPED_BYTES:
            return None
        prefix = self._prefixes.find(owner, body, secrets)
        found = self._read(owner, body, secrets, prefix) if prefix is not None else None
        return found or self._read(owner, body, secrets, None)

    def answer(
        self,
        project_id: int,
        question: Question | None,
        slices: Sequence[Slice],
        secrets: Collection[bytes],
    ) -> tuple[Message, ...]:
        """Read an answer's messages, which follow the question's; none where they say a secret."""
        node = question.head.node if question is not None else BEGINNING
        messages = []
        for piece in slices:
            facts, message = self._message(project_id, node, piece)
            if _says(facts, secrets):
                return ()
            node = message.node
            if piece.data.startswith(b'"'):  # of a legacy completion; as a prompt it is the user's
                message = message._replace(role="assistant")
            if facts.item_id is not None:
                self._remember((project_id, facts.item_id), message.meaning)
            messages.append(message)
        return tuple(messages)

    def _read(
        self, owner: Owner, body: bytes, secrets: Collection[bytes], prefix: Prefix | None
    ) -> Question | None:
        """Read a body, behind a prefix of it if there is one; None where that cannot be done."""
        path = (messages_key(owner.operation) or "",)
        head, state, hashed = _START, hashlib.sha256(), 0
        if prefix is None:
            data = redact(body, secrets)
            found = split(data, path)
        else:
            head, state, hashed = prefix.head, prefix.sha256.copy(), prefix.end
            skeleton = without_known(body, prefix.opened, hashed)
            if skeleton is None:
                return None
            data = skeleton.data
            found = split_skeleton(skeleton, path)
        if found is None or head.count + len(found.slices) > MAX_MESSAGES:
            return None
        facts = read_request(owner.operation, found.rest, _JSON)
        # Of a call that goes on from what the provider holds all messages are needed: storage
        # extends their meanings from another place than the beginning.
        chained = facts.previous_response_id is not None or facts.keeps_state
        if chained and prefix is not None:
            return None
        known = head.node if prefix is not None else None
        followed = self._follow(owner.project_id, head, found.slices, secrets)
        if followed is None:
            return None
        head, messages = followed
        sha256 = None
        if prefix is not None or data is body:  # nothing was cut out
            whole = memoryview(body)
            state.update(whole[hashed : found.end])
            if found.end and not chained:
                kept = Prefix(
                    body=body,
                    end=found.end,
                    opened=found.opened,
                    sha256=state.copy(),
                    clean=tuple(secrets),
                    head=head,
                )
                self._prefixes.put(owner, kept, prefix)
            state.update(whole[found.end :])
            sha256 = state.digest()
        return Question(
            facts=facts,
            envelope=found.envelope,
            sha256=sha256,
            known=known,
            messages=messages,
            head=head,
        )

    def _follow(
        self, project_id: int, head: Head, slices: Sequence[Slice], secrets: Collection[bytes]
    ) -> tuple[Head, tuple[Message, ...]] | None:
        """Read the messages that follow a head, and give the head behind them.

        None where one of them says a secret.
        """
        node, meaning, prelude, leading = head.node, head.meaning, head.prelude, head.leading
        asked = newest = ""
        messages: list[Message] = []
        points: list[Point] = []
        behind = len(slices)
        for piece in slices:
            behind -= 1
            facts, message = self._message(project_id, node, piece, leading=leading)
            if _says(facts, secrets):
                return None
            node = message.node
            leading = message.instructs
            if leading:
                prelude = node
            elif message.meaning:
                meaning = extend(meaning, message.meaning)
                points.append(Point(meaning, behind, facts.role == "assistant"))
            messages.append(message)
            if facts.text and not facts.text.isspace():
                newest = facts.text
                asked = newest if facts.role == "user" else asked
        points.reverse()
        points += [
            Point(point.meaning, point.after + len(slices), point.answered)
            for point in head.points[: max(0, MAX_POINTS - len(points))]
        ]
        shown = preview(asked) or head.asked
        return Head(
            node=node,
            meaning=meaning,
            prelude=prelude,
            leading=leading,
            count=head.count + len(slices),
            points=tuple(points[:MAX_POINTS]),
            asked=shown,
            newest=None if shown else preview(newest) or head.newest,
        ), tuple(messages)

    def _message(
        self, project_id: int, parent: bytes, piece: Slice, *, leading: bool = False
    ) -> tuple[MessageFacts, Message]:
        facts = read_message(piece.data)
        meaning = facts.meaning
        if facts.refers_to is not None:
            meaning = self._item_meanings.get((project_id, facts.refers_to), meaning)
        sha256 = hashlib.sha256(piece.data).digest()
        return facts, Message(
            lead=piece.lead,
            data=piece.data,
            sha256=sha256,
            node=node_hash(parent, piece.lead, sha256),
            role=facts.role,
            meaning=meaning,
            instructs=leading and facts.role in _INSTRUCTS,
        )

    def _remember(self, item: tuple[int, str], meaning: bytes) -> None:
        self._item_meanings[item] = meaning
        self._item_meanings.move_to_end(item)
        if len(self._item_meanings) > MAX_ITEM_IDS:
            self._item_meanings.popitem(last=False)


def conversation_of(
    question: Question | None, answer: tuple[Message, ...], *, is_whole: bool
) -> Conversation | None:
    """Put a question and its answer together; None where there is no message.

    `is_whole`: the model ended the answer, so that a later call may go on from it. Nothing goes on
    from an answer whose question is not known.
    """
    head = question.head if question is not None else _START
    known = question.known if question is not None else None
    asked = question.messages if question is not None else ()
    if known is None and not asked and not answer:
        return None
    output_meaning = meanings(head.meaning, answer)
    goes_on = is_whole and question is not None and output_meaning != head.meaning
    return Conversation(
        known=known,
        messages=asked,
        answer=answer,
        points=head.points,
        prelude=head.prelude,
        input_meaning=head.meaning,
        output_meaning=output_meaning if goes_on else None,
    )


def _says(facts: MessageFacts, secrets: Collection[bytes]) -> bool:
    """Tell whether a message says a secret that its bytes do not show: JSON has many spellings."""
    words = [secret.decode(errors="replace") for secret in secrets]
    return any(word in facts.text or word in facts.role for word in words)
