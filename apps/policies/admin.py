"""The admin pages of policies and their versions, prices, budgets and the ledger."""

import json
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models, transaction
from django.db.models import OuterRef, Q, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html

from apps.audit.admin import DayFilter, OrganizationFilter
from apps.audit.money import usd_from_nano
from apps.gateway.explanation import effective_policies, explain
from apps.gateway.models import ModelRoute
from apps.gateway.readings import readings_of
from apps.gateway.runtime import environment
from apps.gateway.served import unserved
from apps.gateway.subjects import NoSubject, UnclearSubject, find_subject
from apps.orgs.models import ApiKey, Organization
from apps.orgs.roles import Action
from apps.orgs.scoped_admin import ScopedAdmin, badge, user_of
from apps.orgs.scoping import may, visible
from apps.policies.admin_forms import FORMS, SCOPES, VALIDITY, PriceForm, RequestForm
from apps.policies.budgets import spent_now
from apps.policies.describe import describe_stored
from apps.policies.engine.kinds import Kind
from apps.policies.engine.policy import Broken, Level
from apps.policies.models import Budget, BudgetAlert, LedgerEntry, Policy, PolicyVersion, Price
from apps.policies.template_forms import TemplatesForm

MODE_COLOURS = {"enforce": "success", "shadow": "warning", "off": "default", "broken": "danger"}
KIND_CARDS = {
    Kind.MODEL_RESTRICTION: ("checklist", "Which models may be used. Without one that allows a model, it is refused."),
    Kind.RATE_LIMIT: ("speed", "How many requests or tokens in a span of time, and how many requests at once."),
    Kind.COST_CAP: ("savings", "How much money may be spent in a day, a week, a month or in total."),
    Kind.REQUEST_LIMITS: ("straighten", "How large one request and its answer may be, and which features it may use."),
    Kind.GUARDRAIL: ("shield", "What happens to personal data, secrets and prompt injections in requests and answers."),
}
SCOPE_FIELDS = ["applies_to", "organization", "application", "user", "api_key"]
MOST_VERSIONS = 50
MOST_TEMPLATE_CARDS = 3
MOST_ROUTED = 100


