"""The database itself keeps rows within their organization, whoever forgets to ask."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from apps.gateway.models import ModelRoute
from apps.orgs import keys
from apps.orgs.models import ApiKey, Membership, ProviderCredential
from apps.policies.models import Policy
from tests.admin.cast import CAP, Cast, gather

pytestmark = pytest.mark.usefixtures("postgres_only")


@pytest.fixture(scope="module")
def cast() -> Cast:
    return gather()


LINKS: dict[str, Callable[[Any, Any], object]] = {
    "a key to an application": lambda own, theirs: ApiKey.objects.create(
        organization=own.organization, application=theirs.application, name="x", prefix=theirs.marker[-9:]
    ),
    "a policy to an application": lambda own, theirs: policy(own, application=theirs.application),
    "a policy to a key": lambda own, theirs: policy(own, api_key=theirs.key),
    "a policy of the platform to a key": lambda own, theirs: Policy.objects.create(
        api_key=theirs.key, name="x", kind="cost_cap", config=CAP
    ),
    "a route to a credential": lambda own, theirs: ModelRoute.objects.create(
        organization=own.organization, model="x", credential=theirs.credential
    ),
    "a route of the platform to a credential": lambda own, theirs: ModelRoute.objects.create(
        model=theirs.marker, credential=theirs.credential
    ),
    "a route that is led elsewhere": lambda own, theirs: ModelRoute.objects.filter(pk=own.route.pk).update(
        credential=theirs.credential
    ),
    "a key that is handed over": lambda own, theirs: ApiKey.objects.filter(pk=own.key.pk).update(
        application=theirs.application
    ),
}


def policy(own: Any, **scope: Any) -> Policy:
    return Policy.objects.create(organization=own.organization, name="x", kind="cost_cap", config=CAP, **scope)


@pytest.mark.parametrize("link", LINKS)
def test_no_row_names_one_of_another_organization(cast: Cast, link: str) -> None:
    with pytest.raises(IntegrityError, match="another organization"), transaction.atomic():
        LINKS[link](cast.home, cast.foreign)


@pytest.mark.parametrize("kind", ["application", "key", "credential", "policy", "route", "membership"])
def test_no_row_moves_to_another_organization(cast: Cast, kind: str) -> None:
    row = Membership.objects.get(user=cast.home.user) if kind == "membership" else getattr(cast.home, kind)
    rows = type(row)._base_manager.filter(pk=row.pk)
    for elsewhere in (cast.foreign.organization, None):
        if elsewhere is None and kind in ("application", "membership"):
            continue  # the column itself refuses it
        with pytest.raises(IntegrityError, match="stays with its organization"), transaction.atomic():
            rows.update(organization=elsewhere)


def test_what_is_of_one_organization_or_the_platforms_is_taken(cast: Cast) -> None:
    home = cast.home
    platforms = ProviderCredential.objects.create(name=f"for all {home.marker}", provider="simulated")
    ModelRoute.objects.create(organization=home.organization, model="for all", credential=platforms)
    policy(home, application=home.application)
    policy(home, api_key=home.key)
    assert keys.issue(organization=home.organization, application=home.application, name="more").row.pk
