"""Where the money goes: usage of the platform, an organization, an application or a person, over a chosen period."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from apps.audit import usage
from apps.audit.money import NANO, usd_from_nano
from apps.audit.search import NO_POLICY
from apps.audit.snapshot import snapshot
from apps.audit.usage import DAY, HOUR, Group, Period, Scope, Sums
from apps.audit.values import uuid_or_none
from apps.orgs.models import Application, Organization, User
from apps.orgs.roles import Action
from apps.orgs.scoped_admin import MOST_CHOICES
from apps.orgs.scoping import may, reach, visible
from apps.policies.budgets import spent_now
from apps.policies.models import Budget, Policy
from controlplane import charts
from controlplane.charts import Chart, Kind

LABEL = "audit.requestrecord"
MOST_ROWS = 10
MOST_BUDGETS = 20
MOST_DAYS = 366
EARLIEST = date(2000, 1, 1)


class UsageForm(forms.Form):
    """Which period, and of which organization."""

    PERIODS = (
        ("today", "Today"),
        ("7d", "Last 7 days"),
        ("30d", "Last 30 days"),
        ("month", "This month"),
        ("custom", "From … to …"),
    )
    organization = forms.UUIDField(required=False, widget=forms.HiddenInput)
    application = forms.UUIDField(required=False, widget=forms.HiddenInput)
    user = forms.UUIDField(required=False, widget=forms.HiddenInput)
    period = forms.ChoiceField(choices=PERIODS, required=False)
    first = forms.DateField(label="From (UTC)", required=False)
    last = forms.DateField(label="To, included", required=False)

    def clean(self) -> dict[str, Any]:
        """Check the chosen days: both there, in order, none in the future, not too many."""
        data = super().clean() or {}
        if data.get("period") != "custom" or self.errors:
            return data
        first, last, today = data.get("first"), data.get("last"), timezone.now().date()
        if first is None or last is None:
            self.add_error("first" if first is None else "last", "Choose a day, such as 2026-01-31.")
        elif first > last:
            self.add_error("last", "The last day comes before the first one.")
        elif last > today:
            self.add_error("last", f"This day lies in the future. Today is {today} (UTC).")
        elif first < EARLIEST:
            self.add_error("first", f"There is nothing before {EARLIEST}.")
        elif (last - first).days >= MOST_DAYS:
            self.add_error("first", f"Choose at most {MOST_DAYS} days; these are {(last - first).days + 1:,}.")
        return data


@dataclass(frozen=True, slots=True)
class Span:
    """A period, the one before it, and the unit of its charts."""

    now: Period
    before: Period
    unit: timedelta
    title: str
    compared_with: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with what it was in the period before, and the records behind it."""

    title: str
    value: str
    exact: str
    change: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a breakdown."""

    name: str
    sums: Sums
    share: str = ""
    records: str = ""
    refused: str = ""
    failed: str = ""
    page: str = ""

    @property
    def spend(self) -> str:
        """US dollars."""
        return dollars(self.sums.cost_nano_usd)

    @property
    def requests(self) -> str:
        """How many requests."""
        return f"{self.sums.requests:,}"

    @property
    def blocked(self) -> str:
        """How many were refused."""
        return f"{self.sums.blocked:,}"

    @property
    def errors(self) -> str:
        """How many failed."""
        return f"{self.sums.errors:,}"

    @property
    def tokens_input(self) -> str:
        """How many tokens went in."""
        return f"{self.sums.tokens_input:,}"

    @property
    def tokens_output(self) -> str:
        """How many tokens came out."""
        return f"{self.sums.tokens_output:,}"

    @property
    def latencies(self) -> list[str]:
        """Within which 50, 95 and 99 of a hundred successful requests were answered."""
        return [milliseconds(value) for value in self.sums.percentiles]


@dataclass(frozen=True, slots=True)
class Breakdown:
    """A table of usage by one thing."""

    title: str
    rows: tuple[Row, ...]
    empty: str
    has_latency: bool = True


@dataclass(frozen=True, slots=True)
class Left:
    """A budget: what is left of it, and when it will have run out at this rate."""

    name: str
    scope: str
    window: str
    limit: str
    spent: str
    left: str
    used_percent: int
    runs_out: str
    link: str
    is_short: bool


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
    return {**context, **_Page(form.cleaned_data, scope, _span(form.cleaned_data, timezone.now()), user).context()}


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


# --- Periods


def _span(chosen: Mapping[str, Any], now: datetime) -> Span:
    """Return the period that was chosen, and as much time before it."""
    today, period = _midnight(now.date()), chosen.get("period") or "7d"
    if period == "custom":
        first, end = _midnight(chosen["first"]), _midnight(chosen["last"]) + DAY
        before = Period(first - (end - first), first)
        unit = HOUR if end - first <= 2 * DAY else DAY
        if end <= now:
            return Span(Period(first, end), before, unit, f"{chosen['first']} to {chosen['last']}", "the days before")
        return _so_far(first, first - (end - first), now, f"{chosen['first']} to {chosen['last']}", "the days before")
    if period == "today":
        return _so_far(today, today - DAY, now, "Today", "yesterday")
    if period == "month":
        first = today.replace(day=1)
        return _so_far(first, (first - DAY).replace(day=1), now, f"{first:%B %Y}", "last month")
    days = {"7d": 7, "30d": 30}[period]
    first = today - (days - 1) * DAY
    return _so_far(first, first - days * DAY, now, f"Last {days} days", f"the {days} days before")


def _so_far(first: datetime, before: datetime, now: datetime, title: str, compared_with: str) -> Span:
    """Return a period that is not over: it is compared with as many whole hours of the one before."""
    whole_hours = (now - first) // HOUR * HOUR
    end = _midnight(now.date()) + DAY
    unit = HOUR if end - first <= 2 * DAY else DAY
    said = f"{compared_with}, up to the same hour"
    return Span(Period(first, end), Period(before, min(before + whole_hours, first)), unit, title, said)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


# --- The page


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
            "budgets": self._budgets(),
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
                _change(sums.cost_nano_usd, before.cost_nano_usd),
                self._records_link(),
            ),
            Figure("Requests", f"{sums.requests:,}", "", _change(sums.requests, before.requests), self._records_link()),
            Figure(
                "Tokens in and out",
                f"{sums.tokens:,}",
                f"{sums.tokens_input:,} in, {sums.tokens_output:,} out",
                _change(sums.tokens, before.tokens),
                self._records_link(),
            ),
            Figure(
                "Refused",
                f"{sums.blocked:,}",
                "",
                _change(sums.blocked, before.blocked),
                self._records_link(status="blocked"),
            ),
            Figure(
                "Failed",
                f"{sums.errors:,}",
                f"{rates[0]:.2%} of all requests, before {rates[1]:.2%}",
                _change(sums.errors, before.errors),
                self._records_link(status="failed"),
            ),
            Figure(
                "Latency, half within",
                milliseconds(p50),
                f"95 % within {milliseconds(p95)}, 99 % within {milliseconds(p99)}",
                _change(p50 or 0, before.percentiles[0] or 0),
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
        latencies = [(f"{when}: {_percentiles(one)}", one.percentiles) for when, one in said]
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
        rest = _rest(dimension, groups, total)
        if rest is not None and rest.requests > 0:
            rows.append(_line("Everything else", rest, total))
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
        line = _line(name or names.get(dimension, "(none)"), group.sums, total)
        narrowed = self._of_group(dimension, group.key)
        return replace(
            line,
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
            shown, rest = groups[:MOST_ROWS], sum((group.sums for group in groups[MOST_ROWS:]), Sums())
            rows = [self._tag_row(key, group, total) for group in shown]
            rows += [_line("Everything else", rest, total)] if rest.requests else []
            found.append(Breakdown(title, tuple(rows), "No request in this period has this key.", has_latency=False))
        return found

    def _tag_row(self, key: str, group: Group, total: Sums) -> Row:
        if group.key is None:
            return _line("(all other values)", group.sums, total)
        if not group.key:
            return _line("(empty)", group.sums, total)  # no search asks for an empty value
        tag: dict[str, Any] = {f"metadata.{key}": group.key}
        return replace(
            _line(group.key, group.sums, total),
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

    # Budgets

    def _budgets(self) -> list[Left]:
        now = timezone.now()
        if not may(self._user, Action.VIEW, "policies.budget"):
            return []
        rows = visible(Budget.objects.filter(window_start__lte=now), self._user).exclude(window_end__lte=now)
        if self._scope.organizations is not None:
            rows = rows.filter(organization_id__in=self._scope.organizations)
        policies = self._policies(rows)
        kept = list(rows.filter(policy_id__in=policies).prefetch_related("parts")[:500])
        spent = [(row, spent_now(row)) for row in kept if self._is_current(row, policies)]
        spent.sort(key=lambda one: -_used_percent(*one))
        return [_left(row, nano, policies[row.policy_id], now) for row, nano in spent[:MOST_BUDGETS]]

    def _policies(self, rows: "QuerySet[Budget]") -> dict[UUID, Policy]:
        policies = visible(Policy.objects.filter(kind="cost_cap"), self._user)
        policies = policies.filter(pk__in=rows.values("policy_id")).select_related("application", "user", "api_key")
        if self._scope.application:
            policies = policies.filter(application=self._scope.application)
        if self._scope.user:
            policies = policies.filter(user=self._scope.user)
        return {policy.pk: policy for policy in policies}

    def _is_current(self, row: Budget, policies: Mapping[UUID, Policy]) -> bool:
        """Whether a budget is of its policy's present kind of window."""
        config = policies[row.policy_id].config
        return (row.span_hours is None) is (config.get("span_hours") is None) and policies[row.policy_id].mode != "off"


