"""The API of usage in sums."""

from collections.abc import Mapping
from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit import usage
from apps.audit.api.shared import PERIOD
from apps.audit.models import RequestRecord
from apps.audit.money import usd_from_nano
from apps.audit.usage import EARLIEST, LATEST, Group, Period, Scope, Sums
from apps.orgs.rest.filters import Filter, as_choice, as_text, query_values, read_value
from apps.orgs.rest.views import ApiView
from apps.orgs.roles import Action
from apps.orgs.scoping import may, reach

MAX_GROUPS = 1000


class TotalsSerializer(serializers.Serializer[Any]):
    """Usage in sums."""

    requests = serializers.IntegerField()
    tokens_input = serializers.IntegerField()
    tokens_output = serializers.IntegerField()
    cost_usd = serializers.CharField(help_text="US dollars, a decimal.")
    blocked = serializers.IntegerField()
    # The metaclass takes a declared field out of the class: the serializer's own `errors` stays what it was.
    errors = serializers.IntegerField(  # type: ignore[assignment]  # see above
        help_text="Requests that ended in an error or were interrupted."
    )


class GroupSerializer(TotalsSerializer):
    """Usage of one group."""

    key = serializers.CharField(allow_null=True, help_text="The model, id, day or status; null: none.")
    name = serializers.CharField(help_text="The key for people.")


class UsageSerializer(TotalsSerializer):
    """Usage in sums, and in groups if asked for."""

    group_by = serializers.CharField(allow_null=True)
    groups = GroupSerializer(many=True)


_GROUPINGS = {"model": "model", "application": "application_id", "user": "user_id", "day": None, "status": "status"}
"""By the name of the grouping: the dimension of usage; a day is none."""


class Usage(ApiView):
    """Usage: requests, tokens and cost in sums."""

    model = RequestRecord
    filters: ClassVar[Mapping[str, Filter]] = {
        "organization": Filter("organization_id"),
        "application": Filter("application_id"),
        "user": Filter("user_id"),
        "model": Filter("model", as_text),
        **PERIOD,
    }

    @extend_schema(
        tags=["metrics"],
        operation_id="metrics_usage",
        responses=UsageSerializer,
        parameters=[
            *(OpenApiParameter(name, one.schema(), description=one.description) for name, one in filters.items()),
            OpenApiParameter("group_by", str, enum=list(_GROUPINGS)),
        ],
    )
    def get(self, request: Request) -> Response:
        """Return the sums over all records that the caller may see and the filters let through."""
        if not may(self.caller, Action.VIEW, "audit.requestrecord"):
            raise PermissionDenied("Your role does not allow this.")
        given = query_values(request, {*self.filters, "group_by"})
        values = {name: read_value(name, given[name], self.filters[name].read) for name in given.keys() - {"group_by"}}
        group_by = read_value("group_by", given["group_by"], as_choice(*_GROUPINGS)) if "group_by" in given else None
        scope, period = self._scope(values), Period(values.get("since", EARLIEST), values.get("until", LATEST))
        dimension = _GROUPINGS[group_by] if group_by else None
        sums, groups = usage.breakdown(scope, period, [dimension] if dimension else [], MAX_GROUPS)
        found = groups[dimension] if dimension else _days(scope, period) if group_by else []
        return Response({**_totals(sums), "group_by": group_by, "groups": [_group(group) for group in found]})

    def _scope(self, values: Mapping[str, Any]) -> Scope:
        own = reach(self.caller, "audit.requestrecord")
        if (chosen := values.get("organization")) is not None:
            own = frozenset({chosen}) if own is None else own & {chosen}
        return Scope(own, values.get("application"), values.get("user"), values.get("model"))


def _days(scope: Scope, period: Period) -> list[Group]:
    days = usage.timeline(scope, period, usage.DAY)
    return [Group(str(day.date()), "", sums) for day, sums in days.items()][:MAX_GROUPS]


def _group(group: Group) -> dict[str, Any]:
    return {"key": group.key, "name": group.name or group.key or "", **_totals(group.sums)}


def _totals(sums: Sums) -> dict[str, Any]:
    return {
        "requests": sums.requests,
        "tokens_input": sums.tokens_input,
        "tokens_output": sums.tokens_output,
        "cost_usd": usd_from_nano(sums.cost_nano_usd),
        "blocked": sums.blocked,
        "errors": sums.errors,
    }
