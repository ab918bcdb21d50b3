"""An empty organization's front page leads an admin from nothing to a recorded request; every other role to its own."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import Client, override_settings
from django.urls import reverse

from apps.audit.models import ChangeRecord
from apps.gateway.models import ModelRoute
from apps.orgs import keys
from apps.orgs.models import ApiKey, Application, Organization, ProviderCredential, User
from apps.orgs.roles import Role
from apps.policies.models import Policy
from controlplane.guide import guide_of
from tests.admin.cast import Cast, address, make_record, member, unique
from tests.mock_upstream import Behaviour, MockUpstream

SECRET = "sk-right-and-long-4711"

pytestmark = pytest.mark.usefixtures("no_runtime_is_left")


@pytest.fixture
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as served:
        served.key = SECRET
        served.models = ["gpt-4o-mini", "house-model-1"]
        yield served


@pytest.fixture
def empty() -> Organization:
    return Organization.objects.create(name=unique("Empty"))


def browser(person: User) -> Client:
    client = Client(raise_request_exception=True)
    client.force_login(person)
    return client


def take(client: Client, organization: Organization, step: str, **fields: str) -> Any:
    said = {f"{step}-{name}": value for name, value in fields.items()}
    url = reverse("admin:setup", args=[organization.pk])
    return client.post(url, {"step": step, "guided": "1", **said})


def connect(client: Client, organization: Organization, upstream: MockUpstream, **changes: str) -> Any:
    fields = {"provider": "openai_compatible", "name": "House", "base_url": upstream.base_url, "secret": SECRET}
    return take(client, organization, "provider", **(fields | changes))


def done(organization: Organization) -> set[str]:
    return {step.key for step in guide_of(organization).steps if step.done} - {"provider"}  # the platform may have one


def messages_of(page: Any, step: str) -> str:
    return str(page.context["guide_forms"][step].errors)


def test_an_admin_is_led_from_nothing_to_a_key_with_each_step_recorded(
    empty: Organization, upstream: MockUpstream
) -> None:
    person = member(empty, Role.ADMIN)
    client = browser(person)
    front = client.get(reverse("admin:index"))
    assert front.context["guide"].organization == empty
    assert not front.context["guide"].finished
    assert done(empty) == set()

    listed = connect(client, empty, upstream)
    assert {offer.model: bool(offer.price) for offer in listed.context["offers"]} == {
        "gpt-4o-mini": True,
        "house-model-1": False,
    }
    assert SECRET not in listed.content.decode()
    credential = ProviderCredential.objects.get(organization=empty)
    test = address(credential, "test", credential.pk)
    routed = client.post(test, {"route": "1", "guided": "1", "model": ["gpt-4o-mini", "house-model-1"]})
    assert routed["location"] == reverse("admin:setup", args=[empty.pk])
    assert set(ModelRoute.objects.filter(credential=credential).values_list("model", "priority")) == {
        ("gpt-4o-mini", 0),
        ("house-model-1", 0),
    }

    assert take(client, empty, "application", name="Checkout").status_code == 302
    application = Application.objects.get(organization=empty)
    shown = take(client, empty, "key", application=str(application.pk), name="First")
    row = keys.find(shown.context["key"])
    assert row is not None
    assert (row.application, row.name) == (application, "First")
    for snippet in ("http://testserver/v1/chat/completions", 'base_url="http://testserver/v1"', "gpt-4o-mini"):
        assert snippet in shown.content.decode().replace("&quot;", '"')
    assert done(empty) == {"application", "key"}
    kinds = set(ChangeRecord.objects.filter(actor_id=person.pk).values_list("object_type", flat=True))
    assert kinds == {"orgs.providercredential", "gateway.modelroute", "orgs.application", "orgs.apikey"}


@pytest.mark.parametrize(
    ("changes", "listing", "said"),
    [
        ({"secret": "sk-wrong-and-long-4711"}, Behaviour(), "refuses this key"),
        ({}, Behaviour(status=404), "no list of models at this address"),
        ({}, Behaviour(redirect="http://127.0.0.1:1/v1/models"), "does not follow"),
        ({}, Behaviour(garbage="html"), "is no list of models"),
        ({}, Behaviour(status=500), "failed with status 500"),
        ({"base_url": "http://127.0.0.1:9/v1"}, Behaviour(), "could not be reached"),
        ({"base_url": "https://10.1.2.3/v1"}, Behaviour(), "not public"),
        ({"secret": ""}, Behaviour(), "Give the provider"),
        ({"name": ""}, Behaviour(), "required"),
    ],
)
def test_a_credential_that_does_not_work_is_not_stored_and_says_why(
    empty: Organization, upstream: MockUpstream, changes: dict[str, str], listing: Behaviour, said: str
) -> None:
    upstream.listing = listing
    client = browser(member(empty, Role.ADMIN))
    page = connect(client, empty, upstream, **changes)
    assert page.status_code == 200
    assert said in messages_of(page, "provider")
    assert (changes.get("secret") or SECRET) not in page.content.decode()
    assert not ProviderCredential.objects.filter(organization=empty).exists()


def test_one_that_cannot_be_tested_is_stored_if_the_person_says_so(empty: Organization, upstream: MockUpstream) -> None:
    upstream.listing = Behaviour(status=404)
    client = browser(member(empty, Role.ADMIN))
    assert "Save it all the same" in connect(client, empty, upstream).content.decode()
    fields = {"provider": "openai_compatible", "name": "House", "base_url": upstream.base_url, "secret": SECRET}
    said = {f"provider-{name}": value for name, value in fields.items()}
    client.post(reverse("admin:setup", args=[empty.pk]), {"step": "provider", "untested": "1", **said})
    assert ProviderCredential.objects.get(organization=empty).secret() == SECRET


def test_a_stored_credential_is_tested_by_a_button_and_by_nothing_less(cast: Cast, upstream: MockUpstream) -> None:
    row = cast.home.credential
    row.base_url, row.provider = upstream.base_url, "openai_compatible"
    with transaction.atomic():
        row.set_secret(SECRET)
        row.save()
    client, url = cast.browser("admin"), address(row, "test", row.pk)
    assert "That costs nothing" in client.get(url).content.decode()
    assert upstream.listed == []
    page = client.post(url, {})
    assert [offer.model for offer in page.context["offers"]] == ["gpt-4o-mini", "house-model-1"]
    upstream.key = "sk-another"
    page = client.post(url, {})
    assert "refuses this key" in page.content.decode()
    assert SECRET not in page.content.decode()
    for person in ("developer", "auditor", "outsider"):
        assert cast.browser(person).post(url, {"route": "1", "model": "x"}).status_code in (302, 403)
    assert len(upstream.listed) == 2


def test_a_second_provider_of_a_model_comes_after_the_first(cast: Cast) -> None:
    home, client = cast.home, cast.browser("admin")
    other = ProviderCredential.objects.create(organization=home.organization, name=unique("b"), provider="simulated")
    client.post(address(other, "test", other.pk), {"route": "1", "model": [home.route.model, home.route.model]})
    assert ModelRoute.objects.get(credential=other).priority == home.route.priority + 1


def test_a_step_that_is_refused_says_so_at_its_field_and_makes_nothing(cast: Cast) -> None:
    home, client = cast.home.organization, cast.browser("admin")
    taken = take(client, home, "application", name=cast.home.application.name)
    assert "already exists" in messages_of(taken, "application")
    theirs = take(client, home, "key", application=str(cast.foreign.application.pk), name="x")
    assert "Select a valid choice" in messages_of(theirs, "key")
    assert Application.objects.filter(organization=home).count() == 1
    assert ApiKey.objects.filter(organization=cast.foreign.organization).count() == 1


@pytest.mark.parametrize("person", ["developer", "auditor", "outsider", "nobody"])
def test_only_an_admin_of_the_organization_sets_it_up(onlookers: Cast, person: str) -> None:
    client, home = onlookers.browser(person), onlookers.home.organization
    assert client.get(reverse("admin:setup", args=[home.pk])).status_code in (302, 403)
    assert take(client, home, "application", name="mine").status_code in (302, 403)
    assert not Application.objects.filter(name="mine").exists()


def test_the_guide_stays_for_a_day_after_the_first_request_and_then_makes_room(empty: Organization) -> None:
    client = browser(member(empty, Role.ADMIN))
    application = Application.objects.create(organization=empty, name="app")
    keys.issue(organization=empty, application=application, name="key")
    Policy.objects.create(organization=empty, name="all", kind="model_restriction", config={"allow": ["*"]})
    record = make_record(empty, application, unique("first"))
    guide = client.get(reverse("admin:index")).context["guide"]
    assert guide.finished
    assert {step.key: step.link for step in guide.steps}["record"] == address(record, "change", record.pk)
    old = "01800000-0000-7000-8000-" + unique("x")[-12:]
    make_record(empty, application, unique("old"), id=old)
    assert client.get(reverse("admin:index")).context["guide"] is None


@override_settings(COGNITO_REDIRECT_URI="https://llm.example.com/oauth2/idpresponse")
def test_the_examples_name_the_public_address_where_it_is_known(cast: Cast) -> None:
    said = {"application": str(cast.home.application.pk), "name": "k"}
    page = take(cast.browser("admin"), cast.home.organization, "key", **said).content.decode()
    assert "https://llm.example.com/v1/chat/completions" in page
    assert "testserver" not in page


def test_each_other_role_finds_its_own_ways_on_the_front_page(cast: Cast) -> None:
    for role, title in (("developer", "Make a key"), ("auditor", "Changes")):
        front = cast.browser(role).get(reverse("admin:index"))
        assert front.context["guide"] is None
        assert title in [way.title for way in front.context["ways"]]
        for way in front.context["ways"]:
            assert cast.browser(role).get(way.link).status_code == 200, way.link


def test_a_developer_of_an_organization_without_applications_is_told_to_wait(empty: Organization) -> None:
    client = browser(member(empty, Role.DEVELOPER))
    assert [way.title for way in client.get(reverse("admin:index")).context["ways"]] == ["Wait for an application"]
    assert "Ask an admin" in client.get(reverse("admin:playground")).content.decode()


def test_an_empty_list_says_what_to_do_next(empty: Organization) -> None:
    client = browser(member(empty, Role.ADMIN))
    for model in (Application, ApiKey, ProviderCredential, ModelRoute, Policy):
        page = client.get(address(model, "changelist"))
        assert page.context["cl"].model_admin.when_empty in page.content.decode().replace("&#x27;", "'"), model
