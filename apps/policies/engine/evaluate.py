"""The decision: what the policies of a caller's scopes say about a request."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from apps.policies.engine.kinds import CostCap, Guardrail, ModelRestriction, RateLimitRule
from apps.policies.engine.policy import Broken, Level, Mode, Policy


@dataclass(frozen=True, slots=True)
class Facts:
    """What a decision depends on: the caller's scopes and the model as asked for."""

    organization_id: UUID
    application_id: UUID | None
    user_id: UUID | None
    api_key_id: UUID | None
    model: str

    def covers(self, policy: Policy) -> bool:
        """Whether ``policy`` stands on one of the caller's scopes."""
        return policy.scope_id == self._scopes()[policy.level]

    def _scopes(self) -> Mapping[Level, UUID | None]:
        # A missing application, user or key is a scope no policy can stand on; the platform's is None on both sides.
        nobody = UUID(int=0)
        return {
            Level.PLATFORM: None,
            Level.ORGANIZATION: self.organization_id,
            Level.APPLICATION: self.application_id or nobody,
            Level.USER: self.user_id or nobody,
            Level.KEY: self.api_key_id or nobody,
        }


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

    @property
    def refusal(self) -> Reason | None:
        """The first reason that refuses; ``None`` if the request is allowed so far."""
        return next((reason for reason in self.reasons if reason.enforced), None)


MODEL_NOT_ALLOWED = "MODEL_NOT_ALLOWED"
FORBIDDEN = "FORBIDDEN"


def evaluate(facts: Facts, policies: Iterable[Policy]) -> Decision:
    """Decide. A model needs a restriction that allows it, and every scope that has any must allow it; deny wins."""
    applied = tuple(p for p in policies if p.mode is not Mode.OFF and facts.covers(p))
    return Decision(
        reasons=(*_broken(applied), *_model_reasons(facts.model, applied)),
        applied=applied,
        rate_limits=tuple((p, p.rule) for p in applied if isinstance(p.rule, RateLimitRule)),
        cost_caps=tuple((p, p.rule) for p in applied if isinstance(p.rule, CostCap)),
        guardrails=tuple((p, p.rule) for p in applied if isinstance(p.rule, Guardrail)),
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