@admin.register(Policy)
class PolicyAdmin(ScopedAdmin):
    """Rules on scopes."""

    when_empty = (
        "Without a policy that allows a model, every request is refused. Templates in plain words make a first set."
    )

    list_display = ["name", "kind", "scope", "current_mode", "summary", "version"]
    list_filter = ["organization", "kind", "mode"]
    list_select_related = ["organization", "application", "user", "api_key"]
    search_fields = ["name", "application__name", "user__username"]
    autocomplete_fields = ["organization", "application", "user", "api_key"]
    readonly_fields = ["kind", "scope", "summary", "version", "updated_at", "stored_config"]
    change_form_before_template = "control_plane/policy_broken.html"
    change_form_after_template = "control_plane/policy_versions.html"
    # The page of an existing policy has no choice of scope.
    conditional_fields = {
        "organization": "typeof applies_to === 'undefined' || applies_to == 'organization' || applies_to == 'user'",
        "application": "typeof applies_to === 'undefined' || applies_to == 'application'",
        "user": "typeof applies_to === 'undefined' || applies_to == 'user'",
        "api_key": "typeof applies_to === 'undefined' || applies_to == 'key'",
    }

    # --- The form of its kind

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form of the policy's kind, or of the one chosen for a new policy."""
        kind = _kind(obj.kind if obj else request.GET.get("kind", ""))
        if kind is not None and (obj is None or self.has_change_permission(request, obj)):
            kwargs["form"] = FORMS[kind]
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return what is asked and shown: the scope of a new policy, what an existing one does, the kind's fields."""
        kind = _kind(obj.kind if obj else request.GET.get("kind", ""))
        if kind is None or (obj and not self.has_change_permission(request, obj)):
            fields = ["name", "kind", "scope", "mode", "summary", "version", "updated_at", "stored_config"]
            return [(None, {"fields": fields})]
        rule = ("What it rules", {"fields": list(FORMS[kind].CONFIG_FIELDS), "description": _explained(kind)})
        terms = [("How", {"fields": ["mode"]}), ("For what and when", {"fields": ["models", *VALIDITY]})]
        if obj is None:
            return [(kind.label, {"fields": ["name", *SCOPE_FIELDS]}), rule, *terms]
        about = ["name", "summary", "scope", "version", "updated_at"]
        return [(kind.label, {"fields": about}), rule, *terms]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return what is shown only; a new policy has nothing to show."""
        return super().get_readonly_fields(request, obj) if obj else []

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Whether the person may change the policy; one of an unknown kind can only be deleted."""
        if isinstance(obj, Policy) and _kind(obj.kind) is None:
            return False
        return super().has_change_permission(request, obj)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Ask for the kind first, then show its form."""
        kind = _kind(request.GET.get("kind", ""))
        if kind is None and self.has_add_permission(request):
            return self._choose_kind(request)
        context = {"title": f"New policy: {kind.label.lower()}" if kind else "", **(extra_context or {})}
        return super().add_view(request, form_url, context)

    def _choose_kind(self, request: HttpRequest) -> HttpResponse:
        cards = []
        for kind, (icon, text) in KIND_CARDS.items():
            query = request.GET.copy()
            query["kind"] = kind.value
            cards.append({"title": kind.label, "icon": icon, "text": text, "link": f"?{query.urlencode()}"})
        cards = [*self._template_cards(request), *cards]
        context = {
            **self.admin_site.each_context(request),
            "title": "New policy: what should it rule?",
            "opts": self.opts,
            "cards": cards,
        }
        return TemplateResponse(request, "control_plane/choose_kind.html", context)

    def _template_cards(self, request: HttpRequest) -> list[dict[str, str]]:
        """Return the way to the templates of each organization, where these are few or one was named."""
        user, named = user_of(request), as_id(request.GET.get("organization", ""))
        rows = visible(Organization.objects.all(), user)
        if named is not None:
            rows = rows.filter(pk=named)
        found = [row for row in rows[: MOST_TEMPLATE_CARDS + 1] if may(user, Action.ADD, "policies.policy", row.pk)]
        return [
            {
                "title": "From a template" if len(found) == 1 else f"From a template, for {row}",
                "icon": "auto_awesome",
                "text": "Policies in plain words, to choose and adjust. Several at once.",
                "link": reverse("admin:policies_policy_templates", args=[row.pk]),
            }
            for row in (found if len(found) <= MOST_TEMPLATE_CARDS else [])
        ]

    # --- A first set, from templates

    def templates_view(self, request: HttpRequest, organization_id: UUID) -> HttpResponse:
        """Offer the templates for an organization; make what is chosen at once, or nothing of it."""
        user = user_of(request)
        organization = visible(Organization.objects.all(), user).filter(pk=organization_id).first()
        if organization is None or not may(user, Action.ADD, "policies.policy", organization.pk):
            raise PermissionDenied
        form = TemplatesForm(organization, _routed(organization), request.POST if request.method == "POST" else None)
        if "preview" in request.POST:
            return JsonResponse({row.template.key: row.says for row in form.rows()})
        if form.is_valid() and (made := self._make(request, form)):
            messages.success(request, f"{made} polic{'y holds' if made == 1 else 'ies hold'} from the next request on.")
            listed = f"{reverse('admin:policies_policy_changelist')}?organization__id__exact={organization.pk}"
            guided = reverse("admin:setup", args=[organization.pk])
            return HttpResponseRedirect(guided if request.GET.get("guided") else listed)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Policies for {organization}",
            "opts": self.opts,
            "form": form,
            "rows": form.rows(),
        }
        return TemplateResponse(request, "control_plane/policy_templates.html", context)

    def _make(self, request: HttpRequest, form: TemplatesForm) -> int:
        """Store the chosen policies, all or none; return how many."""
        policies = form.policies()
        try:
            with transaction.atomic():
                for policy in policies:
                    policy.full_clean()
                    self.store(request, policy, Action.ADD)
        except ValidationError as error:
            form.add_error(None, error.messages)
            return 0
        return len(policies)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show the policy with its published versions."""
        policy = self.get_object(request, object_id)
        context = self._published(request, policy) if policy else {}
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def _published(self, request: HttpRequest, policy: Policy) -> dict[str, Any]:
        published = PolicyVersion.objects.filter(policy_id=policy.pk)
        versions = visible(published, user_of(request))[:MOST_VERSIONS]
        return {
            "versions": [(version, describe_stored(version)) for version in versions],
            "broken": isinstance(policy.read().rule, Broken),
            "warnings": unserved(policy),
        }

    # --- What the policies say of a request

    def get_urls(self) -> Any:
        """Return the addresses, the page that explains among them."""
        view = self.admin_site.admin_view(self.explain_view)
        templates = self.admin_site.admin_view(self.templates_view)
        return [
            path("explain/<str:subject>/<uuid:subject_id>/", view, name="policies_policy_explain"),
            path("templates/<uuid:organization_id>/", templates, name="policies_policy_templates"),
            *super().get_urls(),
        ]

    def explain_view(self, request: HttpRequest, subject: str, subject_id: UUID) -> HttpResponse:
        """Show the policies of an application, a user or a key, and what they say of a request that is not made."""
        organization = as_id(request.GET.get("organization", ""))
        try:
            key = find_subject(user_of(request), subject, subject_id, organization)
        except (NoSubject, UnclearSubject) as error:
            raise PermissionDenied(str(error)) from error
        form = RequestForm(request.POST or None)
        explained = explain(key, form.body(), user_of(request)) if form.is_valid() else None
        context = {
            **self.admin_site.each_context(request),
            "title": f"Policies of {_subject_name(key, subject)}",
            "opts": self.opts,
            "form": form,
            "policies": effective_policies(key, user_of(request)),
            "explained": explained,
            "readings": readings_of(explained["limits"]) if explained else [],
        }
        return TemplateResponse(request, "control_plane/explain.html", context)

    # --- Columns

    @admin.display(description="Applies to")
    def scope(self, policy: Policy) -> str:
        """Return what the policy stands on, in words."""
        match policy.level:
            case Level.PLATFORM:
                return SCOPES[Level.PLATFORM]
            case Level.ORGANIZATION:
                return f"Organization {policy.organization}"
            case Level.APPLICATION:
                return f"Application {policy.application} of {policy.organization}"
            case Level.USER:
                return f"User {policy.user} in {policy.organization}"
            case Level.KEY:
                return f"API key {policy.api_key} of {policy.organization}"

    @badge("Mode", MODE_COLOURS)
    def current_mode(self, policy: Policy) -> str:
        """Return the mode, or that the policy is broken."""
        return "broken" if isinstance(policy.read().rule, Broken) else policy.mode

    @admin.display(description="What it does")
    def summary(self, policy: Policy) -> str:
        """Return what the policy does in one sentence, a broken one in red."""
        sentence = describe_stored(policy)
        if isinstance(policy.read().rule, Broken):
            return format_html('<span class="cp-broken">{}</span>', sentence)
        return format_html('<span class="cp-sentence">{}</span>', sentence)

    @admin.display(description="Configuration")
    def stored_config(self, policy: Policy) -> str:
        """Return the configuration as the API has it."""
        return format_html('<pre class="cp-code">{}</pre>', json.dumps(policy.config, indent=2))


