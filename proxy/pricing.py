"""Cost of one call from its token counts: the only place where tokens become money.

Invariant: a cost is exact integer arithmetic on published unit prices, rounded once per call, or it
is None. A count, a price or a service tier that is not known makes the call ``unpriced``, never
cheap: nothing is guessed. Nothing here raises for what a call holds, does I/O, or reads a clock.

Not in a cost: whatever is not counted in tokens or calls (web searches, hours of audio, pages).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, lru_cache
from hashlib import blake2b
from importlib import metadata
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from storage.records import Tokens

if TYPE_CHECKING:
    from genai_prices import types as genai

Status = Literal["priced", "unpriced", "free"]

# Rates are integers in units of 10^-15 nano-USD per token, so that a price with up to 18 decimal
# places per million tokens (the longest in the bundled data) is exact.
_SCALE: Final = 10**15
_NUSD_PER_USD: Final = 10**9

# Names of a service tier that mean the same price. A tier that is not listed is its own name, and
# has a price only where the data or the operator has one for exactly that name.
# `fast` is answered as `priority` (OpenAI, service_tier); `on_demand` is Groq's standard tier.
_TIERS: Final[Mapping[str, str]] = {
    "auto": "standard",
    "default": "standard",
    "on_demand": "standard",
    "fast": "priority",
}

# A price is looked up once per quarter of an hour: prices begin on a date or, off peak, at a time
# of day, and all of them on such a boundary (a test keeps watch over the bundled data).
_SLOT_US: Final = 15 * 60 * 1_000_000
# Entries. Model names come from outside, so the table has a bound; each entry is about 1 KB.
_CACHED_TARIFFS: Final = 4096
# Characters; the longest name in the bundled data has 61. Longer ones are not worth an entry.
_MODEL_LENGTH: Final = 256

# Parts of a total that may have a price of their own: the field in Tokens, the key in genai-prices.
_INPUT_PARTS: Final = {
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "audio_input": "input_audio_mtok",
    "image_input": "input_image_mtok",
}
_OUTPUT_PARTS: Final = {
    "reasoning": "output_reasoning_mtok",
    "audio_output": "output_audio_mtok",
    "image_output": "output_image_mtok",
}
# Two parts that may overlap, and the price of the overlap. How many tokens are in both is not
# reported, so such a call has no cost.
_OVERLAPS: Final = {
    "cache_audio_read_mtok": ("cached_input", "audio_input"),
    "cache_audio_write_mtok": ("cache_write", "audio_input"),
    "cache_image_read_mtok": ("cached_input", "image_input"),
    "cache_image_write_mtok": ("cache_write", "image_input"),
    "output_audio_reasoning_mtok": ("reasoning", "audio_output"),
    "output_image_reasoning_mtok": ("reasoning", "image_output"),
}
# Audio costs several times as much as text, so audio without a price of its own has no cost. The
# other parts without one are billed at the rate of their total, which is what providers do.
_NEVER_AS_TEXT: Final = ("audio_input", "audio_output")


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomPrice:
    """A price that the operator sets, in USD per million tokens. It wins over the bundled data.

    ``model`` is an exact name, or a prefix that ends in ``*``; an exact name wins over a prefix, a
    longer prefix over a shorter one. It holds for calls of ``service_tier`` only. A part without a
    price is billed as input. All zero means that the model is free. Raises ValueError for a price
    that is negative, not finite, or has more than 18 decimal places.
    """

    model: str
    input_per_million_usd: Decimal
    output_per_million_usd: Decimal
    cached_input_per_million_usd: Decimal | None = None
    cache_write_per_million_usd: Decimal | None = None
    service_tier: str = "standard"

    def __post_init__(self) -> None:
        for price in self._by_key().values():
            _scaled(price)

    def _by_key(self) -> dict[str, Decimal]:
        """Return the prices that are set, under the keys that genai-prices uses."""
        prices = {
            "input_mtok": self.input_per_million_usd,
            "output_mtok": self.output_per_million_usd,
            "cache_read_mtok": self.cached_input_per_million_usd,
            "cache_write_mtok": self.cache_write_per_million_usd,
        }
        return {key: price for key, price in prices.items() if price is not None}

    def _tariff(self) -> "_Tariff":
        # The digest makes a changed price another version.
        digest = blake2b(repr(self).encode(), digest_size=4).hexdigest()
        return _tariff(f"custom {digest}", self._by_key())

    def _fit(self, model: str) -> int:
        """Return how closely ``model`` is meant; -1 when it is not."""
        if self.model == model:
            return len(model) + 1
        prefix = self.model.removesuffix("*")
        return len(prefix) if prefix != self.model and model.startswith(prefix) else -1


class Price(NamedTuple):
    """What one call cost: nano-USD, None when unpriced, 0 when free; and by which prices."""

    nusd: int | None
    status: Status
    version: str


class _Side(NamedTuple):
    """The rates of one direction of a call; ``rate`` is None where that direction has no price."""

    rate: int | None
    parts: tuple[tuple[str, int], ...]
    overlaps: tuple[tuple[str, str], ...]
    refused: tuple[str, ...]

    def cost(self, total: int | None, tokens: Tokens) -> int | None:
        """Sum up this direction; None where a count or a price that it takes is not known."""
        if self.rate is None:
            return None if total else 0
        if total is None:
            return None
        rest, cost = total, 0
        for bucket, rate in self.parts:
            if count := getattr(tokens, bucket):
                if count < 0:
                    return None
                rest -= count
                cost += count * rate
        if rest < 0:  # the parts exceed the whole: one of the counts is wrong
            return None
        for one, other in self.overlaps:
            if getattr(tokens, one) and getattr(tokens, other):
                return None
        for bucket in self.refused:
            if getattr(tokens, bucket):
                return None
        return cost + rest * self.rate


class _Band(NamedTuple):
    """The rates of calls with more than ``above`` input tokens. They hold for all their tokens."""

    above: int
    input: _Side
    output: _Side
    per_call: int


class _Tariff(NamedTuple):
    """All prices of a model in one service tier at one time; the highest band comes first."""

    version: str
    bands: tuple[_Band, ...]
    free: bool


@cache
def _data_version() -> str:
    return f"genai-prices {metadata.version('genai-prices')}"


class Prices:
    """Prices calls by the operator's prices and by the bundled data of genai-prices.

    The data is loaded on first use, which takes about 200 ms: see ``warm``. After that a call costs
    a look-up in a table. Safe to use from several threads.
    """

    def __init__(self, custom: Sequence[CustomPrice] = ()) -> None:
        self.version: Final = _data_version()
        self._custom = tuple(custom)
        self._unpriced = Price(None, "unpriced", self.version)
        self._tariff = lru_cache(_CACHED_TARIFFS)(self._find)

    def warm(self) -> None:
        """Load the bundled data now."""
        self._find("openai", "gpt-4o", "standard", 0)

    def price(
        self,
        *,
        provider: str,
        model: str | None,
        service_tier: str | None,
        tokens: Tokens,
        at_us: int,
    ) -> Price:
        """Return the cost of one call; never raises.

        ``service_tier`` is the one that the answer names (what was billed), ``at_us`` the start of
        the call in microseconds UTC. Unpriced: a model, tier or count without a known price, counts
        that contradict each other, audio where only text has a price, and `batch`.
        """
        if model is None or len(model) > _MODEL_LENGTH:
            return self._unpriced
        tariff = self._tariff(provider, model, _tier(service_tier), at_us // _SLOT_US)
        if tariff is None:
            return self._unpriced
        if tariff.free:
            return Price(0, "free", tariff.version)
        above = max(tokens.input or 0, 0)
        band = next(band for band in tariff.bands if above > band.above)
        input_cost = band.input.cost(tokens.input, tokens)
        output_cost = band.output.cost(tokens.output, tokens)
        if input_cost is None or output_cost is None:
            return Price(None, "unpriced", tariff.version)
        return Price(_rounded(band.per_call + input_cost + output_cost), "priced", tariff.version)

    def at_most(
        self,
        *,
        provider: str,
        model: str | None,
        service_tier: str | None,
        tokens: Tokens,
        at_us: int,
    ) -> Price:
        """Return the most that a call may cost whose parts are not known yet; never raises.

        All of its input may come to be written to a cache, or all of its output to be reasoning,
        each of which may be dearer than the rest. Nothing counts as cached. ``tokens`` has what
        is known to be audio or an image.
        """
        written = replace(tokens, cache_write=tokens.input)
        variants = (tokens, written, *(replace(t, reasoning=t.output) for t in (tokens, written)))
        plain, *others = [
            self.price(
                provider=provider, model=model, service_tier=service_tier, tokens=t, at_us=at_us
            )
            for t in variants
        ]
        if plain.nusd is None:
            return plain
        return max((plain, *others), key=lambda price: price.nusd or 0)

    def _find(self, provider: str, model: str, tier: str, slot: int) -> _Tariff | None:
        """Return the prices that hold, the operator's first; None where there are none."""
        fitting = [
            (fit, custom)
            for custom in self._custom
            if _tier(custom.service_tier) == tier and (fit := custom._fit(model)) >= 0
        ]
        if fitting:
            return max(fitting, key=lambda pair: pair[0])[1]._tariff()
        try:
            when = datetime.fromtimestamp(slot * _SLOT_US // 1_000_000, UTC)
            return _bundled(self.version, provider, model, tier, when)
        except (ValueError, OverflowError, OSError):
            return None  # a time that no calendar has, or a price that no integer holds


def _bundled(
    version: str, provider_id: str, model_ref: str, tier: str, when: datetime
) -> _Tariff | None:
    """Look up a model in genai-prices as its ``calc_price`` does, without its unbounded caches.

    The provider is meant exactly: a name that only contains `openai` is not OpenAI.
    """
    # Imported on first use: it brings pydantic and 1.6 MB of data, which most commands never need.
    from genai_prices import data_snapshot

    providers = data_snapshot.get_snapshot().providers
    provider = next((p for p in providers if p.id == provider_id), None)
    model = provider and provider.find_model(model_ref, all_providers=providers)
    if not provider or not model:
        return None
    if tier == "standard":
        prices = model.get_prices(when)
    elif any(model is own for own in provider.models) and _has_tier(model, tier, when):
        prices = model.get_prices(when, {"service_tier": tier})
    else:
        return None  # genai-prices falls back to the standard price here, without a word
    values = {key: value for key, value in vars(prices).items() if value is not None}
    if not values and (model_ref.endswith(":free") or model.id == "moderation"):
        # No prices at all may also mean "not known" or "by subscription". These two are known to
        # cost nothing: OpenRouter's free variants, and moderations (OpenAI, "free to use").
        return _Tariff(version, (), free=True)
    if "input_mtok" not in values and "output_mtok" not in values:
        return None  # billed by the second or the character, which is not counted here
    return _tariff(version, values)


def _tariff(version: str, prices: "Mapping[str, Decimal | genai.TieredPrices]") -> _Tariff:
    """Turn prices, by their genai-prices keys, into a tariff."""
    starts = {t.start for price in prices.values() for t in getattr(price, "tiers", ())}
    bands = [
        _band(above, {key: _above(price, above) for key, price in prices.items()})
        for above in sorted({-1, *starts}, reverse=True)
    ]
    return _Tariff(version, tuple(bands), free=not any(prices.values()))


def _has_tier(model: "genai.ModelInfo", tier: str, when: datetime) -> bool:
    """Say whether the data has prices of its own for a service tier at that time."""
    return any(
        variant.when == {"service_tier": tier}
        and (variant.constraint is None or variant.constraint.active(when))
        for variant in model.price_variants or ()
    )


def _above(price: "Decimal | genai.TieredPrices", above: int) -> Decimal:
    """Return the price of all tokens of a call whose input is larger than ``above``."""
    if isinstance(price, Decimal):
        return price
    return next((t.price for t in reversed(price.tiers) if above >= t.start), price.base)


def _band(above: int, prices: Mapping[str, Decimal]) -> _Band:
    """Turn prices in USD per million tokens, by their genai-prices keys, into rates."""
    sides = [
        _Side(
            rate=_scaled(prices[total]) if total in prices else None,
            parts=tuple((b, _scaled(prices[key])) for b, key in parts.items() if key in prices),
            overlaps=tuple(
                pair for key, pair in _OVERLAPS.items() if key in prices and pair[0] in parts
            ),
            refused=tuple(b for b in _NEVER_AS_TEXT if b in parts and parts[b] not in prices),
        )
        for total, parts in (("input_mtok", _INPUT_PARTS), ("output_mtok", _OUTPUT_PARTS))
    ]
    # The one price that is not per million: of a thousand calls.
    per_call = _scaled(prices.get("requests_kcount", Decimal(0))) * 1000
    return _Band(above, sides[0], sides[1], per_call)


def _tier(name: str | None) -> str:
    return _TIERS.get(name, name) if name else "standard"


def _scaled(usd_per_million: Decimal) -> int:
    """Return a price as an integer rate per token; ValueError where it is not exactly one."""
    if not usd_per_million.is_finite() or usd_per_million < 0:
        raise ValueError(f"a price is a number of USD from 0, not {usd_per_million}")
    numerator, denominator = usd_per_million.as_integer_ratio()
    rate, rest = divmod(numerator * _NUSD_PER_USD * _SCALE, denominator * 1_000_000)
    if rest:
        raise ValueError(f"a price has at most 18 decimal places, not {usd_per_million}")
    return rate


def _rounded(cost: int) -> int:
    """Round to whole nano-USD, halves to even."""
    nusd, rest = divmod(cost, _SCALE)
    return nusd + (rest * 2 > _SCALE or (rest * 2 == _SCALE and nusd % 2 == 1))
