"""What a dialect says about a call: the values that leave this package.

Invariant: None is unknown and 0 is zero; no text holds a NUL or a lone surrogate, so that every
value can be stored as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType
from typing import Literal, NamedTuple

from proxy.usage import merge
from storage.records import Tokens

Bills = Literal["tokens", "other", "nothing"]


@dataclass(frozen=True, slots=True)
class Operation:
    """What a method and a path ask for.

    ``name`` is "" where it is not known. ``bills``: by tokens (or the seconds of audio that stand
    for them), by something else (videos, training), or nothing. ``settles``: the answer repeats
    the usage of an object that another call made.
    """

    name: str
    bills: Bills
    settles: bool = False


class RequestFacts(NamedTuple):
    """What a request says, beside its messages.

    ``stream`` is what the client asked for; the answer's content type says what it got.
    ``include_usage``: the client itself asked for usage in the stream. The provider may hold the
    messages before those of the request: those up to the answer ``previous_response_id``, or,
    where ``keeps_state`` is set, those of a conversation of its own. ``named`` has the strings that
    may name a session, by their place (``metadata.KEY``), each of at most 4,096 characters.
    """

    model: str | None = None
    stream: bool = False
    service_tier: str | None = None
    user: str | None = None
    background: bool = False
    include_usage: bool = False
    previous_response_id: str | None = None
    keeps_state: bool = False
    named: Mapping[str, str] = MappingProxyType({})


class Bill(NamedTuple):
    """Tokens that have another model's price than the rest of their call.

    ``model`` is None where the provider does not say which: such tokens cannot be priced.
    """

    model: str | None
    tokens: Tokens


class AnswerFacts(NamedTuple):
    """What an answer says.

    ``main`` is priced by ``model`` and ``service_tier``, each of ``apart`` by its own model;
    ``tokens`` is their sum. ``reported``: these are the provider's numbers. With ``settles_id``
    set they are those of the object with that id, and never of the call that fetched it.
    ``pending``: they are still to come. ``seconds`` is the audio of a call billed by duration.
    ``state`` is None for a stream without its end; whether one was due is ``expects_end``.
    """

    model: str | None = None
    main: Tokens = Tokens()
    apart: tuple[Bill, ...] = ()
    reported: bool = False
    service_tier: str | None = None
    response_id: str | None = None
    settles_id: str | None = None
    state: Literal["completed", "failed"] | None = None
    expects_end: bool = False
    error: str | None = None
    text: str = ""
    seconds: float | None = None
    pending: bool = False
    notes: tuple[str, ...] = ()

    @property
    def tokens(self) -> Tokens:
        """All tokens of the call, whatever model's price each has."""
        return reduce(merge, (bill.tokens for bill in self.apart), self.main)
