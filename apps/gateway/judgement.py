"""A decision and what the later stages need of it, worked out once for all requests with the same facts."""

from dataclasses import dataclass
from typing import Any

from apps.gateway.inspection import Guard, guard_for, safe_text
from apps.gateway.limits import LimitSet, limits_of
from apps.policies.engine.evaluate import Decision, Reason
from apps.policies.engine.kinds import Direction
from apps.policies.rates.base import RateLimit


@dataclass(frozen=True, slots=True)
class Judgement:
    """A decision with its limits, guards, and what a record keeps of it (``stamps`` of policies, ``reasons``)."""

    decision: Decision
    limits: LimitSet
    to_release: tuple[tuple[str, tuple[RateLimit, ...]], ...]
    input_guard: Guard
    output_guard: Guard
    stamps: list[dict[str, Any]]
    reasons: list[dict[str, Any]]


def judgement_of(decision: Decision) -> Judgement:
    """Work out what follows from a decision."""
    limits = limits_of(decision)
    return Judgement(
        decision=decision,
        limits=limits,
        to_release=limits.to_release(),
        input_guard=guard_for(decision, Direction.INPUT),
        output_guard=guard_for(decision, Direction.OUTPUT),
        stamps=[policy.stamp() for policy in decision.applied],
        reasons=[storable(reason) for reason in decision.reasons],
    )


def storable(reason: Reason) -> dict[str, Any]:
    """Return what a record keeps of a reason: its message may quote the caller, so it is redacted like every text."""
    return reason.as_json() | {"message": safe_text(reason.message)}
