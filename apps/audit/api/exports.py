"""The API of exports."""

from functools import partial
from typing import Any

from django.db import transaction
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.api.shared import OrganizationId, owner_of, read_criteria
from apps.audit.exports import orders
from apps.audit.exports.attachment import TYPES, as_attachment
from apps.audit.exports.formats import missing
from apps.audit.exports.work import try_at_once
from apps.audit.models import Export
from apps.gateway.exporter import PRODUCERS
from apps.orgs.rest.errors import Conflict
from apps.orgs.rest.fields import Choice, ObjectSerializer, Text
from apps.orgs.rest.filters import Filter, choice, query_values
from apps.orgs.rest.idempotency import once
from apps.orgs.rest.views import Additions
from apps.orgs.roles import Action


class ExportSerializer(ObjectSerializer[Export]):
    """An export: what was asked for, how far it is, and where its file is."""

    organization = OrganizationId(required=False, allow_null=True, help_text="Left out: your only one.")
    owner = serializers.UUIDField(source="owner_id", read_only=True)
    kind = Choice(choices=Export.Kind.choices, required=False, help_text="An evidence pack is a ZIP archive.")
    format = Choice(choices=["csv", "jsonl", "parquet", "zip"], required=False, help_text="csv if left out.")
    search = serializers.DictField(
        source="criteria", child=Text(allow_blank=False), required=False, help_text="The parameters of audit-logs."
    )
    reason = Text(required=False, allow_blank=True, max_length=1000, help_text="For the record.")
    percent = serializers.IntegerField(read_only=True)

    class Meta(ObjectSerializer.Meta):
        model = Export
        fields = [
            "id",
            "organization",
            "owner",
            "owner_name",
            "created_at",
            "kind",
            "format",
            "search",
            "reason",
            "state",
            "problem",
            "percent",
            "records",
            "bytes",
            "sha256",
            "finished_at",
            "expires_at",
        ]
        read_only_fields = [
            *("owner_name", "created_at", "state", "problem", "records", "bytes", "sha256", "finished_at", "expires_at")
        ]

    def validate_search(self, given: dict[str, str]) -> dict[str, str]:
        """Return the search as it was given, if it can be read."""
        return dict(read_criteria(given).given)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a format that the kind has not, or that cannot be written here."""
        values = super().validate(attrs)
        is_pack = values.setdefault("kind", Export.Kind.RECORDS.value) == Export.Kind.EVIDENCE
        said = values.setdefault("format", "zip" if is_pack else "csv")
        if (said == "zip") is not is_pack:
            raise ValidationError({"format": "An evidence pack is a zip; records are csv, jsonl or parquet."})
        if problem := missing(said):
            raise ValidationError({"format": problem})
        return values


@extend_schema(tags=["exports"])
class ExportListing(Additions[Export]):
    """Records as files: small ones are there at once, larger ones are written by a worker."""

    model = Export
    serializer_class = ExportSerializer
    filters = {
        "organization": Filter("organization_id"),
        "state": choice("state", *Export.State.values),
        "kind": choice("kind", *Export.Kind.values),
    }

    def add(self, values: dict[str, Any]) -> tuple[Export, dict[str, str]]:
        """Order an export and, if it is small, write it."""
        search = read_criteria(values.pop("criteria", {}))
        named = values.pop("organization_id", None) or search.values.get("organization")
        organization_id = owner_of(self.caller, self.label, named)
        self.allow_in(Action.ADD, organization_id)
        if search.values.get("organization", organization_id) != organization_id:
            raise ValidationError({"search.organization": "The export is for another organization."})
        if problem := orders.problem_of_order(organization_id):
            raise Conflict(problem)
        actor = self.actor
        row = Export(
            organization_id=organization_id,
            owner_id=self.caller.pk,
            owner_name=actor.name[:200],
            via=actor.via,
            address=actor.address,
            created_at=timezone.now(),
            criteria=orders.criteria_of(search, organization_id),
            **values,
        )
        self.save(row, before=None, reason=row.reason)
        # Once it is stored: a small one is written before the answer, which says what was ordered.
        transaction.on_commit(partial(try_at_once, row, PRODUCERS), robust=True)
        return row, {}

    @extend_schema(request=None, responses=ExportSerializer)
    @action(detail=True, methods=["post"])
    @once
    def cancel(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Cancel an export that waits or runs. Once more, or too late, changes nothing."""
        with transaction.atomic():
            row = self.row_for(Action.ADD, id)
            orders.cancel(row, self.actor)
            return self.answer(self.stored(row))

    @extend_schema(
        responses={(200, media_type.partition(";")[0]): OpenApiTypes.BINARY for media_type in TYPES.values()}
    )
    @action(detail=True, methods=["get"], filter_backends=[])
    def download(self, request: Request, id: str) -> Any:  # noqa: A002 (the name in the address)
        """Return the file of an export that is done and not expired. Each download is recorded."""
        query_values(request, set())
        row = self.row(id)
        self.allow_on(Action.ADD, row)
        try:
            file = orders.download(row, self.actor)
        except FileNotFoundError as error:
            raise NotFound(f"There is no file: the export is {row.state}, or its time is over.") from error
        return as_attachment(row, file)
