"""Who: organizations, their applications and people, the keys they call with, and the providers' credentials."""

from typing import Any, ClassVar
from uuid import UUID, uuid4

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Coalesce, Now
from django.utils import timezone
from django.utils.text import slugify

from apps.audit import fence
from apps.audit.uuid7 import uuid7
from apps.orgs import data_keys, encryption
from apps.orgs.encryption import DecryptionError, Place, Purpose
from apps.orgs.naming import refuse_other_capitals
from apps.orgs.operations import PLATFORM
from apps.orgs.roles import Role
from apps.orgs.wrapping import Wrapped


class Organization(models.Model):
    """A tenant. Everything else belongs to one, or to the platform."""

    class State(models.TextChoices):
        """Whether its requests are served."""

        ACTIVE = "active"
        SUSPENDED = "suspended"

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    name = models.CharField(max_length=200, unique=True)
    state = models.CharField(max_length=12, choices=State, default=State.ACTIVE)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuse a name that differs from another's in capital letters alone."""
        refuse_other_capitals(self, "name")

    def username_of(self, name: str) -> str:
        """Return the username of a person whom the organization's own admins name.

        Usernames are unique on the platform. One that any organization could take would tell each who is at the others.
        """
        end = f"@{slugify(self.name)[:40]}-{self.pk.hex[:8]}"
        return name if name.endswith(end) else f"{name}{end}"


class ConfigVersion(models.Model):
    """The version of a scope's configuration, raised by database triggers: how a process knows its copy is stale.

    ``scope`` is an organization's id, or the nil UUID for the platform.
    """

    scope = models.UUIDField(primary_key=True)
    version = models.BigIntegerField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.scope}: {self.version}"


class UserManager(BaseUserManager["User"]):
    """Creates users."""

    def create_user(self, username: str, password: str | None = None, **fields: Any) -> "User":
        """Create a user; without a password one who cannot log in by password."""
        user = self.model(username=username, **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, username: str, password: str | None = None, **fields: Any) -> "User":
        """Create a superadmin of the platform."""
        return self.create_user(username, password, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    """A person. What they may do comes from being a superadmin or from their memberships."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    username = models.CharField(max_length=150, unique=True)
    email = models.EmailField(blank=True)
    full_name = models.CharField(max_length=200, blank=True)
    is_active = models.BooleanField(default=True)
    is_superuser = models.BooleanField("superadmin", default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "username"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        ordering = ["username"]

    def __str__(self) -> str:
        return self.username

    def clean(self) -> None:
        """Refuse a name that differs from another's in capital letters alone."""
        super().clean()
        refuse_other_capitals(self, "username")

    @property
    def is_staff(self) -> bool:
        """Whether the admin lets them in: every superadmin and every member of an organization."""
        return self.is_superuser or bool(self.roles())

    def roles(self) -> dict[UUID, Role]:
        """Return the role held in each organization, by its id; read once for each instance."""
        if not hasattr(self, "_roles"):
            with fence.everything():
                self._roles = {m.organization_id: Role(m.role) for m in self.memberships.all()}
        return self._roles


class Membership(models.Model):
    """A user's role in an organization."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=12, choices=[(r.value, r.value) for r in Role if r is not Role.SUPERADMIN])
    application = models.ForeignKey(
        "Application", null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="members"
    )
    """The application that the identity provider says the person calls for."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organization", "user"], name="one_role_in_an_organization")]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.organization}"

    def clean(self) -> None:
        """Refuse an application of another organization."""
        if self.application and self.application.organization_id != self.organization_id:
            raise ValidationError({"application": "The application belongs to another organization."})


class Identity(models.Model):
    """Whom the identity provider means by a subject: the one thing that ties its people to users here."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="identities")
    issuer = models.CharField(max_length=255)
    subject = models.CharField(max_length=255)
    claims_at = models.DateTimeField(null=True, editable=False)
    """When the newest token was issued whose claims were taken over: an older one changes nothing any more."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        default_permissions = ()
        verbose_name_plural = "identities"
        constraints = [models.UniqueConstraint(fields=["issuer", "subject"], name="identity_unique")]

    def __str__(self) -> str:
        return f"{self.subject} at {self.issuer}"


