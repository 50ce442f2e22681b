"""Every golden case: buckets, model, tier, state, text and cost, however the stream was cut."""

from decimal import Decimal

import pytest

from proxy.pricing import Prices
from proxy.providers.facts import AnswerFacts, RequestFacts
from proxy.providers.openai import (
    StreamWatch,
    input_preview,
    operation_of,
    read_answer,
    read_request,
    stream_text,
)
from proxy.sse import Event, SseDecoder
from storage.records import Tokens
from tests.golden import Case, load

CASES = load()
STREAMS = [case for case in CASES if case.streamed]
AT_US = 1_793_491_200_000_000  # 2026-11-01
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def prices() -> Prices:
    return Prices()


def watched(case: Case, chunks: list[bytes]) -> tuple[AnswerFacts, StreamWatch, list[Event]]:
    decoder, watch = SseDecoder(), StreamWatch(operation_of(case.method, case.path))
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    for event in events:
        watch.event(event)
    return watch.facts(), watch, events


def answered(case: Case) -> AnswerFacts:
    operation = operation_of(case.method, case.path)
    if not case.streamed:
        return read_answer(operation, case.status, case.answer)
    facts, _, events = watched(case, [case.answer])
    return facts._replace(text=stream_text(operation, events))


def asked(case: Case) -> RequestFacts:
    operation = operation_of(case.method, case.path)
    return read_request(operation, case.request, case.request_type)


@each
def test_an_answer_means_what_its_documentation_says(case: Case) -> None:
    facts = answered(case)
    request = asked(case)
    assert operation_of(case.method, case.path).name == case.operation
    assert facts.tokens == case.tokens
    assert (facts.model, facts.service_tier) == (case.model, case.service_tier)
    assert (facts.state, facts.error) == (case.state, case.error)
    assert (facts.reported, facts.pending, facts.seconds) == (
        case.reported,
        case.pending,
        case.seconds,
    )
    assert facts.settles_id == case.settles_id
    assert facts.text == case.text
    assert facts.notes == case.notes
    preview = input_preview(case.request, case.request_type)
    assert (request.model, preview) == (case.asked_model, case.asked_preview)
    assert request.stream is case.streamed or case.method == "GET"


@each
def test_the_buckets_sum_to_the_totals_of_the_provider(case: Case) -> None:
    tokens = answered(case).tokens
    if case.total is not None:
        assert tokens.total == case.total
    for whole, parts in (
        (tokens.input, (tokens.cached_input, tokens.audio_input, tokens.image_input)),
        (tokens.output, (tokens.reasoning, tokens.audio_output, tokens.image_output)),
    ):
        assert all(part <= (whole or 0) for part in parts if part is not None)


@each
def test_the_cost_is_the_one_computed_by_hand(case: Case, prices: Prices) -> None:
    facts, request = answered(case), asked(case)
    parts = [(facts.model or request.model, facts.main)]
    parts += [(bill.model, bill.tokens) for bill in facts.apart]
    costs = [_cost(prices, model, facts.service_tier, tokens) for model, tokens in parts]
    known = [cost for cost in costs if cost is not None]
    total = sum(known) if facts.reported and len(known) == len(costs) else None
    expected = None if case.cost_usd is None else Decimal(case.cost_usd)
    assert (total is None) == (expected is None)
    if total is not None and expected is not None:
        assert abs(Decimal(total).scaleb(-9) - expected) < Decimal("1e-9")


def _cost(prices: Prices, model: str | None, tier: str | None, tokens: Tokens) -> int | None:
    if model is None:
        return None
    price = prices.price(
        provider="openai", model=model, service_tier=tier, tokens=tokens, at_us=AT_US
    )
    return price.nusd


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case.name)
def test_a_stream_cut_at_any_byte_gives_the_same_facts(case: Case) -> None:
    whole, whole_watch, whole_events = watched(case, [case.answer])
    for at in range(len(case.answer) + 1):
        facts, watch, events = watched(case, [case.answer[:at], case.answer[at:]])
        assert facts == whole
        assert events == whole_events
        assert (watch.first_token, watch.ended) == (whole_watch.first_token, whole_watch.ended)


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case.name)
def test_a_stream_shows_its_first_token_and_its_end(case: Case) -> None:
    facts, watch, _ = watched(case, [case.answer])
    assert watch.first_token is bool(case.text or "image" in case.name or "speech" in case.name)
    assert watch.ended is (case.state is not None)
    assert facts.expects_end is True


def test_the_cases_cover_every_family() -> None:
    assert len(CASES) >= 45
    assert len({case.name for case in CASES}) == len(CASES)
    assert {
        "chat.completions",
        "completions",
        "responses",
        "responses.compact",
        "responses.retrieve",
        "embeddings",
        "images.generations",
        "images.edits",
        "audio.transcriptions",
        "audio.speech",
        "decisions",
        "moderations",
        "batches",
        "batches.retrieve",
        "threads.runs",
    } <= {case.operation for case in CASES}
