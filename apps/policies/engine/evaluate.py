"""The decision: what the policies of a caller's scopes say about a request."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from apps.policies.engine.kinds import CostCap, Guardrail, ModelRestriction, RateLimitRule, RequestLimits
from apps.policies.engine.policy import Broken, Level, Mode, Policy

Scope = tuple[Level, UUID | None]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a decision depends on: the caller's scopes, the model as asked for, and when (UTC)."""

    organization_id: UUID
    application_id: UUID | None
    user_id: UUID | None
    api_key_id: UUID | None
    model: str
    moment: datetime

    def scopes(self) -> tuple[Scope, ...]:
        """Return the scopes of the caller, widest first. Nobody's application, user or key is no scope."""
        narrower = (
            (Level.APPLICATION, self.application_id),
            (Level.USER, self.user_id),
            (Level.KEY, self.api_key_id),
        )
        wide: tuple[Scope, ...] = ((Level.PLATFORM, None), (Level.ORGANIZATION, self.organization_id))
        return wide + tuple(scope for scope in narrower if scope[1] is not None)


class PolicyIndex:
    """Policies by the scope they stand on, so that a decision looks at those of its caller and at no others."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._by_scope: dict[Scope, list[Policy]] = {}
        edges = set()
        for policy in policies:
            self._by_scope.setdefault((policy.level, policy.scope_id), []).append(policy)
            edges |= {policy.terms.valid_from, policy.terms.valid_until} - {None}
        self._edges: list[datetime] = sorted(edge for edge in edges if edge is not None)

    def on(self, scopes: Iterable[Scope]) -> list[Policy]:
        """Return the policies on some scopes, in the order of the scopes."""
        return [policy for scope in scopes for policy in self._by_scope.get(scope, ())]

    def steady_since(self, moment: datetime) -> datetime:
        """Return the last moment up to ``moment`` at which a policy began or ended to hold: nothing changed since."""
        passed = bisect_right(self._edges, moment)
        return self._edges[passed - 1] if passed else BEFORE_ALL_DATES


BEFORE_ALL_DATES = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a request was refused, or in shadow mode would have been. ``policy`` is ``None`` where none allows it."""

    code: str
    message: str
    policy: Policy | None
    enforced: bool = True

    def as_json(self) -> dict[str, Any]:
        """What a record keeps of it."""
        said: dict[str, Any] = {"code": self.code, "message": self.message, "enforced": self.enforced}
        if self.policy is not None:
            said |= {"policy": self.policy.name, "policy_id": str(self.policy.id), "version": self.policy.version}
        return said


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policies say. The rules that later stages apply come along with the policy each is from."""

    reasons: tuple[Reason, ...]
    applied: tuple[Policy, ...]
    rate_limits: tuple[tuple[Policy, RateLimitRule], ...]
    cost_caps: tuple[tuple[Policy, CostCap], ...]
    guardrails: tuple[tuple[Policy, Guardrail], ...]
    request_limits: tuple[tuple[Policy, RequestLimits], ...] = ()

    @property
    def refusal(self) -> Reason | None:
        """The first reason that refuses; ``None`` if the request is allowed so far."""
        return first_enforced(self.reasons)


def first_enforced(reasons: Iterable[Reason]) -> Reason | None:
    """Return the first reason that refuses; ``None`` if none does."""
    return next((reason for reason in reasons if reason.enforced), None)


MODEL_NOT_ALLOWED = "MODEL_NOT_ALLOWED"
FORBIDDEN = "FORBIDDEN"


def evaluate(facts: Facts, policies: PolicyIndex) -> Decision:
    """Decide. A model needs a restriction that allows it, and every scope that has any must allow it; deny wins."""
    applied = tuple(
        p for p in policies.on(facts.scopes()) if p.mode is not Mode.OFF and p.terms.cover(facts.model, facts.moment)
    )
    return Decision(
        reasons=(*_broken(applied), *_model_reasons(facts.model, applied)),
        applied=applied,
        rate_limits=tuple((p, p.rule) for p in applied if isinstance(p.rule, RateLimitRule)),
        cost_caps=tuple((p, p.rule) for p in applied if isinstance(p.rule, CostCap)),
        guardrails=tuple((p, p.rule) for p in applied if isinstance(p.rule, Guardrail)),
        request_limits=tuple((p, p.rule) for p in applied if isinstance(p.rule, RequestLimits)),
    )


def _broken(applied: Sequence[Policy]) -> list[Reason]:
    return [
        Reason(
            FORBIDDEN,
            f"Policy '{p.name}' cannot be read and therefore denies: {p.rule.message}",
            p,
            p.enforced,
        )
        for p in applied
        if isinstance(p.rule, Broken)
    ]


def _model_reasons(model: str, applied: Sequence[Policy]) -> list[Reason]:
    restrictions = [(p, p.rule) for p in applied if isinstance(p.rule, ModelRestriction)]
    reasons = [
        Reason(MODEL_NOT_ALLOWED, f"Policy '{p.name}' denies the model '{model}'.", p, p.enforced)
        for p, rule in restrictions
        if any(pattern.match(model) for pattern in rule.deny)
    ]
    reasons += [r for level in Level for r in _not_allowed_at(level, model, restrictions)]
    if not any(p.enforced and _allows(rule, model) for p, rule in restrictions) and not reasons:
        reasons.append(Reason(MODEL_NOT_ALLOWED, f"No policy allows the model '{model}'.", None))
    return reasons


def _not_allowed_at(level: Level, model: str, restrictions: Sequence[tuple[Policy, ModelRestriction]]) -> list[Reason]:
    here = [(p, rule) for p, rule in restrictions if p.level is level and rule.allow]
    enforced = [(p, rule) for p, rule in here if p.enforced]
    refused = []
    # Allow lists of one scope add up; a scope's shadow lists are judged apart, since they must never refuse.
    for group in (enforced, [(p, rule) for p, rule in here if not p.enforced]):
        if group and not any(_allows(rule, model) for _, rule in group):
            policy = group[0][0]
            message = f"Policy '{policy.name}' does not allow the model '{model}'."
            refused.append(Reason(MODEL_NOT_ALLOWED, message, policy, policy.enforced))
    return refused


def _allows(rule: ModelRestriction, model: str) -> bool:
    return any(pattern.match(model) for pattern in rule.allow)
