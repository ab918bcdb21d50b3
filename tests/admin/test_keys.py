"""API keys: shown once, ended for good, and never a way to more rights."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.audit.models import ChangeRecord
from apps.orgs import keys
from apps.orgs.models import ApiKey, Organization, User
from apps.policies.models import Policy
from tests.admin.cast import RATE, Cast, address, errors, filled, made, unique


def new_key(client: Client, cast: Cast, **changes: Any) -> Any:
    form = {"owner": "application", "application": str(cast.home.application.pk), "name": unique("key")}
    return filled(client, address(ApiKey, "add"), **(form | changes))


def personal(user: User, organization: Organization | None) -> ApiKey:
    return keys.issue(user=user, organization=organization, name=unique("personal")).row


@pytest.mark.parametrize("role", ["superadmin", "admin", "developer"])
def test_a_new_key_is_shown_in_the_answer_and_works(cast: Cast, role: str) -> None:
    response = new_key(cast.browser(role), cast)
    assert response.status_code == 200
    text = response.context["key"]
    found = keys.find(text)
    assert found is not None
    assert (found.application, found.organization) == (cast.home.application, cast.home.organization)
    page = response.content.decode()
    assert text in page
    assert "http://testserver/v1/chat/completions" in page
    assert "no-store" in response["Cache-Control"]


def test_the_text_of_a_key_is_kept_nowhere(cast: Cast) -> None:
    client = cast.browser("admin")
    response = new_key(client, cast)
    text = response.context["key"]
    secret = text.split("_")[2]
    row = keys.find(text)
    assert row is not None
    assert secret not in str(response.headers)
    assert secret not in response.request["PATH_INFO"] + response.request["QUERY_STRING"]
    assert secret not in "".join(morsel.OutputString() for morsel in client.cookies.values())
    session = Session.objects.get(session_key=client.session.session_key)
    assert secret not in str(session.get_decoded())
    for page in ("changelist", "change", "history"):
        url = address(ApiKey, page, row.pk if page != "changelist" else None)
        assert secret not in client.get(url).content.decode()
    assert not [record for record in ChangeRecord.objects.filter(object_id=row.pk) if secret in str(vars(record))]


def test_no_page_shows_a_keys_digest(cast: Cast) -> None:
    key, client = cast.home.key, cast.browser("superadmin")
    for page in ("change", "history", "delete"):
        assert key.digest not in client.get(address(key, page, key.pk)).content.decode()


def test_a_digest_is_not_changed_by_submitting_one(cast: Cast) -> None:
    key = cast.home.key
    filled(cast.browser("superadmin"), address(key, "change", key.pk), name="renamed", digest="0" * 64, prefix="x")
    before = (key.digest, key.prefix)
    key.refresh_from_db()
    assert key.name == "renamed"
    assert (key.digest, key.prefix) == before


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"application": ""}, "application"),
        ({"name": ""}, "name"),
        ({"owner": "user", "user": ""}, "user"),
        ({"owner": "moon"}, "owner"),
        ({"expires_at_0": "2001-01-01", "expires_at_1": "00:00:00"}, "expires_at"),
    ],
)
def test_a_key_without_what_it_needs_is_refused_at_the_field(
    onlookers: Cast, changes: dict[str, str], field: str
) -> None:
    assert field in errors(new_key(onlookers.browser("admin"), onlookers, **changes))


# --- Personal keys


def test_a_developer_issues_a_key_for_themselves(cast: Cast) -> None:
    user = cast.people["developer"]
    response = new_key(cast.browser("developer"), cast, owner="user", user=str(user.pk))
    found = keys.find(response.context["key"])
    assert found is not None
    assert (found.user, found.organization, found.application) == (user, cast.home.organization, None)


@pytest.mark.parametrize("owner", ["admin", "auditor", "superadmin"])
def test_a_developer_cannot_issue_a_key_for_anybody_else(onlookers: Cast, owner: str) -> None:
    target = str(onlookers.people[owner].pk)
    assert "user" in errors(new_key(onlookers.browser("developer"), onlookers, owner="user", user=target))


def test_an_admin_cannot_issue_a_key_for_a_superadmin_even_of_the_same_organization(cast: Cast) -> None:
    cast.people["superadmin"].memberships.create(organization=cast.home.organization, role="developer")
    target = str(cast.people["superadmin"].pk)
    assert "user" in errors(new_key(cast.browser("admin"), cast, owner="user", user=target))


@pytest.mark.parametrize("person", ["developer", "auditor"])
def test_only_the_owner_and_an_admin_have_a_personal_keys_successor(cast: Cast, person: str) -> None:
    key = personal(cast.people["admin"], cast.home.organization)
    url = address(key, "rotate_key", key.pk)
    assert cast.browser(person).post(url, {"grace": "0"}).status_code == 403
    key.refresh_from_db()
    assert key.state == "active"
    assert cast.browser("admin").post(url, {"grace": "0"}).status_code == 200


# --- Ending keys


def test_revoking_asks_first(cast: Cast) -> None:
    key, client = cast.home.key, cast.browser("admin")
    url = address(key, "revoke_key", key.pk)
    assert "cannot be undone" in client.get(url).content.decode()
    key.refresh_from_db()
    assert key.state == "active"


def test_a_revoked_key_stays_revoked_and_the_record_says_why(cast: Cast) -> None:
    key, client = cast.home.key, cast.browser("admin")
    url = address(key, "revoke_key", key.pk)
    assert client.post(url, {"reason": "leaked"}).status_code == 302
    key.refresh_from_db()
    assert key.state == "revoked"
    record = ChangeRecord.objects.get(object_id=key.pk, action="revoke")
    assert (record.actor_name, record.via, record.reason) == (cast.people["admin"].username, "admin", "leaked")
    assert client.post(url).status_code == 403
    assert client.post(address(key, "rotate_key", key.pk), {"grace": "0"}).status_code == 403


def test_an_auditor_can_neither_revoke_nor_rotate(onlookers: Cast) -> None:
    key = onlookers.home.key
    for button in ("revoke_key", "rotate_key"):
        assert onlookers.browser("auditor").post(address(key, button, key.pk), {"grace": "0"}).status_code == 403


def test_rotating_shows_a_successor_once_and_moves_the_keys_policies(cast: Cast) -> None:
    key = cast.home.key
    response = cast.browser("admin").post(address(key, "rotate_key", key.pk), {"grace": "0"})
    successor = keys.find(response.context["key"])
    assert successor is not None
    key.refresh_from_db()
    assert (key.state, successor.state) == ("revoked", "active")
    assert successor.application == key.application
    cast.home.key_policy.refresh_from_db()
    assert cast.home.key_policy.api_key == successor
    actions = set(ChangeRecord.objects.filter(object_id__in=[key.pk, successor.pk]).values_list("action", flat=True))
    assert actions == {"create", "rotate"}


def test_a_rotated_key_may_work_for_a_grace(cast: Cast) -> None:
    key = personal(cast.people["admin"], cast.home.organization)
    cast.browser("admin").post(address(key, "rotate_key", key.pk), {"grace": "3600"})
    key.refresh_from_db()
    assert key.state == "active"
    assert key.expires_at is not None
    assert timezone.now() < key.expires_at <= timezone.now() + timedelta(hours=1)


def test_a_grace_is_refused_for_a_key_with_policies_of_its_own(cast: Cast) -> None:
    key = cast.home.key
    response = cast.browser("admin").post(address(key, "rotate_key", key.pk), {"grace": "3600"})
    assert response.context["question"].form.errors
    assert ApiKey.objects.filter(application=cast.home.application).count() == 1


def test_the_button_of_an_application_leads_to_a_key_for_it(cast: Cast) -> None:
    application = cast.home.application
    response = cast.browser("developer").get(address(application, "new_key", application.pk), follow=True)
    assert response.redirect_chain[0][0] == f"{reverse('admin:orgs_apikey_add')}?application={application.pk}"
    assert response.context["adminform"].form.initial["application"] == str(application.pk)


def test_deleting_a_key_records_the_policies_that_went_with_it(cast: Cast) -> None:
    policy = made(
        Policy(organization=cast.home.organization, api_key=cast.home.key, name="r", kind="rate_limit", config=RATE)
    )
    key_id = cast.home.key.pk
    cast.browser("admin").post(address(ApiKey, "delete", key_id), {"post": "yes"})
    assert not ApiKey.objects.filter(pk=key_id).exists()
    record = ChangeRecord.objects.get(object_id=policy.pk, action="delete")
    assert "Deleted with API key" in record.reason


def test_keys_are_listed_by_whether_they_work(cast: Cast) -> None:
    home = cast.home
    owner = {"organization": home.organization, "application": home.application}
    now = timezone.now()
    expired = keys.issue(**owner, name="expired").row
    ApiKey.objects.filter(pk=expired.pk).update(expires_at=now - timedelta(hours=1))
    later = keys.issue(**owner, name="later", expires_at=now + timedelta(hours=1)).row
    revoked = keys.issue(**owner, name="revoked").row
    revoked.revoke()
    for state, expected in {
        "active": {home.key.pk, later.pk},
        "expired": {expired.pk},
        "revoked": {revoked.pk},
    }.items():
        listed = cast.browser("admin").get(address(ApiKey, "changelist"), {"state": state})
        assert {row.pk for row in listed.context["cl"].result_list} == expected
        assert all(row.state == state for row in listed.context["cl"].result_list)