class Application(models.Model):
    """Software of an organization that calls the gateway."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="applications")
    name = models.CharField(max_length=200)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["organization", "name"], name="application_name_unique")]

    def __str__(self) -> str:
        return self.name


class ApiKey(models.Model):
    """A credential of an application or of a user. Only a keyed digest of it is stored."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, null=True, blank=True, on_delete=models.CASCADE, related_name="keys")
    application = models.ForeignKey(Application, null=True, blank=True, on_delete=models.CASCADE, related_name="keys")
    user = models.ForeignKey(User, null=True, blank=True, on_delete=models.CASCADE, related_name="keys")
    name = models.CharField(max_length=200)
    prefix = models.CharField(max_length=16, unique=True, editable=False)
    pepper_id = models.CharField(max_length=40, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "API key"
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(application__isnull=False, user__isnull=True, organization__isnull=False)
                | Q(application__isnull=True, user__isnull=False),
                name="key_of_an_application_or_a_user",
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} (lcp_{self.prefix}_…)"

    def clean(self) -> None:
        """Refuse a key whose owner is of another organization."""
        if self.application and self.application.organization_id != self.organization_id:
            raise ValidationError({"application": "The application belongs to another organization."})

    @property
    def state(self) -> str:
        """``active``, ``revoked`` or ``expired``, now."""
        if self.revoked_at:
            return "revoked"
        if self.expires_at and self.expires_at <= timezone.now():
            return "expired"
        return "active"

    def revoke(self) -> None:
        """End the key for good. The next request with it is refused, in every process."""
        if not self.revoked_at:
            self.revoked_at = timezone.now()
            self.save(update_fields=["revoked_at"])


class DataKey(models.Model):
    """The key that an organization's secrets are encrypted under, itself wrapped. Without organization: the platform's.

    One of each owner is current. The others are retired: they still open what has not been encrypted anew.
    """

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    organization = models.ForeignKey(
        Organization, null=True, blank=True, on_delete=models.CASCADE, related_name="data_keys"
    )
    wrapped_by = models.CharField(max_length=300, editable=False)
    wrapped = models.TextField(editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    retired_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                Coalesce("organization_id", Value(UUID(PLATFORM))),
                condition=Q(retired_at__isnull=True),
                name="one_current_data_key",
            )
        ]

    def __str__(self) -> str:
        return f"data key of {self.organization or 'the platform'}"

    @classmethod
    def current(cls, organization_id: UUID | None) -> "DataKey":
        """Return the key for new secrets of an organization; it stays current until the transaction ends.

        One is made where there is none, or where the current one cannot be opened any more. Raises
        `encryption.KeysUnavailable`.
        """
        mine = cls.objects.select_for_update(no_key=True).filter(organization_id=organization_id, retired_at=None)
        key = mine.first()
        if key is not None and not key.opens():
            key.retire()
            key = None
        return key or cls._made(organization_id) or mine.get()

    @classmethod
    def _made(cls, organization_id: UUID | None) -> "DataKey | None":
        """Store a new key, or return ``None``: somebody else has just stored one."""
        key = cls(organization_id=organization_id)
        key._keep(data_keys.make(key.id, organization_id))
        DataKey.objects.bulk_create([key], ignore_conflicts=True)
        return DataKey.objects.select_for_update(no_key=True).filter(pk=key.pk).first()

    def open(self) -> bytes:
        """Return the key. Raises `encryption.DecryptionError` or `encryption.KeysUnavailable`."""
        return data_keys.opened(self.id, self.organization_id, Wrapped(self.wrapped_by, self.wrapped))

    def opens(self) -> bool:
        """Whether the key can be opened. Raises `encryption.KeysUnavailable` if that cannot be told now."""
        try:
            self.open()
        except DecryptionError:
            return False
        return True

    def retire(self) -> None:
        """Use the key for no more new secrets."""
        self.retired_at = timezone.now()
        self.save(update_fields=["retired_at"])

    def rewrap(self) -> None:
        """Wrap the key by the current wrapping key. Raises what `open` raises."""
        self._keep(data_keys.rewrap(self.id, self.organization_id, Wrapped(self.wrapped_by, self.wrapped)))
        self.save(update_fields=["wrapped_by", "wrapped"])

    def _keep(self, wrapped: Wrapped) -> None:
        self.wrapped_by, self.wrapped = wrapped.by, wrapped.text


class HoldsSecrets:
    """A model whose rows hold secrets under a data key, in ``data_key``: a rotation of keys finds it by this."""

    def secret(self, purpose: Purpose) -> str:
        """Decrypt the secret. Raises `encryption.DecryptionError`, and `encryption.KeysUnavailable`."""
        raise NotImplementedError

    def encrypt_anew(self) -> None:
        """Encrypt the row's secrets under the current data key, and save that. Raises `encryption.DecryptionError`."""
        raise NotImplementedError

    def readable(self) -> bool | None:
        """Whether the secret, if there is one, can be decrypted; ``None`` if that cannot be told now."""
        try:
            self.secret(Purpose.CHECK)
        except DecryptionError:
            return False
        except encryption.KeysUnavailable:
            return None
        return True


