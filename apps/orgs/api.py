"""The JSON API of organizations, applications, keys, users, memberships and providers' credentials."""

import re
from datetime import timedelta
from typing import Any, ClassVar

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import transaction
from django.db.models import Prefetch, Q, QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.changes import record_change, state_of
from apps.gateway.addresses import allowed_networks, check_entered
from apps.gateway.providers.base import UpstreamError
from apps.orgs import keys
from apps.orgs.admins import LAST_ADMIN, loses_its_admins, only_admin_of, said_of
from apps.orgs.models import ApiKey, Application, Membership, Organization, ProviderCredential, User
from apps.orgs.rest.errors import Conflict, model_rules
from apps.orgs.rest.fields import Choice, Flag, ObjectSerializer, Readable, Reference, Text, Whole
from apps.orgs.rest.filters import Filter, as_flag, as_text, choice
from apps.orgs.rest.idempotency import once
from apps.orgs.rest.views import Collection, json_object
from apps.orgs.roles import Action, Role
from apps.orgs.scoping import may, role_in, visible
from apps.policies.rotation import rotate

MEMBER_ROLES = tuple(role.value for role in Role if role is not Role.SUPERADMIN)
MAX_GRACE_SECONDS = 30 * 24 * 3600
_SECRET = re.compile(r"[\x21-\x7e]{1,4096}")  # goes into an HTTP header


class OrganizationSerializer(ObjectSerializer[Organization]):
    """An organization."""

    class Meta(ObjectSerializer.Meta):
        model = Organization
        fields = ["id", "name", "state", "created_at"]


@extend_schema(tags=["organizations"])
class OrganizationCollection(Collection[Organization]):
    """Organizations: superadmins make, name and suspend them; members see their own."""

    model = Organization
    serializer_class = OrganizationSerializer
    ordered_by = "created_at"
    filters = {
        "name": Filter("name", as_text),
        "state": choice("state", *Organization.State.values),
    }

    def apply(self, row: Organization, values: dict[str, Any]) -> None:
        """Change it. Names are unique on the platform: an admin who could rename would learn who else is here."""
        changed = any(getattr(row, name) != value for name, value in values.items())
        if changed and not self.caller.is_superuser:
            raise PermissionDenied("Only a superadmin may rename, suspend or reinstate an organization.")
        super().apply(row, values)


class ApplicationSerializer(ObjectSerializer[Application]):
    """An application of an organization."""

    organization = Reference(Organization)

    class Meta(ObjectSerializer.Meta):
        model = Application
        fields = ["id", "organization", "name", "is_active", "created_at"]
        fixed = ("organization",)


@extend_schema(tags=["applications"])
class ApplicationCollection(Collection[Application]):
    """Applications."""

    model = Application
    serializer_class = ApplicationSerializer
    ordered_by = "created_at"
    filters = {
        "organization": Filter("organization_id"),
        "name": Filter("name", as_text),
        "is_active": Filter("is_active", as_flag),
    }


