"""Login by password: a bounded number of attempts, one answer for all that fails, and a record of each."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.core.cache import caches
from django.db import connections
from django.test import Client, override_settings

from apps.audit.models import ChangeRecord
from apps.orgs.attempts import FROM_AN_ADDRESS, OF_A_NAME, OF_A_NAME_FROM_AN_ADDRESS
from apps.orgs.login_form import TOO_MANY
from apps.orgs.models import Membership, Organization, User
from tests.admin.cast import PASSWORD
from tests.admin.conftest import PLAIN_STATIC
from tests.services.redis import free_port


@pytest.fixture(autouse=True)
def pages() -> Iterator[None]:
    with override_settings(STORAGES=PLAIN_STATIC, STATIC_ROOT=settings.BASE_DIR / "static", PASSWORD_LOGIN=True):
        yield


@pytest.fixture
def user() -> User:
    person = User.objects.create_user(f"person {uuid4()}", PASSWORD)
    organization = Organization.objects.create(name=f"house {uuid4()}")
    Membership.objects.create(organization=organization, user=person, role="admin")
    return person


def address() -> str:
    """An address that no other test comes from."""
    return f"2001:db8::{uuid4().hex[:4]}:{uuid4().hex[:4]}:{uuid4().hex[:4]}"


def attempt(name: str, password: str, place: str, **headers: str) -> Any:
    return Client().post(
        "/admin/login/", {"username": name, "password": password}, REMOTE_ADDR=place, headers=headers or None
    )


def said(answer: Any) -> str:
    return " ".join(answer.context["form"].non_field_errors()) if answer.status_code == 200 else "in"


def test_attempts_on_a_name_from_an_address_are_bounded_and_even_the_right_password_waits(user: User) -> None:
    place = address()
    answers = [said(attempt(user.username, "wrong", place)) for _ in range(OF_A_NAME_FROM_AN_ADDRESS + 2)]
    assert [text == TOO_MANY for text in answers] == [False] * OF_A_NAME_FROM_AN_ADDRESS + [True] * 2
    assert said(attempt(user.username, PASSWORD, place)) == TOO_MANY
    assert said(attempt(user.username.upper(), PASSWORD, place)) == TOO_MANY
    assert said(attempt(user.username, PASSWORD, address())) == "in"


def test_a_name_that_nobody_has_is_answered_as_one_that_somebody_has(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    disabled = User.objects.create_user(f"disabled {uuid4()}", PASSWORD, is_active=False)
    without_password = User.objects.create_user(f"without {uuid4()}")
    roleless = User.objects.create_user(f"roleless {uuid4()}", PASSWORD)
    tries = {
        "wrong": (user.username, "wrong"),
        "nobody": (f"nobody {uuid4()}", PASSWORD),
        "disabled": (disabled.username, PASSWORD),
        "without a password": (without_password.username, PASSWORD),
        "without a role": (roleless.username, PASSWORD),
    }
    monkeypatch.setattr("apps.orgs.attempts.OF_A_NAME_FROM_AN_ADDRESS", 1)
    place = address()
    for _ in range(2):
        answers = {name: attempt(name, password, place) for name, password in tries.values()}
        assert len({said(answer) for answer in answers.values()}) == 1
        assert len({answer.content.decode().replace(name, "").count("<") for name, answer in answers.items()}) == 1


def test_a_name_that_nobody_has_costs_a_password_hash_as_any_other_does(user: User) -> None:
    from django.contrib.auth import hashers

    class Counting(hashers.MD5PasswordHasher):
        algorithm = "counting"
        made = 0

        def encode(self, password: str, salt: str) -> str:
            type(self).made += 1
            return super().encode(password, salt)

    path = f"{__name__}.Counting"
    globals()["Counting"] = Counting
    with override_settings(PASSWORD_HASHERS=[path]):
        user.set_password(PASSWORD)
        user.save()
        counted = []
        for name in (user.username, f"nobody {uuid4()}", User.objects.create_user(f"without {uuid4()}").username):
            Counting.made = 0
            attempt(name, "wrong", address())
            counted.append(Counting.made)
    assert counted == [1, 1, 1]


def test_attempts_from_an_address_and_on_a_name_are_bounded_whatever_the_other_is(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.orgs.attempts.FROM_AN_ADDRESS", 3)
    monkeypatch.setattr("apps.orgs.attempts.OF_A_NAME", 3)
    assert FROM_AN_ADDRESS >= OF_A_NAME_FROM_AN_ADDRESS
    assert OF_A_NAME >= OF_A_NAME_FROM_AN_ADDRESS
    place = address()
    answers = [said(attempt(f"nobody {uuid4()}", "wrong", place)) for _ in range(4)]
    assert [text == TOO_MANY for text in answers] == [False] * 3 + [True]
    answers = [said(attempt(user.username, "wrong", address())) for _ in range(4)]
    assert [text == TOO_MANY for text in answers] == [False] * 3 + [True]


def test_many_attempts_at_once_are_no_more_than_one_after_another(user: User) -> None:
    place = address()

    def guess(_: int) -> bytes:
        try:
            return bytes(attempt(user.username, "wrong", place).content)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(guess, range(16)))
    assert sum(TOO_MANY.encode() not in page for page in answers) == OF_A_NAME_FROM_AN_ADDRESS


def test_a_login_that_succeeds_uses_no_attempt_up(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.orgs.attempts.FROM_AN_ADDRESS", 2)
    place = address()
    for _ in range(4):
        assert said(attempt(user.username, PASSWORD, place)) == "in"


def test_behind_our_proxy_the_address_is_the_one_that_it_appended(user: User) -> None:
    with override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")):
        proxy, place = address(), address()
        for number in range(OF_A_NAME_FROM_AN_ADDRESS):
            forged = {"x-forwarded-for": f"10.0.0.{number}, {place}", "x-forwarded-proto": "https"}
            assert said(attempt(user.username, "wrong", proxy, **forged)) != TOO_MANY
        forged = {"x-forwarded-for": f"10.0.0.9, {place}", "x-forwarded-proto": "https"}
        assert said(attempt(user.username, PASSWORD, proxy, **forged)) == TOO_MANY
        other = {"x-forwarded-for": address(), "x-forwarded-proto": "https"}
        assert said(attempt(user.username, PASSWORD, proxy, **other)) == "in"


def test_while_the_cache_is_away_each_process_counts_alone(user: User) -> None:
    away = {
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{free_port()}/0",
            "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 1, "SOCKET_TIMEOUT": 1},
        },
        "local": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": f"test {uuid4()}"},
    }
    place = address()
    with override_settings(CACHES=away):
        assert said(attempt(user.username, PASSWORD, place)) == "in"
        answers = [said(attempt(user.username, "wrong", place)) for _ in range(OF_A_NAME_FROM_AN_ADDRESS + 1)]
        assert [text == TOO_MANY for text in answers] == [False] * OF_A_NAME_FROM_AN_ADDRESS + [True]
        caches.close_all()


def test_each_login_refusal_and_logout_is_recorded_and_what_was_typed_is_not(user: User) -> None:
    place, secret = address(), f"typed-{uuid4()}"
    attempt(user.username, secret, place)
    attempt(secret, "wrong", place)
    client = Client(REMOTE_ADDR=place)
    client.post("/admin/login/", {"username": user.username, "password": PASSWORD})
    client.post("/admin/logout/")
    client.post("/admin/logout/")
    rows = list(ChangeRecord.objects.filter(address=place).order_by("id"))
    assert [(row.action, row.object_name, row.actor_id) for row in rows] == [
        ("login refused", user.username, None),
        ("login refused", "(unknown)", None),
        ("login", user.username, user.pk),
        ("logout", user.username, user.pk),
    ]
    assert {row.organization_id for row in rows} == {None, *user.roles()}
    assert not any(secret in str(vars(row)) or PASSWORD in str(vars(row)) for row in rows)


def test_a_flood_of_attempts_leaves_as_many_records_as_attempts_were_allowed(user: User) -> None:
    place = address()
    for _ in range(OF_A_NAME_FROM_AN_ADDRESS + 5):
        attempt(user.username, "wrong", place)
    assert ChangeRecord.objects.filter(address=place).count() == OF_A_NAME_FROM_AN_ADDRESS


def test_a_session_id_from_before_a_password_login_is_worth_nothing_after_it(user: User) -> None:
    client = Client(REMOTE_ADDR=address())
    session = client.session
    session["planted"] = "by a thief"
    session.save()
    planted = str(session.session_key)
    client.cookies[settings.SESSION_COOKIE_NAME] = planted
    client.post("/admin/login/", {"username": user.username, "password": PASSWORD})
    assert client.get("/admin/").status_code == 200
    thief = Client()
    thief.cookies[settings.SESSION_COOKIE_NAME] = planted
    assert thief.get("/admin/").status_code == 302


@pytest.mark.parametrize("target", ["https://evil.example.com/", "//evil.example.com", "/\\evil.example.com"])
def test_a_password_login_leads_to_no_other_host(user: User, target: str) -> None:
    login = {"username": user.username, "password": PASSWORD, "next": target}
    answer = Client(REMOTE_ADDR=address()).post("/admin/login/", login)
    assert answer.url == "/admin/"
