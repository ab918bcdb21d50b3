"""Rate limits on the request's path: taken before the call, corrected after it, given back if no call is made."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from apps.policies.engine.evaluate import Decision, Reason
from apps.policies.engine.kinds import RateLimitRule
from apps.policies.engine.policy import Policy
from apps.policies.rates.base import RateKind, RateLimit, RateReading, RateVerdict

RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
SHADOW = ":shadow"


@dataclass(frozen=True, slots=True)
class LimitSet:
    """The limits of a decision: those that refuse, and those in shadow that only record what they would do."""

    enforced: tuple[RateLimit, ...]
    shadow: tuple[RateLimit, ...]

    def to_release(self) -> tuple[tuple[str, tuple[RateLimit, ...]], ...]:
        """Return, by the suffix they were taken under, what a request's end changes: all but counts of requests."""
        return tuple(
            (suffix, limits)
            for suffix, limits in (("", self.enforced), (SHADOW, self.shadow))
            if any(limit.kind is not RateKind.REQUESTS for limit in limits)
        )


def limits_of(decision: Decision) -> LimitSet:
    """Turn a decision's rate limit policies into counters to take from."""
    enforced = [limit for p, rule in decision.rate_limits if p.enforced for limit in _limits(p, rule)]
    shadow = [limit for p, rule in decision.rate_limits if not p.enforced for limit in _limits(p, rule)]
    return LimitSet(tuple(enforced), tuple(shadow))


def refusal_message(limit: RateLimit, retry_after_seconds: float) -> str:
    """Say which limit refused and when to come again."""
    if math.isinf(retry_after_seconds):
        return (
            f"Policy '{limit.policy_name}' allows {limit.limit} {limit.kind.value} {_window(limit)}; "
            "this request alone needs more."
        )
    return f"Policy '{limit.policy_name}' allows {limit.limit} {limit.kind.value} {_window(limit)}."


def shadow_reason(limit: RateLimit, decision: Decision) -> Reason:
    """Return what a record keeps of a limit in shadow that would have refused."""
    policy = next(p for p, _ in decision.rate_limits if str(p.id) == limit.policy_id)
    return Reason(RATE_LIMIT_EXCEEDED, refusal_message(limit, 0), policy, enforced=False)


def reading_json(reading: RateReading) -> dict[str, Any]:
    """Return what a record keeps of a limit that was read."""
    return {
        "policy_id": reading.limit.policy_id,
        "policy": reading.limit.policy_name,
        "kind": reading.limit.kind.value,
        "limit": reading.limit.limit,
        "window_seconds": reading.limit.window_seconds,
        "remaining": max(0, reading.remaining),
        "reset_seconds": _finite(reading.reset_seconds),
    }


def rate_headers(verdict: RateVerdict) -> list[tuple[str, str]]:
    """Return the tightest limit under ``X-RateLimit-*`` and, by kind, under OpenAI's own names. Resets in seconds."""
    if not verdict.readings:
        return []
    tightest = min(verdict.readings, key=_share_left)
    headers = [
        ("X-RateLimit-Limit", str(tightest.limit.limit)),
        ("X-RateLimit-Remaining", str(max(0, tightest.remaining))),
        ("X-RateLimit-Reset", str(math.ceil(_resets_in(tightest)))),
    ]
    for kind in (RateKind.REQUESTS, RateKind.TOKENS):
        of_kind = [reading for reading in verdict.readings if reading.limit.kind is kind]
        if of_kind:
            headers += _openai_headers(kind, min(of_kind, key=_share_left))
    return headers


def _openai_headers(kind: RateKind, reading: RateReading) -> Sequence[tuple[str, str]]:
    return (
        (f"x-ratelimit-limit-{kind.value}", str(reading.limit.limit)),
        (f"x-ratelimit-remaining-{kind.value}", str(max(0, reading.remaining))),
        (f"x-ratelimit-reset-{kind.value}", f"{_resets_in(reading):.3f}s"),
    )


def _limits(policy: Policy, rule: RateLimitRule) -> Iterable[RateLimit]:
    for kind, most, window in (
        (RateKind.REQUESTS, rule.requests, rule.window_seconds),
        (RateKind.TOKENS, rule.tokens, rule.window_seconds),
        (RateKind.CONCURRENT, rule.concurrent, None),
    ):
        if most is not None:
            # A changed window starts a new count; a changed number goes on with the old one.
            key = f"{policy.id}:{kind.value}:{window or 0}"
            yield RateLimit(key, str(policy.id), policy.name, kind, most, window)


def _window(limit: RateLimit) -> str:
    names: dict[float | None, str] = {
        None: "at once",
        1: "per second",
        60: "per minute",
        3600: "per hour",
        86_400: "per day",
    }
    return names.get(limit.window_seconds, f"in {limit.window_seconds} seconds")


def _share_left(reading: RateReading) -> float:
    return reading.remaining / reading.limit.limit


def _resets_in(reading: RateReading) -> float:
    """Return the seconds until a refused request would fit, or until a limit that has room is whole again.

    That is a whole window from now on, since this request was counted in it just now. A slot has no window.
    """
    if 0 < reading.reset_seconds < math.inf:
        return reading.reset_seconds
    return reading.limit.window_seconds or 0.0


def _finite(seconds: float) -> float:
    return 0.0 if math.isinf(seconds) else seconds
