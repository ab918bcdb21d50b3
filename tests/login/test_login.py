"""Login to the admin with a real OpenID provider: who is let in, as what, and every way in which it is refused."""

import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client, override_settings

from apps.audit.models import ChangeRecord
from apps.orgs import keys
from apps.orgs.models import Identity, Membership, Organization, User
from tests.admin.conftest import PLAIN_STATIC
from tests.api.cast import Api
from tests.login.flow import HOST, Visitor, query
from tests.services.openid_provider import OpenIdProvider


@pytest.fixture(scope="module")
def provider(openid: OpenIdProvider) -> Iterator[OpenIdProvider]:
    names = {**openid.settings(), "STORAGES": PLAIN_STATIC, "STATIC_ROOT": settings.BASE_DIR / "static"}
    with override_settings(**names):
        yield openid


@pytest.fixture
def visitor(provider: OpenIdProvider) -> Visitor:
    return Visitor(provider)


def events(user: User | None) -> list[tuple[str, str]]:
    """What the trail says of somebody's logins, oldest first."""
    rows = ChangeRecord.objects.filter(object_id=str(user.pk), action__in=["login", "login refused", "logout"])
    return [(row.action, row.reason) for row in rows.order_by("id")]


# --- Let in


def test_a_login_makes_a_member_of_the_claimed_organization_and_leaves_records(visitor: Visitor) -> None:
    answer = visitor.log_in()
    assert (answer.status_code, answer.url) == (302, "/admin/")
    assert visitor.is_in()
    (membership,) = Membership.objects.filter(user=visitor.user)
    assert (membership.organization, membership.application, membership.role) == (
        visitor.organization,
        visitor.application,
        "developer",
    )
    assert (visitor.user.email, visitor.user.has_usable_password()) == (visitor.email, False)
    assert events(visitor.user) == [("login", "")]
    record = ChangeRecord.objects.get(object_id=str(visitor.user.pk), action="login")
    assert (record.organization_id, record.actor_id, record.address) == (
        visitor.organization.pk,
        visitor.user.pk,
        str(ip_address(visitor.address)),
    )


def test_the_request_carries_state_nonce_and_pkce_and_none_of_them_twice(visitor: Visitor) -> None:
    first, second = query(visitor.begin()), query(visitor.begin())
    assert first["response_type"] == "code"
    assert first["code_challenge_method"] == "S256"
    assert first["redirect_uri"] == f"http://{HOST}/oauth2/idpresponse"
    assert set(first["scope"].split()) == {"openid", "email", "profile"}
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name]) >= 32
        assert first[name] != second[name]


def test_a_login_leads_to_the_page_that_was_asked_for(visitor: Visitor) -> None:
    assert visitor.log_in("/admin/orgs/application/?q=a&p=1").url == "/admin/orgs/application/?q=a&p=1"


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example.com/",
        "//evil.example.com/admin/",
        "/\\evil.example.com",
        "http:///evil.example.com",
        "https://127.0.0.1:8123@evil.example.com/",
        "javascript:alert(1)",
    ],
)
def test_a_login_leads_to_no_other_host(visitor: Visitor, target: str) -> None:
    assert visitor.log_in(target).url == "/admin/"


def test_a_session_id_from_before_the_login_is_worth_nothing_after_it(visitor: Visitor) -> None:
    address = visitor.begin()
    planted = visitor.ours.cookies[settings.SESSION_COOKIE_NAME].value
    visitor.come_back(visitor.log_in_there(address))
    assert visitor.ours.cookies[settings.SESSION_COOKIE_NAME].value != planted
    thief = Client(headers={"host": HOST})
    thief.cookies[settings.SESSION_COOKIE_NAME] = planted
    assert thief.get("/admin/").status_code == 302
    assert not SessionStore().exists(planted)


def test_a_changed_role_holds_from_the_next_login_and_a_changed_organization_takes_the_old_one_away(
    visitor: Visitor,
) -> None:
    visitor.log_in()
    key = keys.issue(user=visitor.user, organization=visitor.organization, name="mine").text
    assert Api(key).get("applications").json()["results"]
    visitor.change(**{"custom:userRole": "admin"})
    visitor.log_in()
    assert Membership.objects.get(user=visitor.user).role == "admin"
    elsewhere = Organization.objects.create(name=f"elsewhere {uuid4()}")
    visitor.change(**{"custom:orgId": str(elsewhere.pk), "custom:appId": None})
    visitor.log_in()
    (membership,) = Membership.objects.filter(user=visitor.user)
    assert (membership.organization, membership.application) == (elsewhere, None)
    assert Api(key).get("applications").status_code == 403


