"""The life of an export: ordered, taken by a worker, done, failed, cancelled, expired.

    waiting -> running -> done -> expired
                       -> failed
    waiting or running -> cancelled

The row is the truth. A worker holds it for `HOLD_SECONDS` and says again and again that it is alive; of a worker that
died another one takes it over and begins anew, `MOST_ATTEMPTS` times. The database's clock decides. Each change of the
state is one statement that names the state before, so two workers never both finish and a cancelled one never does.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from apps.audit.changes import Actor, record_change
from apps.audit.exports import files
from apps.audit.exports.files import Written
from apps.audit.finding import Reach
from apps.audit.models import Export
from apps.audit.search import Search, read_search

HOLD_SECONDS = 30
MOST_ATTEMPTS = 3
MOST_UNDER_WAY = 5
"""Exports that an organization may have waiting or running at once."""
_STATE = Export.State
_UNDER_WAY = (_STATE.WAITING, _STATE.RUNNING)


class Stopped(Exception):
    """The export is no longer this worker's: it was cancelled, or taken over."""


def problem_of_order(organization_id: UUID | None) -> str:
    """Return why nothing can be ordered now; empty: it can."""
    if Export.objects.filter(organization_id=organization_id, state__in=_UNDER_WAY).count() >= MOST_UNDER_WAY:
        return f"{MOST_UNDER_WAY} exports are under way. Wait until one is done, or cancel one."
    return ""


def criteria_of(search: Search, organization_id: UUID | None) -> dict[str, str]:
    """Return what an export keeps of a search: bound to its organization, and to what there is by now."""
    criteria = dict(search.with_organization(organization_id).given)
    now = timezone.now()
    if "until" not in search.values or search.values["until"] > now:
        criteria["until"] = now.isoformat()
    return criteria


def search_of(export: Export) -> Search:
    """Return what an export looks for. Raises `SearchRefused` for what cannot be read any more."""
    return read_search(export.criteria)


def reach_of(export: Export) -> Reach:
    """Return where an export looks: in its organization alone, whatever its criteria say."""
    return Reach(frozenset({export.organization_id}) if export.organization_id else None)


# --- What workers do


def take(waiting_for: timedelta = timedelta()) -> Export | None:
    """Take the oldest export that has waited so long, or whose worker died; ``None``: there is nothing to do."""
    with transaction.atomic():
        waits = Q(state=_STATE.WAITING, created_at__lte=Now() - waiting_for)
        was_left = Q(state=_STATE.RUNNING, held_until__lt=Now())
        found = Export.objects.select_for_update(skip_locked=True).filter(waits | was_left).order_by("pk").first()
        if found is None:
            return None
        if found.attempts >= MOST_ATTEMPTS:
            _end(
                found,
                _STATE.FAILED,
                "fail",
                problem=f"It was begun {MOST_ATTEMPTS} times, and its worker died each time.",
            )
            return None
        return _take(found)


def take_this(export: Export) -> Export | None:
    """Take one export, if it is still waiting."""
    with transaction.atomic():
        found = Export.objects.select_for_update().filter(pk=export.pk, state=_STATE.WAITING).first()
        return _take(found) if found else None


def _take(export: Export) -> Export:
    held = {"worker": uuid4(), "held_until": Now() + timedelta(seconds=HOLD_SECONDS)}
    Export.objects.filter(pk=export.pk).update(
        state=_STATE.RUNNING, attempts=F("attempts") + 1, progress=0, records=0, **held
    )
    export.refresh_from_db()
    return export


def say(export: Export, records: int, progress: int) -> None:
    """Say that the worker is alive and how far it is (per mille). Raises `Stopped` if it has lost the export."""
    held_until = Now() + timedelta(seconds=HOLD_SECONDS)
    _must_be_one(_mine(export).update(records=records, progress=min(progress, 999), held_until=held_until))


def finish(export: Export, records: int, written: Written) -> None:
    """Make the export done, with its record. Raises `Stopped`, and removes the file, if it is not the worker's."""
    lasts = timedelta(seconds=settings.EXPORT_SECONDS)
    said = {"records": records, "bytes": written.bytes, "sha256": written.sha256}
    try:
        with transaction.atomic():
            columns: dict[str, Any] = {**said, "progress": 1000, "finished_at": Now(), "expires_at": Now() + lasts}
            _must_be_one(_mine(export).update(state=_STATE.DONE, held_until=None, **columns))
            _record(export, "finish", said)
    except Stopped:
        files.remove(export)
        raise


def fail(export: Export, problem: str) -> None:
    """Make the export failed, with its record and a reason that people understand."""
    with transaction.atomic():
        if _mine(export).exists():
            _end(export, _STATE.FAILED, "fail", problem=problem)


def give_back(export: Export) -> None:
    """Let another worker begin: this one has no time for it."""
    _mine(export).update(state=_STATE.WAITING, held_until=None, attempts=F("attempts") - 1, progress=0)


def expire() -> int:
    """Remove the files whose time is over; return how many."""
    expired = 0
    for export in Export.objects.filter(state=_STATE.DONE, expires_at__lt=Now()).order_by("pk")[:100]:
        files.remove(export)
        expired += Export.objects.filter(pk=export.pk, state=_STATE.DONE).update(state=_STATE.EXPIRED)
    return expired


# --- What people do


def cancel(export: Export, actor: Actor) -> bool:
    """Cancel an export that is under way, with its record; whether it was."""
    with transaction.atomic():
        columns: dict[str, Any] = {"finished_at": Now(), "held_until": None}
        under_way = Export.objects.filter(pk=export.pk, state__in=_UNDER_WAY)
        if not under_way.update(state=_STATE.CANCELLED, **columns):
            return False
        _record(export, "cancel", {"state": _STATE.CANCELLED.value}, actor)
    return True


def is_there(export: Export) -> bool:
    """Whether it can be downloaded, now."""
    return Export.objects.filter(pk=export.pk, state=_STATE.DONE, expires_at__gt=Now()).exists()


def download(export: Export, actor: Actor, reason: str = "") -> Any:
    """Return the file, open, once the download is recorded. Raises `FileNotFoundError` if it is over or gone."""
    if not is_there(export):
        raise FileNotFoundError(str(export.pk))
    file = files.opened(export)
    _record(export, "download", {"records": export.records, "sha256": export.sha256}, actor, reason)
    return file


def _mine(export: Export) -> "QuerySet[Export]":
    return Export.objects.filter(pk=export.pk, worker=export.worker, state=_STATE.RUNNING)


def _must_be_one(rows: int) -> None:
    if rows != 1:
        raise Stopped


def _end(export: Export, state: str, action: str, problem: str) -> None:
    columns: dict[str, Any] = {"finished_at": Now(), "held_until": None, "problem": problem}
    Export.objects.filter(pk=export.pk).update(state=state, **columns)
    _record(export, action, {"problem": problem})


def _record(export: Export, action: str, said: Mapping[str, Any], actor: Actor | None = None, reason: str = "") -> None:
    """Append a change record: of what a worker does, in the name of whom it does it for."""
    owner = Actor(export.owner_id, export.owner_name, export.via, export.address)
    record_change(
        actor or owner,
        action,
        export,
        organization_id=export.organization_id,
        after={"criteria": export.criteria, "format": export.format, **said},
        reason=reason or export.reason,
    )