@admin.register(PolicyVersion)
class PolicyVersionAdmin(ScopedAdmin):
    """What policies said at one time. Never changed."""

    list_display = ["name", "version", "kind", "mode", "summary", "published_at"]
    list_filter = ["kind", "mode"]
    search_fields = ["name", "policy_id"]
    readonly_fields = (
        "name",
        "version",
        "kind",
        "mode",
        "summary",
        "level",
        "published_at",
        "stored_config",
        "policy_id",
    )
    fields = readonly_fields

    @admin.display(description="What it did")
    def summary(self, version: PolicyVersion) -> str:
        """Return what that version did, in one sentence."""
        return describe_stored(version)

    @admin.display(description="Configuration")
    def stored_config(self, version: PolicyVersion) -> str:
        """Return the configuration as the API had it."""
        return format_html('<pre class="cp-code">{}</pre>', json.dumps(version.config, indent=2))


@admin.register(Price)
class PriceAdmin(ScopedAdmin):
    """Prices of our own, which go before the price catalogue's."""

    when_empty = (
        "The public catalogue's prices hold. Add one for a model that it lacks, or that costs you something else."
    )
    form = PriceForm
    list_display = ["model", "any_provider", "input_usd", "output_usd", "cached_usd", "effective_from"]
    list_filter = ["provider"]
    search_fields = ["model", "provider"]
    fields = [
        "model",
        "provider",
        "input_nano_usd",
        "output_nano_usd",
        "cached_input_nano_usd",
        "effective_from",
    ]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields; for who may only look, the prices as they are written elsewhere."""
        if self.allowed(request, Action.CHANGE):
            return super().get_fields(request, obj)
        return ["model", "any_provider", "input_usd", "output_usd", "cached_usd", "effective_from"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the written prices for who may only look."""
        if self.allowed(request, Action.CHANGE):
            return super().get_readonly_fields(request, obj)
        return ["any_provider", "input_usd", "output_usd", "cached_usd"]

    @admin.display(description="Provider", ordering="provider")
    def any_provider(self, price: Price) -> str:
        """Return whose price it is."""
        return price.provider or "any"

    @admin.display(description="Input, USD per million", ordering="input_nano_usd")
    def input_usd(self, price: Price) -> str:
        """Return the price of a million input tokens."""
        return usd_from_nano(price.input_nano_usd)

    @admin.display(description="Output, USD per million", ordering="output_nano_usd")
    def output_usd(self, price: Price) -> str:
        """Return the price of a million output tokens."""
        return usd_from_nano(price.output_nano_usd)

    @admin.display(description="Cached input, USD per million")
    def cached_usd(self, price: Price) -> str:
        """Return the price of a million cached input tokens."""
        nano = price.input_nano_usd if price.cached_input_nano_usd is None else price.cached_input_nano_usd
        return usd_from_nano(nano)


