"""The JSON API of the routes, and of what the policies say of a request before it is made."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.http import Http404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from apps.gateway.explanation import effective_policies, explain
from apps.gateway.models import ModelRoute
from apps.gateway.subjects import KINDS, NoSubject, UnclearSubject, find_subject
from apps.orgs.models import ApiKey, Organization, ProviderCredential, User
from apps.orgs.rest.fields import ObjectSerializer, Reference, Whole
from apps.orgs.rest.filters import Filter, as_flag, as_text, as_uuid, query_values
from apps.orgs.rest.views import ApiView, Collection, json_object

MAX_PRIORITY = 32_767


class RouteSerializer(ObjectSerializer[ModelRoute]):
    """A target for a model name."""

    organization = Reference(Organization, required=False, allow_null=True, help_text="None: for all organizations.")
    credential = Reference(ProviderCredential)
    priority = Whole(required=False, min_value=0, max_value=MAX_PRIORITY, help_text="Lower is tried first.")

    class Meta(ObjectSerializer.Meta):
        model = ModelRoute
        fields = ["id", "organization", "model", "credential", "upstream_model", "priority", "is_active"]
        fixed = ("organization",)


@extend_schema(tags=["routes"])
class RouteCollection(Collection[ModelRoute]):
    """Routes from the models that clients name to providers."""

    model = ModelRoute
    serializer_class = RouteSerializer
    unique = "priority"
    filters = {
        "organization": Filter("organization_id"),
        "credential": Filter("credential_id"),
        "model": Filter("model", as_text),
        "is_active": Filter("is_active", as_flag),
    }


class EvaluationSerializer(serializers.Serializer[Any]):
    """A request to be judged: who asks (one of the three), and the request itself or the parts of one."""

    application = serializers.UUIDField(required=False)
    key = serializers.UUIDField(required=False)
    user = serializers.UUIDField(required=False)
    organization = serializers.UUIDField(required=False, help_text="Of a user who is in several.")
    model = serializers.CharField(required=False, help_text="Needed unless the body has it.")
    messages = serializers.ListField(
        child=serializers.DictField(), required=False, help_text="A short one if left out."
    )
    body = serializers.DictField(required=False, help_text="A whole chat completion request, or more of its fields.")


class ScopeSerializer(serializers.Serializer[Any]):
    """Where a policy comes from."""

    level = serializers.CharField()
    id = serializers.UUIDField(allow_null=True)
    name = serializers.CharField()


class AppliedPolicySerializer(serializers.Serializer[Any]):
    """A policy that applies."""

    id = serializers.UUIDField()
    version = serializers.IntegerField()
    name = serializers.CharField()
    kind = serializers.CharField()
    mode = serializers.CharField()
    level = serializers.CharField()
    scope = ScopeSerializer()
    says = serializers.CharField(allow_null=True, help_text="In words; null for the platform's, but for superadmins.")


class EffectivePolicySerializer(AppliedPolicySerializer):
    """A policy on a scope of the caller."""

    state = serializers.ChoiceField(choices=["holds", "not yet", "ended", "broken"])


class EffectivePoliciesSerializer(serializers.Serializer[Any]):
    """The policies of a caller, widest scope first."""

    results = EffectivePolicySerializer(many=True)


class WorstCaseSerializer(serializers.Serializer[Any]):
    """What the request could cost; null where nothing bounds it."""

    worst_case_usd = serializers.CharField(allow_null=True)
    most_input_tokens = serializers.IntegerField(allow_null=True)
    most_output_tokens = serializers.IntegerField(allow_null=True)


class ExplanationSerializer(serializers.Serializer[Any]):
    """Whether a request would be allowed, and why."""

    allowed = serializers.BooleanField()
    status = serializers.IntegerField(help_text="The HTTP status that the request would get from the gateway.")
    error = serializers.DictField(allow_null=True, help_text="The error that the request would get.")
    reasons = serializers.ListField(child=serializers.DictField(), help_text="Also those of policies in shadow.")
    policies = AppliedPolicySerializer(many=True)
    limits = serializers.ListField(child=serializers.DictField(), help_text="As a record has them, with what is left.")
    findings = serializers.ListField(child=serializers.DictField())
    cost = WorstCaseSerializer(allow_null=True)
    route = serializers.ListField(child=serializers.DictField(), help_text="Provider and model, in the order to try.")


class PolicyEvaluation(ApiView):
    """Would this request be allowed?"""

    @extend_schema(
        tags=["policies"],
        operation_id="policies_evaluate",
        request=EvaluationSerializer,
        responses=ExplanationSerializer,
    )
    def post(self, request: Request) -> Response:
        """Judge a request without making it: nothing is sent, counted, reserved or recorded."""
        said = json_object(request)
        for name in said.keys() - EvaluationSerializer().fields.keys():
            raise ValidationError({name: "There is no such field here."})
        return Response(explain(_subject(said, self.caller), _body(said), self.caller))


class EffectivePolicies(ApiView):
    """The policies that hold for an application, a user or a key."""

    @extend_schema(
        tags=["policies"],
        operation_id="policies_effective",
        responses=EffectivePoliciesSerializer,
        parameters=[OpenApiParameter(name, UUID) for name in (*KINDS, "organization")],
    )
    def get(self, request: Request) -> Response:
        """List the policies on every scope of a caller, widest first, with where each comes from."""
        said = query_values(request, {*KINDS, "organization"})
        return Response({"results": effective_policies(_subject(said, self.caller), self.caller)})


def _subject(said: Mapping[str, Any], person: User) -> ApiKey:
    given = [kind for kind in KINDS if said.get(kind) is not None]
    if len(given) != 1:
        raise ValidationError({given[1] if given else KINDS[0]: "Name one of application, user and key."})
    organization = _id(said, "organization") if said.get("organization") is not None else None
    try:
        return find_subject(person, given[0], _id(said, given[0]), organization)
    except NoSubject:
        raise Http404 from None
    except UnclearSubject as error:
        raise ValidationError({"organization" if given == ["user"] else given[0]: str(error)}) from error


def _id(said: Mapping[str, Any], name: str) -> UUID:
    try:
        return as_uuid(said[name])
    except (ValueError, TypeError):
        raise ValidationError({name: "Must be an id (a UUID)."}) from None


def _body(said: Mapping[str, Any]) -> dict[str, Any]:
    body = said.get("body", {})
    if not isinstance(body, dict):
        raise ValidationError({"body": "Must be an object."})
    given = {name: said[name] for name in ("model", "messages") if name in said}
    whole = {"messages": [{"role": "user", "content": "Hello"}], **body, **given}
    if "model" not in whole:
        raise ValidationError({"model": "Name the model."})
    return whole
