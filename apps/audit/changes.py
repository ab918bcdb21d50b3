"""Change records: who changed the configuration, through which door, what it was before and what it is after."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import models
from django.utils import timezone

from apps.audit.models import ChangeRecord

HIDDEN_FIELDS = frozenset({"password", "digest", "encrypted_secret", "encrypted_former", "data_key_id", "pepper_id"})
"""Fields whose values never reach a change record; a change of one is noted as changed, not what it was."""
_WITHOUT_DOING = frozenset({"last_login"})


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change, and through which door: ``admin``, ``api`` or ``command``."""

    id: UUID | None
    name: str
    via: str
    address: str | None = None


def state_of(row: models.Model) -> dict[str, Any]:
    """Return the row's own columns as JSON values, hidden ones as a fingerprint-free mark that they are set."""
    return {field.attname: _plain(field.attname, field.value_from_object(row)) for field in row._meta.concrete_fields}


def stamp_of(row: models.Model) -> str:
    """Return a mark of all that people decide about a stored row, which differs once any of it has changed.

    Hidden columns count as they are stored, so that a secret set anew shows. They are digests and ciphertexts of
    full strength: nobody learns one from a digest of it among the others.
    """
    fields = [field for field in row._meta.concrete_fields if field.attname not in _WITHOUT_DOING]
    state = {field.attname: field.value_from_object(row) for field in fields}
    return hashlib.sha256(json.dumps(state, sort_keys=True, default=str).encode()).hexdigest()


def record_change(
    actor: Actor,
    action: str,
    row: models.Model,
    *,
    organization_id: UUID | None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    reason: str = "",
) -> ChangeRecord:
    """Append one change record; only what differs between ``before`` and ``after`` is kept of a row in both."""
    before, after = before or {}, after or {}
    if before and after:
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        before = {name: value for name, value in before.items() if name in changed}
        after = {name: value for name, value in after.items() if name in changed}
    return ChangeRecord.objects.create(
        timestamp=timezone.now(),
        organization_id=organization_id,
        actor_id=actor.id,
        actor_name=actor.name,
        via=actor.via,
        address=actor.address,
        action=action,
        object_type=row._meta.label_lower,
        object_id=str(row.pk),
        object_name=str(row)[:200],
        before=before,
        after=after,
        reason=reason,
    )


def _plain(name: str, value: Any) -> Any:
    if name in HIDDEN_FIELDS:
        return "(set)" if value else ""
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value
