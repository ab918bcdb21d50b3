"""What happened to a request and why, in words for people, from its record alone."""

from dataclasses import dataclass
from typing import Any

from apps.audit.models import RequestRecord, Status
from apps.audit.money import usd_from_nano


@dataclass(frozen=True, slots=True)
class Reading:
    """A limit as the request met it."""

    policy: str
    what: str
    left: str


def explain(record: RequestRecord) -> str:
    """Return in a sentence or two how the request ended and why."""
    match record.status:
        case Status.SUCCESS:
            return f"{_served_by(record)} answered in {record.latency_ms:,} ms: {_used(record)}."
        case Status.BLOCKED:
            return f"Refused, and no provider was called. {_said(record)}"
        case Status.CANCELLED:
            return f"The client left before the answer was complete. What was produced by then counts: {_used(record)}."
        case Status.INTERRUPTED:
            return f"The gateway's process ended before the answer; the provider's part is unknown: {_used(record)}."
        case _:
            return f"{_served_by(record) if record.attempts else 'The gateway'} failed. {_said(record)}"


def readings(record: RequestRecord) -> list[Reading]:
    """Return the limits that were read for the request, as far as the record can be understood."""
    return readings_of(record.limits)


def readings_of(limits: list[Any]) -> list[Reading]:
    """Return limits, in the shape in which records keep them, in words."""
    return [_reading(entry) for entry in limits if isinstance(entry, dict)]


def price(record: RequestRecord) -> str:
    """Return the price that applied, in USD for a million tokens; empty where none did."""
    stamp = record.price if isinstance(record.price, dict) else {}
    sides = [stamp.get(f"{side}_nano_usd_per_million") for side in ("input", "output")]
    if not all(isinstance(side, int) for side in sides):
        return ""
    amounts = [usd_from_nano(side) for side in sides if isinstance(side, int)]
    source = "our own price" if stamp.get("source") == "own" else "price catalogue"
    return f"{amounts[0]} USD per million input tokens, {amounts[1]} USD per million output tokens ({source})"


def _reading(entry: dict[str, Any]) -> Reading:
    policy = str(entry.get("policy", ""))
    if entry.get("kind") == "cost_cap":
        spent, held = entry.get("spent_nano_usd"), entry.get("reserved_nano_usd")
        left = f"{_usd(spent)} spent, {_usd(held)} set aside before" if isinstance(spent, int) else ""
        per = "in total" if entry.get("per") == "total" else f"a {entry.get('per')}"
        return Reading(policy, f"{_usd(entry.get('limit_nano_usd'))} {per}", left)
    if entry.get("kind") == "request_limits":
        return _request_reading(policy, entry)
    window = entry.get("window_seconds")
    span = f" in {window:,} s" if isinstance(window, int) else ""
    return Reading(policy, f"{entry.get('limit')} {entry.get('kind')}{span}", f"{entry.get('remaining')} left")


def _request_reading(policy: str, entry: dict[str, Any]) -> Reading:
    asked = entry.get("asked")
    asked = asked if isinstance(asked, dict) else {}
    most = [
        f"{entry[f'max_{side}_tokens']} {side} tokens"
        for side in ("input", "output")
        if entry.get(f"max_{side}_tokens") is not None
    ]
    said = [f"{asked[f'{side}_tokens']} {side} tokens" for side in ("input", "output") if asked.get(f"{side}_tokens")]
    said += [str(feature) for feature in asked.get("features") or ()]
    given = entry.get("output_allowance")
    left = f"asks for {', '.join(said)}" if said else ""
    left += f"{'; ' if left else ''}the answer was limited to {given} tokens" if given is not None else ""
    return Reading(policy, f"{' and '.join(most)} a request" if most else "features of a request", left)


def _usd(nano: Any) -> str:
    return f"{usd_from_nano(nano)} USD" if isinstance(nano, int) else "?"


def _served_by(record: RequestRecord) -> str:
    if not record.provider:
        return "The provider"
    return f"{record.provider} ({record.upstream_model})" if record.upstream_model else record.provider


def _used(record: RequestRecord) -> str:
    return f"{record.tokens_input:,} input and {record.tokens_output:,} output tokens, {record.cost_usd} USD"


def _said(record: RequestRecord) -> str:
    return f"{record.error_message} ({record.error_code})" if record.error_code else record.error_message
