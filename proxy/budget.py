"""What a session may cost: a call that might exceed it is refused before it goes anywhere.

Owns which calls have a budget and what one may cost at most. Invariants: a call that has one leaves
only when what it may cost is reserved on disk; where that cannot be known or done, it is refused
rather than made, unless the configuration says otherwise; a call without one pays nothing here. The
sums and their atomicity are storage/budgets.py's, and so is giving back; prices are pricing.py's.
"""

import asyncio
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final, TypeVar

from aiohttp import web

from proxy.answer import ClientFault
from proxy.call import Call
from proxy.decode import decode
from proxy.downstream import take_body
from proxy.errors import Refused
from proxy.estimate import tokens_of
from proxy.headers import Index, text
from proxy.pricing import Prices
from proxy.providers.openai import weigh
from proxy.sections import LimitsConfig
from proxy.session import OURS, SessionRef
from storage.records import Tokens
from storage.spending import Reservation, SessionBudget

HEADER: Final = b"x-traceway-session-budget-usd"
MAX_USD: Final = 1_000_000
# A call with a budget is read whole before it is made. Images and files in base64 are the largest;
# a request of a million tokens of text is 4 MiB.
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
# As long as `strict` waits for a commit, and as the recorder tries to: it is withdrawn then.
RESERVE_WAIT_S: Final = 2.0

_USD: Final = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,9})?")
_NUSD_PER_USD: Final = 1_000_000_000
# OpenAI's own word for "you have no money left here", which no client tries again.
_KIND: Final = "insufficient_quota"

Reserve = Callable[[Reservation], asyncio.Future[SessionBudget]]
SessionOf = Callable[[tuple[int, bytes, bytes]], asyncio.Future[str | None]]
T = TypeVar("T")


def session_limit(
    index: Index, session: SessionRef | None, project_nusd: int | None, *, joins: bool = False
) -> int | None:
    """Give what the session of a call may cost, in nano-USD; None where nobody set a limit.

    `project_nusd` is the default of its project, for a call whose headers name its session, or a
    trace (`joins`), which may have one.

    Raises:
        Refused: the header's value is no amount, or the headers name no session and no trace.
    """
    if HEADER not in index:
        return project_nusd if session is not None or joins else None
    value = text(index, HEADER)
    if _USD.fullmatch(value) is None or not 0 < (usd := Decimal(value)) <= MAX_USD:
        message = f"X-Traceway-Session-Budget-Usd is an amount in USD, above 0 and up to {MAX_USD}"
        raise Refused(400, "bad_budget", f"{message}, as 1.00")
    if session is None and not joins:
        raise Refused(400, "bad_budget", _NO_SESSION)
    return int(usd * _NUSD_PER_USD)


