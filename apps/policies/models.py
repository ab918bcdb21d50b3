"""What is allowed, and the money: policies with their published versions, prices, budgets and the ledger."""

from typing import Any
from uuid import UUID, uuid4

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils import timezone

from apps.audit.money import usd_from_nano
from apps.audit.uuid7 import uuid7
from apps.orgs.models import ApiKey, Application, Organization, User
from apps.policies.engine.kinds import ALWAYS, ConfigError, Kind, parse_config, parse_terms
from apps.policies.engine.policy import Broken, Level, Mode, read_rule, read_terms
from apps.policies.engine.policy import Policy as EnginePolicy

KIND_CHOICES = [(kind.value, kind.label) for kind in Kind]


class Policy(models.Model):
    """A rule on a scope: the platform (no organization), an organization, or an application, user or key of one."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    organization = models.ForeignKey(
        Organization, null=True, blank=True, on_delete=models.CASCADE, related_name="policies"
    )
    application = models.ForeignKey(Application, null=True, blank=True, on_delete=models.CASCADE)
    user = models.ForeignKey(User, null=True, blank=True, on_delete=models.CASCADE)
    api_key = models.ForeignKey(ApiKey, null=True, blank=True, on_delete=models.CASCADE, verbose_name="API key")
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=24, choices=KIND_CHOICES)
    mode = models.CharField(max_length=12, choices=[(m.value, m.value) for m in Mode], default=Mode.ENFORCE.value)
    config = models.JSONField()
    valid_from = models.DateTimeField(null=True, blank=True, help_text="UTC. Empty: at once.")
    valid_until = models.DateTimeField(null=True, blank=True, help_text="UTC, no longer included. Empty: for ever.")
    version = models.PositiveIntegerField(default=0, editable=False)
    draft = models.JSONField(null=True, blank=True, editable=False, help_text="What it is to say, once published.")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    # The last one, since its name hides the module of fields from here on.
    models = models.JSONField(default=list, blank=True, help_text="Patterns of the models it is for; none: for all.")

    class Meta:
        verbose_name_plural = "policies"
        ordering = ["name"]
        indexes = [models.Index(fields=["organization", "kind"], name="policy_organization_kind")]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save, and publish what was saved as the next version."""
        with transaction.atomic():
            self.version += 1
            super().save(*args, **kwargs)
            PolicyVersion.objects.create(
                policy_id=self.id,
                organization_id=self.organization_id,
                version=self.version,
                name=self.name,
                kind=self.kind,
                mode=self.mode,
                level=self.level.value,
                scope_id=self.scope_id,
                config=self.config,
                models=self.models,
                valid_from=self.valid_from,
                valid_until=self.valid_until,
            )

    def save_draft(self) -> None:
        """Save the draft alone: nothing is published, and nothing else of the row is stored."""
        super().save(update_fields=["draft", "updated_at"])

    def clean(self) -> None:
        """Refuse a scope that crosses organizations, a configuration that is not of its kind and impossible terms."""
        self._clean_scope()
        try:
            parse_config(self.kind, self.config)
        except ConfigError as error:
            raise ValidationError({"config": f"{error.field}: {error}" if error.field else str(error)}) from error
        try:
            parse_terms(self.models, self.valid_from, self.valid_until)
        except ConfigError as error:
            raise ValidationError({error.field: str(error)}) from error

    def _clean_scope(self) -> None:
        narrower = [name for name in ("application", "user", "api_key") if getattr(self, f"{name}_id")]
        if len(narrower) > 1:
            raise ValidationError({narrower[1]: "A policy stands on one scope: choose one of these."})
        if narrower and not self.organization_id:
            raise ValidationError({"organization": "Name the organization of the application, user or key."})
        if self.application and self.application.organization_id != self.organization_id:
            raise ValidationError({"application": "The application belongs to another organization."})
        if self.api_key and self.api_key.organization_id != self.organization_id:
            raise ValidationError({"api_key": "The key belongs to another organization."})
        if self.user and not self.user.memberships.filter(organization=self.organization_id).exists():
            raise ValidationError({"user": "The user is not a member of the organization."})

    @property
    def level(self) -> Level:
        """Which kind of scope it stands on."""
        if self.api_key_id:
            return Level.KEY
        if self.user_id:
            return Level.USER
        if self.application_id:
            return Level.APPLICATION
        return Level.ORGANIZATION if self.organization_id else Level.PLATFORM

    @property
    def scope_id(self) -> UUID | None:
        """The id of what it stands on; ``None`` for the platform."""
        return self.api_key_id or self.user_id or self.application_id or self.organization_id

    def read(self) -> EnginePolicy:
        """Return the policy as the engine sees it; what cannot be read is `Broken` and denies."""
        return _read(self, self.pk, Level(self.level))


