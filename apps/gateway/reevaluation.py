"""An old decision, decided again: from its record and the published versions of the policies that the record names.

The same functions decide as on the request's path. What they are given comes from the record: who asked for which model
when, what the request asked for, what the detectors found, what was left of each limit and budget.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q

from apps.audit.models import RequestRecord
from apps.gateway.errors import BudgetExceeded, RateLimited
from apps.gateway.inspection import UNSCANNABLE, blocked_by, guard_for
from apps.gateway.judgement import storable
from apps.policies.budgets import Budgets, Claim, OverBudget, Part, Place, counter_as_read, place_of
from apps.policies.engine.evaluate import Decision, Facts, PolicyIndex, Reason, evaluate, first_enforced
from apps.policies.engine.kinds import Direction
from apps.policies.engine.policy import Policy
from apps.policies.engine.request import asked_from_json, request_reasons
from apps.policies.guardrails.findings import Detector
from apps.policies.models import PolicyVersion
from apps.policies.prices import worst_from_json


@dataclass(frozen=True, slots=True)
class Reevaluation:
    """What the policies said, and whether the record says the same.

    ``allowed`` is ``None`` for a request that was refused before the policies were asked. ``reasons`` are those found
    now, ``recorded`` those of the record. ``unseen`` says in words what the record does not show.
    """

    same: bool
    allowed: bool | None
    code: str
    reasons: list[dict[str, Any]]
    recorded: list[dict[str, Any]]
    unseen: list[str]


def reevaluate(record: RequestRecord) -> Reevaluation:
    """Decide again what was decided of a request."""
    if not record.policies and not record.reasons:
        return Reevaluation(True, None, "", [], [], ["It was refused before the policies were asked."])
    case = Case(record)
    reasons = case.decide()
    # A shadow limit's counter is not in the record; it refused nothing, so nothing of the decision is missing.
    recorded = [r for r in record.reasons if r.get("enforced", True) or r.get("code") != RateLimited.code]
    refusal = first_enforced(reasons)
    return Reevaluation(
        same=not case.missing and [_key(storable(r)) for r in reasons] == [_key(r) for r in recorded],
        allowed=refusal is None,
        code=refusal.code if refusal else "",
        reasons=[storable(reason) for reason in reasons],
        recorded=record.reasons,
        unseen=case.unseen,
    )


def _key(reason: dict[str, Any]) -> tuple[Any, ...]:
    # The words may change with the gateway; what was decided, by which version, must not.
    return tuple(reason.get(name) for name in ("code", "policy_id", "version", "enforced"))


class Case:
    """One record with the policies it names, as they were."""

    def __init__(self, record: RequestRecord) -> None:
        self._record = record
        self.unseen: list[str] = []
        policies, self.missing = _policies(record)
        self.unseen += [f"The version of policy '{name}' that applied is gone." for name in self.missing]
        facts = Facts(
            organization_id=record.organization_id,
            application_id=record.application_id,
            user_id=record.user_id,
            api_key_id=record.api_key_id,
            model=record.model,
            moment=record.timestamp,
        )
        self._decision: Decision = evaluate(facts, PolicyIndex(policies))

    def decide(self) -> list[Reason]:
        """Return the reasons, stage by stage, up to the first that refuses."""
        stages: tuple[Callable[[], list[Reason]], ...] = (
            lambda: list(self._decision.reasons),
            self._request,
            lambda: self._found("input", Direction.INPUT),
            self._unscannable,
            self._rates,
            self._budgets,
            lambda: self._found("output", Direction.OUTPUT),
        )
        reasons: list[Reason] = []
        for stage in stages:
            reasons += stage()
            if first_enforced(reasons):
                break
        return reasons

    def _readings(self, *kinds: str) -> list[dict[str, Any]]:
        return [reading for reading in self._record.limits if reading.get("kind") in kinds]

    def _request(self) -> list[Reason]:
        readings = self._readings("request_limits")
        if not readings:
            return []
        return list(request_reasons(self._decision.request_limits, asked_from_json(readings[0]["asked"])))

    def _found(self, where: str, direction: Direction) -> list[Reason]:
        found = {Detector(finding["detector"]) for finding in self._record.findings if finding["where"] == where}
        blocked = blocked_by(found, guard_for(self._decision, direction), where)
        return [blocked.reason] if blocked else []

    def _unscannable(self) -> list[Reason]:
        """What could not be scanned was not stored; the record's code is what tells of it."""
        if self._record.error_code != UNSCANNABLE:
            return []
        policy = guard_for(self._decision, Direction.INPUT).texts_only
        if policy is None:
            return []
        self.unseen.append("The content that could not be scanned.")
        return [Reason(UNSCANNABLE, self._record.error_message, policy)]

    def _rates(self) -> list[Reason]:
        """Of a request that was counted, what is left is without it: it fitted. Of a refused one, it is with it."""
        if self._record.error_code != RateLimited.code:
            return []
        full = [r for r in self._readings("requests", "tokens", "concurrent") if r["asked"] > r["remaining"]]
        # Several may be full; the one with the longest wait is named.
        full.sort(key=lambda r: -(r["reset_seconds"] or float("inf")))
        policies = {str(policy.id): policy for policy, _ in self._decision.rate_limits}
        return [Reason(RateLimited.code, self._record.error_message, policies[r["policy_id"]]) for r in full[:1]]

    def _budgets(self) -> list[Reason]:
        readings = {reading["policy_id"]: reading for reading in self._readings("cost_cap")}
        caps = tuple((p, cap) for p, cap in self._decision.cost_caps if str(p.id) in readings)
        hidden = [p.name for p, _ in caps if "spent_nano_usd" not in readings[str(p.id)]]
        if not caps or hidden:
            self.unseen += [f"What was spent of the platform's budget '{name}'." for name in hidden]
            return self._as_recorded() if hidden else []
        now = self._record.timestamp
        budgets = Budgets(now, ())
        places = [(p, place_of(p, cap, now), readings[str(p.id)]) for p, cap in caps]
        budgets.load(counter_as_read(place.budget, p.organization_id, reading) for p, place, reading in places)
        budgets.load_parts(_used(place, start, r) for _, place, r in places if (start := place.part_start(now)))
        worst = worst_from_json(next(iter(readings.values()))["asked"])
        result = budgets.reserve(Claim(self._record.pk, self._record.organization_id, caps, worst))
        if isinstance(result, OverBudget):
            return [Reason(BudgetExceeded.code, self._record.error_message, result.policy)]
        return []

    def _as_recorded(self) -> list[Reason]:
        if self._record.error_code != BudgetExceeded.code:
            return []
        policies = {str(policy.id): policy for policy, _ in self._decision.cost_caps}
        said: dict[str, Any] = next((r for r in self._record.reasons if r.get("code") == BudgetExceeded.code), {})
        return [Reason(BudgetExceeded.code, self._record.error_message, policies.get(said.get("policy_id", "")))]


def _used(place: Place, start: datetime, reading: dict[str, Any]) -> Part:
    """Return what a rolling span held, as if it had all come in its last part."""
    return Part(place.budget, start, reading["spent_nano_usd"] + reading["reserved_nano_usd"])


def _policies(record: RequestRecord) -> tuple[list[Policy], list[str]]:
    """Return the policies that a record names, in its order, and the names of those whose version is not there."""
    wanted = Q(pk__in=[])
    for stamp in record.policies:
        wanted |= Q(policy_id=stamp["id"], version=stamp["version"])
    versions = {(str(row.policy_id), row.version): row for row in PolicyVersion.objects.filter(wanted)}
    found = [versions.get((stamp["id"], stamp["version"])) for stamp in record.policies]
    missing = [stamp["name"] for stamp, row in zip(record.policies, found, strict=True) if row is None]
    return [row.read() for row in found if row is not None], missing