def _line(name: str, sums: Sums, total: Sums) -> Row:
    whole, part = total.cost_nano_usd or total.requests, sums.cost_nano_usd if total.cost_nano_usd else sums.requests
    return Row(name, sums, f"{part / whole * 100:.1f}" if whole else "0")


def _rest(dimension: str, groups: Sequence[Group], total: Sums) -> Sums | None:
    """Return what the groups shown leave; ``None`` where not every request is in a group."""
    if dimension in ("policy_id", "error_code"):
        return None
    return total - sum((group.sums for group in groups), Sums())


def _used_percent(budget: Budget, spent: int) -> int:
    return round(spent / budget.limit_nano_usd * 100) if budget.limit_nano_usd else 100


def _left(budget: Budget, spent: int, policy: Policy, now: datetime) -> Left:
    left = max(0, budget.limit_nano_usd - spent - budget.reserved_nano_usd)
    began = policy.created_at if budget.window_end is None else budget.window_start
    says, is_short = _runs_out(budget, Spent(spent, left, now - began), now)
    return Left(
        name=policy.name,
        scope=str(policy.application or policy.user or policy.api_key or "whole organization"),
        window=_window(budget),
        limit=dollars(budget.limit_nano_usd),
        spent=dollars(spent),
        left=dollars(left),
        used_percent=min(_used_percent(budget, spent), 999),
        runs_out=says,
        link=reverse("admin:policies_budget_change", args=[budget.pk]),
        is_short=is_short,
    )


