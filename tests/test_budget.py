"""Which calls have a budget, what one may cost at most, and what is done where nobody can tell."""

import asyncio
import gzip
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import budget
from proxy.backlog import RECORD_BYTES
from proxy.budget import Budgets, session_limit
from proxy.capture import Budget
from proxy.errors import Refused
from proxy.estimate import tokens_of
from proxy.joining import Joining
from proxy.pricing import CustomPrice, Prices
from proxy.sections import LimitsConfig
from proxy.session import SessionRef
from storage import budgets
from storage.spending import Reservation, SessionBudget
from tests.calling import ANSWER, a_call, answered
from tests.recorders import Begin

SESSION = SessionRef("s", "header")
# One token in costs 1,000 nano-USD and one out 10,000.
PRICES = Prices(
    [CustomPrice(model="m", input_per_million_usd=Decimal(1), output_per_million_usd=Decimal(10))]
)
JSON = "application/json"


def limit(value: bytes, session: SessionRef | None = SESSION) -> int | None:
    return session_limit({b"x-traceway-session-budget-usd": value}, session, 7)


@pytest.mark.parametrize(
    ("value", "nusd"),
    [
        (b"1.00", 1_000_000_000),
        (b"1", 1_000_000_000),
        (b" 0.000000001 ", 1),
        (b"1000000", 10**15),
        (b"0.1", 100_000_000),
    ],
)
def test_an_amount_is_read_exactly(value: bytes, nusd: int) -> None:
    assert limit(value) == nusd


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"0", b"0.0", b"-1", b"+1", b"1e3", b"nan", b"inf", b"1,00", b"$1", b".5", b"1."),
        *(b"1000000.01", b"0.0000000001", b"1_0", b"1 1", b"\xd9\xa1", b"9" * 5_000),
    ],
)
def test_what_is_no_amount_is_a_400_that_says_what_is(value: bytes) -> None:
    with pytest.raises(Refused) as raised:
        limit(value)
    assert (raised.value.status, raised.value.code) == (400, "bad_budget")
    assert "as 1.00" in str(raised.value)


@given(st.binary(max_size=12))
def test_whatever_is_sent_it_is_an_amount_within_bounds_or_refused(value: bytes) -> None:
    try:
        found = limit(value)
    except Refused:
        return
    assert found is not None
    assert 0 < found <= 10**15


def test_a_budget_without_a_session_is_a_400_that_says_what_to_send() -> None:
    with pytest.raises(Refused, match="X-Traceway-Session-Id"):
        limit(b"1.00", session=None)


def test_without_the_header_the_projects_default_holds_for_a_session_that_is_known() -> None:
    assert session_limit({}, SESSION, 7) == 7
    assert session_limit({}, None, 7) is None
    assert session_limit({}, SESSION, None) is None


def test_a_call_that_names_a_trace_may_have_the_budget_of_its_session() -> None:
    assert session_limit({}, None, 7, joins=True) == 7
    assert session_limit({budget.HEADER: b"1.00"}, None, 7, joins=True) == 10**9
    assert session_limit({}, None, None, joins=True) is None


# What a call may cost.


def most(
    body: bytes, content_type: str = JSON, coding: str = "", limits: LimitsConfig | None = None
) -> int | None:
    spending = Budgets(PRICES, limits or LimitsConfig(), _never, _nowhere, 0)
    return spending._most(a_call(), body, content_type, coding)


def _never(_: Reservation) -> asyncio.Future[SessionBudget]:
    raise AssertionError("nobody was to reserve")


def _nowhere(_: object) -> asyncio.Future[str | None]:
    raise AssertionError("nobody was to ask for a session")


def ask(**fields: Any) -> bytes:
    messages = [{"role": "user", "content": "How are you today?"}]
    return orjson.dumps({"model": "m", "messages": messages, **fields})


INPUT_NUSD = 1_000 * (tokens_of("How are you today?", "m") + 32 + 8 + 8)


def test_a_call_may_cost_its_input_and_all_the_output_that_it_allows() -> None:
    assert most(ask(max_tokens=100)) == INPUT_NUSD + 1_000_000
    assert most(ask(max_tokens=100, n=3)) == INPUT_NUSD + 3_000_000


