"""Costs equal those of genai-prices wherever its answer is honest, and are unknown elsewhere."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price, data_snapshot, types
from hypothesis import given
from hypothesis import strategies as st

from proxy.pricing import CustomPrice, Price, Prices
from storage.records import Tokens

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
USD = 1_000_000_000
OPENAI = next(p for p in data_snapshot.get_snapshot().providers if p.id == "openai")
PRICES = Prices()

MIXES = [
    Tokens(input=0, output=0),
    Tokens(input=1, output=1),
    Tokens(input=1_234, output=567),
    Tokens(input=1_000, output=500, cached_input=900),
    Tokens(input=1_000, output=500, cached_input=1_000, reasoning=500),
    Tokens(input=1_000, output=500, cached_input=300, cache_write=600, reasoning=77),
    Tokens(input=1_000, output=500, audio_input=400),
    Tokens(input=1_000, output=500, audio_input=400, audio_output=100),
    Tokens(input=1_000, output=500, cached_input=100, audio_input=400),
    Tokens(input=1_000, output=500, image_input=250, image_output=333),
    Tokens(input=1_000, output=500, cached_input=10, image_input=250),
    Tokens(input=100, output=500, cached_input=101),
    Tokens(input=272_000, output=9_999, cached_input=1),
    Tokens(input=272_001, output=9_999, cached_input=1),
    Tokens(input=999_999_999, output=999_999_999),
]
TIERS = ["default", "flex", "priority", "fast"]
TIMES = [datetime(2025, 6, 1, tzinfo=UTC), datetime(2026, 10, 11, 23, 59, 59, tzinfo=UTC), NOW]


def micros(when: datetime) -> int:
    return int(when.timestamp()) * 1_000_000


def price(
    model: str | None,
    tokens: Tokens,
    *,
    provider: str = "openai",
    tier: str | None = None,
    when: datetime = NOW,
    prices: Prices = PRICES,
) -> Price:
    return prices.price(
        provider=provider, model=model, service_tier=tier, tokens=tokens, at_us=micros(when)
    )


def usage(tokens: Tokens) -> Usage:
    return Usage(
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        cache_read_tokens=tokens.cached_input,
        cache_write_tokens=tokens.cache_write,
        output_reasoning_tokens=tokens.reasoning,
        input_audio_tokens=tokens.audio_input,
        output_audio_tokens=tokens.audio_output,
        input_image_tokens=tokens.image_input,
        output_image_tokens=tokens.image_output,
    )


def openai_models() -> Iterator[str]:
    """A name for each of OpenAI's models in the bundled data."""
    named = {"ft:gpt-4o": "ft:gpt-4o-2024-08-06:acme::x"}
    named["ft:gpt-4o-mini"] = "ft:gpt-4o-mini-2024-07-18:acme::x"
    for model in OPENAI.models:
        ref = named.get(model.id, model.id)
        found = OPENAI.find_model(ref)
        assert found is not None, model.id
        yield ref


def honest_usd(model_ref: str, tier: str, when: datetime, tokens: Tokens) -> Decimal | None:
    """The answer of calc_price, or None for each case in which it is not to be believed."""
    model = OPENAI.find_model(model_ref)
    assert model is not None
    own = [
        v
        for v in model.price_variants or ()
        if v.when == {"service_tier": tier} and (not v.constraint or v.constraint.active(when))
    ]
    if tier != "default" and not own:
        return None
    try:
        answer = calc_price(
            usage(tokens),
            model_ref,
            provider_id="openai",
            genai_request_timestamp=when,
            price_context={"service_tier": tier},
        )
    except ValueError:
        return None
    unit = answer.model_price
    if unit.input_mtok is None and unit.output_mtok is None:
        return None
    if (tokens.output and unit.output_mtok is None) or (tokens.input and unit.input_mtok is None):
        return None
    if (tokens.audio_input and unit.input_audio_mtok is None) or (
        tokens.audio_output and unit.output_audio_mtok is None
    ):
        return None
    return answer.total_price


def test_every_openai_model_costs_what_genai_prices_says_wherever_that_is_honest() -> None:
    priced = 0
    grid = itertools.product(openai_models(), TIERS, TIMES, MIXES)
    for model, tier, when, tokens in grid:
        if model == "moderation":
            continue
        got = price(model, tokens, tier=tier, when=when)
        expected = honest_usd(model, tier, when, tokens)
        if expected is None:
            assert (got.nusd, got.status) == (None, "unpriced"), (model, tier, when, tokens)
        else:
            assert got.status == "priced", (model, tier, when, tokens)
            assert got.nusd is not None
            assert abs(got.nusd - expected * USD) <= Decimal("0.5"), (model, tier, when, tokens)
            priced += 1
    assert priced > 4_000


