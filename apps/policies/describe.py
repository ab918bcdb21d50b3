"""A policy in one sentence, for people."""

from collections.abc import Mapping
from typing import Any

from apps.policies.engine.kinds import (
    CostCap,
    Direction,
    FindingAction,
    Fit,
    Guardrail,
    ModelRestriction,
    Per,
    RateLimitRule,
)
from apps.policies.engine.policy import Broken, read_rule

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
        return f"Broken, and therefore denies every request: {rule.message}"
    match rule:
        case ModelRestriction():
            return _model_restriction(config)
        case RateLimitRule():
            return _rate_limit(rule, config["per"] if rule.window_seconds else "")
        case CostCap():
            return _cost_cap(rule, config["limit_usd"])
        case Guardrail():
            return _guardrail(rule)


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
        names = [DETECTOR_NAMES[name] for name, chosen in rule.detectors.items() if chosen is action]
        if names:
            parts.append(f"{action}s {_enumerated(names)}")
    return _sentence(f"{', '.join(parts)} {_WHERE[rule.direction]}")


def _listed(patterns: list[str]) -> str:
    if patterns == ["*"]:
        return "every model"
    shown, more = patterns[:MOST_PATTERNS], len(patterns) - MOST_PATTERNS
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _enumerated(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
