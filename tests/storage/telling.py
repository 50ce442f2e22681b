"""Turns for the tests of threads, told in words, with the places that storage would have found.

A message is its role's first letter and its text: "u:hi" of the user, "a:hello" of the assistant,
"t:5" a tool's result, "s:be brief" what instructs the model, "r:hm" reasoning, which counts for
nothing. "a:hello;1" says the same as "a:hello" in other bytes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from storage.chain import BEGINNING, extend
from storage.lines import Line, lines
from storage.threads import Said, Tree, Turn

ROLES = {"u": "user", "a": "assistant", "t": "tool", "s": "system", "r": "assistant"}


class Telling:
    """A session that is told turn by turn."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.texts: dict[int, str] = {}
        self._contents: dict[str, int] = {}
        self._whole: dict[int, list[Said]] = {}

    def turn(self, asked: Sequence[str], answer: Sequence[str] | str = (), **fields: Any) -> Turn:
        """Add a call that sent these messages and was answered with those."""
        answer = [answer] if isinstance(answer, str) else answer
        said = [self.said(text, depth) for depth, text in enumerate([*asked, *answer], 1)]
        start = sum(1 for text in asked if text.startswith("s:"))
        messages = said[start : len(asked)]
        chain = [BEGINNING]
        for message in messages:
            chain.append(extend(chain[-1], message.meaning))
        places = {
            place for turn in self.turns for place in (turn.input_meaning, turn.output_meaning)
        }
        # The furthest place behind a message that counts at which an earlier turn stood.
        base = next(
            (
                n
                for n in range(len(messages), 0, -1)
                if chain[n] in places and messages[n - 1].meaning
            ),
            0,
        )
        output_meaning = chain[-1]
        for message in said[len(asked) :]:
            output_meaning = extend(output_meaning, message.meaning)
        number = len(self._whole) + 1
        given: dict[str, Any] = {
            "number": number,
            "seq": 100 + number,
            "span_id": number.to_bytes(8, "big"),
            "started_at_us": number * 1_000_000,
            "state": "completed",
            "base": chain[base] if base else None,
            "inputs": messages[base:],
            "answers": said[len(asked) :],
            "prelude": said[:start],
            "input_meaning": chain[-1],
            "output_meaning": output_meaning if answer else None,
        }
        turn = Turn(**{**given, **fields})
        self.turns.append(turn)
        self._whole[number] = messages
        return turn

    def forget(self, number: int) -> None:
        """Delete a turn."""
        self.turns = [turn for turn in self.turns if turn.number != number]

    def tree(self) -> Tree:
        """Grow the tree; a turn without its base gives its whole chain, as the reader's do."""
        places: set[bytes | None] = {None}
        turns = []
        for turn in self.turns:
            whole = turn.base not in places
            turns.append(replace(turn, inputs=self._whole[turn.number]) if whole else turn)
            places |= {turn.input_meaning, turn.output_meaning}
        return Tree(turns)

    def said(self, text: str, depth: int) -> Said:
        content_id = self._contents.setdefault(text, len(self._contents) + 1)
        self.texts[content_id] = text
        own = text.split(";")[0].encode()
        meaning = b"" if text.startswith("r:") else hashlib.sha256(own).digest()[:16]
        return Said(content_id, depth, ROLES[text[0]], meaning)

    def lines(self, *branches: str) -> list[Line]:
        tree = self.tree()
        return lines(tree, tree.through(branches))

    def read(self, *branches: str) -> list[str]:
        """Give what a reader sees: a message's words, or else the kind of the line."""
        return [self.words(line) for line in self.lines(*branches)]

    def words(self, line: Line) -> str:
        if line.entry is None or line.entry.said is None:
            return line.kind
        return self.texts[line.entry.said.content_id]

    def whole(self, turn: Turn) -> list[bytes]:
        """Give the meanings of all that counts of a turn's messages and answer."""
        said = [*self._whole[turn.number], *turn.answers]
        return [message.meaning for message in said if message.meaning]
