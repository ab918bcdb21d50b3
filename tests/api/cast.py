"""The cast of the API's tests: one organization with everyone in it, and an outsider who must see nothing of it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from django.test import Client

from apps.orgs import keys
from apps.orgs.models import Application, Membership, Organization, User
from apps.orgs.roles import Role

NOBODYS_ID = "7d2f0c3e-0000-4000-8000-000000000000"


_CLIENT = Client(raise_request_exception=False)


class Api:
    """A caller of the admin API with one key, which is made when it is first needed: few tests need everybody's."""

    def __init__(self, key: str | Callable[[], str] | None, user: User | None = None) -> None:
        self._key = key
        self.user = user

    @property
    def key(self) -> str | None:
        if callable(self._key):
            self._key = self._key()
        return self._key

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        if self.key:
            headers.setdefault("authorization", f"Bearer {self.key}")
        url = path if path.startswith("/") else f"/v1/admin/{path}"
        return _CLIENT.generic(method, url, data, headers.pop("content_type", "application/json"), headers=headers)

    def get(self, path: str, **query: Any) -> Any:
        return _CLIENT.get(f"/v1/admin/{path}", query, headers={"authorization": f"Bearer {self.key}"})

    def post(self, path: str, body: Any = None) -> Any:
        return self.call("POST", path, body)

    def put(self, path: str, body: Any) -> Any:
        return self.call("PUT", path, body)

    def patch(self, path: str, body: Any) -> Any:
        return self.call("PATCH", path, body)

    def delete(self, path: str) -> Any:
        return self.call("DELETE", path)

    def made(self, path: str, body: Any) -> dict[str, Any]:
        answer = self.post(path, body)
        assert answer.status_code == 201, answer.content
        return dict(answer.json())


@dataclass
class Cast:
    organization: Organization
    application: Application
    superadmin: Api
    admin: Api
    developer: Api
    auditor: Api
    outsider: Api
    elsewhere: Organization
    elsewheres_application: Application
    application_key: Api

    def by_role(self, role: str) -> Api:
        api: Api = getattr(self, role)
        return api


def unique(name: str) -> str:
    return f"{name}-{uuid4().hex[:12]}"


def person(organization: Organization | None, role: Role | None) -> Api:
    user = User.objects.create_user(unique("user"), is_superuser=role is Role.SUPERADMIN)
    if organization and role:
        Membership.objects.create(organization=organization, user=user, role=role.value)
    return Api(lambda: keys.issue(user=user, organization=organization, name="of a person").text, user)


def gather() -> Cast:
    organization = Organization.objects.create(name=unique("Acme"))
    elsewhere = Organization.objects.create(name=unique("Elsewhere"))
    application = Application.objects.create(organization=organization, name="support bot")
    theirs = Application.objects.create(organization=elsewhere, name="their bot")
    return Cast(
        organization=organization,
        application=application,
        superadmin=person(None, Role.SUPERADMIN),
        admin=person(organization, Role.ADMIN),
        developer=person(organization, Role.DEVELOPER),
        auditor=person(organization, Role.AUDITOR),
        outsider=person(elsewhere, Role.ADMIN),
        elsewhere=elsewhere,
        elsewheres_application=theirs,
        application_key=Api(
            lambda: keys.issue(organization=organization, application=application, name="production").text
        ),
    )


def error_of(answer: Any, status: int, code: str) -> dict[str, Any]:
    """Check an error's shape; return what is inside."""
    assert answer.status_code == status, (answer.status_code, answer.content)
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "details"}
    assert error["code"] == code
    assert error["message"]
    return error
