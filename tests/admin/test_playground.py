"""The playground: a real request in an application's name, by who may, with its record; and by nobody else."""

import json
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import reverse

from apps.audit.models import RequestRecord
from apps.gateway.runtime import BACKGROUND
from apps.orgs.models import Application, Organization, User
from apps.orgs.roles import Role
from apps.policies.models import Policy, Price
from controlplane import playground
from tests.admin.cast import Cast, gather, make_record, member, unique
from tests.gateway.house import PRICE

ASK = "/admin/playground/ask/"
SAID = {"model": "sim-echo", "message": "Hi there", "max_tokens": "50"}

pytestmark = pytest.mark.usefixtures("no_runtime_is_left")


@pytest.fixture(scope="module")
def house() -> Cast:
    """A cast whose home may use the simulated models, within a budget."""
    cast = gather()
    if not Price.objects.filter(**PRICE).exists():
        Price.objects.create(**PRICE)
    allow(cast.home.organization, "sim-*")
    return cast


def allow(organization: Organization, *models: str, **scope: Any) -> Policy:
    config = {"allow": list(models)}
    return Policy.objects.create(
        organization=organization, name="allowed", kind="model_restriction", config=config, **scope
    )


def ask(client: Client, application: Application, **changes: str) -> Any:
    return client.post(ASK, {"application": str(application.pk), **SAID, **changes})


def record_of(answer: Any) -> RequestRecord:
    return RequestRecord.objects.get(pk=answer["x-request-id"])


def streamed(answer: Any) -> str:
    events = [line for line in b"".join(answer.streaming_content).decode().split("\n\n") if line]
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@pytest.mark.parametrize("role", ["superadmin", "admin", "developer"])
def test_a_request_is_streamed_and_recorded_with_the_application_and_the_person(house: Cast, role: str) -> None:
    answer = ask(house.browser(role), house.home.application, stream="on")
    assert streamed(answer) == "Hi there"
    record = record_of(answer)
    assert (record.application_id, record.user_id) == (house.home.application.pk, house.people[role].pk)
    assert (record.status, record.streamed, record.metadata) == ("success", True, {"sent_from": "playground"})
    assert (record.tokens_output, record.cost_nano_usd > 0, record.api_key_prefix) == (2, True, "")
    assert [policy["name"] for policy in record.policies if policy["kind"] == "cost_cap"] == [house.home.policy.name]


def test_an_answer_that_is_not_streamed_comes_whole(house: Cast) -> None:
    answer = ask(house.browser("developer"), house.home.application)
    assert answer.json()["choices"][0]["message"]["content"] == "Hi there"
    assert record_of(answer).streamed is False


def test_what_each_stage_did_stands_beside_the_answer_with_a_way_to_the_record(house: Cast) -> None:
    client = house.browser("developer")
    record = record_of(ask(client, house.home.application, message="Write to jane.doe@example.org"))
    page = client.get(reverse("admin:playground_outcome", args=[record.pk]))
    assert {stage.outcome for stage in page.context["why"].stages} == {"passed"}
    text = page.content.decode()
    for words in ("sim-echo", "email", house.home.policy.name):
        assert words in text, words
    assert reverse("admin:audit_requestrecord_change", args=[record.pk]) in text
    assert "jane.doe" not in text


def test_a_refusal_is_recorded_and_says_what_to_do_and_who_can(house: Cast) -> None:
    for role, advised in (("admin", "Choose policies"), ("developer", "An admin of the organization can do that.")):
        client = house.browser(role)
        answer = ask(client, house.home.application, model="gpt-4o", stream="on")
        assert answer.status_code in (403, 404)
        error = answer.json()["error"]
        assert "gpt-4o" in error["message"]
        page = client.get(reverse("admin:playground_outcome", args=[record_of(answer).pk])).content.decode()
        assert advised in page or "Model routes" in page
        assert "not reached" in page


def test_policies_of_the_application_and_of_the_person_both_hold(house: Cast) -> None:
    organization = house.home.organization
    person = member(organization, Role.DEVELOPER)
    allow(organization, "sim-usage-*", user=person)
    client = Client()
    client.force_login(person)
    refused = ask(client, house.home.application)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "MODEL_NOT_ALLOWED")
    assert ask(client, house.home.application, model="sim-usage-3-4").status_code == 200


