"""The page that leads through setting an organization up: each step is taken there, or from there."""

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from apps.gateway.providers.base import UpstreamError
from apps.orgs.admin.credentials import ProviderCredentialAdmin, listed
from apps.orgs.admin.keys import ApiKeyAdmin
from apps.orgs.encryption import KeysUnavailable
from apps.orgs.models import ApiKey, Application, Organization, ProviderCredential
from apps.orgs.naming import HIDES, hides_something
from apps.orgs.scoped_admin import ScopedAdmin, user_of
from controlplane.guide import Guide, guide_of, may_set_up

if TYPE_CHECKING:
    from django.forms import Select, TextInput
else:
    from unfold.widgets import UnfoldAdminSelectWidget as Select
    from unfold.widgets import UnfoldAdminTextInputWidget as TextInput

Forms = dict[str, Any]
UNTESTED = "untested"
"""What the button says that saves a credential although, or before, its test has failed."""


class KeyForm(forms.Form):
    """An application's first key."""

    application = forms.ModelChoiceField(queryset=Application.objects.none(), empty_label=None, widget=Select())
    name = forms.CharField(
        max_length=200,
        initial="First key",
        widget=TextInput(),
        help_text="Where it is used, so that people know it later.",
    )

    def __init__(self, organization: Organization, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        active = organization.applications.filter(is_active=True)
        self.fields["application"].queryset = active  # type: ignore[attr-defined]  # a field with choices from rows

    def clean_name(self) -> str:
        """Refuse a name that hides something, as every form does."""
        name: str = self.cleaned_data["name"]
        if hides_something(name):
            raise forms.ValidationError(HIDES)
        return name


def page(request: HttpRequest, organization_id: UUID) -> HttpResponse:
    """Show the steps, or take one."""
    organization = Organization.objects.filter(pk=organization_id).first()
    if organization is None or not may_set_up(user_of(request), organization):
        raise PermissionDenied
    take = _TAKERS.get(request.POST.get("step", "")) if request.method == "POST" else None
    if take is not None:
        return take(request, organization)
    return show(request, organization)


def show(request: HttpRequest, organization: Organization, given: Forms | None = None) -> HttpResponse:
    """Return the page, with a form as it was ``given`` and refused."""
    guide = guide_of(organization)
    context = {
        **admin.site.each_context(request),
        "title": f"Set up {organization}",
        "guide": guide,
        "guide_forms": forms_of(request, guide, given),
        "refused": next(iter(given or ()), ""),
    }
    return TemplateResponse(request, "control_plane/setup.html", context)


def forms_of(request: HttpRequest, guide: Guide, given: Forms | None = None) -> Forms:
    """Return the forms of the steps that are taken on the page, by name."""
    organization = guide.organization
    fresh: Forms = {
        "provider": _model_form(request, ProviderCredential, organization, None),
        "application": _model_form(request, Application, organization, None),
        "key": KeyForm(organization, prefix="key"),
    }
    return fresh | (given or {})


_FIELDS: dict[type[models.Model], tuple[str, tuple[str, ...]]] = {
    ProviderCredential: ("provider", ("provider", "name", "base_url", "secret")),
    Application: ("application", ("name",)),
}


_SUGGESTED: dict[type[models.Model], dict[str, str]] = {
    ProviderCredential: {"name": "Main", "provider": ProviderCredential.Provider.OPENAI.value}
}


def _page_of(model: type[models.Model]) -> ScopedAdmin:
    found = admin.site.get_model_admin(model)
    assert isinstance(found, ScopedAdmin)
    return found


def _model_form(request: HttpRequest, model: Any, organization: Organization, data: Any) -> Any:
    """Return the form of a model's own page, with the organization settled."""
    prefix, fields = _FIELDS[model]
    form = _page_of(model).get_form(request, None, fields=fields)
    return form(data, instance=model(organization=organization), initial=_SUGGESTED.get(model), prefix=prefix)


def _take_application(request: HttpRequest, organization: Organization) -> HttpResponse:
    form = _model_form(request, Application, organization, request.POST)
    if not form.is_valid():
        return show(request, organization, {"application": form})
    _store(request, form)
    messages.success(request, f"The application {form.instance} is there.")
    return HttpResponseRedirect(guide_of(organization).url)


def _take_provider(request: HttpRequest, organization: Organization) -> HttpResponse:
    """Store a credential that its provider takes, and show the provider's models; or one that was not to be tested."""
    form = _model_form(request, ProviderCredential, organization, request.POST)
    if not form.is_valid():
        return show(request, organization, {"provider": form})
    found: list[str] = []
    if UNTESTED not in request.POST:
        try:
            found = listed(form.instance, form.cleaned_data["secret"])
        except UpstreamError as error:
            form.add_error("secret" if error.status in (401, 403) else "base_url", error.message)
            form.was_tested = True
            return show(request, organization, {"provider": form})
    try:
        _store(request, form)
    except KeysUnavailable:
        form.add_error("secret", "The secret could not be encrypted: the key service does not answer. Try again.")
        return show(request, organization, {"provider": form})
    credentials = _page_of(ProviderCredential)
    assert isinstance(credentials, ProviderCredentialAdmin)
    if UNTESTED in request.POST:
        messages.success(request, f"{form.instance} is stored, untested. Route models to it, or test it later.")
        return HttpResponseRedirect(guide_of(organization).url)
    return credentials.models_page(request, form.instance, found)


def _take_key(request: HttpRequest, organization: Organization) -> HttpResponse:
    form = KeyForm(organization, request.POST, prefix="key")
    if not form.is_valid():
        return show(request, organization, {"key": form})
    keys = _page_of(ApiKey)
    assert isinstance(keys, ApiKeyAdmin)
    row: Any = ApiKey(
        organization=organization, application=form.cleaned_data["application"], name=form.cleaned_data["name"]
    )
    with transaction.atomic():
        keys.save_model(request, row, None, change=False)
    return keys.show_once(request, row.issued_key, onward=guide_of(organization).url)


def _store(request: HttpRequest, form: Any) -> None:
    with transaction.atomic():
        row = form.save(commit=False)
        _page_of(type(row)).save_model(request, row, form, change=False)


_TAKERS = {"application": _take_application, "provider": _take_provider, "key": _take_key}
