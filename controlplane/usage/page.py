"""The page: its figures, charts, tables and links, all of one scope and period."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from apps.audit import usage
from apps.audit.money import usd_from_nano
from apps.audit.search import NO_POLICY
from apps.audit.snapshot import snapshot
from apps.audit.usage import HOUR, Group, Period, Scope, Sums
from apps.audit.values import uuid_or_none
from apps.orgs.models import Application, Organization, User
from apps.orgs.roles import Action
from apps.orgs.scoped_admin import MOST_CHOICES
from apps.orgs.scoping import may, reach, visible
from apps.policies.models import Policy
from controlplane import charts
from controlplane.charts import Chart, Kind
from controlplane.usage.budgets import budgets_of
from controlplane.usage.period import Span, UsageForm, span_of
from controlplane.usage.tables import Breakdown, Figure, Row, line, rest
from controlplane.usage.words import change, dollars, milliseconds, percentiles

LABEL = "audit.requestrecord"
MOST_ROWS = 10


def usage_page(request: HttpRequest, user: User) -> dict[str, Any]:
    """Return what the page shows. Raises `PermissionDenied` for who may see no records."""
    if not may(user, Action.VIEW, LABEL):
        raise PermissionDenied
    form = UsageForm({"period": "7d", **{name: value for name, value in request.GET.items() if value}})
    choices = [(str(row.pk), str(row)) for row in visible(Organization.objects.all(), user)[:MOST_CHOICES]]
    context = {"form": form, "periods": _periods(form), "organizations": choices if len(choices) > 1 else []}
    if not form.is_valid():
        return {**context, "title": "Usage"}
    scope = _scope(form.cleaned_data, user)
    return {**context, **_Page(form.cleaned_data, scope, span_of(form.cleaned_data, timezone.now()), user).context()}


def _periods(form: UsageForm) -> list[tuple[str, str, bool]]:
    chosen = str(form.data.get("period") or "7d")
    return [(value, text, value == chosen) for value, text in UsageForm.PERIODS]


def _scope(chosen: Mapping[str, Any], user: User) -> Scope:
    """Return what was chosen, within the person's reach; what is out of it is denied as what is not there."""
    own, organization = reach(user, LABEL), chosen.get("organization")
    if organization is not None:
        if not visible(Organization.objects.filter(pk=organization), user).exists():
            raise PermissionDenied
        own = frozenset({organization})
    return Scope(own, chosen.get("application"), chosen.get("user"))


