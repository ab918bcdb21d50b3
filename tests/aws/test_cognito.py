"""Tokens that Cognito issues, as moto speaks it, on both doors of the product's own code."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import httpx
import pytest
from django.test import Client, override_settings

from apps.gateway.runtime import BACKGROUND
from tests.aws.conftest import Tenant
from tests.services.server import ServerProcess, fresh_database

REGION = "eu-central-1"
PASSWORD = "Long-enough-1!"
BODY = {"model": "sim-echo", "messages": [{"role": "user", "content": "Hello"}]}


@dataclass
class Pool:
    """A user pool with one client."""

    client: Any
    id: str
    client_id: str

    def tokens(self, **attributes: str) -> dict[str, str]:
        """Make a person with these attributes and log in; return the tokens by their kind."""
        name = f"person-{uuid4().hex[:12]}"
        mail = {"email": f"{name}@example.com", "email_verified": "true"}
        listed = [{"Name": key, "Value": value} for key, value in {**mail, **attributes}.items()]
        self.client.admin_create_user(UserPoolId=self.id, Username=name, UserAttributes=listed)
        self.client.admin_set_user_password(UserPoolId=self.id, Username=name, Password=PASSWORD, Permanent=True)
        answer = self.client.admin_initiate_auth(
            UserPoolId=self.id,
            ClientId=self.client_id,
            AuthFlow="ADMIN_USER_PASSWORD_AUTH",
            AuthParameters={"USERNAME": name, "PASSWORD": PASSWORD},
        )["AuthenticationResult"]
        return {"id": answer["IdToken"], "access": answer["AccessToken"], "refresh": answer["RefreshToken"]}


@pytest.fixture(scope="module")
def make_pool(aws: str) -> Callable[[], Pool]:
    client = boto3.client(
        "cognito-idp",
        endpoint_url=aws,
        region_name=REGION,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )

    def make() -> Pool:
        pool = client.create_user_pool(
            PoolName=uuid4().hex,
            Schema=[
                {"Name": name, "AttributeDataType": "String", "Mutable": True}
                for name in ("orgId", "appId", "userRole")
            ],
        )["UserPool"]["Id"]
        made = client.create_user_pool_client(
            UserPoolId=pool, ClientName="gateway", ReadAttributes=["email", "email_verified"]
        )
        return Pool(client, pool, made["UserPoolClient"]["ClientId"])

    return make


@pytest.fixture(scope="module")
def pool(make_pool: Callable[[], Pool], aws: str) -> Iterator[Pool]:
    made = make_pool()
    names = {"COGNITO_USER_POOL_ID": made.id, "COGNITO_CLIENT_ID": made.client_id, "AWS_ENDPOINT_URL": aws}
    with override_settings(**names):
        yield made
        BACKGROUND.stop()


def place(tenant: Tenant, role: str = "developer") -> dict[str, str]:
    return {
        "custom:orgId": str(tenant.organization.pk),
        "custom:appId": str(tenant.application.pk),
        "custom:userRole": role,
    }


def test_the_plain_server_takes_tokens_and_records_whose_they_are(pool: Pool, aws: str, tmp_path: Path) -> None:
    environment: dict[str, str | None] = {
        "COGNITO_USER_POOL_ID": pool.id,
        "COGNITO_CLIENT_ID": pool.client_id,
        "AWS_ENDPOINT_URL": aws,
        "DATABASE_URL": fresh_database(),
    }
    server = ServerProcess(tmp_path, environment).start()
    try:
        claims = {"custom:orgId": server.demo["organization"], "custom:userRole": "auditor"}
        tokens = pool.tokens(**claims)

        def get(path: str, token: str) -> httpx.Response:
            return httpx.get(f"{server.url}/v1/{path}", headers={"authorization": f"Bearer {token}"}, timeout=30)

        for kind in ("id", "access"):
            headers = {"authorization": f"Bearer {tokens[kind]}"}
            answer = httpx.post(f"{server.url}/v1/chat/completions", json=BODY, headers=headers, timeout=30)
            assert answer.status_code == 200, answer.text
        listed = get("admin/audit-logs", tokens["access"]).json()["results"]
        assert len({entry["user"] for entry in listed[:2]}) == 1
        assert listed[0]["user"] is not None
        forged = tokens["id"][:-8] + "AAAAAAAA"
        for token in (tokens["refresh"], forged):
            assert [get(path, token).status_code for path in ("models", "admin/audit-logs")] == [401, 401]
    finally:
        server.stop()


def call(token: str) -> int:
    answer = Client().post(
        "/v1/chat/completions", BODY, content_type="application/json", headers={"authorization": f"Bearer {token}"}
    )
    return answer.status_code


def manage(token: str) -> int:
    return Client().get("/v1/admin/applications", headers={"authorization": f"Bearer {token}"}).status_code


def test_cognitos_id_and_access_tokens_call_models_and_manage(pool: Pool, tenant: Tenant) -> None:
    tokens = pool.tokens(**place(tenant))
    assert [call(tokens["id"]), call(tokens["access"])] == [200, 200]
    assert [manage(tokens["id"]), manage(tokens["access"])] == [200, 200]


def test_a_refresh_token_opens_nothing(pool: Pool, tenant: Tenant) -> None:
    tokens = pool.tokens(**place(tenant))
    assert [call(tokens["refresh"]), manage(tokens["refresh"])] == [401, 401]


def test_tokens_of_another_pool_and_of_another_client_open_nothing(
    make_pool: Callable[[], Pool], pool: Pool, tenant: Tenant
) -> None:
    """Moto signs for all pools with one key, so that issuer and audience alone tell them apart."""
    another = make_pool()
    beside = pool.client.create_user_pool_client(UserPoolId=pool.id, ClientName="another")["UserPoolClient"]
    for tokens in (
        another.tokens(**place(tenant)),
        Pool(pool.client, pool.id, beside["ClientId"]).tokens(**place(tenant)),
    ):
        assert [call(tokens["id"]), call(tokens["access"]), manage(tokens["id"])] == [401, 401, 401]
