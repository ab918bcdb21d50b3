"""What a record keeps of limits, prices and findings, in words for people.

Records are read as they are stored, those of older versions too: what an entry lacks is left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from apps.audit.models import RequestRecord
from apps.audit.money import usd_from_nano
from apps.policies.prices import worst_from_json

_WINDOWS: dict[int | float, str] = {1: "a second", 60: "a minute", 3600: "an hour", 86_400: "a day"}
_PERIODS = {"day": "a day", "week": "a week", "month": "a month", "total": "in total"}


@dataclass(frozen=True, slots=True)
class Reading:
    """A limit as a request met it: what it allows, what was left of it, and what the request asked for."""

    policy: str
    policy_id: str
    what: str
    left: str
    asked: str


def readings(record: RequestRecord) -> list[Reading]:
    """Return the limits that were read for the request, as far as the record can be understood."""
    return readings_of(record.limits)


def readings_of(limits: Any) -> list[Reading]:
    """Return limits, in the shape in which records keep them, in words."""
    return [_reading(entry) for entry in entries(limits)]


def entries(stored: Any) -> Iterator[dict[str, Any]]:
    """Give those entries of a stored list that can be read."""
    yield from (entry for entry in (stored if isinstance(stored, list) else ()) if isinstance(entry, dict))


def dollars(nano: Any) -> str:
    """Write nano-USD as people do: ``$50``, ``$49.98``, ``$0.000015``; ``?`` for what is no amount."""
    return f"${usd_from_nano(nano).removesuffix('.00')}" if isinstance(nano, int) else "?"


def price(record: RequestRecord) -> str:
    """Return the price that applied, for a million tokens; empty where none did."""
    stamp = record.price if isinstance(record.price, dict) else {}
    sides = {side: stamp.get(f"{side}_nano_usd_per_million") for side in ("input", "output", "cached_input")}
    if not (isinstance(sides["input"], int) and isinstance(sides["output"], int)):
        return ""
    cached = f", {dollars(sides['cached_input'])} for input from a cache" if sides["cached_input"] is not None else ""
    tiers = ", more above a certain size of the input" if stamp.get("tiers") else ""
    source = "the platform's own price" if stamp.get("source") == "own" else "the price catalogue's"
    return (
        f"{dollars(sides['input'])} per million input tokens, {dollars(sides['output'])} per million output tokens"
        f"{cached}{tiers} ({source})"
    )


def window_of(entry: dict[str, Any]) -> str:
    """Return the span of time that a limit's reading is about: ``a minute``, ``a day``, ``in any 24 hours``."""
    if entry.get("kind") == "cost_cap":
        if isinstance(entry.get("span_hours"), int):
            return f"in any {entry['span_hours']} hours"
        return _PERIODS.get(str(entry.get("per")), "in a rolling span of time")
    seconds = entry.get("window_seconds")
    if seconds is None:
        return "at the same time"
    return _WINDOWS.get(seconds, f"in {seconds:,} s") if isinstance(seconds, int | float) else ""


def could_cost(entry: dict[str, Any]) -> int | None:
    """Return the worst case, in nano-USD, that was held against a budget; ``None`` where the record does not say."""
    try:
        return worst_from_json(entry["asked"]).nano_usd
    except (KeyError, TypeError, ValueError):
        return None


def left_of(entry: dict[str, Any]) -> int | None:
    """Return what a budget had left, in nano-USD; ``None`` where the record does not say: a platform's budget."""
    limit, spent, held = (entry.get(f"{name}_nano_usd") for name in ("limit", "spent", "reserved"))
    if isinstance(limit, int) and isinstance(spent, int) and isinstance(held, int):
        return max(0, limit - spent - held)
    return None


def counted(number: Any, noun: str) -> str:
    """Return a number with its noun: ``1 token``, ``2,000 tokens``. ``noun`` is given in the plural."""
    if not isinstance(number, int | float):
        return f"? {noun}"
    return f"{number:,} {noun.removesuffix('s') if number == 1 else noun}"


def _reading(entry: dict[str, Any]) -> Reading:
    what, left, asked = _WORDS.get(str(entry.get("kind")), _rate)(entry)
    return Reading(str(entry.get("policy", "")), str(entry.get("policy_id", "")), what, left, asked)


def _cost_cap(entry: dict[str, Any]) -> tuple[str, str, str]:
    left, could = left_of(entry), could_cost(entry)
    spent, held = dollars(entry.get("spent_nano_usd")), dollars(entry.get("reserved_nano_usd"))
    said = "" if left is None else f"{dollars(left)} left: {spent} spent, {held} set aside for requests under way"
    return f"{dollars(entry.get('limit_nano_usd'))} {window_of(entry)}", said, _at_most(could)


def _at_most(nano: int | None) -> str:
    return "" if nano is None else f"{dollars(nano)} at most"


def _request_limits(entry: dict[str, Any]) -> tuple[str, str, str]:
    most = [
        counted(entry[f"max_{side}_tokens"], f"{side} tokens")
        for side in ("input", "output")
        if entry.get(f"max_{side}_tokens") is not None
    ]
    asked = entry["asked"] if isinstance(entry.get("asked"), dict) else {}
    sides = [f"{side}_tokens" for side in ("input", "output") if asked.get(f"{side}_tokens")]
    said = [counted(asked[side], side.replace("_", " ")) for side in sides]
    said += [str(feature) for feature in asked.get("features") or ()]
    given = entry.get("output_allowance")
    left = f"the answer was limited to {counted(given, 'tokens')}" if given is not None else ""
    return f"{' and '.join(most)} a request" if most else "features of a request", left, ", ".join(said)


def _rate(entry: dict[str, Any]) -> tuple[str, str, str]:
    kind, left, asked = str(entry.get("kind", "")), entry.get("remaining"), entry.get("asked")
    noun = "requests" if kind == "concurrent" else kind
    said = "" if left is None else f"{left:,} left" if isinstance(left, int | float) else f"{left} left"
    return (
        f"{counted(entry.get('limit'), noun)} {window_of(entry)}",
        said,
        "" if asked is None else counted(asked, noun),
    )


_WORDS = {"cost_cap": _cost_cap, "request_limits": _request_limits}