def test_a_person_is_known_by_subject_though_the_address_changes_or_is_somebody_elses(visitor: Visitor) -> None:
    visitor.log_in()
    known = User.objects.create_user(f"{uuid4()}@example.com", is_superuser=True)
    User.objects.filter(pk=known.pk).update(email=known.username)
    visitor.change(email=known.username)
    visitor.log_in()
    assert visitor.user != known
    assert not visitor.user.is_superuser
    assert visitor.user.email == known.username


def test_a_superadmin_is_made_here_and_linked_by_command(provider: OpenIdProvider) -> None:
    from django.core.management import CommandError, call_command

    root = User.objects.create_user(f"root {uuid4()}", is_superuser=True)
    visitor = Visitor(provider, **{"custom:orgId": None, "custom:appId": None, "custom:userRole": None})
    assert visitor.log_in().status_code == 403
    call_command("link_identity", root.username, visitor.subject, verbosity=0)
    assert visitor.log_in().status_code == 302
    assert visitor.user == root
    with pytest.raises(CommandError, match="already"):
        call_command("link_identity", root.username, visitor.subject, verbosity=0)
    assert ChangeRecord.objects.filter(object_id=str(root.pk), action="link identity").count() == 1


# --- Refused

FORGED: dict[str, tuple[dict[str, Any], str]] = {
    "another audience": ({"claims": {"aud": "another-client"}}, "wrong audience"),
    "a foreign issuer": ({"claims": {"iss": "https://evil.example.com"}}, "wrong issuer"),
    "expired": ({"claims": {"iat": int(time.time()) - 7200, "exp": int(time.time()) - 3600}}, "expired"),
    "no nonce": ({"claims": {"nonce": None}}, "wrong nonce"),
    "another login's nonce": ({"claims": {"nonce": "n" * 32}}, "wrong nonce"),
    "an access token in the ID token's place": (
        {"claims": {"token_use": "access", "client_id": "client-of-the-login"}},
        "wrong token_use",
    ),
    "no token_use": ({"claims": {"token_use": None}}, "wrong token_use"),
    "no subject": ({"claims": {"sub": None}}, "no subject"),
    "a key of the forger's": ({"key": "foreign"}, "wrong signature"),
    "an unknown key": ({"header": {"kid": "unknown"}}, "unknown key"),
    "alg none": ({"header": {"alg": "none"}}, "wrong algorithm"),
    "HS256": ({"header": {"alg": "HS256"}}, "wrong algorithm"),
}


@pytest.mark.parametrize(("forged", "reason"), FORGED.values(), ids=FORGED)
def test_a_wrong_id_token_logs_in_nobody(visitor: Visitor, forged: dict[str, Any], reason: str) -> None:
    visitor.change(forged=forged)
    before = ChangeRecord.objects.filter(action="login refused").count()
    answer = visitor.log_in()
    assert answer.status_code == 403
    assert "could not be completed" in answer.content.decode()
    assert not visitor.is_in()
    assert not Identity.objects.filter(subject=visitor.subject).exists()
    record = ChangeRecord.objects.filter(action="login refused").latest("id")
    assert ChangeRecord.objects.filter(action="login refused").count() == before + 1
    assert (record.actor_id, record.object_name) == (None, "(unknown)")
    assert record.reason == f"The provider's token is refused: {reason}."


PLACES: dict[str, tuple[dict[str, Any], str]] = {
    "no organization": ({"custom:orgId": None}, "no organization"),
    "an unknown organization": ({"custom:orgId": str(uuid4())}, "no organization"),
    "an organization by name": ({"custom:orgId": "Demo"}, "no organization"),
    "no role": ({"custom:userRole": None}, "no role"),
    "an unknown role": ({"custom:userRole": "owner"}, "no role"),
    "superadmin": ({"custom:userRole": "superadmin"}, "no role"),
    "an unknown application": ({"custom:appId": str(uuid4())}, "no application"),
    "an unverified e-mail": ({"email_verified": False}, "not verified"),
    "no e-mail": ({"email": None, "email_verified": None}, "not verified"),
}


@pytest.mark.parametrize(("claims", "said"), PLACES.values(), ids=PLACES)
def test_who_has_no_place_here_gets_a_page_that_says_so_and_is_not_logged_in(
    visitor: Visitor, claims: dict[str, Any], said: str
) -> None:
    visitor.change(**claims)
    answer = visitor.log_in()
    page = answer.content.decode()
    assert answer.status_code == 403
    assert said in page
    assert not any(str(value) in page for value in claims.values() if isinstance(value, str))
    assert not visitor.is_in()
    assert not Identity.objects.filter(subject=visitor.subject).exists()


def test_a_code_is_redeemed_once_and_only_in_the_browser_that_began(visitor: Visitor) -> None:
    address = visitor.log_in_there(visitor.begin())
    thief = Visitor(visitor.provider)
    assert thief.come_back(address).status_code == 403
    assert visitor.come_back(address).status_code == 302
    assert visitor.come_back(address).status_code == 403
    assert visitor.is_in()
    assert not thief.is_in()


