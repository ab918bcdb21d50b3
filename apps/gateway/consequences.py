"""What ends when something is revoked, suspended, disabled or deleted: said before it is done, with numbers.

Each function returns sentences. Numbers of things that are configured are exact; of requests, the latest are looked
at and no more, so that the page opens at once however many there are. They are those of the organization in which the
person acts: what belongs to others is neither counted nor named.
"""

from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.utils import timezone

from apps.audit.models import RequestRecord
from apps.audit.uuid7 import first_id_at
from apps.gateway.models import ModelRoute
from apps.orgs.models import ApiKey, Application, Membership, Organization, ProviderCredential, User
from apps.orgs.scoping import visible
from apps.policies.describe import describe_stored
from apps.policies.engine.kinds import Kind
from apps.policies.engine.policy import Mode
from apps.policies.models import Policy, Price

MOST_LOOKED_AT = 10_000
"""Requests, the latest of an organization, out of which those of a key are counted."""
HOURS = 24
_ON = "from the next request on"


def of_revoking(key: ApiKey) -> list[str]:
    """Return what ends with a key."""
    return [
        f"Whatever uses it is refused {_ON}, in every process. Calls under way are finished.",
        *_lately(key.organization_id, Q(api_key_id=key.pk)),
        *_policies(Q(api_key=key)),
    ]


def of_suspending(organization: Organization) -> list[str]:
    """Return what stops while an organization is suspended."""
    return [
        (
            f"Refused {_ON}, until it is activated again: {_keys(Q(organization=organization))}, of "
            f"{_count(organization.applications.count(), 'application')} and "
            f"{_count(organization.memberships.count(), 'member')}."
        ),
        *_lately(organization.pk, Q()),
        "Nothing is deleted: keys, policies, budgets and records stay as they are.",
    ]


def of_disabling(user: User, person: User) -> str:
    """Return what ends when a user is made inactive, as far as ``person`` may see it."""
    return (
        "If this is off, the user is logged out, cannot log in, and is refused "
        f"{_ON} with {_keys(Q(user=user), person)} of their own. Keys of applications go on."
    )


def of_deleting(rows: Iterable[models.Model], person: User) -> list[str]:
    """Return what ends when rows of one model are deleted, as far as ``person`` may see it."""
    said = [sentence for row in rows for sentence in _deleting(row, person)]
    return list(dict.fromkeys(said))


def _deleting(row: models.Model, person: User) -> list[str]:  # noqa: PLR0911  # one for each kind of row
    match row:
        case Organization():
            return _deleting_organization(row)
        case Application():
            return _deleting_application(row)
        case ApiKey():
            return [f"'{row}' ends.", *of_revoking(row)]
        case User():
            return [_deleting_user(row, person)]
        case Policy():
            return _deleting_policy(row)
        case ProviderCredential():
            return _deleting_credential(row, person)
        case ModelRoute():
            return [_deleting_route(row, person)]
        case Price():
            return [_deleting_price(row)]
    return []


def _deleting_organization(organization: Organization) -> list[str]:
    return [
        (
            f"'{organization}': refused {_ON}: {_keys(Q(organization=organization))}. Gone for good: "
            f"{_count(organization.applications.count(), 'application')}, "
            f"{_count(organization.policies.count(), 'policy', 'policies')} and "
            f"{_count(organization.memberships.count(), 'role')} of its people."
        ),
        *_lately(organization.pk, Q()),
        "To stop it without losing anything, suspend it instead.",
    ]


def _deleting_application(application: Application) -> list[str]:
    return [
        f"'{application}': refused {_ON}: {_keys(Q(application=application))}.",
        *_lately(application.organization_id, Q(application_id=application.pk)),
        *_policies(Q(application=application)),
    ]


def _deleting_user(user: User, person: User) -> str:
    roles = visible(Membership.objects.filter(user=user), person).count()
    return (
        f"'{user}': logged out and cannot log in again. Refused {_ON}: {_keys(Q(user=user), person)}. "
        f"Ended: {_count(roles, 'role')}. Keys of applications go on."
    )


