"""The API of request records."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.audit.api.shared import read_criteria
from apps.audit.api.why import DecisionSerializer, WhySerializer
from apps.audit.finding import Reach, TooSlow, find
from apps.audit.models import RequestRecord, RequestText
from apps.audit.money import usd_from_nano
from apps.audit.search import CRITERIA, METADATA, SEARCHED
from apps.gateway.reevaluation import reevaluate
from apps.gateway.why import why
from apps.orgs.rest.filters import PAGING, Filter, QueryFilters, query_values
from apps.orgs.rest.pages import next_url, read_limit, read_place
from apps.orgs.rest.views import Listing
from apps.orgs.scoping import reach, visible

TOO_SLOW = (
    "This search takes too long. Give a shorter period (since, until), or name a model, a status or an application."
)


class SearchFilters(QueryFilters):
    """What can be searched by, for OpenAPI; `RecordListing` searches by itself."""

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """Describe the criteria."""
        labels = {
            "name": "metadata",
            "in": "query",
            "required": False,
            "description": "Records whose metadata has these values: metadata.<key>=<value>, once for each key.",
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        }
        return [*super().get_schema_operation_parameters(view), labels]


class RecordSerializer(serializers.ModelSerializer[RequestRecord]):
    """One request: who asked for what, what was decided, what it cost. Texts are redacted, null once erased."""

    request_id = serializers.UUIDField(source="id")
    organization = serializers.UUIDField(source="organization_id")
    application = serializers.UUIDField(source="application_id", allow_null=True)
    user = serializers.UUIDField(source="user_id", allow_null=True)
    api_key = serializers.UUIDField(source="api_key_id", allow_null=True)
    model = serializers.CharField(help_text="The one asked for.")
    cost_usd = serializers.CharField(help_text="US dollars, a decimal.")
    overrun_usd = serializers.SerializerMethodField(help_text="What the provider used beyond what it was asked for.")
    prompt_redacted = serializers.SerializerMethodField()
    response_redacted = serializers.SerializerMethodField()

    class Meta:
        model = RequestRecord
        fields = [
            "id",
            "request_id",
            "timestamp",
            "organization",
            "organization_name",
            "application",
            "application_name",
            "user",
            "user_name",
            "api_key",
            "api_key_prefix",
            "end_user",
            "endpoint",
            "model",
            "provider",
            "upstream_model",
            "streamed",
            "status",
            "http_status",
            "error_code",
            "error_message",
            "prompt_redacted",
            "response_redacted",
            "tokens_input",
            "tokens_output",
            "tokens_cached",
            "usage_source",
            "cost_usd",
            "overrun_usd",
            "latency_ms",
            "first_byte_ms",
            "metadata",
            "reasons",
            "policies",
            "findings",
            "limits",
            "attempts",
            "degraded",
        ]

    def get_overrun_usd(self, record: RequestRecord) -> str:
        """Return US dollars."""
        return usd_from_nano(record.overrun_nano_usd)

    def get_prompt_redacted(self, record: RequestRecord) -> str | None:
        """Return the prompt's redacted text."""
        text = self.context["texts"].get(record.pk)
        return text.prompt_redacted if text else None

    def get_response_redacted(self, record: RequestRecord) -> str | None:
        """Return the answer's redacted text."""
        text = self.context["texts"].get(record.pk)
        return text.response_redacted if text else None


@extend_schema(tags=["audit-logs"])
class RecordListing(Listing[RequestRecord]):
    """The audit log of requests."""

    model = RequestRecord
    serializer_class = RecordSerializer
    filter_backends = [SearchFilters]
    filters = {name: Filter("", one.read, one.help or one.label, one.choices) for name, one in CRITERIA.items()}

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List requests, the newest first. A page may be short, or empty, and have a next one all the same.

        That is so where the search looks for something rare: it goes on at `next`.
        """
        given = query_values(request, PAGING | CRITERIA.keys(), METADATA)
        search = read_criteria({name: text for name, text in given.items() if name not in PAGING})
        limit, place = read_limit(request), read_place(request)
        try:
            found = find(search, Reach(reach(self.caller, *SEARCHED)), limit, place)
        except TooSlow as error:
            raise ValidationError(TOO_SLOW) from error
        following = next_url(request, str(found.next)) if found.next else None
        return Response({"results": self.entries(found.records), "next": following})

    def represent(self, row: RequestRecord) -> dict[str, Any]:
        """Return one request."""
        return dict(self.entries([row])[0])

    @extend_schema(responses=DecisionSerializer)
    @action(detail=True, methods=["get"], filter_backends=[])
    def decision(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Decide again what was decided then, from the record and the versions of the policies that it names."""
        query_values(request, set())
        return Response(asdict(reevaluate(self.row(id))))

    @extend_schema(responses=WhySerializer)
    @action(detail=True, methods=["get"], filter_backends=[])
    def explanation(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Explain why a request ended as it did: a sentence, and the path stage by stage."""
        query_values(request, set())
        return Response(asdict(why(self.row(id), self.caller)))

    def entries(self, records: Sequence[RequestRecord]) -> Any:
        """Return records as the API shows them, with their texts, which one query fetches for all."""
        texts = visible(RequestText.objects.filter(pk__in=[record.pk for record in records]), self.caller)
        return RecordSerializer(records, many=True, context={"texts": {text.pk: text for text in texts}}).data
