"""Tokens of the identity provider on the API: who they are taken for, and that what changes holds at once."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from apps.audit.models import ChangeRecord
from apps.orgs import keys
from apps.orgs.models import Application, Identity, Membership, Organization, User
from apps.orgs.versions import read_versions
from tests.api.cast import Api, error_of
from tests.gateway.house import House, chat, pipeline, run
from tests.login.pool import KeyServer, access, payload, signed

pytestmark = pytest.mark.usefixtures("pool")

NOBODYS = "00000000-0000-4000-8000-000000000000"


class Person:
    """Somebody in the user pool, with a place in a house."""

    def __init__(self, house: House, role: str = "developer", **claims: Any) -> None:
        self.subject = str(uuid4())
        self.email = f"{uuid4().hex[:12]}@example.com"
        self.claims = {
            "custom:orgId": str(house.organization.pk),
            "custom:appId": str(house.application.pk),
            "custom:userRole": role,
            **claims,
        }

    def id_token(self, **changed: Any) -> str:
        return signed(payload(**{"sub": self.subject, "email": self.email, **self.claims, **changed}))

    def access_token(self, **changed: Any) -> str:
        return signed(access(sub=self.subject, **changed))

    def newer(self) -> int:
        """A time of issue that is after any token so far."""
        return int(time.time()) + 5

    @property
    def user(self) -> User:
        return Identity.objects.get(subject=self.subject).user


@pytest.fixture
def house() -> House:
    return House()


def statuses(tmp_path: Path, *steps: str | Callable[[], object]) -> list[int]:
    """Send one request with each token, on one pipeline; what is no token is done in between."""

    async def walk() -> list[int]:
        answers = []
        async with pipeline(tmp_path) as path:
            for step in steps:
                if isinstance(step, str):
                    answers.append((await path.complete_chat(chat(step))).status)
                else:
                    await asyncio.to_thread(step)
        return answers

    result: list[int] = run(walk)
    return result


def api(token: str) -> Api:
    return Api(token)


# --- Who it is


def test_an_id_token_calls_models_as_its_user_and_application(tmp_path: Path, house: House) -> None:
    person = Person(house)
    assert statuses(tmp_path, person.id_token(), person.access_token()) == [200, 200]
    for record in house.records():
        assert (record.organization_id, record.application_id) == (house.organization.pk, house.application.pk)
        assert (record.user_id, record.user_name) == (person.user.pk, person.email)
        assert (record.api_key_id, record.api_key_prefix) == (None, "")


def test_without_an_application_a_token_calls_as_a_users_key_does(tmp_path: Path, house: House) -> None:
    person = Person(house, **{"custom:appId": None})
    assert statuses(tmp_path, person.id_token()) == [200]
    assert house.only_record().application_id is None


def test_policies_of_the_application_and_of_the_user_hold_for_a_token(tmp_path: Path, house: House) -> None:
    person, colleague = Person(house), Person(house, **{"custom:appId": None})
    token, other = person.id_token(), colleague.id_token()

    def forbid(**scope: Any) -> Callable[[], object]:
        return lambda: house.add("model_restriction", {"deny": ["sim-*"]}, **scope)

    assert statuses(tmp_path, token, other, forbid(application=house.application), token, other) == [200, 200, 403, 200]
    assert statuses(tmp_path, other, forbid(user=colleague.user), other) == [200, 403]


@pytest.mark.parametrize("role", ["admin", "developer", "auditor"])
def test_a_token_acts_on_the_admin_api_with_its_role(house: House, role: str) -> None:
    person = Person(house, role)
    name = f"app {uuid4()}"
    made = api(person.id_token()).post("applications", {"organization": str(house.organization.pk), "name": name})
    assert made.status_code == (201 if role == "admin" else 403)
    seen = api(person.access_token()).get("applications").json()["results"]
    assert {one["organization"] for one in seen} == {str(house.organization.pk)}
    if role == "admin":
        record = ChangeRecord.objects.get(object_name=name)
        assert (record.actor_id, record.via) == (person.user.pk, "api")


def test_a_person_is_the_subject_of_the_issuer_and_never_an_address(house: House) -> None:
    known = User.objects.create_user(f"{uuid4()}@example.com", is_superuser=True)
    known.email = known.username
    known.save()
    person = Person(house)
    person.email = known.username
    assert api(person.id_token()).get("organizations").status_code == 200
    assert person.user != known
    assert not person.user.is_superuser
    assert person.user.username == person.subject


def test_no_claim_makes_a_superadmin(house: House) -> None:
    person = Person(house, "superadmin")
    error_of(api(person.id_token()).get("organizations"), 403, "FORBIDDEN")
    assert not Identity.objects.filter(subject=person.subject).exists()


def test_a_superadmin_who_is_known_by_subject_needs_no_claims(house: House) -> None:
    root = User.objects.create_user(f"root {uuid4()}", is_superuser=True)
    person = Person(house, **{"custom:orgId": None, "custom:appId": None, "custom:userRole": None})
    error_of(api(person.access_token()).get("organizations"), 401, "UNAUTHENTICATED")
    template = payload()
    Identity.objects.create(user=root, issuer=template["iss"], subject=person.subject)
    for token in (person.access_token(), person.id_token()):
        found = api(token).get("organizations", name=house.organization.name)
        assert [one["id"] for one in found.json()["results"]] == [str(house.organization.pk)]


@pytest.mark.parametrize(
    "claims",
    [
        {"custom:orgId": None},
        {"custom:orgId": NOBODYS},
        {"custom:orgId": "not an id"},
        {"custom:userRole": None},
        {"custom:userRole": "owner"},
        {"custom:userRole": "Admin"},
        {"custom:appId": NOBODYS},
        {"custom:appId": "not an id"},
        {"email_verified": False},
        {"email": None},
    ],
    ids=str,
)
def test_who_has_no_place_here_is_refused_everywhere_and_leaves_nothing(
    tmp_path: Path, house: House, claims: dict[str, Any]
) -> None:
    person = Person(house)
    token = person.id_token(**claims)
    error_of(api(token).get("organizations"), 403, "FORBIDDEN")
    assert statuses(tmp_path, token) == [403]
    assert not Identity.objects.filter(subject=person.subject).exists()
    assert house.records() == []


def test_an_application_of_another_organization_is_refused(tmp_path: Path, house: House) -> None:
    foreign = House()
    person = Person(house, **{"custom:appId": str(foreign.application.pk)})
    assert statuses(tmp_path, person.id_token()) == [403]


def test_somebody_the_provider_knows_and_nobody_here_does_is_nobody(tmp_path: Path, house: House) -> None:
    token = Person(house).access_token()
    error_of(api(token).get("organizations"), 401, "UNAUTHENTICATED")
    assert statuses(tmp_path, token) == [401]


@pytest.mark.parametrize(
    "token",
    [signed(key="forger"), signed(payload(aud="another")), "a.b.c", "..", "x." * 9000],
    ids=["another's key", "another audience", "letters", "dots", "too long"],
)
def test_a_forgery_is_a_401_at_every_door(tmp_path: Path, token: str) -> None:
    error_of(api(token).get("organizations"), 401, "UNAUTHENTICATED")
    assert statuses(tmp_path, token) == [401]


def test_without_a_user_pool_no_token_is_read(tmp_path: Path, house: House, settings: Any) -> None:
    settings.COGNITO_USER_POOL_ID = ""
    token = Person(house).id_token()
    error_of(api(token).get("organizations"), 401, "UNAUTHENTICATED")
    assert statuses(tmp_path, token) == [401]


def test_while_the_providers_keys_cannot_be_had_it_is_a_503(
    tmp_path: Path, house: House, settings: Any, pool: KeyServer
) -> None:
    settings.AWS_ENDPOINT_URL = "http://127.0.0.1:1"
    token = Person(house).id_token()
    answer = api(token).get("organizations")
    error_of(answer, 503, "SERVICE_UNAVAILABLE")
    assert answer.headers["Retry-After"]
    assert statuses(tmp_path, token, house.key) == [503, 200]


# --- What holds at once

CHANGES: list[tuple[str, Callable[[House, Person], object], int, int]] = [
    ("the user is disabled", lambda h, p: User.objects.filter(pk=p.user.pk).update(is_active=False), 401, 401),
    ("the membership ends", lambda h, p: Membership.objects.filter(user=p.user).delete(), 401, 401),
    ("the user is deleted", lambda h, p: p.user.delete(), 401, 401),
    ("the identity is taken away", lambda h, p: Identity.objects.filter(user=p.user).delete(), 401, 401),
    (
        "the application is turned off",
        lambda h, p: Application.objects.filter(pk=h.application.pk).update(is_active=False),
        401,
        200,
    ),
    (
        "the organization is suspended",
        lambda h, p: Organization.objects.filter(pk=h.organization.pk).update(state="suspended"),
        403,
        200,
    ),
    ("a policy of the user denies", lambda h, p: h.add("model_restriction", {"deny": ["*"]}, user=p.user), 403, 200),
]


@pytest.mark.parametrize(("name", "change", "on_models", "on_admin"), CHANGES, ids=[c[0] for c in CHANGES])
def test_a_change_holds_for_the_next_request_with_a_token_that_was_seen(
    tmp_path: Path,
    house: House,
    name: str,
    change: Callable[[House, Person], object],
    on_models: int,
    on_admin: int,
) -> None:
    person = Person(house)
    api(person.id_token()).get("applications")
    token = person.access_token()
    assert api(token).get("applications").status_code == 200
    assert statuses(tmp_path, token, token, lambda: change(house, person), token) == [200, 200, on_models]
    assert api(token).get("applications").status_code == on_admin


def test_a_membership_taken_away_here_is_not_brought_back_by_a_token_that_was_seen(
    tmp_path: Path, house: House
) -> None:
    person = Person(house)
    token = person.id_token()
    ended = [token, lambda: Membership.objects.filter(user=person.user).delete(), token]
    assert statuses(tmp_path, *ended) == [200, 401]
    assert api(token).get("applications").status_code == 401
    assert not Membership.objects.filter(user=person.user).exists()


def test_a_role_changed_here_holds_until_the_provider_says_something_newer(house: House) -> None:
    person = Person(house, "admin")
    token = person.id_token()
    new = {"organization": str(house.organization.pk)}
    assert api(token).post("applications", {**new, "name": "one"}).status_code == 201
    Membership.objects.filter(user=person.user).update(role="auditor")
    assert api(token).post("applications", {**new, "name": "two"}).status_code == 403
    assert api(person.id_token(iat=person.newer())).post("applications", {**new, "name": "three"}).status_code == 201
    assert api(token).post("applications", {**new, "name": "four"}).status_code == 201


def test_a_newer_token_moves_a_person_and_their_keys_of_before_end(tmp_path: Path, house: House) -> None:
    person, elsewhere = Person(house, "admin"), House()
    first = person.id_token()
    assert statuses(tmp_path, first) == [200]
    key = keys.issue(user=person.user, organization=house.organization, name="mine").text
    person.claims |= {
        "custom:orgId": str(elsewhere.organization.pk),
        "custom:appId": str(elsewhere.application.pk),
        "custom:userRole": "auditor",
    }
    second = person.id_token(iat=person.newer())
    assert statuses(tmp_path, key, second, first, key) == [200, 200, 401, 401]
    (membership,) = Membership.objects.filter(user=person.user)
    assert (membership.organization, membership.role) == (elsewhere.organization, "auditor")
    recorded = ChangeRecord.objects.filter(actor_id=person.user.pk, object_type="orgs.membership")
    assert sorted((r.action, r.organization_id) for r in recorded) == sorted(
        [
            ("create", house.organization.pk),
            ("delete", house.organization.pk),
            ("create", elsewhere.organization.pk),
        ]
    )


def test_a_token_that_was_seen_writes_nothing_and_leaves_every_configuration_current(house: House) -> None:
    from django.db import connection

    person = Person(house)
    api(person.id_token()).get("applications")
    before = read_versions(connection, [house.organization.pk])
    records = ChangeRecord.objects.filter(actor_id=person.user.pk).count()
    for token in (person.id_token(), person.id_token(iat=person.newer()), person.access_token()):
        assert api(token).get("applications").status_code == 200
    assert read_versions(connection, [house.organization.pk]) == before
    assert ChangeRecord.objects.filter(actor_id=person.user.pk).count() == records


def test_an_access_token_of_a_person_in_two_organizations_names_neither(tmp_path: Path, house: House) -> None:
    person, second = Person(house), House()
    token = person.id_token()
    assert statuses(tmp_path, token) == [200]
    Membership.objects.create(organization=second.organization, user=person.user, role="developer")
    assert statuses(tmp_path, token, person.access_token()) == [200, 401]


def test_an_expired_token_is_refused_by_a_process_that_has_seen_it(
    tmp_path: Path, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.orgs.jwts.LEEWAY_SECONDS", 0)
    person = Person(house)

    async def before_and_after() -> list[int]:
        async with pipeline(tmp_path) as path:
            await path.complete_chat(chat(person.id_token()))
            ends = int(time.time()) + 2
            token = person.access_token(exp=ends)
            seen = (await path.complete_chat(chat(token))).status
            await asyncio.sleep(max(0.0, ends - time.time()) + 0.01)
            return [seen, (await path.complete_chat(chat(token))).status]

    assert run(before_and_after) == [200, 401]
