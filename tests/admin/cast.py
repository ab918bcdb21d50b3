"""The cast of the admin's tests: an organization with everyone in it, and another one that they must not see."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from django.contrib import admin
from django.db import transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.alerts.models import Delivery, Destination
from apps.audit.changes import Actor, record_change, state_of
from apps.audit.models import Alert, RequestRecord, RequestText
from apps.gateway.models import ModelRoute
from apps.orgs import keys
from apps.orgs.models import ApiKey, Application, Membership, Organization, ProviderCredential, User
from apps.orgs.roles import Role
from apps.policies.models import Budget, BudgetAlert, LedgerEntry, Policy

PASSWORD = "a long enough one"
ROLES = ("superadmin", "admin", "developer", "auditor")
MEMBERS = ROLES[1:]


@dataclass
class House:
    """An organization with one of everything, every text of which holds its marker."""

    marker: str
    organization: Organization
    application: Application
    key: ApiKey
    user: User
    policy: Policy
    key_policy: Policy
    credential: ProviderCredential
    route: ModelRoute
    record: RequestRecord
    budget: Budget
    entry: LedgerEntry
    alert: BudgetAlert
    notice: Alert
    destination: Destination
    delivery: Delivery

    @property
    def rows(self) -> list[Any]:
        return [
            self.organization,
            self.application,
            self.key,
            self.user,
            self.policy,
            self.credential,
            self.route,
            self.record,
            self.budget,
            self.entry,
            self.alert,
            self.notice,
            self.destination,
            self.delivery,
        ]


@dataclass
class Cast:
    home: House
    foreign: House
    people: dict[str, User] = field(default_factory=dict)

    def browser(self, name: str) -> Client:
        client = Client(raise_request_exception=True)
        client.force_login(self.people[name])
        return client


def gather() -> Cast:
    home, foreign = build_house("HOME"), build_house("FOREIGN")
    cast = Cast(home, foreign)
    cast.people["superadmin"] = User.objects.create_user(unique("superadmin"), PASSWORD, is_superuser=True)
    for role in MEMBERS:
        cast.people[role] = member(home.organization, Role(role))
    cast.people["outsider"] = member(foreign.organization, Role.ADMIN)
    cast.people["nobody"] = User.objects.create_user(unique("nobody"), PASSWORD)
    return cast


def member(organization: Organization, role: Role) -> User:
    user = User.objects.create_user(unique(role.value), PASSWORD)
    Membership.objects.create(organization=organization, user=user, role=role.value)
    return user


def build_house(name: str) -> House:
    marker = f"{name}-{uuid4()}"
    organization = Organization.objects.create(name=marker)
    application = Application.objects.create(organization=organization, name=f"app {marker}")
    key = keys.issue(organization=organization, application=application, name=f"key {marker}").row
    user = User.objects.create_user(f"user-{marker}", full_name=f"name {marker}")
    Membership.objects.create(organization=organization, user=user, role="developer")
    policy = made(Policy(organization=organization, name=f"cap {marker}", kind="cost_cap", config=CAP))
    key_policy = made(
        Policy(organization=organization, api_key=key, name=f"rate {marker}", kind="rate_limit", config=RATE)
    )
    credential = ProviderCredential(organization=organization, name=f"credential {marker}", provider="openai")
    with transaction.atomic():
        credential.set_secret(f"sk-{uuid4().hex}")
        credential.save()
    route = ModelRoute.objects.create(organization=organization, model=f"model-{marker}", credential=credential)
    record = make_record(organization, application, marker)
    budget = Budget.objects.create(
        id=uuid4(),
        policy_id=policy.pk,
        organization_id=organization.pk,
        window_start=timezone.now(),
        limit_nano_usd=5 * 10**9,
        spent_nano_usd=10**9,
    )
    entry = LedgerEntry.objects.create(
        timestamp=timezone.now(),
        budget=budget,
        organization_id=organization.pk,
        request_id=record.pk,
        amount_nano_usd=10**9,
    )
    alert = BudgetAlert.objects.create(
        timestamp=timezone.now(),
        budget=budget,
        organization_id=organization.pk,
        window_start=timezone.now(),
        percent=20,
        spent_nano_usd=10**9,
        limit_nano_usd=5 * 10**9,
    )
    notice, destination, delivery = told(organization, marker)
    record_change(
        Actor(None, f"actor {marker}", "command"),
        "change",
        application,
        organization_id=organization.pk,
        before={"name": f"old {marker}"},
        after=state_of(application),
    )
    return House(
        marker,
        organization,
        application,
        key,
        user,
        policy,
        key_policy,
        credential,
        route,
        record,
        budget,
        entry,
        alert,
        notice,
        destination,
        delivery,
    )


@transaction.atomic
def told(organization: Organization, marker: str) -> tuple[Alert, Destination, Delivery]:
    """Make an alert whose message has failed. ``.invalid`` is a name that nobody can have."""
    now = timezone.now()
    notice = Alert.objects.create(
        timestamp=now,
        organization_id=organization.pk,
        kind="key_expiring",
        topic=f"cast:{marker}",
        title=f"title {marker}",
        text=f"text {marker}",
        due_at=now,
        told_at=now,
    )
    url = f"https://alerts.invalid/{marker}"
    destination = Destination(organization=organization, name=f"destination {marker}", channel="webhook", url=url)
    destination.kinds = ["key_expiring"]
    destination.new_signing_secret()
    destination.save()
    delivery = Delivery.objects.create(
        organization_id=organization.pk,
        destination=destination,
        destination_name=destination.name,
        due_at=now,
        next_at=now,
        state="failed",
        outcome="No answer.",
    )
    delivery.alerts.add(notice)
    return notice, destination, delivery


CAP = {"limit_usd": "5.00", "per": "month"}
RATE = {"requests": 5, "per": "minute"}


def made(policy: Policy) -> Policy:
    policy.save()
    return policy


def make_record(organization: Organization, application: Application | None, marker: str, **columns: Any) -> Any:
    record = RequestRecord.objects.create(
        **{
            "timestamp": timezone.now(),
            "organization_id": organization.pk,
            "organization_name": organization.name,
            "application_id": application.pk if application else None,
            "application_name": application.name if application else "",
            "end_user": f"end {marker}",
            "endpoint": "/v1/chat/completions",
            "model": f"asked-{marker}",
            "status": "success",
            "http_status": 200,
            "metadata": {"ticket": f"ticket {marker}"},
        }
        | columns
    )
    RequestText.objects.create(id=record.pk, organization_id=organization.pk, prompt_redacted=f"prompt {marker}")
    return record


def unique(name: str) -> str:
    return f"{name}-{uuid4().hex[:12]}"


# --- Addresses and forms


def address(model: Any, page: str, pk: UUID | str | None = None) -> str:
    opts = model._meta
    return reverse(f"admin:{opts.app_label}_{opts.model_name}_{page}", args=[pk] if pk else [])


def pages() -> list[Any]:
    return sorted(admin.site._registry, key=lambda model: model._meta.label)


def filled(client: Client, url: str, /, **changes: Any) -> Any:
    """Submit the form at ``url`` as it stands, but for ``changes``; ``None`` takes a field out."""
    page = client.get(url)
    assert page.status_code == 200, (page.status_code, url)
    data = _values(page.context["adminform"].form)
    for inline in page.context["inline_admin_formsets"]:
        data |= _values(inline.formset.management_form)
        for form in inline.formset.forms:
            data |= _values(form)
    data |= changes
    return client.post(url, {name: value for name, value in data.items() if value is not None})


def errors(response: Any) -> dict[str, list[str]]:
    """Return the errors of a form that was refused, by field."""
    assert response.status_code == 200, response.status_code
    return dict(response.context["adminform"].form.errors)


def _values(form: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for bound in form:
        value = bound.value()
        widgets = getattr(bound.field.widget, "widgets", None)
        if widgets:
            parts = bound.field.widget.decompress(value)
            values |= {f"{bound.html_name}_{n}": "" if part is None else str(part) for n, part in enumerate(parts)}
        elif value is not None and value is not False:
            values[bound.html_name] = "on" if value is True else value
    return values
