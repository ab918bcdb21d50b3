"""Where alerts go: the destinations of an organization or of the platform, and each message that went to one."""

import secrets
from datetime import timedelta
from typing import Any, ClassVar
from uuid import uuid4

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import models
from django.utils import timezone

from apps.alerts.addresses import check_destination
from apps.audit.models import Alert
from apps.audit.uuid7 import uuid7
from apps.orgs import encryption
from apps.orgs.encryption import DecryptionError, Place, Purpose
from apps.orgs.models import DataKey, HoldsSecrets, Organization

SECRET_PREFIX = "whsec_"  # noqa: S105  # what every signing secret begins with
FORMER_SIGNS_FOR = timedelta(hours=24)
"""How long after a rotation the signing secret before it signs as well."""
MOST_RECIPIENTS = 10
MOST_ATTEMPTS = 12


class Destination(HoldsSecrets, models.Model):
    """Where alerts of an organization go, or with none the platform's own, and which kinds of them."""

    class Channel(models.TextChoices):
        """How a message gets there."""

        EMAIL = "email", "E-mail"
        WEBHOOK = "webhook", "Signed webhook"
        SLACK = "slack", "Slack or compatible"

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    organization = models.ForeignKey(
        Organization, null=True, blank=True, on_delete=models.CASCADE, related_name="alert_destinations"
    )
    name = models.CharField(max_length=200)
    channel = models.CharField(max_length=12, choices=Channel)
    kinds = models.JSONField(default=list, help_text="The kinds of alert that it wants.")
    recipients = models.JSONField(default=list, blank=True, help_text="E-mail addresses.")
    url = models.URLField(max_length=500, blank=True, help_text="Of a webhook. Slack's is a secret, and encrypted.")
    encrypted_secret = models.TextField(blank=True, editable=False)
    """A webhook's signing secret, or Slack's URL."""
    encrypted_former = models.TextField(blank=True, editable=False)
    """The signing secret before it, until ``former_until``."""
    former_until = models.DateTimeField(null=True, editable=False)
    data_key = models.ForeignKey(DataKey, null=True, on_delete=models.RESTRICT, related_name="+", editable=False)
    last_four = models.CharField(max_length=4, blank=True, editable=False)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "alert destination"
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["organization", "name"], name="alert_destination_name_unique"),
            models.UniqueConstraint(
                fields=["name"],
                condition=models.Q(organization__isnull=True),
                name="platform_alert_destination_name_unique",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuse kinds that there are not, and a destination without the address that its channel needs."""
        if not isinstance(self.kinds, list) or not set(map(str, self.kinds)) <= set(Alert.Kind.values):
            raise ValidationError({"kinds": f"Must be a list of these: {', '.join(Alert.Kind.values)}."})
        if not self.kinds:
            raise ValidationError({"kinds": "Choose at least one kind of alert."})
        self._clean_recipients()
        self._clean_url()

    def _clean_recipients(self) -> None:
        if self.channel != self.Channel.EMAIL:
            if self.recipients:
                raise ValidationError({"recipients": "Only e-mail has recipients."})
            return
        if not isinstance(self.recipients, list) or not 1 <= len(self.recipients) <= MOST_RECIPIENTS:
            raise ValidationError({"recipients": f"Give 1 to {MOST_RECIPIENTS} e-mail addresses."})
        for recipient in self.recipients:
            try:
                validate_email(recipient)
            except ValidationError:
                raise ValidationError({"recipients": "One of these is not an e-mail address."}) from None

    def _clean_url(self) -> None:
        if self.channel != self.Channel.WEBHOOK:
            if self.url:
                raise ValidationError({"url": "Only a webhook has an address that is stored readable."})
            return
        if not self.url:
            raise ValidationError({"url": "Give the address that messages are posted to."})
        check_destination(self.url, "url")

    # --- Secrets

    def new_signing_secret(self) -> str:
        """Make a new signing secret and return it, this once; the one before signs beside it for a while.

        Call it in the transaction that saves the row. Raises `encryption.KeysUnavailable`.
        """
        former = self.secret() if self.encrypted_secret else ""
        secret = SECRET_PREFIX + secrets.token_urlsafe(32)
        self.former_until = timezone.now() + FORMER_SIGNS_FOR if former else None
        self._keep(secret, former)
        return secret

    def set_slack_url(self, url: str) -> None:
        """Encrypt and keep Slack's URL. Call it in the transaction that saves the row."""
        self._keep(url, "")

    def move(self, url: str) -> None:
        """Lead a webhook to another address: its secrets are bound to it, and encrypted anew."""
        secrets_then = self._secrets(Purpose.ROTATION) if self.encrypted_secret else None
        self.url = url
        if secrets_then is not None:
            self._keep(*secrets_then)

    def secret(self, purpose: Purpose = Purpose.ALERT) -> str:
        """Decrypt the signing secret, or Slack's URL. Raises what `ProviderCredential.secret` raises."""
        return self._secrets(purpose)[0]

    def signing_secrets(self) -> list[str]:
        """Return the secrets that messages are signed with now: the current one first."""
        current, former = self._secrets(Purpose.ALERT)
        signs = former and self.former_until is not None and self.former_until > timezone.now()
        return [current, former] if signs else [current]

    def encrypt_anew(self) -> None:
        """Encrypt the secrets under the current data key, and save that."""
        self._keep(*self._secrets(Purpose.ROTATION))
        self.save(update_fields=["encrypted_secret", "encrypted_former", "data_key", "last_four"])

    def readable(self) -> bool | None:
        """Whether the secret, if there is one, can be decrypted; ``None`` if that cannot be told now."""
        if not self.encrypted_secret:
            return self.channel == self.Channel.EMAIL
        return super().readable()

    def _secrets(self, purpose: Purpose) -> tuple[str, str]:
        with encryption.counted(purpose):
            if self.data_key is None:
                raise DecryptionError("The secret has no data key.")
            key, current, former = self.data_key.open(), self.encrypted_secret, self.encrypted_former
            return (
                encryption.decrypt(current, key, self._place(self.data_key, "encrypted_secret")),
                encryption.decrypt(former, key, self._place(self.data_key, "encrypted_former")) if former else "",
            )

    def _keep(self, current: str, former: str) -> None:
        self.data_key = DataKey.current(self.organization_id)
        key = self.data_key.open()
        self.encrypted_secret = encryption.encrypt(current, key, self._place(self.data_key, "encrypted_secret"))
        self.encrypted_former = (
            encryption.encrypt(former, key, self._place(self.data_key, "encrypted_former")) if former else ""
        )
        self.last_four = current[-4:]

    def _place(self, key: DataKey, column: str) -> Place:
        return Place(
            organization=self.organization_id,
            table=self._meta.db_table,
            column=column,
            row=self.id,
            data_key=key.id,
            bound=(self.channel, self.url),
        )


class Delivery(models.Model):
    """A message to one destination: the alerts in it, and what became of it. It is tried until it is there, in bounds.

    Its id goes with it, and is the same however often it is tried. It outlives its destination, as what happened does.
    """

    class State(models.TextChoices):
        """What became of it."""

        WAITING = "waiting"
        SENT = "sent"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization_id = models.UUIDField(null=True)
    destination = models.ForeignKey(Destination, null=True, on_delete=models.SET_NULL, related_name="deliveries")
    destination_name = models.CharField(max_length=200)
    alerts: ClassVar[Any] = models.ManyToManyField(Alert, related_name="deliveries")
    state = models.CharField(max_length=12, choices=State, default=State.WAITING)
    due_at = models.DateTimeField(help_text="When it is tried for the first time.")
    next_at = models.DateTimeField(help_text="When it is tried next.")
    attempts = models.PositiveIntegerField(default=0)
    most_attempts = models.PositiveIntegerField(default=MOST_ATTEMPTS)
    outcome = models.CharField(max_length=200, blank=True, help_text="What the last attempt came to.")
    sent_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "deliveries"
        default_permissions = ("view",)
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["organization_id", "-id"], name="delivery_organization"),
            models.Index(fields=["destination", "-id"], name="delivery_destination"),
            models.Index(fields=["next_at"], condition=models.Q(state="waiting"), name="delivery_waiting"),
        ]

    def __str__(self) -> str:
        return f"{self.id}"

    def try_again(self) -> None:
        """Have a message that failed tried again from now on, as often as a new one."""
        self.state, self.next_at = self.State.WAITING, timezone.now()
        self.most_attempts = self.attempts + MOST_ATTEMPTS
        self.save(update_fields=["state", "next_at", "most_attempts"])
