"""The admin pages of providers' credentials."""

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from apps.gateway.addresses import allowed_networks
from apps.gateway.catalogue import list_models
from apps.gateway.configuration import VENDOR_URLS
from apps.gateway.offers import new_routes, offers
from apps.gateway.providers.base import Endpoint, UpstreamError
from apps.orgs.admin.shared import GUIDED, STATE_COLOURS
from apps.orgs.admin_forms import CredentialForm
from apps.orgs.encryption import DecryptionError, KeysUnavailable, Purpose
from apps.orgs.models import ProviderCredential
from apps.orgs.roles import Action
from apps.orgs.scoped_admin import (
    Question,
    ScopedAdmin,
    badge,
    detail_action,
    user_of,
)
from apps.orgs.scoping import may

UNREADABLE = "cannot be read: enter it again"


MOST_ROUTES = 1000


@admin.register(ProviderCredential)
class ProviderCredentialAdmin(ScopedAdmin):
    """Our credentials at the providers."""

    when_empty = "Add one to reach a provider, test it, and route its models from there."
    form = CredentialForm
    list_display = ["name", "provider", "organization_name", "shown_url", "shown_secret", "current_state"]
    list_filter = ["organization", "provider", "is_active"]
    list_select_related = ["organization", "data_key"]
    search_fields = ["name", "base_url"]
    autocomplete_fields = ["organization"]
    fields = ["organization", "name", "provider", "base_url", "secret", "shown_secret", "is_active"]
    readonly_fields = ["shown_secret"]
    actions_detail = ["test"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields: no input for the secret for those who may only look."""
        fields = list(super().get_fields(request, obj))
        if obj is None:
            fields.remove("shown_secret")
        elif not self.has_change_permission(request, obj):
            fields.remove("secret")
        return fields

    @admin.display(description="Serves")
    def organization_name(self, credential: ProviderCredential) -> str:
        """Return whom the credential serves."""
        return str(credential.organization or "Every organization")

    @admin.display(description="Address")
    def shown_url(self, credential: ProviderCredential) -> str:
        """Return where it leads."""
        return credential.base_url or "The vendor's own"

    @admin.display(description="Stored secret")
    def shown_secret(self, credential: ProviderCredential) -> str:
        """Return the last four characters of the secret, which are all that is readable."""
        if not credential.encrypted_secret:
            return "none"
        shown = f"…{credential.last_four}" if credential.last_four else "set"
        return f"{shown} ({UNREADABLE})" if credential.readable() is False else shown

    @badge("State", STATE_COLOURS)
    def current_state(self, credential: ProviderCredential) -> str:
        """Return whether it is used, or cannot be because its secret cannot be read."""
        if credential.readable() is False:
            return "unreadable"
        return "active" if credential.is_active else "inactive"

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Show the form; where the service of the keys is away, say so and leave everything as it was."""
        try:
            return super().changeform_view(request, *args, **kwargs)
        except KeysUnavailable:
            messages.error(request, "The secret could not be encrypted: the key service does not answer. Try again.")
            return HttpResponseRedirect(request.path)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Store the credential, a new secret encrypted."""
        obj.take_secret(form.cleaned_data["secret"])
        super().save_model(request, obj, form, change)

    def secrets_set(self, form: Any) -> tuple[str, ...]:
        """Return the secret's column if the form sets it."""
        return ("encrypted_secret",) if form.cleaned_data["secret"] else ()

    # --- Testing one

    def has_test_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whether the person may use the secret to ask the provider for its models."""
        credential = self.get_object(request, object_id)
        return credential is not None and self.has_change_permission(request, credential)

    @detail_action("Test", permission="test", icon="network_check")
    def test(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask the provider for its models, and route those that the person chooses."""
        if not self.has_test_permission(request, object_id):
            raise PermissionDenied
        credential = self.row_for(request, object_id, Action.CHANGE)
        if request.method != "POST":
            text = "The provider is asked for its list of models, with the stored secret. That costs nothing."
            return self.ask(request, credential, Question(f"Test {credential}?", text, "Test", None))
        if "route" in request.POST:
            return self._route(request, credential)
        try:
            models = listed(credential, credential.secret(Purpose.TEST))
        except (UpstreamError, DecryptionError, KeysUnavailable) as error:
            return self.models_page(request, credential, (), refused=_said_of(error))
        return self.models_page(request, credential, models)

    def models_page(
        self, request: HttpRequest, credential: ProviderCredential, models: Iterable[str], *, refused: str = ""
    ) -> HttpResponse:
        """Return the page with what a test has found: the models, to be routed, or why it was ``refused``."""
        guided = GUIDED in request.GET or GUIDED in request.POST
        guide = reverse("admin:setup", args=[credential.organization_id]) if guided else ""
        return self.page(
            request,
            "control_plane/provider_models.html",
            f"Models of {credential}",
            credential,
            offers=offers(credential, models),
            refused=refused,
            test_url=reverse("admin:orgs_providercredential_test", args=[credential.pk]),
            may_route=may(user_of(request), Action.ADD, "gateway.modelroute", credential.organization_id),
            guide=guide,
        )

    def _route(self, request: HttpRequest, credential: ProviderCredential) -> HttpResponse:
        chosen = request.POST.getlist("model")[:MOST_ROUTES]
        try:
            with transaction.atomic():
                routes = new_routes(credential, chosen)
                for route in routes:
                    self.store(request, route, Action.ADD)
        except ValidationError as error:
            return self.models_page(request, credential, (), refused=" ".join(error.messages))
        count = f"{len(routes)} model{'' if len(routes) == 1 else 's'}"
        messages.success(request, f"{count} routed to {credential}." if routes else "No model was chosen.")
        if request.POST.get(GUIDED) and credential.organization_id is not None:
            return HttpResponseRedirect(reverse("admin:setup", args=[credential.organization_id]))
        return self.back_to(credential)


def listed(credential: ProviderCredential, secret: str) -> list[str]:
    """Return the models that a credential's provider lists for a secret. Raises `UpstreamError`."""
    url = credential.base_url or VENDOR_URLS.get(credential.provider, "")
    networks = allowed_networks()
    return list_models(Endpoint(credential.provider, url, secret), networks, simulated=settings.SIMULATED_PROVIDER)


def _said_of(error: Exception) -> str:
    if isinstance(error, UpstreamError):
        return error.message
    if isinstance(error, KeysUnavailable):
        return "The stored secret cannot be decrypted now: the key service does not answer. Try again."
    return "The stored secret cannot be read. Enter it again."
