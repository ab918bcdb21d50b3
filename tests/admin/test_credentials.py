"""Providers' credentials: the secret goes in and never comes out, and goes nowhere it was not given for."""

from typing import Any

import pytest
from django.test import Client, override_settings

from apps.audit.models import ChangeRecord
from apps.orgs.models import ProviderCredential
from tests.admin.cast import Cast, address, errors, filled, unique

SECRET = "sk-very-secret-and-long-9876"


def new_credential(client: Client, **changes: Any) -> Any:
    form = {"name": unique("credential"), "provider": "openai", "secret": SECRET}
    return filled(client, address(ProviderCredential, "add"), **(form | changes))


def test_a_secret_is_stored_encrypted_and_never_shown(cast: Cast) -> None:
    client, name = cast.browser("admin"), unique("credential")
    assert new_credential(client, name=name).status_code == 302
    row = ProviderCredential.objects.get(name=name)
    assert row.secret() == SECRET
    assert SECRET not in row.encrypted_secret
    for page in ("changelist", "change", "history"):
        content = client.get(address(row, page, row.pk if page != "changelist" else None)).content.decode()
        assert SECRET not in content
        assert row.encrypted_secret not in content
    assert "…9876" in client.get(address(row, "change", row.pk)).content.decode()
    assert SECRET not in str([vars(record) for record in ChangeRecord.objects.filter(object_id=row.pk)])


def test_a_form_that_is_refused_does_not_give_the_secret_back(onlookers: Cast) -> None:
    response = new_credential(onlookers.browser("admin"), name="")
    assert errors(response)
    assert SECRET not in response.content.decode()


def test_an_empty_secret_keeps_the_stored_one(cast: Cast) -> None:
    row, before = cast.home.credential, cast.home.credential.secret()
    assert filled(cast.browser("admin"), address(row, "change", row.pk), name=unique("c")).status_code == 302
    row.refresh_from_db()
    assert row.secret() == before


def test_a_new_secret_is_recorded_as_set_anew(cast: Cast) -> None:
    row = cast.home.credential
    assert filled(cast.browser("admin"), address(row, "change", row.pk), secret=SECRET).status_code == 302
    row.refresh_from_db()
    assert row.secret() == SECRET
    record = ChangeRecord.objects.get(object_id=row.pk, action="change")
    assert record.after["encrypted_secret"] == "(set anew)"


@pytest.mark.parametrize(
    "moved",
    [
        {"base_url": "https://elsewhere.example/v1"},
        {"provider": "openai_compatible", "base_url": "https://other.example/"},
    ],
)
def test_a_stored_secret_does_not_go_to_another_address(cast: Cast, moved: dict[str, str]) -> None:
    row, client = cast.home.credential, cast.browser("admin")
    url = address(row, "change", row.pk)
    assert "secret" in errors(filled(client, url, **moved))
    assert filled(client, url, secret=SECRET, **moved).status_code == 302


@override_settings(PROVIDER_ALLOWED_NETWORKS=[])
@pytest.mark.parametrize(
    "address_of_a_provider",
    [
        "http://llm.example/v1",
        "https://127.0.0.1/v1",
        "https://169.254.169.254/latest",
        "https://[::1]/v1",
        "https://10.1.2.3/v1",
        "https://2130706433/",
        "https://localhost/v1",
        "https://user:pass@llm.example/v1",
        "ftp://llm.example/",
        "not a url",
    ],
)
def test_an_address_that_the_gateway_would_not_call_is_refused_at_the_field(
    onlookers: Cast, address_of_a_provider: str
) -> None:
    form = {"provider": "openai_compatible", "base_url": address_of_a_provider}
    response = new_credential(onlookers.browser("admin"), **form)
    assert "base_url" in errors(response)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"secret": ""}, "secret"),
        ({"secret": "two words"}, "secret"),
        ({"secret": "schlüssel"}, "secret"),
        ({"provider": "openai_compatible"}, "base_url"),
        ({"provider": "oracle"}, "provider"),
    ],
)
def test_a_credential_without_what_its_provider_needs_is_refused_at_the_field(
    onlookers: Cast, changes: dict[str, str], field: str
) -> None:
    assert field in errors(new_credential(onlookers.browser("admin"), **changes))


def test_the_simulated_provider_needs_no_secret(cast: Cast) -> None:
    assert new_credential(cast.browser("admin"), provider="simulated", secret="").status_code == 302


def test_a_credential_that_becomes_simulated_forgets_its_secret_and_needs_one_to_come_back(cast: Cast) -> None:
    row, client = cast.home.credential, cast.browser("admin")
    url = address(row, "change", row.pk)
    assert filled(client, url, provider="simulated").status_code == 302
    row.refresh_from_db()
    assert (row.encrypted_secret, row.last_four, row.data_key) == ("", "", None)
    assert "secret" in errors(filled(client, url, provider="openai"))


def test_a_secret_that_cannot_be_read_is_shown_as_such_and_mended_by_entering_it_again(cast: Cast) -> None:
    row, client = cast.home.credential, cast.browser("admin")
    ProviderCredential.objects.filter(pk=row.pk).update(encrypted_secret=cast.foreign.credential.encrypted_secret)
    assert "unreadable" in client.get(address(row, "changelist")).content.decode()
    assert "cannot be read: enter it again" in client.get(address(row, "change", row.pk)).content.decode()
    assert filled(client, address(row, "change", row.pk), secret=SECRET).status_code == 302
    assert "unreadable" not in client.get(address(row, "changelist")).content.decode()
    row.refresh_from_db()
    assert row.secret() == SECRET


def test_an_auditor_sees_no_field_for_the_secret(onlookers: Cast) -> None:
    row = onlookers.home.credential
    assert 'name="secret"' not in onlookers.browser("auditor").get(address(row, "change", row.pk)).content.decode()
