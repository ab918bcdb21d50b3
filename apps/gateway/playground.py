"""Trying an application out: a person's request in its name, on the one path that every request takes.

Who may make keys for an application could call in its name anyway, and nobody else may here. The caller is the
application with the person, as with a token of the identity provider: the policies of both hold, the record names both.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson
from django.db.models import QuerySet

from apps.gateway.configuration import Visitor
from apps.gateway.pipeline import Answer
from apps.gateway.runtime import BACKGROUND
from apps.gateway.simulated import simulated_models
from apps.orgs.models import ApiKey, Application, User
from apps.orgs.roles import Action
from apps.orgs.scoping import may, organizations_of

RIGHT = "orgs.apikey"


class TrialRequest:
    """One request out of the admin, as the pipeline wants it."""

    authorization: Sequence[str] = ()
    content_encoding = ""

    def __init__(self, body: bytes, gone: Callable[[], bool]) -> None:
        self._body = body
        self._gone = gone

    async def body(self) -> bytes:
        """Return the body, which is there."""
        return self._body

    def gone(self) -> bool:
        """Whether the person's browser has left."""
        return self._gone()


def may_try(person: User, organization_id: UUID | None = None) -> bool:
    """Whether a person may try applications out, in one organization or with ``None`` in any."""
    return may(person, Action.ADD, RIGHT, organization_id)


def applications_to_try(person: User) -> "QuerySet[Application]":
    """Return the active applications that a person may try out."""
    rows = Application.objects.select_related("organization").filter(is_active=True)
    if person.is_active and person.is_superuser:
        return rows
    return rows.filter(organization_id__in=organizations_of(person, Action.ADD, RIGHT))


def send(person: User, application: Application, request: Mapping[str, Any], gone: Callable[[], bool]) -> Answer:
    """Make a chat completion request in an application's name: judged, recorded and billed as any other."""
    inbound = TrialRequest(orjson.dumps(request), gone)
    return BACKGROUND.run(BACKGROUND.runtime().pipeline.complete_chat(inbound, _visitor(person, application)))


def usable_models(person: User, application: Application) -> list[str]:
    """Return the models that such a request may name, as ``GET /v1/models`` would; none if that cannot be told now.

    Real ones come first, then the simulated ones, that which answers before those which break.
    """
    inbound = TrialRequest(b"", lambda: False)
    answer = BACKGROUND.run(BACKGROUND.runtime().pipeline.list_models(inbound, _visitor(person, application)))
    names = [model["id"] for model in orjson.loads(answer.body).get("data", ())]
    simulated = {name: place for place, name in enumerate(simulated_models(), 1)}
    return sorted(names, key=lambda name: (simulated.get(name, 0), name))


def _visitor(person: User, application: Application) -> Visitor:
    def find() -> ApiKey | None:
        # Read again: a right that was taken since the page was asked for holds no more.
        user = User.objects.filter(pk=person.pk).first()
        row = applications_to_try(user).filter(pk=application.pk).first() if user else None
        return ApiKey(id=None, organization=row.organization, application=row, user=user) if row else None

    return Visitor(application.organization_id, find)
