"""Which provider serves a model."""

from uuid import uuid4

from django.core.exceptions import ValidationError
from django.db import models

from apps.orgs.models import Organization, ProviderCredential


class ModelRoute(models.Model):
    """A target for a model name as clients say it. Several rows for one name are tried in order of ``priority``."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    organization = models.ForeignKey(
        Organization, null=True, blank=True, on_delete=models.CASCADE, related_name="routes"
    )
    model = models.CharField(max_length=256, help_text="As clients say it; * stands for any text.")
    credential = models.ForeignKey(ProviderCredential, on_delete=models.CASCADE)
    upstream_model = models.CharField(
        max_length=256, blank=True, help_text="The provider's name of the model. Empty: the same."
    )
    priority = models.PositiveSmallIntegerField(default=0, help_text="Lower is tried first.")
    is_active = models.BooleanField(default=True)

    class Meta:
        ordering = ["model", "priority"]
        constraints = [
            models.UniqueConstraint(fields=["organization", "model", "priority"], name="route_order_unique"),
            models.UniqueConstraint(
                fields=["model", "priority"],
                condition=models.Q(organization__isnull=True),
                name="platform_route_order_unique",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} to {self.credential}"

    def clean(self) -> None:
        """Refuse a credential of another organization; the platform's own serve everyone."""
        if not hasattr(self, "credential"):
            return  # Missing, which the field says for itself.
        owner = self.credential.organization_id
        if owner is not None and owner != self.organization_id:
            raise ValidationError({"credential": "The credential belongs to another organization."})