def test_a_call_that_sets_no_limit_may_cost_what_is_configured() -> None:
    assert most(ask()) == INPUT_NUSD + 40_960_000
    assert most(ask(n=2), limits=LimitsConfig(reserve_output_tokens=5)) == INPUT_NUSD + 100_000


def test_a_compressed_request_is_read() -> None:
    assert most(gzip.compress(ask(max_tokens=100)), coding="gzip") == INPUT_NUSD + 1_000_000


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (ask(model="nobody knows it"), ""),
        (ask(model=None), ""),
        (ask(service_tier="flex"), ""),
        (b"no json", ""),
        (b"no gzip", "gzip"),
        (ask(), "unheard-of"),
    ],
)
def test_what_cannot_be_priced_is_unknown_and_not_cheap(body: bytes, coding: str) -> None:
    assert most(body, coding=coding) is None


# What is done with it.


class Ledger:
    """What was asked of the database, and what it answers."""

    def __init__(
        self, answer: SessionBudget | Exception | None, session: str | None = None
    ) -> None:
        self.asked: list[Reservation] = []
        self._answer = answer
        self._session = session

    def reserve(self, reservation: Reservation) -> asyncio.Future[SessionBudget]:
        self.asked.append(reservation)
        future = asyncio.get_running_loop().create_future()
        if isinstance(self._answer, Exception):
            future.set_exception(self._answer)
        elif self._answer is not None:
            future.set_result(self._answer)
        return future

    def session_of(self, _: object) -> asyncio.Future[str | None]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(self._session)
        return future


class Request:
    """As much of a request as is looked at."""

    can_read_body = True
    method = "POST"
    content_length = None

    def __init__(self, body: bytes) -> None:
        self.headers = {"Content-Type": JSON}
        self.content = self
        self._body = body

    def is_eof(self) -> bool:
        return True

    def read_nowait(self) -> bytes:
        return self._body


ROOM = SessionBudget(limit_nusd=10**9, spent_nusd=0, reserved_nusd=0)


async def admit(
    ledger: Ledger, body: bytes = b"", *, unpriced: Any = "refuse", target: bytes = b"", **call: Any
) -> Any:
    """Give the call that was let through."""
    body = body or ask(max_tokens=100)
    path = target or b"/api/proxy/openai/v1/chat/completions"
    one = a_call(session="s", request=b"", target=path, **call)
    limits = LimitsConfig(unpriced=unpriced)
    spending = Budgets(PRICES, limits, ledger.reserve, ledger.session_of, 0)
    request: Any = Request(body)
    assert await spending.admit(request, one, 10**9) == (body if ledger.asked else None)
    return one


async def test_a_call_reserves_what_it_may_cost_and_remembers_that_it_did() -> None:
    ledger = Ledger(ROOM)
    call = await admit(ledger)
    (asked,) = ledger.asked
    assert (asked.session_id, asked.limit_nusd) == ("s", 10**9)
    assert asked.amount_nusd == INPUT_NUSD + 1_000_000
    assert (asked.trace_id, asked.span_id) == (call.start.trace_id, call.start.span_id)
    assert call.reserved
    assert call.request.size == len(ask(max_tokens=100))


JOINS = Joining(trace_id=b"t" * 16)


async def inheriting(of_trace: str | None, **call: Any) -> list[Reservation]:
    """Give what a call reserves whose trace has this session."""
    ledger = Ledger(ROOM, of_trace)
    spending = Budgets(PRICES, LimitsConfig(), ledger.reserve, ledger.session_of, 0)
    request: Any = Request(ask(max_tokens=100))
    await spending.admit(request, a_call(request=b"", joining=JOINS, **call), 10**9)
    return ledger.asked


async def test_a_call_that_only_inherits_its_session_reserves_there() -> None:
    (asked,) = await inheriting("of the trace")
    assert (asked.session_id, asked.joins) == ("of the trace", True)
    (asked,) = await inheriting("of the trace", session="other", source="helicone")
    assert asked.session_id == "of the trace"
    # A trace that has none takes the call's, and one that our header names is the call's.
    (asked,) = await inheriting(None, session="other", source="helicone")
    assert asked.session_id == "other"
    (asked,) = await inheriting("of the trace", session="s")
    assert asked.session_id == "s"
    assert await inheriting(None) == []