class PolicyVersion(models.Model):
    """What a policy said at one time. Append-only: records name it by policy id and version."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    policy_id = models.UUIDField()
    organization_id = models.UUIDField(null=True)
    version = models.PositiveIntegerField()
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=24)
    mode = models.CharField(max_length=12)
    level = models.CharField(max_length=12)
    scope_id = models.UUIDField(null=True)
    config = models.JSONField()
    valid_from = models.DateTimeField(null=True)
    valid_until = models.DateTimeField(null=True)
    published_at = models.DateTimeField(default=timezone.now)
    models = models.JSONField(default=list)

    class Meta:
        ordering = ["-id"]
        default_permissions = ("view",)
        constraints = [models.UniqueConstraint(fields=["policy_id", "version"], name="policy_version_unique")]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"

    def read(self) -> EnginePolicy:
        """Return what the policy said, as the engine saw it."""
        return _read(self, self.policy_id, Level(self.level))


def _read(row: Policy | PolicyVersion, policy_id: UUID, level: Level) -> EnginePolicy:
    rule, terms = read_rule(row.kind, row.config), read_terms(row.models, row.valid_from, row.valid_until)
    if isinstance(terms, Broken):
        rule, terms = terms, ALWAYS
    elif isinstance(rule, Broken):
        terms = ALWAYS
    return EnginePolicy(
        id=policy_id,
        version=row.version,
        name=row.name,
        kind=row.kind,
        mode=Mode(row.mode) if row.mode in Mode.__members__.values() else Mode.ENFORCE,
        level=level,
        scope_id=row.scope_id,
        organization_id=row.organization_id,
        rule=rule,
        terms=terms,
    )


class Price(models.Model):
    """A price of our own, from a day on; it goes before the price catalogue's. Nano-USD for a million tokens."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    provider = models.CharField(max_length=40, blank=True, help_text="Empty: of any provider.")
    model = models.CharField(max_length=256, help_text="The provider's name of the model; * stands for any text.")
    input_nano_usd = models.BigIntegerField(help_text="Nano-USD for a million input tokens.")
    output_nano_usd = models.BigIntegerField(help_text="Nano-USD for a million output tokens.")
    cached_input_nano_usd = models.BigIntegerField(null=True, blank=True)
    effective_from = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["model", "-effective_from"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(input_nano_usd__gte=0, output_nano_usd__gte=0), name="price_not_negative"
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} from {self.effective_from:%Y-%m-%d}"


class Budget(models.Model):
    """The counter of one cost cap in one window. ``reserved`` is pending, ``spent`` equals the sum of its ledger."""

    id = models.UUIDField(primary_key=True)
    policy_id = models.UUIDField()
    organization_id = models.UUIDField(null=True)
    window_start = models.DateTimeField()
    window_end = models.DateTimeField(null=True)
    span_hours = models.PositiveIntegerField(null=True, help_text="Of a rolling window.")
    limit_nano_usd = models.BigIntegerField(help_text="As of the last reservation.")
    reserved_nano_usd = models.BigIntegerField(default=0)
    spent_nano_usd = models.BigIntegerField(default=0)
    overrun_nano_usd = models.BigIntegerField(default=0)
    alert_at = models.JSONField(null=True, help_text="Percents of the limit to record, as of the last reservation.")

    class Meta:
        default_permissions = ("view",)
        constraints = [
            models.UniqueConstraint(
                fields=["policy_id", "window_start"],
                condition=models.Q(span_hours__isnull=True),
                name="one_budget_in_a_window",
            ),
            models.CheckConstraint(
                condition=models.Q(reserved_nano_usd__gte=0, spent_nano_usd__gte=0),
                name="budget_not_negative",
            ),
        ]

    def __str__(self) -> str:
        limit = usd_from_nano(self.limit_nano_usd)
        if self.span_hours is not None:
            return f"{limit} USD in any {self.span_hours} hours"
        return f"{usd_from_nano(self.spent_nano_usd)} of {limit} USD"


class SpanPart(models.Model):
    """What a rolling budget uses of one sixtieth of its span: reserved in it, or spent by what was reserved in it."""

    id = models.UUIDField(primary_key=True)
    budget = models.ForeignKey(Budget, on_delete=models.PROTECT, related_name="parts")
    starts_at = models.DateTimeField()
    used_nano_usd = models.BigIntegerField()

    class Meta:
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{usd_from_nano(self.used_nano_usd)} USD from {self.starts_at}"


class BudgetAlert(models.Model):
    """A percent of its limit that a budget crossed: recorded once in a window. Append-only."""

    id = models.UUIDField(primary_key=True, default=uuid7)
    timestamp = models.DateTimeField()
    budget = models.ForeignKey(Budget, on_delete=models.PROTECT, related_name="alerts")
    organization_id = models.UUIDField(null=True)
    window_start = models.DateTimeField(
        help_text="Of a rolling window: the day on which it was crossed. Otherwise always the same."
    )
    percent = models.PositiveIntegerField()
    spent_nano_usd = models.BigIntegerField()
    limit_nano_usd = models.BigIntegerField()

    class Meta:
        default_permissions = ("view",)
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["budget", "percent", "window_start"], name="one_alert_in_a_window")
        ]

    def __str__(self) -> str:
        return f"{self.percent} % of {usd_from_nano(self.limit_nano_usd)} USD"


class Reservation(models.Model):
    """The worst case of a call that is under way, held against one budget; deleted when the call is settled."""

    id = models.UUIDField(primary_key=True, default=uuid7)
    request_id = models.UUIDField(db_index=True)
    budget = models.ForeignKey(Budget, on_delete=models.PROTECT, db_index=False)
    amount_nano_usd = models.BigIntegerField()
    part_start = models.DateTimeField(null=True, help_text="Under a rolling window: the part that it counts in.")

    class Meta:
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{usd_from_nano(self.amount_nano_usd)} USD for {self.request_id}"


class LedgerEntry(models.Model):
    """What one request cost one budget. Append-only."""

    id = models.UUIDField(primary_key=True, default=uuid7)
    timestamp = models.DateTimeField()
    budget = models.ForeignKey(Budget, on_delete=models.PROTECT)
    organization_id = models.UUIDField(null=True)
    request_id = models.UUIDField()
    amount_nano_usd = models.BigIntegerField()
    overrun_nano_usd = models.BigIntegerField(default=0)
    part_start = models.DateTimeField(null=True, help_text="Under a rolling window: the part that it counts in.")

    class Meta:
        default_permissions = ("view",)
        verbose_name_plural = "ledger entries"
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["request_id", "budget"], name="one_entry_for_a_request")]

    def __str__(self) -> str:
        return f"{usd_from_nano(self.amount_nano_usd)} USD for {self.request_id}"
