"""The forms of the organizations' admin pages."""

import re
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from django import forms
from django.contrib.auth import password_validation
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.utils import timezone

from apps.gateway.addresses import allowed_networks, check_entered
from apps.gateway.consequences import of_disabling
from apps.gateway.providers.base import UpstreamError
from apps.orgs.admins import LAST_ADMIN, loses_its_admins
from apps.orgs.models import ApiKey, Membership, Organization, ProviderCredential, User
from apps.orgs.roles import Action, Role
from apps.orgs.scoped_admin import ScopedForm
from apps.orgs.scoping import organizations_of, role_in

if TYPE_CHECKING:
    from django.forms import PasswordInput, Select, Textarea, URLInput

    _InlineFormSet = forms.BaseInlineFormSet[Any, Any, Any]
else:
    from unfold.widgets import UnfoldAdminPasswordWidget as PasswordInput
    from unfold.widgets import UnfoldAdminSelectWidget as Select
    from unfold.widgets import UnfoldAdminTextareaWidget as Textarea
    from unfold.widgets import UnfoldAdminURLInputWidget as URLInput

    _InlineFormSet = forms.BaseInlineFormSet

ROLE_CHOICES = [
    (Role.ADMIN.value, "Admin: manages applications, keys, policies and members"),
    (Role.DEVELOPER.value, "Developer: makes keys, sees policies and requests"),
    (Role.AUDITOR.value, "Auditor: sees everything, changes nothing"),
]
GRACES = [("0", "At once"), ("3600", "In an hour"), ("86400", "In a day"), ("604800", "In a week")]
MOST_OF_A_NAME = 90
"""Characters of a username before its organization's."""
_SECRET = re.compile(r"[\x21-\x7e]{1,4096}")  # goes into an HTTP header


def handles_personal_key(person: User, owner: User, organization: Organization | None) -> bool:
    """Whether ``person`` may issue or replace a key of ``owner``: nobody may gain rights by it."""
    if person.is_superuser or person == owner:
        return True
    is_admin = role_in(person, organization.pk if organization else None) is Role.ADMIN
    return is_admin and not owner.is_superuser


def key_owners(person: User) -> "QuerySet[User]":
    """Return the users for whom ``person`` may issue keys."""
    if person.is_superuser:
        return User.objects.all()
    administered = [organization for organization, role in person.roles().items() if role is Role.ADMIN]
    members = Q(memberships__organization_id__in=administered, is_superuser=False)
    return User.objects.filter(members | Q(pk=person.pk)).distinct()


