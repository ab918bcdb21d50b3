"""What a model costs: the organization's operator's own prices first, then the public catalogue of genai-prices.

Everything here is integers: nano-USD for a million tokens, and costs in nano-USD rounded up once for each request.
"""

import fnmatch
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from genai_prices import data_snapshot
from genai_prices.types import TieredPrices

from apps.audit.money import nano_from_usd
from apps.policies.models import Price

MILLION = 1_000_000
_CATALOGUE_PROVIDERS = {"openai": "openai", "openai_compatible": "openai", "anthropic": "anthropic"}


@dataclass(frozen=True, slots=True)
class Rate:
    """Nano-USD for a million tokens: ``tiers`` of (first input token count above which it holds, rate), ascending."""

    tiers: tuple[tuple[int, int], ...]
    highest: int = field(init=False, compare=False)
    """The highest rate of all tiers."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "highest", max(rate for _, rate in self.tiers))

    def at(self, input_tokens: int) -> int:
        """Return the rate for all tokens of a request with that many input tokens (catalogue tiers are cliffs)."""
        rate = self.tiers[0][1]
        for start, tier in self.tiers:
            if input_tokens > start:
                rate = tier
        return rate


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """What one model costs at a time, and where that was read."""

    input: Rate
    output: Rate
    cached_input: Rate
    cache_write: Rate
    source: str
    stamp: dict[str, Any] = field(init=False, compare=False, repr=False)
    """What a record keeps of it: in full where it differs by the size of the input, or for what a cache held."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stamp", self._stamp())

    def cost(self, input_tokens: int, output_tokens: int, cached: int = 0, cache_written: int = 0) -> int:
        """Return the cost in nano-USD; ``cached`` and ``cache_written`` are parts of ``input_tokens``."""
        plain = max(0, input_tokens - cached - cache_written)
        total = (
            plain * self.input.at(input_tokens)
            + cached * self.cached_input.at(input_tokens)
            + cache_written * self.cache_write.at(input_tokens)
            + output_tokens * self.output.at(input_tokens)
        )
        return -(-total // MILLION)

    def worst_input(self, input_tokens: int) -> int:
        """Return the most that input can cost, in nano-USD times a million (to be rounded with the output's)."""
        return input_tokens * max(self.input.highest, self.cached_input.highest, self.cache_write.highest)

    def _stamp(self) -> dict[str, Any]:
        sides = {"input": self.input, "output": self.output, "cached_input": self.cached_input}
        stamp: dict[str, Any] = {"source": self.source}
        stamp |= {
            f"{side}_nano_usd_per_million": rate.tiers[0][1]
            for side, rate in sides.items()
            if side != "cached_input" or rate != self.input
        }
        tiers = {side: rate.tiers for side, rate in sides.items() if len(rate.tiers) > 1}
        return stamp | ({"tiers": tiers} if tiers else {})


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The most a request can cost: its input, and each token of output it may produce."""

    input_times_million: int
    output_rate: int
    output_tokens: int
    least_output: int = 1
    """The fewest output tokens with which it can be sent: one for each choice."""

    @property
    def nano_usd(self) -> int:
        """The whole worst case."""
        return self.with_output(self.output_tokens)

    def with_output(self, tokens: int) -> int:
        """Return the worst case if at most ``tokens`` are produced."""
        return -(-(self.input_times_million + tokens * self.output_rate) // MILLION)

    def as_json(self) -> dict[str, Any]:
        """Write it exactly: what may be beyond 64 bits is a text."""
        return {
            "input_times_million": str(self.input_times_million),
            "output_rate": str(self.output_rate),
            "output_tokens": self.output_tokens,
            "least_output": self.least_output,
        }

    def output_within(self, nano_usd: int) -> int:
        """Return the most output tokens that ``nano_usd`` reaches for; negative if the input alone is above it."""
        left = nano_usd * MILLION - self.input_times_million
        if left < 0:
            return -1
        return min(self.output_tokens, left // self.output_rate) if self.output_rate else self.output_tokens


def worst_from_json(said: dict[str, Any]) -> WorstCase:
    """Read what `WorstCase.as_json` wrote."""
    return WorstCase(
        int(said["input_times_million"]), int(said["output_rate"]), said["output_tokens"], said.get("least_output", 1)
    )


class PriceBook:
    """Our own prices as of one reading of the configuration, and the catalogue behind them."""

    def __init__(self, rows: Iterable[Price]) -> None:
        self._rows = [(re.compile(fnmatch.translate(row.model)), row) for row in rows]

    def price(self, provider: str, model: str, at: datetime) -> ModelPrice | None:
        """Return the price of a provider's model at a time (aware); ``None`` if nobody names one."""
        own = [row for pattern, row in self._rows if _covers(pattern, row, provider, model, at)]
        if own:
            # The most particular name wins, then the latest day.
            return _own(max(own, key=lambda row: ("*" not in row.model, len(row.model), row.effective_from)))
        return catalogue_price(provider, model, at.replace(second=0, microsecond=0))


def _covers(pattern: re.Pattern[str], row: Price, provider: str, model: str, at: datetime) -> bool:
    return row.provider in ("", provider) and row.effective_from <= at and bool(pattern.match(model))


def _own(row: Price) -> ModelPrice:
    flat = Rate(((0, row.input_nano_usd),))
    cached = flat if row.cached_input_nano_usd is None else Rate(((0, row.cached_input_nano_usd),))
    return ModelPrice(flat, Rate(((0, row.output_nano_usd),)), cached, flat, "own")


@functools.lru_cache(maxsize=4096)
def catalogue_price(provider: str, model: str, minute: datetime) -> ModelPrice | None:
    """Return the catalogue's price at a time (aware), ``None`` if it does not know the model or its price for tokens.

    Its prices begin on a day, and some hold for some hours of each: what was found is remembered for a minute.
    """
    info = _catalogue_entry(provider, model)
    prices = info.get_prices(minute) if info else None
    if prices is None or prices.input_mtok is None or prices.output_mtok is None:
        return None
    plain = _rate(prices.input_mtok)
    cached = plain if prices.cache_read_mtok is None else _rate(prices.cache_read_mtok)
    written = plain if prices.cache_write_mtok is None else _rate(prices.cache_write_mtok)
    return ModelPrice(plain, _rate(prices.output_mtok), cached, written, "genai-prices")


@functools.lru_cache(maxsize=4096)
def context_window(provider: str, model: str) -> int | None:
    """Return the catalogue's context window of a model in tokens, ``None`` if it is not known."""
    info = _catalogue_entry(provider, model)
    return info.context_window if info else None


def _catalogue_entry(provider: str, model: str) -> Any:
    if provider not in _CATALOGUE_PROVIDERS:
        return None
    try:
        _, info = data_snapshot.get_snapshot().find_provider_model(model, None, _CATALOGUE_PROVIDERS[provider], None)
    except LookupError:
        return None
    return info


def _rate(price: Decimal | TieredPrices) -> Rate:
    if isinstance(price, TieredPrices):
        return Rate(((0, nano_from_usd(price.base)), *((t.start, nano_from_usd(t.price)) for t in price.tiers)))
    return Rate(((0, nano_from_usd(price)),))