def test_models_of_other_providers_cost_what_genai_prices_says() -> None:
    priced = 0
    tokens = Tokens(input=250_000, output=1_000, cached_input=1_000)
    for provider in data_snapshot.get_snapshot().providers:
        for model in provider.models:
            got = price(model.id, tokens, provider=provider.id)
            if got.status != "priced":
                continue
            expected = calc_price(
                usage(tokens), model.id, provider_id=provider.id, genai_request_timestamp=NOW
            ).total_price
            assert got.nusd is not None
            assert abs(got.nusd - expected * USD) <= Decimal("0.5"), (provider.id, model.id)
            priced += 1
    assert priced > 1_500


def test_a_price_begins_at_midnight_utc_of_its_first_day() -> None:
    million = Tokens(input=1_000_000, output=0)
    before = datetime(2025, 6, 9, 23, 59, 59, tzinfo=UTC)
    after = datetime(2025, 6, 10, tzinfo=UTC)
    assert price("o3", million, when=before).nusd == 10 * USD
    assert price("o3", million, when=after).nusd == 2 * USD


def test_every_bundled_price_begins_and_ends_on_a_quarter_of_an_hour() -> None:
    times = 0
    for provider in data_snapshot.get_snapshot().providers:
        for model in provider.models:
            conditional = model.prices if isinstance(model.prices, list) else []
            for holder in (*conditional, *(model.price_variants or ())):
                constraint = holder.constraint
                if isinstance(constraint, types.TimeOfDateConstraint):
                    for time in (constraint.start_time, constraint.end_time):
                        assert (time.minute % 15, time.second, time.microsecond) == (0, 0, 0)
                        times += 1
    assert times > 0


def test_an_off_peak_price_holds_in_its_hours_only() -> None:
    million = Tokens(input=1_000_000, output=0)
    for hour, minute in ((0, 29), (0, 30), (16, 29), (16, 30)):
        when = datetime(2025, 7, 1, hour, minute, tzinfo=UTC)
        expected = calc_price(
            usage(million), "deepseek-chat", provider_id="deepseek", genai_request_timestamp=when
        ).total_price
        assert price("deepseek-chat", million, provider="deepseek", when=when).nusd == int(
            expected * USD
        )


def test_above_272000_input_tokens_the_higher_price_is_that_of_all_tokens() -> None:
    assert price("gpt-5.5", Tokens(input=272_000, output=0)).nusd == 1_360_000_000
    assert price("gpt-5.5", Tokens(input=272_001, output=0)).nusd == 2_720_010_000


@pytest.mark.parametrize("tier", [None, "", "auto", "default", "standard", "on_demand"])
def test_these_names_of_a_tier_are_the_standard_price(tier: str | None) -> None:
    assert price("gpt-5", Tokens(input=1_000_000, output=0), tier=tier).nusd == 1_250_000_000


def test_flex_and_priority_have_their_own_price_and_fast_is_priority() -> None:
    million = Tokens(input=1_000_000, output=0)
    assert price("gpt-5", million, tier="flex").nusd == 625_000_000
    assert price("gpt-5", million, tier="priority").nusd == 2_500_000_000
    assert price("gpt-5", million, tier="fast").nusd == 2_500_000_000


@pytest.mark.parametrize("tier", ["batch", "scale", "someday", "Default", "\ud800"])
def test_a_tier_without_a_known_price_is_unpriced(tier: str) -> None:
    assert price("gpt-5", Tokens(input=10, output=10), tier=tier).status == "unpriced"


def test_a_known_tier_is_unpriced_for_a_model_and_a_time_without_a_price_for_it() -> None:
    some = Tokens(input=10, output=10)
    assert price("o1", some, tier="flex").status == "unpriced"
    assert price("gpt-5", some, tier="flex", when=TIMES[1]).status == "unpriced"
    assert price("gpt-5", some, provider="azure").status == "priced"
    assert price("gpt-5", some, provider="azure", tier="flex").status == "unpriced"


@pytest.mark.parametrize("model", ["whisper-1", "tts-1", "tts-1-hd", "gpt-transcribe"])
def test_a_model_billed_by_time_or_characters_is_unpriced_not_free(model: str) -> None:
    assert price(model, Tokens(input=10, output=0)).status == "unpriced"
    assert price(model, Tokens(input=0, output=0)).status == "unpriced"