class KeySerializer(ObjectSerializer[ApiKey]):
    """An API key, without its text: that is shown once, when the key is issued."""

    organization = Reference(
        Organization, required=False, allow_null=True, help_text="Of a user's key: the one it is for."
    )
    application = Reference(Application, required=False, allow_null=True)
    user = Reference(User, required=False, allow_null=True)
    state = serializers.CharField(read_only=True, help_text="active, revoked or expired")

    class Meta(ObjectSerializer.Meta):
        model = ApiKey
        fields = [
            "id",
            "organization",
            "application",
            "user",
            "name",
            "prefix",
            "state",
            "expires_at",
            "revoked_at",
            "created_at",
        ]
        read_only_fields = ["prefix", "revoked_at"]
        fixed = ("organization", "application", "user")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a new key without an owner or with two."""
        attrs = super().validate(attrs)
        if self.instance is None and bool(attrs.get("application")) is bool(attrs.get("user")):
            raise ValidationError({"application": "Name either an application or a user."})
        return attrs


class IssuedKeySerializer(KeySerializer):
    """A new API key with its text."""

    key = serializers.CharField(read_only=True, help_text="The key itself, shown this once.")

    class Meta(KeySerializer.Meta):
        fields = [*KeySerializer.Meta.fields, "key"]


class RotationSerializer(serializers.Serializer[Any]):
    """How a key is replaced."""

    grace_seconds = Whole(
        default=0, min_value=0, max_value=MAX_GRACE_SECONDS, help_text="How long the old key still works."
    )


@extend_schema(tags=["keys"])
class KeyCollection(Collection[ApiKey]):
    """API keys. A user's key acts with the user's role, so only the user and the organization's admins handle it."""

    model = ApiKey
    serializer_class = KeySerializer
    shown_once = frozenset({"key"})
    filters = {
        "organization": Filter("organization_id"),
        "application": Filter("application_id"),
        "user": Filter("user_id"),
        "name": Filter("name", as_text),
        "prefix": Filter("prefix", as_text, "The eight characters after lcp_, which records show."),
    }

    def get_queryset(self) -> "QuerySet[ApiKey]":
        """Return the keys of the caller's organizations, and their own."""
        rows = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return rows
        return ApiKey.objects.filter(Q(pk__in=rows.values("pk")) | self.own())

    def own(self) -> Q:
        """Which keys are the caller's own; with a key for one organization, those for that organization."""
        mine = Q(user=self.caller)
        return mine & Q(organization=self.key.organization_id) if self.key.organization_id else mine

    def check_role(self) -> None:
        """Let everyone in: everyone has a key of their own to see."""

    def allow_anywhere(self, action: Action) -> None:
        """Let everyone in: everyone may issue a key for themselves."""

    @extend_schema(responses={201: IssuedKeySerializer})
    def create(self, request: Request) -> Response:
        """Issue a key; the answer holds its text, this once."""
        return super().create(request)

    def add(self, values: dict[str, Any]) -> tuple[ApiKey, dict[str, str]]:
        """Issue a key with its record."""
        if application := values.get("application"):
            if values.get("organization") not in {None, application.organization}:
                raise ValidationError({"organization": "The application belongs to another organization."})
            values["organization"] = application.organization
            self.allow_in(Action.ADD, application.organization_id)
        else:
            values["organization"] = self.organization_for(values["user"], values)
        return self.issue(values)

    def organization_for(self, user: User, values: dict[str, Any]) -> Organization | None:
        """Return for which organization a user's key is issued: as named, or the caller's key's, or the only one.

        Raises `PermissionDenied` if the caller may not issue it.
        """
        memberships = list(Membership.objects.filter(user=user).select_related("organization")[:2])
        organization: Organization | None = values.get("organization")
        if "organization" not in values and self.key.organization_id and user == self.caller:
            organization = self.key.organization
        elif "organization" not in values and len(memberships) == 1:
            organization = memberships[0].organization
        self.allow_personal(ApiKey(user=user, organization=organization))
        if organization and not user.is_superuser and not user.memberships.filter(organization=organization).exists():
            raise ValidationError({"user": "The user is not a member of the organization."})
        return organization

    def allow_personal(self, key: ApiKey) -> None:
        """Raise `PermissionDenied` unless the caller may handle a user's key: nobody gains more than they have."""
        caller, owner = self.caller, key.user
        if caller.is_superuser:
            return
        if owner == caller and self.key.organization_id in {None, key.organization_id}:
            return
        is_admin = role_in(caller, key.organization_id) is Role.ADMIN
        if owner is None or owner.is_superuser or not is_admin:
            raise PermissionDenied("Only the user and an admin of the key's organization may do this.")

    def allow_on(self, action: Action, row: ApiKey) -> None:
        """Raise `PermissionDenied` unless the caller may do ``action`` to a key that they may see."""
        if row.user_id:
            self.allow_personal(row)
        else:
            super().allow_on(action, row)

    def issue(self, values: dict[str, Any]) -> tuple[ApiKey, dict[str, str]]:
        """Issue a key with its record; return it with its text."""
        with model_rules(self.names, self.unique):
            issued = keys.issue(**values)
        row = issued.row
        record_change(self.actor, "create", row, organization_id=row.organization_id, after=state_of(row))
        return row, {"key": issued.text}

    def end(self, row: ApiKey) -> None:
        """Revoke a key with its record."""
        before = state_of(row)
        row.revoke()
        record_change(
            self.actor, "revoke", row, organization_id=row.organization_id, before=before, after=state_of(row)
        )

    @extend_schema(request=None, responses=KeySerializer)
    @action(detail=True, methods=["post"])
    @once
    def revoke(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """End a key for good. Once more changes nothing."""
        with transaction.atomic():
            row = self.row_for(Action.CHANGE, id)
            if row.revoked_at is None:
                self.end(row)
            return self.answer(self.stored(row))

    @extend_schema(request=RotationSerializer, responses={201: IssuedKeySerializer})
    @action(detail=True, methods=["post"], url_path="rotate")
    @once
    def replace(self, request: Request, id: str) -> Response:  # noqa: A002 (the name in the address)
        """Issue a successor with the same owner, name and expiry, and end the key, at once or after a grace."""
        rotation = RotationSerializer(data=json_object(request))
        rotation.is_valid(raise_exception=True)
        with transaction.atomic():
            row = self.row_for(Action.CHANGE, id)
            grace = timedelta(seconds=rotation.validated_data["grace_seconds"])
            try:
                issued = rotate(row, self.actor, grace)
            except ModelValidationError as error:
                raise ValidationError(error.messages) from error
            return self.answer(self.stored(issued.row), 201, key=issued.text)


class MembershipOfUserSerializer(serializers.Serializer[Membership]):
    """One of a user's roles."""

    organization = serializers.UUIDField(source="organization_id")
    role = serializers.CharField()


class UserSerializer(ObjectSerializer[User]):
    """A person. Of their memberships, those that the caller may see."""

    password = Text(write_only=True, required=False, trim_whitespace=False, max_length=256)
    is_superadmin = Flag(source="is_superuser", default=False)
    organization = Reference(
        Organization, write_only=True, required=False, help_text="When made: of the first membership."
    )
    role = Choice(choices=MEMBER_ROLES, write_only=True, required=False)
    memberships = serializers.SerializerMethodField()

    class Meta(ObjectSerializer.Meta):
        model = User
        fields = [
            "id",
            "username",
            "email",
            "full_name",
            "is_active",
            "is_superadmin",
            "password",
            "organization",
            "role",
            "memberships",
            "created_at",
        ]

    @extend_schema_field(MembershipOfUserSerializer(many=True))
    def get_memberships(self, user: User) -> list[dict[str, str]]:
        """Return the memberships that were fetched for the caller."""
        return [{"organization": str(one.organization_id), "role": one.role} for one in user.memberships.all()]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse half a membership, or one for a user who is there already, and a weak password."""
        membership = [name for name in ("organization", "role") if name in attrs]
        if self.instance is not None and membership:
            raise ValidationError({membership[0]: "Change the user's memberships instead."})
        if len(membership) == 1:
            raise ValidationError({membership[0]: "Give organization and role together."})
        if password := attrs.get("password"):
            _check_password(password, User(username=attrs.get("username", ""), email=attrs.get("email", "")))
        return super().validate(attrs)


def _check_password(password: str, user: User) -> None:
    try:
        validate_password(password, user)
    except ModelValidationError as error:
        raise ValidationError({"password": error.messages}) from error


@extend_schema(tags=["users"])
class UserCollection(Collection[User]):
    """People. An admin makes them as members of the own organization, which is added to the username.

    All else about them is the superadmins'.
    """

    model = User
    serializer_class = UserSerializer
    ordered_by = "created_at"
    unique = "username"
    names = {"is_superuser": "is_superadmin"}
    filters = {
        "username": Filter("username", as_text),
        "organization": Filter("memberships__organization_id"),
        "is_active": Filter("is_active", as_flag),
    }

    def get_queryset(self) -> "QuerySet[User]":
        """Return the users that the caller may see, with the memberships that the caller may see."""
        rows = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return rows
        memberships = visible(Membership.objects.order_by("pk"), self.caller)
        return rows.prefetch_related(Prefetch("memberships", queryset=memberships))

    def represent(self, row: User) -> dict[str, Any]:
        """Return the user as the API shows it, read anew for the memberships."""
        return super().represent(self.get_queryset().get(pk=row.pk))

    def allow_anywhere(self, action: Action) -> None:
        """Raise `PermissionDenied` unless the caller may make users or members."""
        if not may(self.caller, action, "orgs.membership"):
            super().allow_anywhere(action)

    def add(self, values: dict[str, Any]) -> tuple[User, dict[str, str]]:
        """Store a user, and the membership that comes along, with their records."""
        organization, role = values.pop("organization", None), values.pop("role", None)
        self.allow_user(organization, values)
        if organization and not self.caller.is_superuser:
            values["username"] = organization.username_of(values["username"])
        password = values.pop("password", None)
        user = User(**values)
        user.set_password(password)
        self.save(user, before=None)
        if organization:
            membership = Membership(organization=organization, user=user, role=role)
            membership.save()
            record_change(self.actor, "create", membership, organization_id=organization.pk, after=state_of(membership))
        return user, {}

    def allow_user(self, organization: Organization | None, values: dict[str, Any]) -> None:
        """Raise `PermissionDenied` for a user whom the caller may not make."""
        if self.caller.is_superuser:
            return
        if values.get("is_superuser"):
            raise PermissionDenied("Only a superadmin may make a superadmin.")
        if organization is None:
            raise ValidationError({"organization": "Name the organization and the role of the new user."})
        if not may(self.caller, Action.ADD, "orgs.membership", organization.pk):
            raise PermissionDenied("Your role does not allow this.")

    def apply(self, row: User, values: dict[str, Any]) -> None:
        """Store a changed user with the record."""
        before = state_of(row)
        password = values.pop("password", None)
        self.check_self(row, values)
        ends = row.is_active and not values.get("is_active", True)
        reason = said_of(only_admin_of(row)) if ends else ""
        if values.get("is_superuser") and not row.is_superuser:
            self.check_promotion(row)
        for name, value in values.items():
            setattr(row, name, value)
        if password:
            row.set_password(password)
        self.save(row, before=before, hidden=("password",) if password else (), reason=reason)

    def remove(self, row: User, reason: str = "") -> None:
        """Delete a user with the record."""
        self.check_self(row, {"is_active": False})
        super().remove(row, said_of(only_admin_of(row)))

    def check_self(self, row: User, values: dict[str, Any]) -> None:
        """Refuse to lock oneself out: nobody may be left who could undo it."""
        for name in ("is_active", "is_superuser"):
            if row == self.caller and not values.get(name, True):
                raise ValidationError({self.names.get(name, name): "You cannot take this from yourself."})

    def check_promotion(self, user: User) -> None:
        """Refuse to make a superadmin of a user whose keys an organization's admin may have issued, and so knows."""
        if user.keys.filter(organization__isnull=False, revoked_at=None).exists():
            raise ValidationError({"is_superadmin": "First revoke the user's keys that are for an organization."})


class MembershipSerializer(ObjectSerializer[Membership]):
    """A user's role in an organization."""

    organization = Reference(Organization)
    user = Reference(User)

    class Meta(ObjectSerializer.Meta):
        model = Membership
        fields = ["id", "organization", "user", "role"]
        fixed = ("organization", "user")


@extend_schema(tags=["memberships"])
class MembershipCollection(Collection[Membership]):
    """Who has which role where."""

    model = Membership
    serializer_class = MembershipSerializer
    unique = "user"
    filters = {
        "organization": Filter("organization_id"),
        "user": Filter("user_id"),
        "role": choice("role", *MEMBER_ROLES),
    }

    def apply(self, row: Membership, values: dict[str, Any]) -> None:
        """Change a role with its record."""
        before, reason = state_of(row), ""
        if values.get("role", row.role) != Role.ADMIN.value:
            reason = self.ends_an_admin(row)
        for name, value in values.items():
            setattr(row, name, value)
        self.save(row, before=before, reason=reason)

    def remove(self, row: Membership, reason: str = "") -> None:
        """End a membership with its record."""
        super().remove(row, self.ends_an_admin(row))

    def ends_an_admin(self, row: Membership) -> str:
        """Return what the record says if the organization has no admin then.

        Raises `Conflict` unless it is a superadmin's to do that.
        """
        if not loses_its_admins(row.organization_id, [row.pk]):
            return ""
        if not self.caller.is_superuser:
            raise Conflict(LAST_ADMIN)
        return said_of([row.organization])


class CredentialSerializer(ObjectSerializer[ProviderCredential]):
    """How a provider is reached. The secret is never shown again but for its last characters."""

    organization = Reference(Organization, required=False, allow_null=True, help_text="None: for all organizations.")
    secret = Text(write_only=True, required=False, trim_whitespace=False)
    readable = Readable()
    base_url = Text(required=False, allow_blank=True, max_length=500, help_text="Empty: the vendor's own address.")

    class Meta(ObjectSerializer.Meta):
        model = ProviderCredential
        fields: ClassVar[list[str]] = [
            "id",
            "organization",
            "name",
            "provider",
            "base_url",
            "secret",
            "last_four",
            "readable",
            "is_active",
            "created_at",
        ]
        read_only_fields = ["last_four"]
        fixed = ("organization",)

    def validate_secret(self, secret: str) -> str:
        """Refuse what cannot stand in a header."""
        if not _SECRET.fullmatch(secret):
            raise ValidationError("Must be 1 to 4096 visible ASCII characters.")
        return secret

    def validate_base_url(self, url: str) -> str:
        """Refuse an address that the gateway would never connect to. Names are resolved when it connects."""
        try:
            check_entered(url, allowed_networks())
        except UpstreamError as error:
            raise ValidationError(str(error)) from error
        return url

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a credential without what its provider needs, and a stored secret sent to a new place."""
        attrs = super().validate(attrs)
        place = {name: attrs.get(name, getattr(self.instance, name, "")) for name in ("provider", "base_url")}
        if place["provider"] == ProviderCredential.Provider.SIMULATED:
            return attrs
        if place["provider"] == ProviderCredential.Provider.OPENAI_COMPATIBLE and not place["base_url"]:
            raise ValidationError({"base_url": "Name the address of an OpenAI-compatible provider."})
        if "secret" not in attrs and self.instance is None:
            raise ValidationError({"secret": "Give the provider's secret."})
        moved = any(getattr(self.instance, name, value) != value for name, value in place.items())
        if "secret" not in attrs and moved:
            raise ValidationError({"secret": "Give the secret again: it would go to another address."})
        return attrs


@extend_schema(tags=["provider-credentials"])
class CredentialCollection(Collection[ProviderCredential]):
    """Credentials at providers."""

    model = ProviderCredential
    serializer_class = CredentialSerializer
    ordered_by = "created_at"
    filters = {
        "organization": Filter("organization_id"),
        "provider": choice("provider", *ProviderCredential.Provider.values),
        "is_active": Filter("is_active", as_flag),
    }

    def get_queryset(self) -> "QuerySet[ProviderCredential]":
        """Return them with the keys by which their secrets are read."""
        return super().get_queryset().select_related("data_key")

    def add(self, values: dict[str, Any]) -> tuple[ProviderCredential, dict[str, str]]:
        """Store a credential, its secret encrypted, with the record."""
        secret = values.pop("secret", "")
        row = ProviderCredential(**values)
        self.allow_in(Action.ADD, row.organization_id)
        row.take_secret(secret)
        self.save(row, before=None)
        return row, {}

    def apply(self, row: ProviderCredential, values: dict[str, Any]) -> None:
        """Store a changed credential with the record."""
        before = state_of(row)
        secret = values.pop("secret", "")
        for name, value in values.items():
            setattr(row, name, value)
        row.take_secret(secret)
        self.save(row, before=before, hidden=("encrypted_secret",) if secret else ())
