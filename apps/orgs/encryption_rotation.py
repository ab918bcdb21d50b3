"""Rotation of the keys behind stored secrets: in small transactions, beside traffic, and from where it was left.

What has been done is in the rows alone, so that a run that was killed is continued by the next one, and two at once do
each row once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import models, transaction
from django.db.models import QuerySet
from django.utils import timezone

from apps.audit.changes import Actor, record_change
from apps.orgs import wrapping
from apps.orgs.encryption import DecryptionError, KeysUnavailable
from apps.orgs.models import DataKey, HoldsSecrets

_ACTOR = Actor(id=None, name="rotate_encryption", via="command")
_PAGE = 500


@dataclass(slots=True)
class Rewrapped:
    """What became of the data keys that were wrapped by another key than the current one."""

    current: str
    done: int = 0
    unreadable: list[UUID] = field(default_factory=list)
    """Data keys that no wrapping key opens now."""


@dataclass(slots=True)
class Renewed:
    """What became of the secrets under retired data keys."""

    continued: bool = False
    """Whether an earlier run was brought to its end, rather than new keys made."""
    secrets: int = 0
    removed: int = 0
    """Retired data keys that nothing was under any more."""
    unreadable: list[str] = field(default_factory=list)
    """Rows (of credentials and of others) whose secret cannot be decrypted: somebody has to enter it again."""


def rewrap_data_keys() -> Rewrapped:
    """Wrap every data key by the current wrapping key. Raises `KeysUnavailable` if that one is."""
    report = Rewrapped(wrapping.current())
    for (key_id,) in _pages(DataKey.objects.exclude(wrapped_by=report.current).values_list("id")):
        try:
            report.done += _rewrap(key_id, report.current)
        except (DecryptionError, KeysUnavailable):
            report.unreadable.append(key_id)
    return report


def renew_data_keys() -> Renewed:
    """Encrypt every secret under a new data key, or finish what an earlier run has begun.

    Raises `KeysUnavailable`; what was done until then stays.
    """
    report = Renewed()
    _encrypt_anew(report)
    report.continued = report.secrets > 0
    if not report.continued:
        DataKey.objects.filter(retired_at=None).update(retired_at=timezone.now())
        report.unreadable.clear()
        _encrypt_anew(report)
    report.removed = sum(_remove(key_id) for (key_id,) in _pages(_retired().values_list("id")))
    return report


def _encrypt_anew(report: Renewed) -> None:
    for model in _holders():
        old: QuerySet[Any] = QuerySet(model).filter(data_key__retired_at__isnull=False)
        for (row_id,) in _pages(old.values_list("id")):
            try:
                report.secrets += _encrypt_one_anew(model, row_id)
            except DecryptionError:
                report.unreadable.append(f"{model._meta.verbose_name} {row_id}")


@transaction.atomic
def _rewrap(key_id: UUID, current: str) -> bool:
    key = DataKey.objects.select_for_update(no_key=True).filter(pk=key_id).exclude(wrapped_by=current).first()
    if key is None:
        return False
    before = {"wrapped_by": key.wrapped_by}
    key.rewrap()
    # The platform's record, also of an organization's key: which key of the operator's it is, is no business of theirs.
    after = {"wrapped_by": key.wrapped_by}
    record_change(_ACTOR, "rotate", key, organization_id=None, before=before, after=after)
    return True


@transaction.atomic
def _encrypt_one_anew(model: type[models.Model], row_id: UUID) -> bool:
    rows: QuerySet[Any] = QuerySet(model).select_for_update(of=("self",), no_key=True)
    row = rows.select_related("data_key").filter(pk=row_id).first()
    if row is None or row.data_key is None or row.data_key.retired_at is None:
        return False
    row.encrypt_anew()
    return True


@transaction.atomic
def _remove(key_id: UUID) -> bool:
    key = _retired().select_for_update().filter(pk=key_id).first()
    if key is None or any(QuerySet(model).filter(data_key=key).exists() for model in _holders()):
        return False
    record_change(_ACTOR, "delete", key, organization_id=None, reason="Nothing is encrypted under it any more.")
    key.delete()
    return True


def _holders() -> list[type[models.Model]]:
    """Return the models whose rows hold secrets under data keys."""
    return [model for model in apps.get_models() if issubclass(model, HoldsSecrets)]


def _retired() -> "QuerySet[DataKey]":
    return DataKey.objects.filter(retired_at__isnull=False)


def _pages(ids: "QuerySet[Any, tuple[UUID]]") -> Iterator[tuple[UUID]]:
    """Give the ids that a query finds, page by page: each is looked at once, and no transaction stays open."""
    page = list(ids.order_by("id")[:_PAGE])
    while page:
        yield from page
        page = list(ids.order_by("id").filter(id__gt=page[-1][0])[:_PAGE])
