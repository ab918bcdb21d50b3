"""A policy in one sentence, for people."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from apps.policies.engine.kinds import (
    CostCap,
    Direction,
    Feature,
    FindingAction,
    Fit,
    Guardrail,
    ModelRestriction,
    Per,
    RateLimitRule,
    RequestLimits,
    Unscannable,
)
from apps.policies.engine.policy import Broken, Mode, Policy, read_rule

MOST_PATTERNS = 5
DETECTOR_NAMES = {
    "email": "e-mail addresses",
    "phone": "phone numbers",
    "ssn": "social security numbers",
    "credit_card": "credit card numbers",
    "ip_address": "IP addresses",
    "secret": "secrets",
    "injection": "prompt injections",
}
_WHERE = {
    Direction.INPUT: "in requests",
    Direction.OUTPUT: "in answers",
    Direction.BOTH: "in requests and answers",
}
_PERIODS = {Per.DAY: "a day", Per.WEEK: "a week", Per.MONTH: "a month", Per.TOTAL: "in total"}


def describe(kind: str, config: Any) -> str:
    """Return in one sentence what a policy of ``kind`` does; of a broken one, that it denies and why."""
    rule = read_rule(kind, config)
    if isinstance(rule, Broken):
        return _broken(rule)
    match rule:
        case ModelRestriction():
            return _model_restriction(config)
        case RateLimitRule():
            return _rate_limit(rule, config["per"] if rule.window_seconds else "")
        case CostCap():
            return _cost_cap(rule, config["limit_usd"])
        case Guardrail():
            return _guardrail(rule)
        case RequestLimits():
            return _request_limits(rule)


class Stored(Protocol):
    """A policy, or a version of one, as it is stored."""

    kind: str
    mode: str
    config: Any
    models: Any
    valid_from: datetime | None
    valid_until: datetime | None

    def read(self) -> Policy:
        """Return the policy as the engine sees it."""
        ...


def describe_stored(row: Stored) -> str:
    """Return in words what a policy does, for which models and when; of a broken one, that it denies and why."""
    rule = row.read().rule
    if isinstance(rule, Broken):
        return _broken(rule)
    said = describe(row.kind, row.config)
    if row.models:
        said += f" For {_listed(row.models)} only."
    dates = [
        f"{word} {moment:%Y-%m-%d %H:%M} UTC"
        for word, moment in (("from", row.valid_from), ("until", row.valid_until))
        if moment is not None
    ]
    return f"{said} Holds {' '.join(dates)}." if dates else said


_MODES = {
    Mode.SHADOW: "In shadow: refuses nothing and records what it would have refused. Enforced, it would say: ",
    Mode.OFF: "Off: does nothing. Enforced, it would say: ",
}


def describe_in_full(row: Stored) -> str:
    """Return in words what a policy does in its mode: `describe_stored`, and that it is in shadow or off."""
    return _MODES.get(row.read().mode, "") + describe_stored(row)


def _broken(rule: Broken) -> str:
    return f"Broken, and therefore denies every request: {rule.message}"


def _model_restriction(config: Mapping[str, Any]) -> str:
    # The rule holds compiled patterns; people read them as they were written.
    parts = [
        f"{verb} {_listed(config[field])}"
        for verb, field in (("allows", "allow"), ("denies", "deny"))
        if config.get(field)
    ]
    return _sentence(" and ".join(parts) or "denies nothing")


def _rate_limit(rule: RateLimitRule, per: str) -> str:
    counted = [
        f"{value:,} {noun if value != 1 else noun.removesuffix('s')}"
        for value, noun in ((rule.requests, "requests"), (rule.tokens, "tokens"))
        if value is not None
    ]
    parts = [f"{' and '.join(counted)} a {per}"] if counted else []
    if rule.concurrent is not None:
        parts.append(f"{rule.concurrent:,} at the same time")
    return _sentence(f"at most {', and '.join(parts)}")


def _cost_cap(rule: CostCap, limit_usd: str) -> str:
    window = f"in any {rule.span_hours} hours" if rule.span_hours else _PERIODS[rule.per]
    amount = f"{limit_usd} USD {window}"
    if not rule.hard:
        return f"Watches a budget of {amount}; requests above it are recorded, not refused."
    beyond = "a request that could cost more than what is left is "
    fit = "refused" if rule.fit is Fit.REFUSE else "given a shorter answer, if that fits"
    return f"At most {amount}; {beyond}{fit}."


def _guardrail(rule: Guardrail) -> str:
    parts = []
    for action in reversed(FindingAction):
        # In one order, whatever a database makes of that of the stored object.
        names = [said for name, said in DETECTOR_NAMES.items() if rule.detectors.get(name) is action]
        if names:
            parts.append(f"{action}s {_enumerated(names)}")
    said = _sentence(f"{', '.join(parts)} {_WHERE[rule.direction]}")
    return said if rule.unscannable is Unscannable.BLOCK else f"{said} Pictures and files pass unread."


FEATURE_NAMES = {
    Feature.TOOLS: "tools",
    Feature.IMAGES: "images",
    Feature.STREAMING: "streamed answers",
    Feature.N: "several choices (n)",
}


def _request_limits(rule: RequestLimits) -> str:
    most = [
        f"{value:,} {side} tokens"
        for value, side in ((rule.max_input_tokens, "input"), (rule.max_output_tokens, "output"))
        if value is not None
    ]
    parts = [f"at most {' and '.join(most)} in a request"] if most else []
    if rule.forbidden:
        parts.append(f"no {' and no '.join(name for key, name in FEATURE_NAMES.items() if key in rule.forbidden)}")
    return _sentence(", ".join(parts))


def _listed(patterns: list[str]) -> str:
    if patterns == ["*"]:
        return "every model"
    shown, more = patterns[:MOST_PATTERNS], len(patterns) - MOST_PATTERNS
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _enumerated(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
