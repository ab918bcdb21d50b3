"""Whatever changes the configuration, through whatever door, raises its version: that is how processes notice."""

from collections.abc import Callable
from uuid import uuid4

import pytest
from django.db import connection

from apps.gateway.models import ModelRoute
from apps.orgs import keys
from apps.orgs.models import Application, Membership, Organization, ProviderCredential, User
from apps.orgs.versions import Versions, read_versions
from apps.policies.models import Policy, Price


def versions_of(organization: Organization) -> Versions:
    return read_versions(connection, [organization.id])[organization.id]


@pytest.fixture
def organization() -> Organization:
    return Organization.objects.create(name=f"org {uuid4()}")


def a_policy(organization: Organization) -> Policy:
    return Policy.objects.create(organization=organization, name="p", kind="model_restriction", config={"allow": ["*"]})


def an_application(organization: Organization) -> Application:
    return Application.objects.create(organization=organization, name="app")


def a_credential(organization: Organization) -> ProviderCredential:
    return ProviderCredential.objects.create(organization=organization, name="c", provider="simulated")


CHANGES: list[Callable[[Organization], object]] = [
    a_policy,
    an_application,
    a_credential,
    lambda o: a_policy(o).delete(),
    lambda o: Policy.objects.filter(pk=a_policy(o).pk).update(mode="off"),
    lambda o: keys.issue(organization=o, application=an_application(o), name="k"),
    lambda o: keys.issue(organization=o, application=an_application(o), name="k").row.revoke(),
    lambda o: Membership.objects.create(organization=o, user=User.objects.create_user(f"u {uuid4()}"), role="admin"),
    lambda o: ModelRoute.objects.create(organization=o, model="m", credential=a_credential(o)),
    lambda o: Organization.objects.filter(pk=o.pk).update(state="suspended"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_an_organization_raises_its_version(
    change: Callable[[Organization], object], organization: Organization
) -> None:
    before = versions_of(organization)
    change(organization)
    assert versions_of(organization).organization > before.organization


def test_a_change_of_one_organization_leaves_another_alone(organization: Organization) -> None:
    other = Organization.objects.create(name=f"org {uuid4()}")
    before = versions_of(other).organization
    a_policy(organization)
    assert versions_of(other).organization == before


def test_a_row_that_is_made_anew_elsewhere_raises_both_versions(organization: Organization) -> None:
    other = Organization.objects.create(name=f"org {uuid4()}")
    policy = a_policy(organization)
    before = versions_of(organization).organization, versions_of(other).organization
    policy.delete()
    a_policy(other)
    assert versions_of(organization).organization > before[0]
    assert versions_of(other).organization > before[1]


def test_prices_and_platform_policies_raise_the_platform_version(organization: Organization) -> None:
    before = versions_of(organization).platform
    Price.objects.create(model=f"m-{uuid4()}", input_nano_usd=1, output_nano_usd=1)
    middle = versions_of(organization).platform
    row = Policy.objects.create(name="p", kind="model_restriction", mode="off", config={"allow": ["*"]})
    row.delete()
    assert before < middle < versions_of(organization).platform


def test_a_disabled_user_raises_the_platform_version_and_a_login_does_not(organization: Organization) -> None:
    user = User.objects.create_user(f"u {uuid4()}")
    before = versions_of(organization).organization
    User.objects.filter(pk=user.pk).update(full_name="New Name")
    assert versions_of(organization).organization == before
    platform = versions_of(organization).platform
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert versions_of(organization).platform > platform
