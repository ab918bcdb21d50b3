"""The base of the API's views: who may do what to which object, and the record of each change.

request -> authenticate -> permission -> read and validate -> scope -> change + record, in one transaction -> answer
"""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, ClassVar, Generic, TypeVar, cast
from uuid import UUID, uuid4

from django.db import models, transaction
from django.db.models import QuerySet
from django.http import Http404
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.mixins import ListModelMixin
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

from apps.audit.changes import Actor, record_change, state_of
from apps.orgs.models import ApiKey, Organization, User
from apps.orgs.rest.authentication import ApiKeyAuthentication
from apps.orgs.rest.bodies import JsonOnly, StrictJsonParser
from apps.orgs.rest.errors import model_rules
from apps.orgs.rest.filters import Filter, QueryFilters, as_uuid
from apps.orgs.rest.idempotency import once
from apps.orgs.rest.pages import CursorPages
from apps.orgs.rest.preconditions import asked_for, check_unchanged, etag_of
from apps.orgs.roles import Action
from apps.orgs.scoping import may, visible

M = TypeVar("M", bound=models.Model)


class ApiView(APIView):
    """A view for users' keys. Every answer has an ``x-request-id``."""

    authentication_classes = [ApiKeyAuthentication]
    permission_classes = [IsAuthenticated]
    parser_classes = [StrictJsonParser]
    content_negotiation_class = JsonOnly
    http_method_names = ["get", "head", "post", "put", "patch", "delete"]

    @property
    def caller(self) -> User:
        """Who calls."""
        return cast("User", self.request.user)

    @property
    def key(self) -> ApiKey:
        """The key they call with."""
        return cast("ApiKey", self.request.auth)

    @property
    def caller_scope(self) -> str:
        """Who calls, with which of their roles: a key for one organization reaches less than the user does."""
        return f"{self.caller.pk}/{getattr(self.request.auth, 'organization_id', None) or ''}"

    @property
    def actor(self) -> Actor:
        """Who calls, as a change record says it."""
        return Actor(self.caller.pk, str(self.caller), "api", _address(self.request))

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Name the answer."""
        response.headers["x-request-id"] = str(uuid4())
        return super().finalize_response(request, response, *args, **kwargs)


class NotFound(ApiView):
    """The answer of every address that leads nowhere."""

    permission_classes = []
    authentication_classes = []
    schema = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse whatever the method."""
        raise Http404


class Listing(ListModelMixin, ApiView, GenericViewSet[M], Generic[M]):
    """A read-only collection of what the caller may see, in pages, with filters."""

    model: ClassVar[type[models.Model]]
    filters: ClassVar[Mapping[str, Filter]] = {}
    ordered_by: ClassVar[str | None] = None
    shown_once: ClassVar[frozenset[str]] = frozenset()
    """Fields of an answer that hold a secret: they are stored nowhere."""
    filter_backends = [QueryFilters]
    pagination_class = CursorPages
    lookup_url_kwarg = "id"

    @property
    def label(self) -> str:
        """The model's name in the table of permissions."""
        return self.model._meta.label_lower

    def get_queryset(self) -> "QuerySet[M]":
        """Return what the caller may see."""
        if getattr(self, "swagger_fake_view", False):
            return cast("QuerySet[M]", QuerySet(self.model).none())
        return cast("QuerySet[M]", visible(QuerySet(self.model), self.caller))

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse a role that may nowhere do what the method does."""
        super().initial(request, *args, **kwargs)
        self.check_role()

    def check_role(self) -> None:
        """Refuse a role that may see nothing here. Raises `PermissionDenied`."""
        if not may(self.caller, Action.VIEW, self.label):
            raise PermissionDenied("Your role does not allow this.")

    def retrieve(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Return one object."""
        return self.answer(self.row(id))

    def represent(self, row: M) -> dict[str, Any]:
        """Return an object as the API shows it."""
        return dict(self.get_serializer(row).data)

    def answer(self, row: M, status: int = 200, **once: Any) -> Response:
        """Answer with an object and its ETag. ``once``: what is shown besides, now and never again."""
        shown = self.represent(row)
        return Response(shown | once, status=status, headers={"ETag": etag_of(row, shown)})

    def row(self, id_text: str) -> M:
        """Return the object with an id of the address. Raises `Http404` for ids that are none or not the caller's."""
        try:
            found = self.get_queryset().filter(pk=as_uuid(id_text)).first()
        except ValueError:
            found = None
        if found is None:
            raise Http404
        return found

    def locked(self, row: M) -> M:
        """Return a row as it is now, locked for a change.

        Raises `Http404` if it is gone, or `Changed` if ``If-Match`` means another one.
        """
        wanted = asked_for(self.request)
        found: M | None = QuerySet(self.model).select_for_update(of=("self",)).filter(pk=row.pk).first()
        if found is None:
            raise Http404
        if wanted is not None:
            check_unchanged(wanted, found, self.represent(found))
        return found


