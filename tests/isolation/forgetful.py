"""Pages and routes that forget the rule: each asks for every row there is, and says what it got."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.apps import apps
from django.contrib import admin
from django.db import connection, models, transaction
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit import fence
from apps.orgs.models import Application, Organization
from apps.orgs.rest.views import ApiView
from controlplane.urls import urlpatterns as real
from tests.isolation.rows import tables


def everything() -> dict[str, list[str]]:
    """Return the ids of all rows of all tables, as far as the database shows them."""
    return {model._meta.label_lower: ids_of(model) for model in tables()}


def ids_of(model: type[models.Model]) -> list[str]:
    return [str(pk) for pk in model._base_manager.values_list("pk", flat=True)]


def page(request: HttpRequest) -> JsonResponse:
    return JsonResponse(everything())


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Ask only while the answer is being sent, as an export does."""

    def pieces() -> Iterator[str]:
        for name in ("orgs.application", "audit.requestrecord"):
            yield from (f"{pk}\n" for pk in ids_of(apps.get_model(name)))

    return StreamingHttpResponse(pieces())


def rename(request: HttpRequest, organization: UUID) -> JsonResponse:
    """Change whatever is there of another organization, through the ORM and without it."""
    changed = Application.objects.filter(organization_id=organization).update(name="taken over")
    changed += Organization.objects.filter(pk=organization).delete()[0]
    with connection.cursor() as cursor:
        cursor.execute("UPDATE orgs_apikey SET revoked_at = now() WHERE organization_id = %s", [organization])
        changed += cursor.rowcount
    return JsonResponse({"changed": changed})


def fail(request: HttpRequest) -> None:
    """Ask for everything in a transaction, and fail in it."""
    with transaction.atomic(), fence.everything():
        Application.objects.exists()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 / 0")


class Route(ApiView):
    def get(self, request: Request) -> Response:
        return Response(everything())


def _for_people(view: Any) -> Any:
    return admin.site.admin_view(view)


urlpatterns = [
    path("forgetful/for-anybody/", page),
    path("forgetful/page/", _for_people(page)),
    path("forgetful/stream/", _for_people(stream)),
    path("forgetful/rename/<uuid:organization>/", _for_people(rename)),
    path("forgetful/fail/", _for_people(fail)),
    path("forgetful/route/", Route.as_view()),
    *real,
]