def _window(budget: Budget) -> str:
    if budget.span_hours is not None:
        return f"any {budget.span_hours} hours"
    if budget.window_end is None:
        return "in total"
    return f"{budget.window_start:%Y-%m-%d} to {budget.window_end - timedelta(seconds=1):%Y-%m-%d}"


@dataclass(frozen=True, slots=True)
class Spent:
    """What a budget has spent since it began, and has left, in nano-USD."""

    nano: int
    left: int
    elapsed: timedelta


def _runs_out(budget: Budget, spent: Spent, now: datetime) -> tuple[str, bool]:
    """Say when a budget will have run out at the rate of its window so far, and whether that is before it ends."""
    if spent.left == 0:
        return "Used up", True
    if budget.span_hours is not None:
        return "What was spent returns as the window moves on", False
    if not spent.nano:
        return "Nothing is spent yet", False
    seconds = spent.left / spent.nano * max(spent.elapsed.total_seconds(), 3600.0)
    if budget.window_end is not None and now.timestamp() + seconds >= budget.window_end.timestamp():
        return "Lasts until the window ends", False
    if seconds > 3650 * 86_400:
        return "In more than ten years", False
    return f"{now + timedelta(seconds=seconds):%Y-%m-%d %H:%M} UTC", True


# --- Words


def dollars(nano: int) -> str:
    """Write nano-USD for people: cents, and of less than a dollar four places."""
    amount = Decimal(nano) / NANO
    return f"{amount:,.4f}" if 0 < abs(amount) < 1 else f"{amount:,.2f}"


def milliseconds(value: int | None) -> str:
    """Write a latency for people."""
    if value is None:
        return "-"
    return f"{value:,} ms" if value < 10_000 else f"{value / 1000:,.1f} s"


def _percentiles(sums: Sums) -> str:
    p50, p95, p99 = sums.percentiles
    return f"half within {milliseconds(p50)}, 95 % within {milliseconds(p95)}, 99 % within {milliseconds(p99)}"


def _change(now: int, before: int) -> str:
    if before == 0:
        return "" if now == 0 else "none before"
    if now == before:
        return "as before"
    return f"{(now - before) / before:+,.0%}"