def test_a_stream_that_is_left_is_settled_as_cancelled_and_gives_its_place_back(house: Cast) -> None:
    client, free = house.browser("developer"), playground._Place._free._value  # type: ignore[attr-defined]
    answer = ask(client, house.home.application, model="sim-stream-2000", stream="on", max_tokens="5000")
    assert playground._Place._free._value == free - 1  # type: ignore[attr-defined]
    next(iter(answer.streaming_content))
    answer.close()
    BACKGROUND.finish_loose_ends()
    assert playground._Place._free._value == free  # type: ignore[attr-defined]
    page = None
    for _ in range(200):
        page = client.get(reverse("admin:playground_outcome", args=[answer["x-request-id"]]))
        if page.status_code == 200:
            break
    assert page is not None
    record = page.context["record"]
    assert (record.status, record.attempts[-1].get("fault")) == ("cancelled", None)


def test_no_more_are_sent_at_once_than_leave_room_for_the_other_pages(house: Cast) -> None:
    client, taken = house.browser("developer"), []
    while place := playground._Place.take():
        taken.append(place)
    answer = ask(client, house.home.application, stream="on")
    for place in taken:
        place.leave()
        place.leave()
    assert (answer.status_code, answer.json()["error"]["code"], answer["x-not-sent"]) == (503, "BUSY", "1")
    assert ask(client, house.home.application).status_code == 200


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": ""}, "model"),
        ({"message": " "}, "message"),
        ({"max_tokens": "0"}, "max_tokens"),
        ({"max_tokens": "lots"}, "max_tokens"),
        ({"message": "x" * 200_000}, "message"),
        ({"application": "nonsense"}, "application"),
        ({"application": str(uuid4())}, "application"),
    ],
)
def test_a_form_that_is_wrong_sends_nothing_and_says_where(house: Cast, changes: dict[str, str], field: str) -> None:
    before = RequestRecord.objects.filter(organization_id=house.home.organization.pk).count()
    said = {"application": str(house.home.application.pk), **SAID, **changes}
    answer = house.browser("admin").post(ASK, said)
    assert (answer.status_code, list(answer.json()["error"]["fields"])) == (400, [field])
    assert RequestRecord.objects.filter(organization_id=house.home.organization.pk).count() == before


def test_nobody_acts_with_an_application_of_another_organization(house: Cast) -> None:
    before = RequestRecord.objects.filter(organization_id=house.foreign.organization.pk).count()
    for person in ("admin", "developer"):
        answer = ask(house.browser(person), house.foreign.application)
        of_nothing = ask(house.browser(person), Application(pk=uuid4()))
        assert (answer.status_code, answer.content) == (400, of_nothing.content)
        assert house.foreign.marker not in house.browser(person).get(reverse("admin:playground")).content.decode()
    theirs = make_record(house.foreign.organization, house.foreign.application, unique("theirs"))
    assert house.browser("admin").get(reverse("admin:playground_outcome", args=[theirs.pk])).status_code == 204
    assert RequestRecord.objects.filter(organization_id=house.foreign.organization.pk).count() == before + 1


@pytest.mark.parametrize("person", ["auditor", "nobody", "outsider"])
def test_who_may_make_no_key_for_an_application_may_not_try_it_out(house: Cast, person: str) -> None:
    client = house.browser(person)
    assert ask(client, house.home.application).status_code in (302, 400, 403)
    if person != "outsider":
        assert client.get(reverse("admin:playground")).status_code in (302, 403)
        assert client.get(reverse("admin:playground_outcome", args=[house.home.record.pk])).status_code in (302, 403)


def test_the_first_model_that_is_offered_answers(house: Cast) -> None:
    page = house.browser("admin").get(f"/admin/playground/?application={house.home.application.pk}")
    offered = page.context["models"]
    assert offered.index("sim-echo") < offered.index("sim-broken-3")
    first = page.context["form"]["model"].value()
    answer = ask(house.browser("admin"), house.home.application, model=first, stream="on")
    assert streamed(answer) == "Hi there"


def test_an_application_that_is_inactive_is_not_offered(house: Cast) -> None:
    row = Application.objects.create(organization=house.home.organization, name=unique("off"), is_active=False)
    assert ask(house.browser("admin"), row).status_code == 400


def test_a_right_that_was_taken_while_the_page_was_open_holds_no_more(house: Cast) -> None:
    from apps.gateway import playground as gateway

    person = member(house.home.organization, Role.DEVELOPER)
    visitor = gateway._visitor(person, house.home.application)
    assert visitor.find() is not None
    person.memberships.update(role=Role.AUDITOR.value)
    assert visitor.find() is None
    User.objects.filter(pk=person.pk).update(is_active=False)
    assert visitor.find() is None


def test_another_site_cannot_send_one(house: Cast) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(house.people["admin"])
    assert ask(client, house.home.application).status_code == 403
    assert client.get(ASK).status_code == 405