@admin.register(Budget)
class BudgetAdmin(ScopedAdmin):
    """The counters of the cost caps; of a rolling one, what its span holds now."""

    when_empty = "A budget begins to count with the first request under a cost cap, which is a policy."
    list_display = ["policy_name", "window", "limit_usd", "spent_usd", "reserved_usd", "left_usd", "overrun_usd"]
    ordering = ["-window_start"]
    readonly_fields = (
        "policy_name",
        "window",
        "limit_usd",
        "spent_usd",
        "reserved_usd",
        "left_usd",
        "overrun_usd",
        "entries",
    )
    fields = readonly_fields

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[Budget]":
        """Return the budgets, each with the name of its cost cap."""
        name = Policy.objects.filter(pk=OuterRef("policy_id")).values("name")[:1]
        rows: models.QuerySet[Budget] = super().get_queryset(request).annotate(policy_title=Subquery(name))
        return rows.prefetch_related("parts")

    @admin.display(description="Cost cap")
    def policy_name(self, budget: Any) -> str:
        """Return the name of the policy whose counter it is."""
        return budget.policy_title or "(deleted policy)"

    @admin.display(description="Window (UTC)", ordering="window_start")
    def window(self, budget: Budget) -> str:
        """Return from when to when it counts."""
        if budget.span_hours is not None:
            return f"any {budget.span_hours} hours"
        if budget.window_end is None:
            return "in total"
        return f"{budget.window_start:%Y-%m-%d} to {budget.window_end:%Y-%m-%d}"

    @admin.display(description="Limit, USD")
    def limit_usd(self, budget: Budget) -> str:
        """Return the limit as of the last reservation."""
        return usd_from_nano(budget.limit_nano_usd)

    @admin.display(description="Spent, USD")
    def spent_usd(self, budget: Budget) -> str:
        """Return what was spent in the window."""
        return usd_from_nano(spent_now(budget))

    @admin.display(description="Set aside, USD")
    def reserved_usd(self, budget: Budget) -> str:
        """Return the worst case of the requests under way."""
        return usd_from_nano(budget.reserved_nano_usd)

    @admin.display(description="Left, USD")
    def left_usd(self, budget: Budget) -> str:
        """Return what a new request may still claim."""
        return usd_from_nano(max(0, budget.limit_nano_usd - spent_now(budget) - budget.reserved_nano_usd))

    @admin.display(description="Overrun, USD")
    def overrun_usd(self, budget: Budget) -> str:
        """Return by how much providers used more than they were asked for."""
        return usd_from_nano(budget.overrun_nano_usd)

    @admin.display(description="Ledger")
    def entries(self, budget: Budget) -> str:
        """Return a link to the budget's ledger entries."""
        link = f"{reverse('admin:policies_ledgerentry_changelist')}?budget__id__exact={budget.pk}"
        return format_html('<a class="text-link" href="{}">What it was spent on</a>', link)