class ProviderCredential(HoldsSecrets, models.Model):
    """How a provider is reached: its address and our secret there, encrypted. Without organization: for all."""

    class Provider(models.TextChoices):
        """The dialects an adapter speaks."""

        OPENAI = "openai", "OpenAI"
        OPENAI_COMPATIBLE = "openai_compatible", "OpenAI-compatible URL"
        SIMULATED = "simulated", "Simulated"

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    organization = models.ForeignKey(
        Organization, null=True, blank=True, on_delete=models.CASCADE, related_name="credentials"
    )
    name = models.CharField(max_length=200)
    provider = models.CharField(max_length=40, choices=Provider)
    base_url = models.URLField(max_length=500, blank=True, help_text="Empty: the vendor's own address.")
    encrypted_secret = models.TextField(blank=True, editable=False)
    data_key = models.ForeignKey(
        DataKey, null=True, on_delete=models.RESTRICT, related_name="credentials", editable=False
    )
    last_four = models.CharField(max_length=4, blank=True, editable=False)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "provider credential"
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["organization", "name"], name="credential_name_unique"),
            models.UniqueConstraint(
                fields=["name"],
                condition=Q(organization__isnull=True),
                name="platform_credential_name_unique",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def take_secret(self, secret: str) -> None:
        """Keep a new secret. Without one the stored one stays, unless the provider needs none: then it is forgotten."""
        if secret:
            self.set_secret(secret)
        elif self.provider == self.Provider.SIMULATED:
            self.encrypted_secret, self.data_key, self.last_four = "", None, ""

    def set_secret(self, secret: str) -> None:
        """Encrypt and keep the secret, bound to this row and to where it leads; the last four characters stay readable.

        Call it last and in the transaction that saves the row. Raises `encryption.KeysUnavailable`.
        """
        self.data_key = DataKey.current(self.organization_id)
        self.encrypted_secret = encryption.encrypt(secret, self.data_key.open(), self._place(self.data_key))
        self.last_four = secret[-4:] if len(secret) >= 12 else ""

    def secret(self, purpose: Purpose = Purpose.CALL) -> str:
        """Decrypt the secret, which is counted.

        Raises `encryption.DecryptionError` if the row, where it leads or the key are not those it was made for, and
        `encryption.KeysUnavailable` if that cannot be told now.
        """
        if not self.encrypted_secret:
            return ""
        with encryption.counted(purpose):
            if self.data_key is None:
                raise DecryptionError("The secret has no data key.")
            return encryption.decrypt(self.encrypted_secret, self.data_key.open(), self._place(self.data_key))

    def encrypt_anew(self) -> None:
        """Encrypt the secret under the current data key, and save that. Raises what `secret` raises."""
        self.set_secret(self.secret(Purpose.ROTATION))
        self.save(update_fields=["encrypted_secret", "data_key", "last_four"])

    def _place(self, key: DataKey) -> Place:
        return Place(
            organization=self.organization_id,
            table=self._meta.db_table,
            column="encrypted_secret",
            row=self.id,
            data_key=key.id,
            bound=(self.provider, self.base_url),
        )


class IdempotencyKey(models.Model):
    """A caller's ``Idempotency-Key`` with the answer that its request got, for a day; see `apps.orgs.rest.idempotency`.

    The caller is a plain value: a row outlives nothing that is worth a cascade.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    caller = models.CharField(max_length=80)
    digest = models.CharField(max_length=64)
    """The SHA-256 of the key."""
    pepper_id = models.CharField(max_length=40)
    fingerprint = models.CharField(max_length=64)
    """A keyed digest of method, path and body: a body may hold a password."""
    status = models.PositiveSmallIntegerField(default=0)
    answer = models.TextField(blank=True)
    """Empty: not kept, since a secret was in it."""
    etag = models.CharField(max_length=80, blank=True)
    object_id = models.UUIDField(null=True)
    created_at = models.DateTimeField(db_default=Now(), db_index=True)

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["caller", "digest"], name="idempotency_key_of_a_caller")]

    def __str__(self) -> str:
        return str(self.id)


class UsageTag(models.Model):
    """A key of requests' metadata by whose values an organization's usage is broken down."""

    MOST: ClassVar[int] = 5

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="usage_tags")
    key = models.CharField(max_length=64, help_text="As clients write it in the metadata, such as team.")

    class Meta:
        ordering = ["key"]
        constraints = [models.UniqueConstraint(fields=["organization", "key"], name="usage_tag_unique")]

    def __str__(self) -> str:
        return self.key

    def clean(self) -> None:
        """Refuse a key that no filter of the list of records could name."""
        if "=" in self.key:
            raise ValidationError({"key": "A key that has an equals sign cannot be counted."})