async def test_a_call_that_bills_nothing_reserves_nothing_and_is_not_read() -> None:
    ledger = Ledger(ROOM)
    call = await admit(ledger, target=b"/api/proxy/openai/v1/models", method="GET")
    assert ledger.asked == []
    assert not call.reserved


UNHEARD_OF = b"/api/proxy/openai/v1/messages"


async def test_what_we_do_not_know_may_cost_something_where_it_names_a_model() -> None:
    ledger = Ledger(ROOM)
    with pytest.raises(Refused) as raised:
        await admit(ledger, ask(), target=UNHEARD_OF)
    assert raised.value.code == "session_budget_unpriced"
    await admit(ledger, b'{"name": "a store"}', target=UNHEARD_OF)
    assert [one.amount_nusd for one in ledger.asked] == [0]


async def test_a_call_of_unknown_price_is_refused_or_reserves_nothing_as_configured() -> None:
    ledger = Ledger(ROOM)
    with pytest.raises(Refused, match=r"\[\[prices\]\]") as raised:
        await admit(ledger, ask(model="nobody knows it"))
    assert (raised.value.status, raised.value.code) == (429, "session_budget_unpriced")
    assert ledger.asked == []
    call = await admit(ledger, ask(model="nobody knows it"), unpriced="allow")
    assert [one.amount_nusd for one in ledger.asked] == [0]
    assert not call.reserved


async def test_a_refusal_has_the_figures() -> None:
    budget = SessionBudget(limit_nusd=10**9, spent_nusd=700_000_000, reserved_nusd=299_999_999)
    with pytest.raises(Refused) as raised:
        await admit(Ledger(budget))
    answer = raised.value.answer()
    assert answer.status == 429
    assert answer.headers["x-should-retry"] == "false"
    assert isinstance(answer.body, bytes)
    error = orjson.loads(answer.body)["error"]
    assert error.pop("message") == (
        "the session's budget of $1.00 is not enough: $0.70 are spent, $0.299999999 reserved by"
        f" other calls, and this one may cost up to {budget_text(INPUT_NUSD + 1_000_000)}"
    )
    assert error == {
        "type": "insufficient_quota",
        "param": None,
        "code": "session_budget_exceeded",
        "session_id": "s",
        "budget_usd": 1.0,
        "spent_usd": 0.7,
        "reserved_usd": 0.299999999,
        "needed_usd": (INPUT_NUSD + 1_000_000) / 10**9,
    }


def budget_text(nusd: int) -> str:
    return f"${nusd / 10**9:.9f}".rstrip("0")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "RESERVE_WAIT_S", 0.01)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("answer", [None, RuntimeError("no disk")])
async def test_what_cannot_be_reserved_is_refused_and_its_end_gives_back_what_may_be(
    answer: Exception | None,
) -> None:
    call = a_call(session="s", request=b"")
    spending = Budgets(PRICES, LimitsConfig(), Ledger(answer).reserve, _nowhere, 0)
    request: Any = Request(ask())
    with pytest.raises(Refused) as raised:
        await spending.admit(request, call, 10**9)
    assert (raised.value.status, raised.value.code) == (503, "budget_unavailable")
    assert call.reserved


# And when a record is lost.


async def test_what_a_call_reserved_stays_when_its_record_is_lost_for_want_of_memory(
    begin: Begin,
) -> None:
    recording = await begin(budget=Budget(RECORD_BYTES))
    call, other = a_call(session="s", request=b""), a_call(session="s", request=b"")
    asked = Reservation(
        project_id=1,
        trace_id=call.start.trace_id,
        span_id=call.start.span_id,
        session_id="s",
        limit_nusd=10**9,
        amount_nusd=7,
    )
    recording.recorder.put(call.start)
    await recording.recorder.write(lambda tx: budgets.reserve(tx, asked))
    call.reserved = True
    recording.gate.shut()
    recording.recorder.put(other.start)
    await recording.gate.waiting.wait()
    recording.recorder.put(answered(call, ANSWER))
    recording.gate.open()
    await recording.flush()
    assert recording.recorder.losses.counters.dropped_records == 1
    assert await recording.rows("SELECT amount_nusd FROM reservations") == [(7,)]
