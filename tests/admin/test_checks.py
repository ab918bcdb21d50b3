"""The checks that keep unscoped pages out of the admin, and a developer's key out of production."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.core.checks import run_checks
from django.test import override_settings

from apps.orgs.models import Application, Organization
from apps.orgs.scoped_admin import ScopedAdmin
from controlplane.checks import admin_pages_are_scoped, secrets_are_encrypted_under_keys_of_the_operator

KEY = bytes(32)


@contextmanager
def registered(model: Any, page: Any) -> Iterator[None]:
    before = admin.site._registry.pop(model, None)
    admin.site.register(model, page)
    try:
        yield
    finally:
        admin.site.unregister(model)
        if before is not None:
            admin.site._registry[model] = before


def found() -> list[str]:
    return [str(message.id) for message in admin_pages_are_scoped()]


def test_every_page_of_the_admin_is_scoped() -> None:
    assert admin.site._registry
    assert found() == []


def test_the_check_runs_with_every_other_one() -> None:
    with registered(Group, admin.ModelAdmin):
        assert "controlplane.E001" in [message.id for message in run_checks(tags=["security"])]


def test_an_unscoped_page_is_reported() -> None:
    with registered(Group, admin.ModelAdmin):
        assert found() == ["controlplane.E001"]


def test_an_unscoped_inline_is_reported() -> None:
    class Unscoped(admin.TabularInline):
        model = Application

    class Page(ScopedAdmin):
        inlines = [Unscoped]

    with registered(Organization, Page):
        assert found() == ["controlplane.E002"]


def test_a_raw_id_field_is_reported() -> None:
    class Page(ScopedAdmin):
        raw_id_fields = ["organization"]

    with registered(Application, Page):
        assert found() == ["controlplane.E003"]


def test_groups_have_no_page() -> None:
    assert not admin.site.is_registered(Group)


@pytest.mark.parametrize(
    ("given", "reported"),
    [
        ({"ENCRYPTION_KEYS": {"2026a": KEY}}, []),
        ({"ENCRYPTION_KEYS": {"2026a": KEY, "dev1": KEY}}, []),
        ({"ENCRYPTION_KEYS": {"dev1": KEY, "2026a": KEY}}, ["controlplane.E007"]),
        ({"ENCRYPTION_KEYS": {}}, ["controlplane.E006"]),
        ({"ENCRYPTION_KEYS": {}, "KMS_KEY_ID": "alias/control-plane"}, []),
        ({"ENCRYPTION_KEYS": {"dev1": KEY}, "KMS_KEY_ID": "alias/control-plane"}, []),
    ],
)
def test_production_encrypts_under_a_key_of_the_operator(given: dict[str, Any], reported: list[str]) -> None:
    with override_settings(PRODUCTION=True, **given):
        assert [message.id for message in secrets_are_encrypted_under_keys_of_the_operator()] == reported
    with override_settings(PRODUCTION=False, **given):
        assert secrets_are_encrypted_under_keys_of_the_operator() == []
