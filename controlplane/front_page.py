"""The admin's front page: requests, refusals and spend of late, and the next steps of who has just begun."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Model, QuerySet
from django.urls import reverse
from django.utils import timezone

from apps.audit.models import RequestRecord
from apps.audit.money import NANO
from apps.audit.usage import Period, Scope, totals
from apps.audit.uuid7 import first_id_at
from apps.gateway.models import ModelRoute
from apps.orgs.models import ApiKey, Application, Organization, ProviderCredential, User
from apps.orgs.roles import Action
from apps.orgs.scoping import organizations_of, reach, visible
from apps.policies.models import Policy

LATEST = 8
_FOR_ALL = (ProviderCredential, ModelRoute)  # the platform's serve every organization, though only superadmins see them


@dataclass(frozen=True, slots=True)
class Figures:
    """What happened in a span of time."""

    title: str
    requests: int
    refusals: int
    errors: int
    spend_usd: str


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do next, and whether it is done."""

    title: str
    text: str
    link: str
    done: bool


def front_page(user: User) -> dict[str, Any]:
    """Return what the front page shows to ``user``: figures, the latest requests and the steps left to do."""
    now = timezone.now()
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    records, scope = _records(user), Scope(reach(user, "audit.requestrecord"))
    steps = _steps(user)
    return {
        "figures": [
            _figures("Today (UTC)", scope, today),
            _figures("Last 7 days (UTC)", scope, today - timedelta(days=6)),
        ],
        "latest": list(records.filter(id__gte=first_id_at(now - timedelta(days=7)))[:LATEST]),
        "steps": steps if any(not step.done for step in steps) else [],
        "may_see_records": user.has_perm("audit.view_requestrecord"),
    }


def _records(user: User) -> "QuerySet[RequestRecord]":
    if user.is_superuser:
        return RequestRecord.objects.all()
    return RequestRecord.objects.filter(organization_id__in=organizations_of(user, Action.VIEW, "audit.requestrecord"))


def _figures(title: str, scope: Scope, since: datetime) -> Figures:
    sums = totals(scope, Period(since))
    return Figures(title, sums.requests, sums.blocked, sums.errors, _rounded(sums.cost_nano_usd))


def _rounded(nano: int) -> str:
    return f"{Decimal(nano) / NANO:,.4f}" if 0 < nano < NANO else f"{Decimal(nano) / NANO:,.2f}"


def _steps(user: User) -> list[Step]:
    steps: list[tuple[type[Model], str, str, str]] = [
        (Organization, "organization", "Create an organization", "A tenant: its applications, people and policies."),
        (ProviderCredential, "providercredential", "Connect a provider", "The secret with which models are called."),
        (ModelRoute, "modelroute", "Route a model", "Which provider serves which model names."),
        (Application, "application", "Create an application", "Software of yours that will call models."),
        (ApiKey, "apikey", "Issue an API key", "What the application calls with. It is shown once."),
        (Policy, "policy", "Allow models", "Without a policy that allows a model, every request is refused."),
    ]
    return [
        Step(
            title,
            text,
            reverse(f"admin:{model._meta.app_label}_{name}_add"),
            _any(model, user),
        )
        for model, name, title, text in steps
        if user.has_perm(f"{model._meta.app_label}.add_{name}")
    ]


def _any(model: type[Model], user: User) -> bool:
    rows: QuerySet[Model] = QuerySet(model)
    return visible(rows, user).exists() or (model in _FOR_ALL and rows.filter(organization=None).exists())