@admin.register(BudgetAlert)
class BudgetAlertAdmin(ScopedAdmin):
    """The percents of their limits that budgets crossed. Never changed."""

    when_empty = "There is one when spending crosses a percent that a cost cap names."
    list_display = ["timestamp", "percent_of_limit", "spent_usd", "policy_name", "budget"]
    list_filter = ["budget", OrganizationFilter, ("timestamp", DayFilter)]
    list_select_related = ["budget"]
    readonly_fields = ("timestamp", "percent_of_limit", "spent_usd", "limit_usd", "policy_name", "budget")
    fields = readonly_fields
    sortable_by = ()

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[BudgetAlert]":
        """Return the alerts, each with the name of its cost cap."""
        name = Policy.objects.filter(pk=OuterRef("budget__policy_id")).values("name")[:1]
        rows: models.QuerySet[BudgetAlert] = super().get_queryset(request).annotate(policy_title=Subquery(name))
        return rows

    @admin.display(description="Crossed")
    def percent_of_limit(self, alert: BudgetAlert) -> str:
        """Return which part of the limit was crossed."""
        return f"{alert.percent} %"

    @admin.display(description="Spent then, USD")
    def spent_usd(self, alert: BudgetAlert) -> str:
        """Return what had been spent."""
        return usd_from_nano(alert.spent_nano_usd)

    @admin.display(description="Limit then, USD")
    def limit_usd(self, alert: BudgetAlert) -> str:
        """Return what the limit was."""
        return usd_from_nano(alert.limit_nano_usd)

    @admin.display(description="Cost cap")
    def policy_name(self, alert: Any) -> str:
        """Return the name of the policy whose limit it is."""
        return alert.policy_title or "(deleted policy)"


@admin.register(LedgerEntry)
class LedgerEntryAdmin(ScopedAdmin):
    """What requests cost budgets. Never changed."""

    when_empty = "Each request under a cost cap leaves one."
    list_display = ["timestamp", "amount_usd", "overrun_usd", "request_link", "budget"]
    list_filter = ["budget", OrganizationFilter, ("timestamp", DayFilter)]
    list_select_related = ["budget"]
    search_fields = ["request_id"]
    sortable_by = ()
    readonly_fields = ("timestamp", "amount_usd", "overrun_usd", "request_link", "budget")
    fields = readonly_fields

    @admin.display(description="Amount, USD")
    def amount_usd(self, entry: LedgerEntry) -> str:
        """Return what the request cost."""
        return usd_from_nano(entry.amount_nano_usd)

    @admin.display(description="Overrun, USD")
    def overrun_usd(self, entry: LedgerEntry) -> str:
        """Return by how much it cost more than had been set aside."""
        return usd_from_nano(entry.overrun_nano_usd)

    @admin.display(description="Request")
    def request_link(self, entry: LedgerEntry) -> str:
        """Return a link to the request's record."""
        link = reverse("admin:audit_requestrecord_change", args=[entry.request_id])
        return format_html('<a class="text-link" href="{}">{}</a>', link, entry.request_id)


def as_id(text: str) -> UUID | None:
    """Return the id that a text is, ``None`` if it is none."""
    try:
        return UUID(text)
    except ValueError:
        return None


def _subject_name(key: ApiKey, subject: str) -> str:
    named = {"application": f"application {key.application}", "user": f"user {key.user}"}
    return f"{named.get(subject, f'API key {key.name}')} in {key.organization}"


def _routed(organization: Organization) -> list[str]:
    """Return the models that an organization's requests can reach, as patterns; every model where none is known."""
    whose = Q(organization=organization) | Q(organization__isnull=True)
    routes = ModelRoute.objects.filter(whose, is_active=True, credential__is_active=True)
    names = list(routes.values_list("model", flat=True).distinct().order_by("model")[:MOST_ROUTED])
    names += [f"{prefix}*" for prefix in environment().endpoints]
    return names + (["sim-*"] if settings.SIMULATED_PROVIDER else []) or ["*"]


def _kind(value: str) -> Kind | None:
    return Kind(value) if value in Kind.__members__.values() else None


def _explained(kind: Kind) -> str:
    return KIND_CARDS[kind][1]
