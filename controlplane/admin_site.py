"""The admin's site: its front page, its navigation, and what the pages of every model share."""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin

from django.conf import settings
from django.contrib.admin.apps import AdminConfig
from django.contrib.admin.views.autocomplete import AutocompleteJsonView
from django.core.paginator import InvalidPage
from django.db import models, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.templatetags.static import static
from django.urls import path, reverse

from apps.orgs.cognito import IdentityProvider, login_provider

if TYPE_CHECKING:
    from django.contrib.admin import AdminSite as _AdminSite
else:
    from unfold.sites import UnfoldAdminSite as _AdminSite


class ControlPlaneAdminConfig(AdminConfig):
    """Django's admin with the site below."""

    default_site = "controlplane.admin_site.ControlPlaneSite"


class ScopedAutocomplete(AutocompleteJsonView):
    """Suggestions, each with its organization where names alone could mean several."""

    def serialize_result(self, obj: models.Model, to_field_name: str) -> dict[str, str]:
        """Return one suggestion as its id and text."""
        organization = getattr(obj, "organization", None)
        text = f"{obj} ({organization})" if organization else str(obj)
        return {"id": str(getattr(obj, to_field_name)), "text": text}


class ControlPlaneSite(_AdminSite):
    """The admin under ``/admin/``."""

    index_title = "Overview"

    def get_urls(self) -> list[Any]:
        """Return the site's addresses, without the one that looks up any object of any organization by its id."""
        from controlplane import playground, setup  # noqa: PLC0415  # Django makes the site before it loads models

        own = [
            path("usage/", self.admin_view(self.usage), name="usage"),
            path("setup/<uuid:organization_id>/", self.admin_view(setup.page), name="setup"),
            path("playground/", self.admin_view(playground.page), name="playground"),
            path("playground/ask/", self.admin_view(playground.ask), name="playground_ask"),
            path("playground/<uuid:request_id>/", self.admin_view(playground.outcome), name="playground_outcome"),
        ]
        return own + [url for url in super().get_urls() if getattr(url, "name", "") != "view_on_site"]

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """Return what every page shows. The colours come from our stylesheet: the theme would write a style element."""
        return {**super().each_context(request), "colors": {}}

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the front page: what happened lately within the person's reach, and what to do next."""
        from controlplane.front_page import front_page  # noqa: PLC0415  # Django makes the site before it loads models

        return super().index(request, {**front_page(request), **(extra_context or {})})

    def usage(self, request: HttpRequest) -> HttpResponse:
        """Show where the money goes."""
        from apps.orgs.scoped_admin import asks_with_nul, user_of  # noqa: PLC0415  # Django makes the site before it loads models
        from controlplane.usage.page import usage_page  # noqa: PLC0415  # as above

        if asks_with_nul(request):
            return HttpResponseRedirect(request.path)
        context = {**self.each_context(request), **usage_page(request, user_of(request))}
        return TemplateResponse(request, "control_plane/usage.html", context)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the ways to log in that there are, or log in by password, with the record of it."""
        from apps.orgs import sessions  # noqa: PLC0415  # Django makes the site before it loads models
        from apps.orgs.sign_ins import Event, record  # noqa: PLC0415  # as above

        response = super().login(request, {**ways_to_log_in(request), **(extra_context or {})})
        if request.method == "POST" and response.status_code == 302:
            sessions.begin(request)
            record(request, Event.LOGIN, request.user)
        return response

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """End the session here, with the record of it, and then the one at the identity provider, if it began there."""
        from apps.orgs import sessions  # noqa: PLC0415  # Django makes the site before it loads models
        from apps.orgs.sign_ins import Event, record  # noqa: PLC0415  # as above

        provider, is_end = login_provider(), request.method == "POST" and request.user.is_authenticated
        began_there = sessions.is_of_the_provider(request)
        if is_end:
            record(request, Event.LOGOUT, request.user)
        response = super().logout(request, extra_context)
        if is_end and began_there and provider is not None:
            return HttpResponseRedirect(provider.logout_url(way_back(request, provider)))
        return response

    def autocomplete_view(self, request: HttpRequest) -> Any:
        """Suggest rows, out of those that the page of their model would list."""
        if "\0" in request.GET.get("term", ""):
            raise Http404
        return ScopedAutocomplete.as_view(admin_site=self)(request)

    def search(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Find a page by its name; a page number that does not exist is not found."""
        try:
            return super().search(request, extra_context)  # type: ignore[misc]  # the theme's, which carries no types
        except (InvalidPage, ValueError) as error:
            raise Http404 from error

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Let a person change their own password, with the record of it."""
        from apps.audit.changes import record_change  # noqa: PLC0415  # Django makes the site before it loads models
        from apps.orgs.scoped_admin import actor_of, user_of  # noqa: PLC0415  # as above

        with transaction.atomic():
            response = super().password_change(request, extra_context)
            if request.method == "POST" and response.status_code == 302:
                record_change(
                    actor_of(request),
                    "change",
                    user_of(request),
                    organization_id=None,
                    before={"password": "(set)"},
                    after={"password": "(set anew)"},
                )
        return response


def ways_to_log_in(request: HttpRequest) -> dict[str, Any]:
    """Return what the login page shows: whether passwords do, and where the identity provider's login begins."""
    start = ""
    if login_provider() is not None:
        target = request.GET.get("next", "")
        start = reverse("oidc_start") + (f"?{urlencode({'next': target})}" if target else "")
    return {"password_login": settings.PASSWORD_LOGIN, "provider_login": start}