class Budgets:
    """Reserves what calls may cost.

    `reserve` and `session_of` are storage.budgets' in the writer's thread.
    """

    def __init__(
        self,
        prices: Prices,
        limits: LimitsConfig,
        reserve: Reserve,
        session_of: SessionOf,
        max_request_bytes: int,
    ) -> None:
        self._prices = prices
        self._limits = limits
        self._reserve = reserve
        self._session_of = session_of
        self._max_request_bytes = max_request_bytes

    async def admit(self, request: web.Request, call: Call, limit_nusd: int) -> bytes | None:
        """Reserve what a call may cost; give its body, or None where it was not read.

        Raises:
            Refused: it may cost more than its session has left, or nobody can tell.
            ClientFault: its body cannot be taken.
        """
        if not _may_cost(request, call):
            return None
        start = call.start
        session_id = start.session_id
        if call.joins_others and start.session_source != OURS.source:
            # That of its trace counts, whatever other tools' headers say. Its start is written
            # before, for the writer keeps the order.
            key = (start.project_id, start.trace_id, start.span_id)
            session_id = await _in_time(self._session_of(key)) or session_id
        if session_id is None:
            if HEADER.decode() in request.headers:
                raise Refused(400, "bad_budget", _NO_SESSION)
            return None
        body = await self._read(request, call)
        amount_nusd = await asyncio.to_thread(
            self._most,
            call,
            body,
            request.headers.get("Content-Type", ""),
            request.headers.get("Content-Encoding", ""),
        )
        if amount_nusd is None:
            if self._limits.unpriced == "refuse":
                raise Refused(429, "session_budget_unpriced", _UNPRICED, kind=_KIND)
            amount_nusd = 0  # it still needs a budget that is not spent
        # Before it is asked for: whatever becomes of the answer, the call's end gives it back.
        call.reserved = amount_nusd > 0
        budget = await self._ask(
            Reservation(
                project_id=start.project_id,
                trace_id=start.trace_id,
                span_id=start.span_id,
                session_id=session_id,
                limit_nusd=limit_nusd,
                amount_nusd=amount_nusd,
                joins=call.joins_others,
            )
        )
        if not budget.fits(amount_nusd):
            call.reserved = False
            raise _exceeded(session_id, budget, amount_nusd)
        return body

    async def _read(self, request: web.Request, call: Call) -> bytes:
        body = None
        if (request.content_length or 0) <= MAX_BODY_BYTES:
            body = await take_body(request, call.request, self._max_request_bytes, MAX_BODY_BYTES)
        if not isinstance(body, bytes):
            raise ClientFault("budget_request_too_large", _TOO_LARGE, status=413)
        return body

    def _most(self, call: Call, body: bytes, content_type: str, coding: str) -> int | None:
        """Give what a call may cost at most, in nano-USD; None where that cannot be known.

        Not on the event loop: to count the tokens of a long text takes tens of milliseconds.
        """
        plain, whole = decode(body, coding, MAX_BODY_BYTES) if coding else (body, True)
        weight = weigh(call.operation, plain, content_type) if whole else None
        if not call.operation.name:
            return 0 if weight is not None and weight.model is None else None
        if weight is None:
            return None
        most = weight.output_tokens
        output = weight.answers * (self._limits.reserve_output_tokens if most is None else most)
        tokens = Tokens(
            input=tokens_of(weight.text, weight.model) + weight.beside_tokens,
            output=output,
            audio_input=weight.sound_tokens or None,
            image_input=weight.picture_tokens or None,
            audio_output=output if weight.medium == "sound" else None,
            image_output=output if weight.medium == "picture" else None,
        )
        return self._prices.at_most(
            provider=call.start.provider or "",
            model=weight.model,
            service_tier=weight.service_tier,
            tokens=tokens,
            at_us=call.start.started_at_us,
        ).nusd

    async def _ask(self, reservation: Reservation) -> SessionBudget:
        return await _in_time(self._reserve(reservation))


async def _in_time(asked: asyncio.Future[T]) -> T:
    """Give what the writer says, if that comes in time.

    Raises:
        Refused: it does not.
    """
    asked.add_done_callback(_noted)
    await asyncio.wait((asked,), timeout=RESERVE_WAIT_S)
    if not asked.done() or asked.cancelled() or asked.exception() is not None:
        raise Refused(503, "budget_unavailable", _UNAVAILABLE)
    return asked.result()


def _may_cost(request: web.Request, call: Call) -> bool:
    """Tell whether a call may be billed: by what it is, or, where that is unknown, by its model."""
    if call.operation.bills != "nothing":
        return True
    is_json = "json" in request.headers.get("Content-Type", "").lower()
    return not call.operation.name and request.method == "POST" and is_json


_TOO_LARGE: Final = (
    f"a call with a session budget is read before it is made, up to {MAX_BODY_BYTES} bytes: send a"
    " smaller request, or this one without a budget"
)
_UNPRICED: Final = (
    "the session has a budget, and what this call may cost is not known: name a model that has a"
    ' price, give it one with [[prices]], or set unpriced = "allow" in [limits]'
)
_NO_SESSION: Final = (
    "a session budget needs a session: send X-Traceway-Session-Id with it, or the trace of one"
)
_UNAVAILABLE: Final = (
    "what the session has left could not be reserved in time, so the call was not made; call again"
)


def _noted(asked: asyncio.Future[T]) -> None:
    """Take note of a failure after nobody waits any more, which asyncio would log."""
    if not asked.cancelled():
        asked.exception()


def _exceeded(session_id: str, budget: SessionBudget, needed_nusd: int) -> Refused:
    message = (
        f"the session's budget of {_usd(budget.limit_nusd)} is not enough:"
        f" {_usd(budget.spent_nusd)} are spent, {_usd(budget.reserved_nusd)} reserved by other"
        f" calls, and this one may cost up to {_usd(needed_nusd)}"
    )
    return Refused(
        429,
        "session_budget_exceeded",
        message,
        kind=_KIND,
        figures={
            "session_id": session_id,
            "budget_usd": budget.limit_nusd / _NUSD_PER_USD,
            "spent_usd": budget.spent_nusd / _NUSD_PER_USD,
            "reserved_usd": budget.reserved_nusd / _NUSD_PER_USD,
            "needed_usd": needed_nusd / _NUSD_PER_USD,
        },
    )


def _usd(nusd: int) -> str:
    """Write an amount as it is, with cents at least."""
    whole, _, part = f"{Decimal(nusd) / _NUSD_PER_USD:.9f}".partition(".")
    return f"${whole}.{part.rstrip('0'):0<2}"
