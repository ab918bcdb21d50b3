"""Two tabs, or two people, on one object: nobody undoes unseen what somebody else has changed."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.utils import timezone

from apps.orgs.models import Application
from apps.orgs.scoped_admin import STALE, STAMP
from apps.policies.models import Policy, Price
from tests.admin.cast import Cast, address, filled, unique


def opened(client: Client, url: str) -> str:
    """Return what a form opened at ``url`` carries of its row's state."""
    page = client.get(url)
    stamp: str = page.context["adminform"].form.stamp
    assert f'name="{STAMP}" value="{stamp}"' in page.content.decode()
    return stamp


def complaints(response: Any) -> list[str]:
    assert response.status_code == 200, response.status_code
    return list(response.context["adminform"].form.non_field_errors())


def test_a_form_opened_before_somebody_elses_change_is_refused_once_and_keeps_what_was_typed(cast: Cast) -> None:
    policy, client = cast.home.key_policy, cast.browser("admin")
    url, name = address(policy, "change", policy.pk), unique("renamed")
    before = opened(client, url)
    assert filled(cast.browser("superadmin"), url, requests="77").status_code == 302
    refused = filled(client, url, name=name, **{STAMP: before})
    assert complaints(refused) == [STALE]
    assert refused.context["adminform"].form["name"].value() == name
    assert Policy.objects.get(pk=policy.pk).config["requests"] == 77
    seen = refused.context["adminform"].form.stamp
    assert filled(client, url, name=name, **{STAMP: seen}).status_code == 302
    assert Policy.objects.get(pk=policy.pk).name == name


@pytest.mark.parametrize("kind", ["application", "key", "credential", "route", "organization"])
def test_every_form_notices_that_its_row_was_changed(cast: Cast, kind: str) -> None:
    row, client = getattr(cast.home, kind), cast.browser("superadmin")
    url, field = address(row, "change", row.pk), "model" if kind == "route" else "name"
    before = opened(client, url)
    type(row).objects.filter(pk=row.pk).update(**{field: unique("changed")})
    assert complaints(filled(client, url, **{STAMP: before})) == [STALE]


def test_a_price_is_not_overwritten_unseen(cast: Cast) -> None:
    price = Price.objects.create(model=unique("m"), input_nano_usd=1, output_nano_usd=1)
    client = cast.browser("superadmin")
    url = address(price, "change", price.pk)
    before = opened(client, url)
    Price.objects.filter(pk=price.pk).update(input_nano_usd=2)
    assert complaints(filled(client, url, **{STAMP: before})) == [STALE]


def test_a_form_whose_row_is_as_it_was_is_saved(cast: Cast) -> None:
    application, client, name = cast.home.application, cast.browser("admin"), unique("renamed")
    url = address(application, "change", application.pk)
    assert filled(client, url, name=name, **{STAMP: opened(client, url)}).status_code == 302
    assert Application.objects.get(pk=application.pk).name == name


def test_a_user_who_logs_in_meanwhile_has_not_been_changed(cast: Cast) -> None:
    user, client = cast.home.user, cast.browser("superadmin")
    url = address(user, "change", user.pk)
    before = opened(client, url)
    user.last_login = timezone.now()
    user.save(update_fields=["last_login"])
    assert filled(client, url, full_name="Ann", **{STAMP: before}).status_code == 302


def test_of_two_who_save_at_the_same_moment_one_is_told(cast: Cast, postgres_only: None) -> None:
    application = cast.home.application
    url = address(application, "change", application.pk)
    stamp = opened(cast.browser("admin"), url)

    def save(name: str) -> int:
        try:
            form = {"name": name, "is_active": "on", "_save": "1", STAMP: stamp} | NO_KEYS
            return cast.browser("admin").post(url, form).status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as people:
        answers = list(people.map(save, [unique("name") for _ in range(4)]))
    assert sorted(answers) == [200, 200, 200, 302]


NO_KEYS = {f"keys-{name}": "0" for name in ("TOTAL_FORMS", "INITIAL_FORMS", "MIN_NUM_FORMS", "MAX_NUM_FORMS")}