def way_back(request: HttpRequest, provider: IdentityProvider) -> str:
    """Return the address of the login page, to which the identity provider sends people after the end."""
    path = reverse("admin:login")
    if provider.redirect_uri:
        return urljoin(provider.redirect_uri, path)
    return request.build_absolute_uri(path)


def logo(_request: HttpRequest) -> str:
    """Return the address of the logo."""
    return static("control_plane/logo.svg")


def favicon(_request: HttpRequest) -> str:
    """Return the address of the logo as it is drawn for a browser's tab."""
    return static("control_plane/favicon.svg")


def theme(_request: HttpRequest) -> str:
    """Return the address of the theme's colours."""
    return static("control_plane/theme.css")


def mended(_request: HttpRequest) -> str:
    """Return the address of the style that mends the theme's own."""
    return static("control_plane/mended.css")


def stylesheet(_request: HttpRequest) -> str:
    """Return the address of our own pages' style."""
    return static("control_plane/admin.css")


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the sidebar's groups with the pages that the person may see."""
    start = {"title": "Overview", "icon": "dashboard", "link": reverse("admin:index")}
    first = [start]
    if request.user.has_perm("audit.view_requestrecord"):
        first.append({"title": "Usage", "icon": "monitoring", "link": reverse("admin:usage")})
    if request.user.has_perm("orgs.add_apikey"):
        first.append({"title": "Playground", "icon": "play_circle", "link": reverse("admin:playground")})
    groups: list[dict[str, Any]] = [{"title": "", "items": first}]
    for title, pages in _GROUPS:
        items = [_item(page) for page in pages if request.user.has_perm(page[2])]
        if items:
            groups.append({"title": title, "separator": True, "items": items})
    return groups


def _item(page: tuple[str, str, str]) -> dict[str, Any]:
    title, icon, permission = page
    app, _, codename = permission.partition(".view_")
    return {"title": title, "icon": icon, "link": reverse(f"admin:{app}_{codename}_changelist")}


_GROUPS = (
    (
        "Organizations",
        (
            ("Organizations", "domain", "orgs.view_organization"),
            ("Applications", "apps", "orgs.view_application"),
            ("API keys", "key", "orgs.view_apikey"),
            ("Users", "group", "orgs.view_user"),
        ),
    ),
    (
        "Policies",
        (
            ("Policies", "policy", "policies.view_policy"),
            ("Budgets", "account_balance_wallet", "policies.view_budget"),
            ("Budget alerts", "notifications", "policies.view_budgetalert"),
            ("Ledger", "receipt_long", "policies.view_ledgerentry"),
        ),
    ),
    (
        "Providers",
        (
            ("Credentials", "vpn_key", "orgs.view_providercredential"),
            ("Model routes", "route", "gateway.view_modelroute"),
            ("Prices", "sell", "policies.view_price"),
        ),
    ),
    (
        "Alerts",
        (
            ("Alerts", "notifications_active", "audit.view_alert"),
            ("Destinations", "send", "alerts.view_destination"),
            ("Messages", "outbox", "alerts.view_delivery"),
        ),
    ),
    (
        "Audit",
        (
            ("Requests", "fact_check", "audit.view_requestrecord"),
            ("Saved searches", "saved_search", "audit.view_savedsearch"),
            ("Exports", "download", "audit.view_export"),
            ("Changes", "history", "audit.view_changerecord"),
        ),
    ),
)