class Additions(Listing[M]):
    """A collection whose objects the caller may make as their role allows."""

    names: ClassVar[Mapping[str, str]] = {}
    unique: ClassVar[str] = "name"

    @once
    def create(self, request: Request) -> Response:
        """Make an object; 201 with the object."""
        self.allow_anywhere(Action.ADD)
        serializer = self.get_serializer(data=json_object(request))
        serializer.is_valid(raise_exception=True)
        with transaction.atomic():
            row, shown_once = self.add(serializer.validated_data)
            return self.answer(self.stored(row), 201, **shown_once)

    def stored(self, row: M) -> M:
        """Return a row as the database now has it: triggers and the database's types have had their say."""
        return cast("M", QuerySet(self.model).get(pk=row.pk))

    # --- What a collection may say differently

    def add(self, values: dict[str, Any]) -> tuple[M, dict[str, str]]:
        """Store a new object with its record; return it with what the answer shows of it besides, this once."""
        row = cast("M", self.model(**values))
        self.allow_in(Action.ADD, organization_of(row))
        self.save(row, before=None)
        return row, {}

    # --- The parts that these are made of

    def save(self, row: M, *, before: dict[str, Any] | None, hidden: tuple[str, ...] = (), reason: str = "") -> None:
        """Check and store a row with its record. ``hidden``: columns of secrets that have been set anew."""
        with model_rules(self.names, self.unique):
            row.full_clean()
        row.save()
        action = "create" if before is None else "change"
        after = state_of(row) | (dict.fromkeys(hidden, "(set anew)") if before else {})
        owner = organization_of(row)
        record_change(self.actor, action, row, organization_id=owner, before=before, after=after, reason=reason)

    def row_for(self, action: Action, id_text: str) -> M:
        """Return an object, locked for a change.

        Raises `Http404`, `PermissionDenied` if it may only be seen, or `Changed` if ``If-Match`` means another one.
        """
        row = self.row(id_text)
        self.allow_on(action, row)
        return self.locked(row)

    def allow_on(self, action: Action, row: M) -> None:
        """Raise `PermissionDenied` unless the caller may do ``action`` to a row that they may see."""
        if not visible(QuerySet(self.model).filter(pk=row.pk), self.caller, action).exists():
            raise PermissionDenied("Your role does not allow this.")

    def allow_anywhere(self, action: Action) -> None:
        """Raise `PermissionDenied` unless the caller may do ``action`` in some organization."""
        if not may(self.caller, action, self.label):
            raise PermissionDenied("Your role does not allow this.")

    def allow_in(self, action: Action, organization_id: UUID | None) -> None:
        """Raise `PermissionDenied` unless the caller may do ``action`` there; only superadmins in the platform."""
        if self.caller.is_superuser:
            return
        if organization_id is None:
            raise PermissionDenied("Only a superadmin may do this for the whole platform.")
        if not may(self.caller, action, self.label, organization_id):
            raise PermissionDenied("Your role does not allow this.")


class Collection(Additions[M]):
    """A collection whose objects the caller may make, change and delete as their role allows."""

    def update(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Replace an object's fields."""
        return self.change(request, id, partial=False)

    def partial_update(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Change some of an object's fields."""
        return self.change(request, id, partial=True)

    def destroy(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Delete an object and what belongs to it."""
        with transaction.atomic():
            self.remove(self.row_for(Action.DELETE, id))
        return Response(status=204)

    def change(self, request: Request, id_text: str, *, partial: bool) -> Response:
        """Change an object and answer with what it is now."""
        with transaction.atomic():
            row = self.row_for(Action.CHANGE, id_text)
            serializer = self.get_serializer(row, data=json_object(request), partial=partial)
            serializer.is_valid(raise_exception=True)
            self.apply(row, serializer.validated_data)
            return self.answer(self.stored(row))

    # --- What a collection may say differently

    def apply(self, row: M, values: dict[str, Any]) -> None:
        """Store the changed object with its record."""
        before = state_of(row)
        for name, value in values.items():
            setattr(row, name, value)
        self.save(row, before=before)

    def remove(self, row: M, reason: str = "") -> None:
        """Delete the object with its record, which counts what went with it."""
        before, organization_id, pk = state_of(row), organization_of(row), row.pk
        _, counts = row.delete()
        row.pk = pk
        others = [f"{number} {label}" for label, number in sorted(counts.items()) if label != row._meta.label]
        reason = " ".join(filter(None, [reason, f"With it: {', '.join(others)}." if others else ""]))
        record_change(self.actor, "delete", row, organization_id=organization_id, before=before, reason=reason)


def organization_of(row: models.Model) -> UUID | None:
    """Return the id of the organization that a row belongs to; ``None``: the platform."""
    return row.pk if isinstance(row, Organization) else getattr(row, "organization_id", None)


def json_object(request: Request) -> dict[str, Any]:
    """Return the body. Raises `ValidationError` if it is no JSON object."""
    if not isinstance(request.data, dict):
        raise ValidationError("The body must be a JSON object.")
    return request.data


def _address(request: Request) -> str | None:
    # The connection's own address: a forwarded one could be written by anybody.
    try:
        return str(ip_address(request.META.get("REMOTE_ADDR", "")))
    except ValueError:
        return None
