"""Which rows belong to an organization, in every table there is."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import models

from apps.audit.models import ChangeRecord
from apps.orgs.scoping import PATHS
from apps.orgs.sign_ins import Event

BEHIND = {
    "audit.countedtag": "organization_id",
    "audit.laterecord": "organization_id",
    "audit.openrequest": "organization_id",
    "audit.tagday": "organization_id",
    "audit.tagseries": "organization_id",
    "audit.usageday": "organization_id",
    "audit.usagehour": "organization_id",
    "audit.usageseries": "organization_id",
    "audit.usageslice": "organization_id",
    "orgs.configversion": "scope",
    "orgs.datakey": "organization_id",
    "orgs.identity": "user__memberships__organization",
    "policies.reservation": "budget__organization_id",
    "policies.spanpart": "budget__organization_id",
}
"""Tables that no page of their own shows."""
OF_NO_ORGANIZATION = {"audit.rollupstate", "orgs.idempotencykey", "policies.price"}
_OURS = ("alerts", "audit", "gateway", "orgs", "policies")


def tables() -> list[type[models.Model]]:
    """Return every model of the project."""
    return [model for app in _OURS for model in apps.get_app_config(app).get_models()]


def rows_of(organization_id: UUID) -> "Iterator[models.Model]":
    """Give everything that belongs to an organization."""
    for label, path in (PATHS | BEHIND).items():
        yield from apps.get_model(label)._base_manager.filter(**{path: organization_id}).order_by("pk").distinct()


def digest_of(organization_id: UUID) -> str:
    """Return a digest over all columns of everything that belongs to an organization.

    Anybody may try to log in as anybody: the record of that is the organization's to see, and left out here.
    """
    said = hashlib.sha256()
    for row in rows_of(organization_id):
        if isinstance(row, ChangeRecord) and row.action == Event.REFUSED:
            continue
        columns = {field.attname: str(field.value_from_object(row)) for field in row._meta.concrete_fields}
        said.update(json.dumps([row._meta.label_lower, columns]).encode())
    return said.hexdigest()


def crossing() -> list[str]:
    """Name every row that is of one organization and points to a row of another."""
    found = []
    for model in tables():
        if "organization" not in {field.name for field in model._meta.concrete_fields}:
            continue
        for field in model._meta.concrete_fields:
            if field.is_relation and "organization" in {f.name for f in _model(field)._meta.concrete_fields}:
                rows = model._base_manager.filter(**{f"{field.name}__organization__isnull": False})
                strays = rows.exclude(**{f"{field.name}__organization": models.F("organization")})
                found += [f"{row!r} by {field.name}" for row in strays]
    return found


def _model(field: Any) -> Any:
    return field.remote_field.model
