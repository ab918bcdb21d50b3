"""What the COGNITO_* settings make, and what is said of them when they are half set."""

from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management.base import CommandError
from django.test import override_settings

from apps.orgs.cognito import identity_provider, login_provider, problem_of_settings
from controlplane.preflight import check_settings
from tests.login.pool import CLIENT, ISSUER, POOL

WHOLE = {
    "COGNITO_USER_POOL_ID": POOL,
    "COGNITO_CLIENT_ID": CLIENT,
    "COGNITO_DOMAIN": "acme",
    "COGNITO_REDIRECT_URI": "https://llm.example.com/oauth2/idpresponse",
    "AWS_ENDPOINT_URL": "",
}

DOMAINS = {
    "acme": "https://acme.auth.eu-central-1.amazoncognito.com",
    "login.example.com": "https://login.example.com",
    "https://login.example.com/": "https://login.example.com",
}


@pytest.mark.parametrize(("domain", "base"), DOMAINS.items(), ids=DOMAINS)
def test_every_address_is_derived(domain: str, base: str) -> None:
    with override_settings(**{**WHOLE, "COGNITO_DOMAIN": domain}):
        provider = login_provider()
    assert provider is not None
    assert provider.issuer == ISSUER
    assert provider.keys_url == f"{ISSUER}/.well-known/jwks.json"
    assert (provider.authorize_url, provider.token_url) == (f"{base}/oauth2/authorize", f"{base}/oauth2/token")
    assert provider.logout_url("https://a/b?c") == (
        f"{base}/logout?client_id={CLIENT}&logout_uri=https%3A%2F%2Fa%2Fb%3Fc"
    )


def test_tokens_alone_need_a_pool_and_a_client_and_nobody_logs_in_with_them() -> None:
    with override_settings(**{**WHOLE, "COGNITO_DOMAIN": "", "COGNITO_REDIRECT_URI": ""}):
        assert problem_of_settings() == ""
        assert identity_provider() is not None
        assert login_provider() is None


def test_whole_settings_and_none_are_fine() -> None:
    with override_settings(**WHOLE):
        assert problem_of_settings() == ""
    with override_settings(**dict.fromkeys(WHOLE, "")):
        assert problem_of_settings() == ""
        assert identity_provider() is None


PROBLEMS: dict[str, tuple[dict[str, Any], str]] = {
    "no client": ({"COGNITO_CLIENT_ID": ""}, "COGNITO_CLIENT_ID is not"),
    "no pool": ({"COGNITO_USER_POOL_ID": ""}, "COGNITO_USER_POOL_ID is not"),
    "no domain": ({"COGNITO_DOMAIN": ""}, "COGNITO_DOMAIN is not set"),
    "a pool without its region": ({"COGNITO_USER_POOL_ID": "Tests1234"}, "no id of a user pool"),
    "a pool's address": ({"COGNITO_USER_POOL_ID": f"{POOL}/.."}, "no id of a user pool"),
    "plain HTTP": ({"COGNITO_DOMAIN": "http://login.example.com", "PRODUCTION": True}, "must not start with http:"),
    "another path": ({"COGNITO_REDIRECT_URI": "https://llm.example.com/admin/"}, "COGNITO_REDIRECT_URI must be"),
}


@pytest.mark.parametrize(("changed", "said"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_is_half_set_is_one_line_that_names_it_and_the_server_does_not_start(
    changed: dict[str, Any], said: str
) -> None:
    with override_settings(**{**WHOLE, **changed}):
        (found,) = [m for m in run_checks(tags=["security"]) if m.id == "controlplane.E005"]
        assert said in found.msg
        assert "\n" not in found.msg
        with pytest.raises(CommandError, match=said):
            check_settings()