def test_a_replayed_code_under_a_fresh_state_is_refused_by_the_provider(visitor: Visitor) -> None:
    address = visitor.log_in_there(visitor.begin())
    visitor.come_back(address)
    code = query(address)["code"]
    thief = Visitor(visitor.provider)
    state = query(thief.begin())["state"]
    answer = thief.ours.get("/oauth2/idpresponse", {"code": code, "state": state})
    assert answer.status_code == 403
    assert not thief.is_in()
    assert ChangeRecord.objects.filter(action="login refused").latest("id").reason == "The provider refused the code."


def test_a_stolen_code_without_its_verifier_is_refused_by_the_provider(visitor: Visitor) -> None:
    """An injected code: the thief's browser has a state of its own, and so another PKCE verifier."""
    code = query(visitor.log_in_there(visitor.begin()))["code"]
    thief = Visitor(visitor.provider)
    state = query(thief.begin())["state"]
    assert thief.ours.get("/oauth2/idpresponse", {"code": code, "state": state}).status_code == 403
    assert not thief.is_in()


def test_an_answer_that_nobody_asked_for_changes_and_records_nothing(visitor: Visitor) -> None:
    visitor.log_in()
    before = ChangeRecord.objects.filter(action="login refused").count()
    for parameters in ({}, {"error": "x"}, {"code": "x"}, {"code": "x", "state": "y"}, {"error": "x", "state": "y"}):
        assert visitor.ours.get("/oauth2/idpresponse", parameters).status_code == 403
    assert visitor.is_in()
    assert ChangeRecord.objects.filter(action="login refused").count() == before


def test_a_provider_that_says_no_is_a_page_and_its_words_are_not_shown(visitor: Visitor) -> None:
    state = query(visitor.begin())["state"]
    wrong = {"error": "access_denied", "error_description": "<b>marker</b>", "state": state}
    answer = visitor.ours.get("/oauth2/idpresponse", wrong)
    assert answer.status_code == 403
    assert b"marker" not in answer.content
    assert b"did not log you in" in answer.content


def test_a_provider_that_is_away_is_a_503_page_and_a_later_login_works(visitor: Visitor) -> None:
    address = visitor.log_in_there(visitor.begin())
    with override_settings(COGNITO_DOMAIN="http://127.0.0.1:1"):
        answer = visitor.come_back(address)
    assert answer.status_code == 503
    assert b"cannot be reached" in answer.content
    assert visitor.log_in().status_code == 302


def test_a_password_form_with_a_code_in_its_address_is_not_taken_for_the_provider(visitor: Visitor) -> None:
    address = visitor.log_in_there(visitor.begin())
    posted = visitor.ours.post(f"/admin/login/?{address.partition('?')[2]}", {"username": "x", "password": "y"})
    assert posted.status_code == 200
    assert not visitor.is_in()