@pytest.mark.parametrize(
    "tokens",
    [
        Tokens(),
        Tokens(input=10),
        Tokens(output=10),
        Tokens(input=10, output=10, cached_input=11),
        Tokens(input=10, output=10, cached_input=6, cache_write=-6),
        Tokens(input=-1, output=10),
        Tokens(input=10, output=-1),
        Tokens(input=10, output=10, audio_input=1),
    ],
)
def test_unknown_or_contradictory_counts_are_unpriced(tokens: Tokens) -> None:
    assert price("gpt-5.6-sol", Tokens(input=10, output=10)).status == "priced"
    assert price("gpt-5.6-sol", tokens).status == "unpriced"


def test_an_embedding_needs_no_output_count() -> None:
    for output in (None, 0):
        got = price("text-embedding-3-small", Tokens(input=1_000_000, output=output))
        assert (got.nusd, got.status) == (20_000_000, "priced")


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", None),
        ("openai", ""),
        ("openai", "nope"),
        ("openai", "gpt-4o" + "x" * 300),
        ("openai", "\ud800\x00"),
        ("nobody", "gpt-4o"),
        ("my-openai", "gpt-4o"),
        ("openai", "ft:gpt-4.1-mini-2025-04-14:acme::x"),
    ],
)
def test_an_unknown_model_or_provider_is_unpriced(provider: str, model: str | None) -> None:
    assert price(model, Tokens(input=10, output=10), provider=provider).status == "unpriced"


def test_a_fine_tuned_model_costs_what_its_kind_costs() -> None:
    got = price("ft:gpt-4o-mini-2024-07-18:acme::x", Tokens(input=1_000_000, output=0))
    assert got.nusd == 300_000_000


def test_moderations_are_free_even_without_counts() -> None:
    got = price("omni-moderation-latest", Tokens())
    assert got == Price(0, "free", PRICES.version)


def test_a_model_without_prices_is_free_only_where_that_is_what_it_means() -> None:
    some = Tokens(input=10, output=10)
    assert price("qwen/qwq-32b:free", some, provider="openrouter").status == "free"
    assert price("gpt-4o", some, provider="github-copilot").status == "unpriced"


def test_the_price_of_a_request_is_added_where_there_is_one() -> None:
    some = Tokens(input=1, output=1)
    got = price("sonar", some, provider="perplexity")
    assert got.nusd == USD * 12 // 1000 + 2_000


@pytest.mark.parametrize("at_us", [-(10**30), -1, 0, 10**30])
def test_no_time_raises(at_us: int) -> None:
    some = Tokens(input=10, output=10)
    got = PRICES.price(provider="openai", model="o3", service_tier=None, tokens=some, at_us=at_us)
    assert got.status in ("priced", "unpriced")


count = st.one_of(st.none(), st.integers(-5, 10**12))


@given(
    st.sampled_from(["gpt-5.5", "gpt-realtime", "gpt-image-1", "text-embedding-3-small", "x"]),
    st.sampled_from([None, "flex", "batch"]),
    st.builds(Tokens, **dict.fromkeys(Tokens.__dataclass_fields__, count)),
)
def test_no_counts_raise_and_no_cost_is_negative(model: str, tier: str, tokens: Tokens) -> None:
    got = price(model, tokens, tier=tier)
    assert (got.nusd is None) == (got.status == "unpriced")
    assert got.nusd is None or got.nusd >= 0


def custom(model: str, usd: str, **more: str) -> CustomPrice:
    prices = {key: Decimal(value) for key, value in more.items() if key != "service_tier"}
    return CustomPrice(
        model=model,
        input_per_million_usd=Decimal(usd),
        output_per_million_usd=Decimal(usd),
        service_tier=more.get("service_tier", "standard"),
        **prices,
    )


def test_an_exact_custom_name_wins_over_prefixes_and_the_longest_prefix_over_others() -> None:
    prices = Prices([custom("*", "1"), custom("acme-*", "2"), custom("acme-7b", "3")])
    million = Tokens(input=1_000_000, output=0)
    assert price("acme-7b", million, prices=prices, provider="local").nusd == 3 * USD
    assert price("acme-7b-chat", million, prices=prices, provider="local").nusd == 2 * USD
    assert price("gpt-5", million, prices=prices).nusd == 1 * USD


def test_a_custom_name_without_a_star_is_no_prefix() -> None:
    prices = Prices([custom("acme", "3")])
    assert price("acme-7b", Tokens(input=1, output=1), prices=prices).status == "unpriced"


def test_custom_cached_tokens_have_their_price_or_that_of_input() -> None:
    tokens = Tokens(input=1_000_000, output=0, cached_input=500_000)
    plain = Prices([custom("a", "2")])
    cached = Prices([custom("a", "2", cached_input_per_million_usd="0.5")])
    assert price("a", tokens, prices=plain).nusd == 2 * USD
    assert price("a", tokens, prices=cached).nusd == 1_250_000_000