class KeyAddForm(ScopedForm):
    """A new API key: of an application, or of a person."""

    owner = forms.ChoiceField(
        label="For",
        choices=[("application", "An application, to call models"), ("user", "A person, to use the admin API")],
        initial="application",
        widget=Select(),
        help_text="An application's key only calls models. A person's key acts with that person's role.",
    )

    class Meta:
        model = ApiKey
        fields = ["application", "user", "organization", "name", "expires_at"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["organization"].required = False
        self.fields["name"].help_text = "Where it is used, so that people know it later."
        self.fields["expires_at"].help_text = "Leave empty for a key that never expires. UTC."

    def clean(self) -> dict[str, Any]:
        """Keep the chosen kind of owner alone; an application brings its organization along."""
        data = super().clean() or self.cleaned_data
        if data.get("owner") == "application":
            self._clean_application(data)
        elif data.get("owner") == "user":
            self._clean_user(data)
        if data.get("expires_at") and data["expires_at"] <= timezone.now():
            self.add_error("expires_at", "Choose a moment in the future.")
        return data

    def _clean_application(self, data: dict[str, Any]) -> None:
        data["user"] = None
        application = data.get("application")
        if application:
            data["organization"] = application.organization
        elif "application" not in self.errors:
            self.add_error("application", "Choose the application that will use the key.")

    def _clean_user(self, data: dict[str, Any]) -> None:
        data["application"] = None
        user, organization = data.get("user"), data.get("organization")
        if not user:
            if "user" not in self.errors:
                self.add_error("user", "Choose the person who will use the key.")
            return
        if organization and not user.is_superuser and organization.pk not in user.roles():
            self.add_error("user", "The user is not a member of the organization.")
        elif not organization and not self.person.is_superuser:
            self.add_error("organization", "Choose the organization that the key is for.")
        elif not handles_personal_key(self.person, user, organization):
            self.add_error("user", "Only the user and an admin of the organization may do this.")


class RotateForm(forms.Form):
    """When the old key ends."""

    grace = forms.ChoiceField(
        label="The old key stops working", choices=GRACES, widget=Select(), help_text="The new key works at once."
    )


class ReasonForm(forms.Form):
    """Why something is done, for the record."""

    reason = forms.CharField(
        required=False, max_length=500, widget=Textarea(attrs={"rows": 2}), help_text="Kept in the change record."
    )


class UserForm(ScopedForm):
    """A user's own columns."""

    class Meta:
        model = User
        fields = ["username", "full_name", "email", "is_active", "is_superuser"]
        help_texts = {"is_superuser": "May do everything in every organization."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "is_active" in self.fields:
            self.fields["is_active"].help_text = of_disabling(self.instance, self.person)

    def clean(self) -> dict[str, Any]:
        """Refuse to lock oneself out, and to raise a user whose keys others may know."""
        data = super().clean() or self.cleaned_data
        for name in ("is_active", "is_superuser"):
            if self.instance == self.person and not data.get(name):
                self.add_error(name, "You cannot take this from yourself.")
        if data.get("is_superuser") and not self.initial.get("is_superuser") and self._has_keys_of_an_organization():
            self.add_error("is_superuser", "First revoke the user's keys that are for an organization.")
        return data

    def _has_keys_of_an_organization(self) -> bool:
        return ApiKey.objects.filter(user=self.instance, organization__isnull=False, revoked_at=None).exists()


class UserAddForm(ScopedForm):
    """A new user, with a first role."""

    password = forms.CharField(
        required=False,
        max_length=256,
        strip=False,
        widget=PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="Twelve characters at least. Leave empty for a user who logs in through single sign-on only.",
    )
    organization = forms.ModelChoiceField(queryset=Organization.objects.none(), widget=Select(), required=False)
    role = forms.ChoiceField(choices=[("", "No role"), *ROLE_CHOICES], widget=Select(), required=False)

    class Meta:
        model = User
        fields = ["username", "full_name", "email"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = Organization.objects.all()
        if not self.person.is_superuser:
            choices = choices.filter(pk__in=organizations_of(self.person, Action.ADD, "orgs.membership"))
            self.fields["organization"].required = self.fields["role"].required = True
        self.fields["organization"].queryset = choices  # type: ignore[attr-defined]  # a field with choices from rows
        if not self.person.is_superuser:
            self.fields["username"].max_length = MOST_OF_A_NAME  # type: ignore[attr-defined]  # a field of text
            self.fields["username"].help_text = "The organization is added to it, as in jane@acme-1f0c2ab3."

    def clean(self) -> dict[str, Any]:
        """Refuse half a membership, a name that is taken and a weak password."""
        data = super().clean() or self.cleaned_data
        self._clean_username(data)
        if bool(data.get("organization")) is not bool(data.get("role")):
            missing = "role" if data.get("organization") else "organization"
            if missing not in self.errors:
                self.add_error(missing, "Choose both an organization and a role, or neither.")
        if data.get("password"):
            self._check_password(data)
        return data

    def _clean_username(self, data: dict[str, Any]) -> None:
        """Add the organization to a name that its admin gives."""
        name, organization = data.get("username"), data.get("organization")
        if name and organization is not None and not self.person.is_superuser:
            data["username"] = organization.username_of(name)

    def _check_password(self, data: dict[str, Any]) -> None:
        user = User(username=data.get("username", ""), email=data.get("email", ""))
        try:
            password_validation.validate_password(data["password"], user)
        except ValidationError as error:
            self.add_error("password", error)


class PasswordForm(forms.Form):
    """A new password for a user, twice."""

    password = forms.CharField(
        label="New password",
        max_length=256,
        strip=False,
        widget=PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="Twelve characters at least.",
    )
    again = forms.CharField(
        label="Again", max_length=256, strip=False, widget=PasswordInput(attrs={"autocomplete": "new-password"})
    )

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user

    def clean(self) -> dict[str, Any]:
        """Refuse two different passwords and a weak one."""
        data = super().clean() or self.cleaned_data
        if data.get("password") != data.get("again"):
            self.add_error("again", "The two passwords differ.")
        elif data.get("password"):
            try:
                password_validation.validate_password(data["password"], self.user)
            except ValidationError as error:
                self.add_error("password", error)
        return data


class MembershipForm(ScopedForm):
    """A role, with what each may do."""

    role = forms.ChoiceField(choices=ROLE_CHOICES, widget=Select())

    class Meta:
        model = Membership
        fields = ["organization", "user", "role"]


class MembershipFormSet(_InlineFormSet):
    """The roles on a page, which leave every organization an admin; only a superadmin may end the last one."""

    person: ClassVar[User]

    def clean(self) -> None:
        """Refuse to take the role of an organization's last admin."""
        super().clean()
        if self.person.is_superuser or any(self.errors):
            return
        ending: dict[UUID, list[UUID]] = {}
        for form in self.initial_forms:
            if form in self.deleted_forms or form.cleaned_data.get("role") != Role.ADMIN.value:
                ending.setdefault(form.instance.organization_id, []).append(form.instance.pk)
        if any(loses_its_admins(organization_id, ids) for organization_id, ids in ending.items()):
            raise ValidationError(LAST_ADMIN)


class CredentialForm(ScopedForm):
    """How a provider is reached. The secret goes in and never comes out."""

    PLACE: ClassVar[tuple[str, ...]] = ("provider", "base_url")

    base_url = forms.URLField(
        label="Base URL",
        required=False,
        max_length=500,
        assume_scheme="https",
        widget=URLInput(),
        help_text="Empty: the vendor's own address. Such as https://llm.example.com/v1",
    )
    secret = forms.CharField(
        required=False, widget=PasswordInput(attrs={"autocomplete": "off"}), help_text="The API key at the provider."
    )

    class Meta:
        model = ProviderCredential
        fields = ["organization", "name", "provider", "base_url", "is_active"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "secret" in self.fields and self._stored():
            self.fields["secret"].help_text = "Stored encrypted. Leave empty to keep it, or type a new one."

    def clean_secret(self) -> str:
        """Refuse what cannot stand in an HTTP header."""
        secret: str = self.cleaned_data["secret"]
        if secret and not _SECRET.fullmatch(secret):
            raise ValidationError("Must be 1 to 4096 visible ASCII characters.")
        return secret

    def clean_base_url(self) -> str:
        """Refuse an address that the gateway would never connect to. Names are resolved when it connects."""
        url: str = self.cleaned_data["base_url"]
        try:
            check_entered(url, allowed_networks())
        except UpstreamError as error:
            raise ValidationError(str(error)) from error
        return url

    def clean(self) -> dict[str, Any]:
        """Refuse a credential without what its provider needs, and a stored secret sent to a new place."""
        data = super().clean() or self.cleaned_data
        provider, secret = data.get("provider"), data.get("secret")
        if provider == ProviderCredential.Provider.OPENAI_COMPATIBLE and not data.get("base_url", "-"):
            self.add_error("base_url", "Give the address of the OpenAI-compatible provider.")
        if provider == ProviderCredential.Provider.SIMULATED or secret or "secret" in self.errors:
            return data
        if not self._stored():
            self.add_error("secret", "Give the provider's secret.")
        elif any(name in self.changed_data for name in self.PLACE):
            self.add_error("secret", "Give the secret again: it would go to another address.")
        return data

    def _stored(self) -> bool:
        return bool(self.instance.encrypted_secret)
