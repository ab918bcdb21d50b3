"""The admin's front page: requests, refusals and spend of late, and what a person of each role does next."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from apps.audit.models import RequestRecord
from apps.audit.usage import Period, Scope, totals
from apps.audit.uuid7 import first_id_at
from apps.orgs.admin.shared import GUIDED
from apps.orgs.models import Application, Organization, User
from apps.orgs.roles import Action, Role
from apps.orgs.scoped_admin import user_of
from apps.orgs.scoping import organizations_of, reach, visible
from controlplane.guide import guide_for
from controlplane.setup import forms_of
from controlplane.usage.words import dollars

LATEST = 8


@dataclass(frozen=True, slots=True)
class Figures:
    """What happened in a span of time."""

    title: str
    requests: int
    refusals: int
    errors: int
    spend_usd: str


@dataclass(frozen=True, slots=True)
class Way:
    """A page that a person of some role came for."""

    title: str
    text: str
    icon: str
    link: str


def front_page(request: HttpRequest) -> dict[str, Any]:
    """Return what the front page shows: what to set up, or ways on, then figures and the latest requests."""
    user, now = user_of(request), timezone.now()
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    records, scope = _records(user), Scope(reach(user, "audit.requestrecord"))
    guide, latest = guide_for(user), list(records.filter(id__gte=first_id_at(now - timedelta(days=7)))[:LATEST])
    return {
        "figures": [
            _figures("Today (UTC)", scope, today),
            _figures("Last 7 days (UTC)", scope, today - timedelta(days=6)),
        ],
        "latest": latest,
        "is_new": guide is not None and not latest,
        "first_organization": _first_organization(user),
        "guide": guide,
        "guide_forms": forms_of(request, guide) if guide else {},
        "ways": [] if guide else _ways(user),
        "may_see_records": user.has_perm("audit.view_requestrecord"),
    }


def _first_organization(user: User) -> str:
    """Return where the platform's first organization is made, for a superadmin of an empty one."""
    if not user.is_superuser or Organization.objects.exists():
        return ""
    return f"{reverse('admin:orgs_organization_add')}?{GUIDED}=1"


def _ways(user: User) -> list[Way]:
    """Return the ways on of who has nothing to set up: a developer's or an auditor's; others know theirs."""
    roles = set(user.roles().values())
    if user.is_superuser or Role.ADMIN in roles:
        return []
    return _developers(user) if Role.DEVELOPER in roles else _auditors() if roles else []


def _developers(user: User) -> list[Way]:
    application = visible(Application.objects.filter(is_active=True), user).order_by("created_at").first()
    if application is None:
        text = "Your organization has none yet. Ask one of its admins to create it; then you can make a key for it."
        return [Way("Wait for an application", text, "hourglass_empty", _list("orgs_application"))]
    key = f"{reverse('admin:orgs_apikey_add')}?application={application.pk}"
    policies = reverse("admin:policies_policy_explain", args=["application", application.pk])
    return [
        Way("Make a key", "For an application to call models with. It comes with examples.", "key", key),
        Way("Try a request", "In the playground, without a line of code.", "play_circle", reverse("admin:playground")),
        Way(
            "What holds for it",
            f"The policies of {application}, and whether a request would pass.",
            "rule",
            policies,
        ),
        Way("What happened", "Each request with what was decided and why.", "fact_check", _list("audit_requestrecord")),
    ]


def _auditors() -> list[Way]:
    return [
        Way("Requests", "Who asked what, what was decided and why.", "fact_check", _list("audit_requestrecord")),
        Way("Changes", "Who changed what, before and after.", "history", _list("audit_changerecord")),
        Way("Policies", "What is allowed now, in words.", "policy", _list("policies_policy")),
        Way("Published versions", "What each policy said at any time.", "schedule", _list("policies_policyversion")),
    ]


def _list(name: str) -> str:
    return reverse(f"admin:{name}_changelist")


def _records(user: User) -> "QuerySet[RequestRecord]":
    if user.is_superuser:
        return RequestRecord.objects.all()
    return RequestRecord.objects.filter(organization_id__in=organizations_of(user, Action.VIEW, "audit.requestrecord"))


def _figures(title: str, scope: Scope, since: datetime) -> Figures:
    sums = totals(scope, Period(since))
    return Figures(title, sums.requests, sums.blocked, sums.errors, dollars(sums.cost_nano_usd))