def test_a_custom_price_holds_for_its_service_tier_only() -> None:
    prices = Prices([custom("gpt-5", "9"), custom("gpt-5", "4", service_tier="batch")])
    million = Tokens(input=1_000_000, output=0)
    assert price("gpt-5", million, prices=prices, tier="default").nusd == 9 * USD
    assert price("gpt-5", million, prices=prices, tier="batch").nusd == 4 * USD
    assert price("gpt-5", million, prices=prices, tier="flex").nusd == 625_000_000


def test_a_custom_price_for_priority_is_also_that_of_fast() -> None:
    prices = Prices([custom("a", "9", service_tier="priority")])
    for tier, status in (("fast", "priced"), ("priority", "priced"), ("default", "unpriced")):
        assert price("a", Tokens(input=1, output=1), prices=prices, tier=tier).status == status


def test_a_custom_price_of_zero_is_free() -> None:
    prices = Prices([custom("local-*", "0")])
    got = price("local-7b", Tokens(), prices=prices, provider="local")
    assert (got.nusd, got.status) == (0, "free")


def test_a_custom_price_has_a_version_that_changes_with_it() -> None:
    some = Tokens(input=1, output=1)
    one, other = (price("a", some, prices=Prices([custom("a", usd)])) for usd in ("1", "2"))
    assert one.version.startswith("custom ")
    assert one.version != other.version
    assert price("gpt-5", some).version == PRICES.version
    assert PRICES.version.startswith("genai-prices 0.")


@pytest.mark.parametrize(("usd", "nusd"), [("0.0005", 0), ("0.0015", 2), ("0.00250001", 3)])
def test_a_cost_is_rounded_once_and_halves_go_to_even(usd: str, nusd: int) -> None:
    prices = Prices([custom("a", usd)])
    assert price("a", Tokens(input=1, output=0), prices=prices).nusd == nusd
    prices = Prices([custom("a", "0.0004")])
    assert price("a", Tokens(input=1, output=1), prices=prices).nusd == 1


@pytest.mark.parametrize("usd", ["-1", "NaN", "Infinity", "0.0000000000000000001"])
def test_a_custom_price_that_is_no_usable_number_is_refused(usd: str) -> None:
    with pytest.raises(ValueError, match="a price"):
        custom("a", usd)


def test_model_names_from_outside_fill_a_table_with_a_bound() -> None:
    prices = Prices()
    info = prices._tariff.cache_info()
    assert info.maxsize == 4096
    for number in range(3):
        price(f"made-up-{number % 2}", Tokens(), prices=prices)
        price("x" * 300, Tokens(), prices=prices)
    assert prices._tariff.cache_info().currsize == 2


CACHED = CustomPrice(
    model="written",
    input_per_million_usd=Decimal(1),
    output_per_million_usd=Decimal(10),
    cached_input_per_million_usd=Decimal("0.1"),
    cache_write_per_million_usd=Decimal("1.25"),
)


def most(model: str, tokens: Tokens, provider: str = "openai") -> Price:
    return Prices([CACHED]).at_most(
        provider=provider, model=model, service_tier=None, tokens=tokens, at_us=micros(NOW)
    )


def test_the_most_that_a_call_may_cost_counts_its_input_as_written_to_a_cache() -> None:
    assert most("written", Tokens(input=1_000, output=100)).nusd == 1_250_000 + 1_000_000


def test_the_most_that_a_call_may_cost_is_unknown_where_its_cost_would_be() -> None:
    assert most("nobody knows it", Tokens(input=1, output=1)).nusd is None
    assert most("gpt-4o", Tokens(input=9, output=1, audio_input=3)).nusd is None


@given(
    model=st.sampled_from([*openai_models()]),
    total=st.integers(0, 300_000),
    output=st.integers(0, 50_000),
    cached=st.integers(0, 100),
    written=st.integers(0, 100),
    reasoning=st.integers(0, 100),
)
def test_no_call_of_so_many_tokens_costs_more_than_the_most_it_may(
    model: str, total: int, output: int, cached: int, written: int, reasoning: int
) -> None:
    most_nusd = most(model, Tokens(input=total, output=output)).nusd
    spent = price(
        model,
        Tokens(
            input=total,
            output=output,
            cached_input=total * cached // 200,
            cache_write=total * written // 200,
            reasoning=output * reasoning // 100,
        ),
    ).nusd
    if most_nusd is not None and spent is not None:
        assert spent <= most_nusd + 1