def test_logins_that_fail_are_bounded_for_an_address(provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.orgs.attempts.FROM_AN_ADDRESS", 3)
    visitor = Visitor(provider)
    for _ in range(4):
        assert visitor.log_in().status_code == 302
    before = ChangeRecord.objects.filter(action="login refused").count()
    statuses = []
    for _ in range(5):
        state = query(visitor.begin())["state"]
        statuses.append(visitor.ours.get("/oauth2/idpresponse", {"code": "x", "state": state}).status_code)
    assert statuses == [403, 403, 403, 429, 429]
    assert ChangeRecord.objects.filter(action="login refused").count() == before + 3


# --- Ends


def test_a_disabled_persons_session_and_keys_end_at_once_and_they_cannot_log_in(visitor: Visitor) -> None:
    visitor.log_in()
    user = visitor.user
    key = keys.issue(user=user, organization=visitor.organization, name="mine").text
    assert visitor.is_in()
    assert Api(key).get("applications").status_code == 200
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert not visitor.is_in()
    assert Api(key).get("applications").status_code == 401
    answer = visitor.log_in()
    assert answer.status_code == 403
    assert b"disabled" in answer.content
    assert events(user)[-1] == ("login refused", "Your account is disabled here.")


def test_logging_out_ends_the_session_here_and_leads_to_the_providers_end(visitor: Visitor) -> None:
    visitor.log_in()
    cookie = visitor.ours.cookies[settings.SESSION_COOKIE_NAME].value
    answer = visitor.ours.post("/admin/logout/")
    assert answer.status_code == 302
    assert answer.url.startswith(f"{visitor.provider.url}/logout?")
    assert query(answer.url) == {"client_id": "client-of-the-login", "logout_uri": f"http://{HOST}/admin/login/"}
    thief = Client(headers={"host": HOST})
    thief.cookies[settings.SESSION_COOKIE_NAME] = cookie
    assert thief.get("/admin/").status_code == 302
    assert events(visitor.user)[-1] == ("logout", "")


def moved(visitor: Visitor, **moments: int) -> None:
    """Set the session's moments so many seconds back."""
    session = visitor.ours.session
    for name, seconds in moments.items():
        session[name] = int(time.time()) - seconds
    session.save()


ENDS = {"a rest": {"seen": 3600}, "its whole length": {"began": 43_200}}


@pytest.mark.parametrize("moments", ENDS.values(), ids=ENDS)
def test_a_session_ends_after_a_rest_and_after_its_whole_length(visitor: Visitor, moments: dict[str, int]) -> None:
    visitor.log_in()
    moved(visitor, **{name: seconds - 30 for name, seconds in moments.items()})
    assert visitor.is_in()
    moved(visitor, **moments)
    assert not visitor.is_in()
    moved(visitor, **dict.fromkeys(moments, 0))
    assert not visitor.is_in()
    assert events(visitor.user)[-1][0] == "logout"


def test_the_provider_is_asked_again_and_what_it_says_then_holds(visitor: Visitor) -> None:
    visitor.log_in()
    began = visitor.ours.session["began"]
    moved(visitor, provider_asked=3600, began=5000)
    visitor.change(**{"custom:userRole": "auditor"})
    page = {"accept": "text/html", "sec-fetch-mode": "navigate"}
    assert visitor.ours.get("/admin/autocomplete/", headers={"sec-fetch-mode": "cors"}).status_code != 302
    answer = visitor.ours.get("/admin/orgs/application/?q=a", headers=page)
    assert answer.url == "/oauth2/login?next=%2Fadmin%2Forgs%2Fapplication%2F%3Fq%3Da"
    back = visitor.come_back(visitor.log_in_there(visitor.begin("/admin/orgs/application/?q=a")))
    assert back.url == "/admin/orgs/application/?q=a"
    assert Membership.objects.get(user=visitor.user).role == "auditor"
    assert visitor.ours.session["began"] < began
    assert visitor.ours.get("/admin/", headers=page).status_code == 200
    assert [event for event, _ in events(visitor.user)] == ["login"]


def test_whom_the_provider_does_not_vouch_for_any_more_is_logged_out_when_it_is_asked(visitor: Visitor) -> None:
    visitor.log_in()
    visitor.change(**{"custom:orgId": str(uuid4())})
    assert visitor.log_in().status_code == 403
    assert not visitor.is_in()


def test_a_person_who_is_deleted_comes_back_as_somebody_new(visitor: Visitor) -> None:
    visitor.log_in()
    gone = visitor.user
    root = Client(headers={"host": HOST})
    root.force_login(
        User.objects.create_user(f"root {uuid4()}", is_superuser=True), settings.AUTHENTICATION_BACKENDS[0]
    )
    assert root.post(f"/admin/orgs/user/{gone.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not User.objects.filter(pk=gone.pk).exists()
    assert not visitor.is_in()
    assert visitor.log_in().status_code == 302
    assert visitor.user != gone


def test_an_application_that_is_deleted_leaves_its_people(visitor: Visitor) -> None:
    visitor.log_in()
    visitor.application.delete()
    assert Membership.objects.get(user=visitor.user).application is None
    assert visitor.is_in()


# --- The login page


def test_the_login_page_offers_the_ways_that_there_are(provider: OpenIdProvider) -> None:
    client = Client()
    button, field = "Sign in with your organization", 'name="password"'
    page = client.get("/admin/login/", {"next": "/admin/orgs/user/?a=1&b=2"}).content.decode()
    assert button in page
    assert field in page
    assert 'href="/oauth2/login?next=%2Fadmin%2Forgs%2Fuser%2F%3Fa%3D1%26b%3D2"' in page
    with override_settings(PASSWORD_LOGIN=False):
        page = client.get("/admin/login/").content.decode()
        assert button in page
        assert field not in page
    with override_settings(COGNITO_DOMAIN=""):
        assert button not in client.get("/admin/login/").content.decode()
        assert client.get("/oauth2/login").status_code == 404
        assert client.get("/oauth2/idpresponse", {"code": "x", "state": "y"}).status_code == 404
        with override_settings(PASSWORD_LOGIN=False):
            assert "no way to log in" in client.get("/admin/login/").content.decode()


def test_no_secret_of_a_login_reaches_a_record_or_the_session(visitor: Visitor) -> None:
    address = visitor.log_in_there(visitor.begin())
    visitor.come_back(address)
    kept = str(dict(visitor.ours.session.items()))
    kept += str(list(ChangeRecord.objects.filter(actor_id=visitor.user.pk).values()))
    for secret in (query(address)["code"], query(address)["state"], "eyJ", "secret-of-the-login-client"):
        assert secret not in kept
