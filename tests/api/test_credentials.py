from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from apps.audit.models import ChangeRecord
from apps.orgs.models import ProviderCredential
from tests.api.cast import Cast, error_of, unique

SECRET = "sk-live-0123456789abcdef"


def body_of(cast: Cast, **more: Any) -> dict[str, Any]:
    body = {"organization": str(cast.organization.id), "name": unique("vendor"), "provider": "openai"}
    return body | {"secret": SECRET} | more


def test_a_secret_is_kept_encrypted_and_shown_by_its_last_characters(cast: Cast) -> None:
    made = cast.admin.made("provider-credentials", body_of(cast))
    assert "secret" not in made
    assert made["last_four"] == "cdef"
    row = ProviderCredential.objects.get(id=made["id"])
    assert row.secret() == SECRET
    assert SECRET not in row.encrypted_secret
    shown = [cast.admin.get(path).content.decode() for path in ("provider-credentials", "changes")]
    assert all(SECRET not in text and row.encrypted_secret not in text for text in shown)


def test_a_secret_that_cannot_be_decrypted_is_shown_as_such_until_it_is_given_anew(cast: Cast) -> None:
    made = cast.admin.made("provider-credentials", body_of(cast))
    address = f"provider-credentials/{made['id']}"
    ProviderCredential.objects.filter(pk=made["id"]).update(encrypted_secret="another row's")
    listed = cast.admin.get("provider-credentials").json()["results"]
    assert [made["readable"], cast.admin.get(address).json()["readable"], listed[0]["readable"]] == [True, False, False]
    assert cast.admin.patch(address, {"secret": SECRET}).json()["readable"] is True


def test_a_longer_list_of_credentials_costs_no_more_queries(cast: Cast) -> None:
    counts = []
    for _ in range(2):
        cast.admin.made("provider-credentials", body_of(cast))
        with CaptureQueriesContext(connection) as queries:
            assert cast.admin.get("provider-credentials").status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_a_new_secret_leaves_a_record_of_the_fact(cast: Cast) -> None:
    made = cast.admin.made("provider-credentials", body_of(cast))
    cast.admin.patch(f"provider-credentials/{made['id']}", {"secret": "sk-live-zyxwvutsrqponmlk"})
    record = ChangeRecord.objects.get(object_id=made["id"], action="change")
    assert record.after == {"encrypted_secret": "(set anew)", "last_four": "onmlk"[1:]}


def test_a_stored_secret_does_not_follow_a_changed_address(cast: Cast) -> None:
    made = cast.admin.made("provider-credentials", body_of(cast))
    address = f"provider-credentials/{made['id']}"
    for change in (
        {"base_url": "https://llm.example.com/v1"},
        {"provider": "openai_compatible", "base_url": "https://x.example.com"},
    ):
        assert error_of(cast.admin.patch(address, change), 400, "INVALID_REQUEST")["param"] == "secret"
        assert cast.admin.patch(address, change | {"secret": SECRET}).status_code == 200
    assert cast.admin.patch(address, {"name": unique("same place")}).status_code == 200


@pytest.mark.parametrize(
    "url",
    [
        "ftp://llm.example.com",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "llm.example.com",
        "https://user:pass@llm.example.com",
        "https://169.254.169.254/latest",
        "https://10.0.0.1/v1",
        "https://[::ffff:10.0.0.1]/v1",
        "https://0x7f.1/",
        "https://" + "a" * 600,
        "https://",
        7,
        None,
    ],
)
def test_an_address_that_leads_inside_is_refused(cast: Cast, url: Any) -> None:
    answer = cast.admin.post("provider-credentials", body_of(cast, provider="openai_compatible", base_url=url))
    assert error_of(answer, 400, "INVALID_REQUEST")["param"] == "base_url"


@pytest.mark.parametrize("secret", ["", " ", "two words", "line\nbreak", "s" * 5000, "schlüssel", 7, None])
def test_a_secret_that_cannot_stand_in_a_header_is_refused(cast: Cast, secret: Any) -> None:
    answer = cast.admin.post("provider-credentials", body_of(cast, secret=secret))
    error = error_of(answer, 400, "INVALID_REQUEST")
    assert error["param"] == "secret"
    assert "words" not in error["message"]


def test_what_a_provider_needs_is_asked_for(cast: Cast) -> None:
    body = body_of(cast)
    del body["secret"]
    assert error_of(cast.admin.post("provider-credentials", body), 400, "INVALID_REQUEST")["param"] == "secret"
    answer = cast.admin.post("provider-credentials", body_of(cast, provider="openai_compatible"))
    assert error_of(answer, 400, "INVALID_REQUEST")["param"] == "base_url"
    cast.admin.made("provider-credentials", body | {"provider": "simulated"})


def test_a_credential_that_becomes_simulated_forgets_its_secret_and_needs_one_to_come_back(cast: Cast) -> None:
    made = cast.admin.made("provider-credentials", body_of(cast))
    address = f"provider-credentials/{made['id']}"
    assert cast.admin.patch(address, {"provider": "simulated", "base_url": ""}).json()["last_four"] == ""
    row = ProviderCredential.objects.get(id=made["id"])
    assert (row.encrypted_secret, row.data_key) == ("", None)
    back = cast.admin.patch(address, {"provider": "openai"})
    assert error_of(back, 400, "INVALID_REQUEST")["param"] == "secret"


@override_settings(PROVIDER_ALLOWED_NETWORKS=[])
def test_plain_http_is_refused_where_no_network_is_allowed(cast: Cast) -> None:
    body = body_of(cast, provider="openai_compatible", base_url="http://llm.example.com/v1")
    answer = cast.admin.post("provider-credentials", body)
    assert error_of(answer, 400, "INVALID_REQUEST")["param"] == "base_url"


def test_a_route_is_made_to_a_credential_of_the_organization(cast: Cast) -> None:
    credential = cast.admin.made("provider-credentials", body_of(cast))
    body = {"organization": str(cast.organization.id), "model": "gpt-*", "credential": credential["id"]}
    first = cast.admin.made("routes", body)
    assert (first["priority"], first["upstream_model"], first["is_active"]) == (0, "", True)
    assert error_of(cast.admin.post("routes", body), 400, "INVALID_REQUEST")["param"] == "priority"
    cast.admin.made("routes", body | {"priority": 1, "upstream_model": "gpt-4o"})