_WITHOUT = {
    Kind.RATE_LIMIT: "Requests that it would have refused are served.",
    Kind.COST_CAP: "What was spent no longer counts against it. The ledger stays.",
    Kind.GUARDRAIL: "What it blocks or redacts reaches providers and applications as it is.",
    Kind.REQUEST_LIMITS: "Requests may be as large as other policies let them be.",
}


def _deleting_policy(policy: Policy) -> list[str]:
    said = f"'{policy}' no longer holds, {_ON}. It says: {describe_stored(policy)}"
    if policy.mode != Mode.ENFORCE.value:
        return [said, f"Its mode is {policy.mode}: no request is decided otherwise without it."]
    if policy.kind == Kind.MODEL_RESTRICTION.value:
        return [said, _allowed_without(policy)]
    kind = next((kind for kind in _WITHOUT if kind.value == policy.kind), None)
    return [said, _WITHOUT[kind]] if kind else [said]


def _allowed_without(policy: Policy) -> str:
    """Return whether anything allows models after a model restriction is gone: what nothing allows is refused."""
    others = Policy.objects.filter(
        Q(organization=policy.organization_id) | Q(organization=None),
        kind=Kind.MODEL_RESTRICTION.value,
        mode=Mode.ENFORCE.value,
    ).exclude(pk=policy.pk)
    left = others.count()
    if left:
        return f"What it allows is refused, but for what others allow: {_count(left, 'model restriction')} left."
    return "No other model restriction is left: every request is refused."


def _deleting_credential(credential: ProviderCredential, person: User) -> list[str]:
    routes = ModelRoute.objects.filter(credential=credential)
    shown = sorted({route.model for route in visible(routes, person)[:5]})
    models_ = f" Among them: {', '.join(shown)}." if shown else ""
    return [
        (
            f"'{credential.name}': with it end {_count(visible(routes, person).count(), 'model route')}; "
            f"their models go to the next route, or are not found where there is none.{models_}"
        ),
        "Its stored secret is gone for good; the provider's own copy stays valid until you end it there.",
    ]


def _deleting_route(route: ModelRoute, person: User) -> str:
    others = ModelRoute.objects.filter(
        Q(organization=route.organization_id) | Q(organization=None), model=route.model, is_active=True
    ).exclude(pk=route.pk)
    left = visible(others, person).count()
    if left:
        return f"'{route}': requests for {route.model} go to {_count(left, 'other route')}, {_ON}."
    return f"'{route}': no other route of yours names {route.model}; requests for it may find no provider, {_ON}."


def _deleting_price(price: Price) -> str:
    return (
        f"'{price}': requests are priced by the next price of your own or by the catalogue, {_ON}. "
        "A model without any price is refused. What has been charged stays."
    )


def _lately(organization_id: UUID | None, chosen: Q) -> list[str]:
    """Return how many requests were made lately; nothing where no organization is named."""
    if organization_id is None:
        return []
    since = first_id_at(timezone.now() - timedelta(hours=HOURS))
    latest = RequestRecord.objects.filter(organization_id=organization_id, id__gte=since).order_by("-id")
    looked_at = latest.values("pk")[:MOST_LOOKED_AT]
    made = RequestRecord.objects.filter(chosen, pk__in=looked_at, id__gte=since).count()
    if looked_at.count() < MOST_LOOKED_AT:
        return [f"Its requests in the last {HOURS} hours: {made:,}."]
    return [f"Its requests among the organization's last {MOST_LOOKED_AT:,}: {made:,}."]


def _policies(chosen: Q) -> list[str]:
    count = Policy.objects.filter(chosen).count()
    return [f"Policies that stand on it alone and rule nothing without it: {count:,}."] if count else []


def _keys(owner: Q, person: User | None = None) -> str:
    """Return how many keys work, out of those that ``person`` may see if one is given."""
    keys = ApiKey.objects.filter(owner) if person is None else visible(ApiKey.objects.filter(owner), person)
    working = keys.filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()), revoked_at=None)
    return _count(working.count(), "active key")


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
