"""Budgets as the page shows them: what is left, and when it will have run out at this rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone

from apps.audit.usage import Scope
from apps.orgs.models import User
from apps.orgs.roles import Action
from apps.orgs.scoping import may, visible
from apps.policies.budgets import spent_now
from apps.policies.models import Budget, Policy
from controlplane.usage.words import dollars

MOST_BUDGETS = 20


@dataclass(frozen=True, slots=True)
class Left:
    """A budget: what is left of it, and when it will have run out at this rate."""

    name: str
    scope: str
    window: str
    limit: str
    spent: str
    left: str
    used_percent: int
    runs_out: str
    link: str
    is_short: bool


def budgets_of(scope: Scope, user: User) -> list[Left]:
    """Return the budgets of a scope as far as a person may see them, those that are nearest to their limit first."""
    now = timezone.now()
    if not may(user, Action.VIEW, "policies.budget"):
        return []
    rows = visible(Budget.objects.filter(window_start__lte=now), user).exclude(window_end__lte=now)
    if scope.organizations is not None:
        rows = rows.filter(organization_id__in=scope.organizations)
    policies = _policies(rows, scope, user)
    kept = list(rows.filter(policy_id__in=policies).prefetch_related("parts")[:500])
    spent = [(row, spent_now(row)) for row in kept if _is_current(row, policies)]
    spent.sort(key=lambda one: -_used_percent(*one))
    return [_left(row, nano, policies[row.policy_id], now) for row, nano in spent[:MOST_BUDGETS]]


def _policies(rows: "QuerySet[Budget]", scope: Scope, user: User) -> dict[UUID, Policy]:
    policies = visible(Policy.objects.filter(kind="cost_cap"), user)
    policies = policies.filter(pk__in=rows.values("policy_id")).select_related("application", "user", "api_key")
    if scope.application:
        policies = policies.filter(application=scope.application)
    if scope.user:
        policies = policies.filter(user=scope.user)
    return {policy.pk: policy for policy in policies}


def _is_current(row: Budget, policies: Mapping[UUID, Policy]) -> bool:
    """Whether a budget is of its policy's present kind of window."""
    config = policies[row.policy_id].config
    return (row.span_hours is None) is (config.get("span_hours") is None) and policies[row.policy_id].mode != "off"


def _used_percent(budget: Budget, spent: int) -> int:
    return round(spent / budget.limit_nano_usd * 100) if budget.limit_nano_usd else 100


def _left(budget: Budget, spent: int, policy: Policy, now: datetime) -> Left:
    left = max(0, budget.limit_nano_usd - spent - budget.reserved_nano_usd)
    began = policy.created_at if budget.window_end is None else budget.window_start
    says, is_short = _runs_out(budget, Spent(spent, left, now - began), now)
    return Left(
        name=policy.name,
        scope=str(policy.application or policy.user or policy.api_key or "whole organization"),
        window=_window(budget),
        limit=dollars(budget.limit_nano_usd),
        spent=dollars(spent),
        left=dollars(left),
        used_percent=min(_used_percent(budget, spent), 999),
        runs_out=says,
        link=reverse("admin:policies_budget_change", args=[budget.pk]),
        is_short=is_short,
    )


def _window(budget: Budget) -> str:
    if budget.span_hours is not None:
        return f"any {budget.span_hours} hours"
    if budget.window_end is None:
        return "in total"
    return f"{budget.window_start:%Y-%m-%d} to {budget.window_end - timedelta(seconds=1):%Y-%m-%d}"


@dataclass(frozen=True, slots=True)
class Spent:
    """What a budget has spent since it began, and has left, in nano-USD."""

    nano: int
    left: int
    elapsed: timedelta


def _runs_out(budget: Budget, spent: Spent, now: datetime) -> tuple[str, bool]:
    """Say when a budget will have run out at the rate of its window so far, and whether that is before it ends."""
    if spent.left == 0:
        return "Used up", True
    if budget.span_hours is not None:
        return "What was spent returns as the window moves on", False
    if not spent.nano:
        return "Nothing is spent yet", False
    seconds = spent.left / spent.nano * max(spent.elapsed.total_seconds(), 3600.0)
    if budget.window_end is not None and now.timestamp() + seconds >= budget.window_end.timestamp():
        return "Lasts until the window ends", False
    if seconds > 3650 * 86_400:
        return "In more than ten years", False
    return f"{now + timedelta(seconds=seconds):%Y-%m-%d %H:%M} UTC", True