class _Page:
    """The parts of the page, all of one scope and period."""

    def __init__(self, chosen: Mapping[str, Any], scope: Scope, span: Span, user: User) -> None:
        self._chosen = chosen
        self._scope = scope
        self._span = span
        self._user = user
        own = scope.organizations or frozenset()
        self._organization = next(iter(own)) if len(own) == 1 else None
        # Hundreds of links of a page begin with one of these.
        self._page_address = reverse("admin:usage")
        self._records_address = reverse("admin:audit_requestrecord_changelist")
        self._narrows_organization = bool(self._organization) and reach(user, LABEL) != scope.organizations

    def context(self) -> dict[str, Any]:
        with snapshot():
            return self._context()

    def _context(self) -> dict[str, Any]:
        span = self._span
        groupings = [name for name, _, _ in self._groupings()]
        sums, groups = usage.breakdown(self._scope, span.now, groupings, MOST_ROWS)
        before = usage.totals(self._scope, span.before)
        over_time = self._over_time()
        return {
            "title": self._title(groups),
            "span": span,
            "narrowed": self._narrowed(groups),
            "sums": sums,
            "figures": self._figures(sums, before),
            "charts": self._charts(over_time),
            "over_time": [self._time_row(start, one) for start, one in reversed(over_time)],
            "breakdowns": [
                *(self._breakdown(title, name, groups[name], sums) for name, title, _ in self._groupings()),
                *self._tags(),
            ],
            "budgets": budgets_of(self._scope, self._user),
            "tags_hint": self._tags_hint(),
        }

    def _groupings(self) -> list[tuple[str, str, str]]:
        """Return the dimensions by which usage is broken down here: their names, titles and parameters of the page."""
        shown = [
            ("organization_id", "By organization", "organization"),
            ("application_id", "By application", "application"),
            ("user_id", "By user", "user"),
            ("model", "By model", ""),
            ("provider", "By provider", ""),
            ("policy_id", "Refusals by policy", ""),
            ("error_code", "Refusals and failures by reason", ""),
        ]
        settled = {
            "organization_id": self._organization is not None,
            "application_id": self._scope.application is not None,
            "user_id": self._scope.user is not None,
        }
        return [one for one in shown if not settled.get(one[0])]

    # Names

    def _title(self, groups: Mapping[str, Sequence[Group]]) -> str:
        if self._scope.application or self._scope.user:
            return f"Usage of {self._named()}"
        if self._organization is not None:
            return f"Usage of {self._organization_name()}"
        return "Usage of the platform" if self._user.is_superuser else "Usage"

    def _named(self) -> str:
        """Return the name of the application or the person, as far as this person may know it."""
        if self._scope.application:
            row = visible(Application.objects.filter(pk=self._scope.application), self._user).first()
            return f"application {row}" if row else "an application"
        person = visible(User.objects.filter(pk__in=[self._scope.user]), self._user).first()
        return f"user {person}" if person else "a user"

    def _organization_name(self) -> str:
        return str(visible(Organization.objects.filter(pk__in=self._scope.organizations or ()), self._user).first())

    def _narrowed(self, groups: Mapping[str, Sequence[Group]]) -> list[tuple[str, str]]:
        """Return what the page is narrowed to, and the page without that."""
        found = []
        if self._scope.application or self._scope.user:
            found.append((self._named(), self._page_link(application=None, user=None)))
        if self._chosen.get("organization") and reach(self._user, LABEL) != self._scope.organizations:
            found.append(
                (
                    f"organization {self._organization_name()}",
                    self._page_link(organization=None, application=None, user=None),
                )
            )
        return found

    # Links

    def _page_link(self, **changed: Any) -> str:
        kept = {name: self._chosen.get(name) for name in ("organization", "application", "user", "period")}
        if kept["period"] == "custom":
            kept |= {"first": self._chosen["first"], "last": self._chosen["last"]}
        given = {name: str(value) for name, value in {**kept, **changed}.items() if value}
        return f"{self._page_address}?{urlencode(given)}"

    def _records_link(self, period: Period | None = None, **narrowed: Any) -> str:
        period = period or self._span.now
        given: dict[str, Any] = {"since": period.since.isoformat(), "until": period.until.isoformat()}
        if self._narrows_organization:
            given["organization"] = self._organization
        given |= {"application": self._scope.application, "user": self._scope.user}
        given |= narrowed
        said = {name: str(value) for name, value in given.items() if value}
        return f"{self._records_address}?{urlencode(said)}"

    def _of_group(self, dimension: str, key: str | None) -> dict[str, Any]:
        """Return the filters of the list of records that mean a group."""
        if dimension == "policy_id":
            return {"refused_by": key or NO_POLICY}
        name = {
            "organization_id": "organization",
            "application_id": "application",
            "user_id": "user",
            "model": "model_is",
            "provider": "provider",
            "error_code": "error_code",
        }[dimension]
        return {name: key} if key else {"without": dimension.removesuffix("_id")}

    # Figures and charts

    def _figures(self, sums: Sums, before: Sums) -> list[Figure]:
        p50, p95, p99 = sums.percentiles
        rates = [(one.errors / one.requests if one.requests else 0) for one in (sums, before)]
        return [
            Figure(
                "Spend, USD",
                dollars(sums.cost_nano_usd),
                usd_from_nano(sums.cost_nano_usd),
                change(sums.cost_nano_usd, before.cost_nano_usd),
                self._records_link(),
            ),
            Figure("Requests", f"{sums.requests:,}", "", change(sums.requests, before.requests), self._records_link()),
            Figure(
                "Tokens in and out",
                f"{sums.tokens:,}",
                f"{sums.tokens_input:,} in, {sums.tokens_output:,} out",
                change(sums.tokens, before.tokens),
                self._records_link(),
            ),
            Figure(
                "Refused",
                f"{sums.blocked:,}",
                "",
                change(sums.blocked, before.blocked),
                self._records_link(status="blocked"),
            ),
            Figure(
                "Failed",
                f"{sums.errors:,}",
                f"{rates[0]:.2%} of all requests, before {rates[1]:.2%}",
                change(sums.errors, before.errors),
                self._records_link(status="failed"),
            ),
            Figure(
                "Latency, half within",
                milliseconds(p50),
                f"95 % within {milliseconds(p95)}, 99 % within {milliseconds(p99)}",
                change(p50 or 0, before.percentiles[0] or 0),
                self._records_link(status="success"),
            ),
        ]

    def _over_time(self) -> list[tuple[datetime, Sums]]:
        span, found = self._span, usage.timeline(self._scope, self._span.now, self._span.unit)
        last = min(span.now.until, timezone.now())
        starts, start = [], span.now.since
        while start < last:
            starts.append(start)
            start += span.unit
        return [(start, found.get(start, Sums())) for start in sorted({*starts, *found})]

    def _charts(self, over_time: Sequence[tuple[datetime, Sums]]) -> list[Chart]:
        if not any(sums.requests for _, sums in over_time):
            return []
        said: list[tuple[str, Sums]] = [(self._when(start), sums) for start, sums in over_time]
        spends = [(f"{when}: {dollars(one.cost_nano_usd)} USD", [one.cost_nano_usd]) for when, one in said]
        counts = [
            (
                f"{when}: {one.requests:,} requests, {one.blocked:,} refused, {one.errors:,} failed",
                [one.requests - one.blocked - one.errors, one.blocked, one.errors],
            )
            for when, one in said
        ]
        latencies = [(f"{when}: {percentiles(one)}", one.percentiles) for when, one in said]
        most = max(sums.cost_nano_usd for _, sums in over_time)
        longest = max((value for _, values in latencies for value in values if value is not None), default=0)
        return [
            charts.bars("Spend", f"{dollars(most)} USD", [Kind("Spend", "cp-bar-spend")], spends),
            charts.bars(
                "Requests",
                f"{max(sums.requests for _, sums in over_time):,}",
                [Kind("Served", "cp-bar-served"), Kind("Refused", "cp-bar-refused"), Kind("Failed", "cp-bar-failed")],
                counts,
            ),
            charts.lines(
                "Latency of successful requests",
                milliseconds(longest),
                [
                    Kind("Half within", "cp-line-p50"),
                    Kind("95 % within", "cp-line-p95"),
                    Kind("99 % within", "cp-line-p99"),
                ],
                latencies,
            ),
        ]

    def _when(self, start: datetime) -> str:
        return f"{start:%Y-%m-%d %H:%M}" if self._span.unit == HOUR else f"{start:%Y-%m-%d}"

    def _time_row(self, start: datetime, sums: Sums) -> Row:
        period = Period(start, start + self._span.unit)
        return Row(
            name=self._when(start),
            sums=sums,
            records=self._records_link(period),
            refused=self._records_link(period, status="blocked"),
            failed=self._records_link(period, status="failed"),
        )

    # Breakdowns

    def _breakdown(self, title: str, dimension: str, groups: Sequence[Group], total: Sums) -> Breakdown:
        rows = [self._row(dimension, group, total) for group in groups]
        others = rest(dimension, groups, total)
        if others is not None and others.requests > 0:
            rows.append(line("Everything else", others, total))
        empty = {
            "policy_id": "No request was refused.",
            "error_code": "No request was refused, and none failed.",
        }.get(dimension, "No requests in this period.")
        return Breakdown(title, tuple(rows), empty)

    def _row(self, dimension: str, group: Group, total: Sums) -> Row:
        names = {
            "application_id": "(no application: a person's key)",
            "user_id": "(no user: an application's key)",
            "policy_id": "(no policy: something else refused)",
            "provider": "(no provider was chosen)",
        }
        name = group.name or ("" if dimension.endswith("_id") else group.key or "")
        narrowed = self._of_group(dimension, group.key)
        return replace(
            line(name or names.get(dimension, "(none)"), group.sums, total),
            records=self._records_link(**narrowed),
            refused=self._records_link(**narrowed, status="blocked"),
            failed=self._records_link(**narrowed, status="failed"),
            page=self._page_of(dimension, group.key),
        )

    def _page_of(self, dimension: str, key: str | None) -> str:
        if not key:
            return ""
        if dimension == "policy_id":
            known = visible(Policy.objects.filter(pk__in=[uuid_or_none(key)]), self._user).exists()
            return reverse("admin:policies_policy_change", args=[key]) if known else ""
        name = {"organization_id": "organization", "application_id": "application", "user_id": "user"}.get(dimension)
        return self._page_link(**{name: key}) if name else ""

    def _tags(self) -> list[Breakdown]:
        if self._organization is None:
            return []
        found = []
        for key, is_counted in usage.tags_of(self._organization).items():
            title = f"By metadata: {key}"
            if not is_counted:
                found.append(Breakdown(title, (), "The past is being counted. Come back in a few minutes."))
                continue
            groups = usage.by_tag(self._scope, self._span.now, key)
            total = sum((group.sums for group in groups), Sums())
            shown, others = groups[:MOST_ROWS], sum((group.sums for group in groups[MOST_ROWS:]), Sums())
            rows = [self._tag_row(key, group, total) for group in shown]
            rows += [line("Everything else", others, total)] if others.requests else []
            found.append(Breakdown(title, tuple(rows), "No request in this period has this key.", has_latency=False))
        return found

    def _tag_row(self, key: str, group: Group, total: Sums) -> Row:
        if group.key is None:
            return line("(all other values)", group.sums, total)
        if not group.key:
            return line("(empty)", group.sums, total)  # no search asks for an empty value
        tag: dict[str, Any] = {f"metadata.{key}": group.key}
        return replace(
            line(group.key, group.sums, total),
            records=self._records_link(**tag),
            refused=self._records_link(**tag, status="blocked"),
            failed=self._records_link(**tag, status="failed"),
        )

    def _tags_hint(self) -> str:
        """Return where keys of metadata are chosen, for who may while there is none."""
        if self._organization is None or usage.tags_of(self._organization):
            return ""
        if not may(self._user, Action.ADD, "orgs.usagetag", self._organization):
            return ""
        return reverse("admin:orgs_organization_change", args=[self._organization])
