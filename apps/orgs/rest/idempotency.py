"""``Idempotency-Key``: a POST that is sent again does nothing again, and is answered as it was the first time.

The key's row is written in the transaction that does the work: both are there or neither, whenever the process dies.
A refused request did nothing, so it leaves no row and the key may be used again.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import Http404
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit import fence
from apps.orgs.keys import keyed_digest
from apps.orgs.models import IdempotencyKey
from apps.orgs.rest.errors import Conflict, KeyReused

if TYPE_CHECKING:
    from apps.orgs.rest.views import Additions

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEPT = timedelta(hours=24)
"""How long an answer is kept. The same key means new work after that."""
WAIT_SECONDS = 5
"""How long a request waits for another one with its key to end."""
MAX_KEPT_CHARACTERS = 65_536
PURGED_AT_ONCE = 100
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_LOCK_NOT_AVAILABLE = "55P03"  # of SQLSTATE

F = TypeVar("F", bound=Callable[..., Response])


def once(method: F) -> F:
    """Have a POST method of a collection do its work once for each ``Idempotency-Key`` of a caller.

    Raises `ValidationError` for a key that is none, `KeyReused` for one of another request, `Conflict` while the first
    request with it is under way, and where its answer is not kept.
    """

    @wraps(method)
    def answer(view: "Additions[Any]", request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get(HEADER)
        if key is None:
            return method(view, request, *args, **kwargs)
        if not _KEY.fullmatch(key):
            raise ValidationError({HEADER: "Must be 1 to 255 visible ASCII characters."})
        said = _said(request)
        with transaction.atomic():
            row, is_new = _claim(view.caller_scope, key, said)
            if not is_new:
                return _again(view, row, said)
            response = method(view, request, *args, **kwargs)
            _keep(row, response, view.shown_once)
        return response

    return cast("F", answer)


def _said(request: Request) -> str:
    """Return what is asked for, the same for two bodies that differ in spaces or the order of fields alone."""
    return json.dumps([request.method, request.path, request.data], sort_keys=True)


def _claim(caller: str, key: str, said: str) -> tuple[IdempotencyKey, bool]:
    """Return the caller's row of a key, and whether this request has made it and is to do the work.

    The unique index makes the second of two wait for the first one's transaction.
    """
    digest = hashlib.sha256(key.encode()).hexdigest()
    rows = IdempotencyKey.objects.filter(caller=caller, digest=digest)
    rows.filter(created_at__lt=Now() - KEPT).delete()
    pepper_id, pepper = next(iter(settings.KEY_PEPPERS.items()))
    fingerprint = keyed_digest(pepper, said)
    mine = IdempotencyKey(caller=caller, digest=digest, pepper_id=pepper_id, fingerprint=fingerprint)
    _insert(mine)
    row = rows.get()
    if row.pk != mine.pk:
        return row, False
    _purge()
    return mine, True


def _insert(row: IdempotencyKey) -> None:
    try:
        _wait_at_most(f"'{WAIT_SECONDS}s'")
        IdempotencyKey.objects.bulk_create([row], ignore_conflicts=True)
        _wait_at_most("DEFAULT")
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") != _LOCK_NOT_AVAILABLE:
            raise
        raise Conflict("The first request with this Idempotency-Key is still under way. Try again.") from error


def _wait_at_most(setting: str) -> None:
    if connection.vendor == "postgresql":  # SQLite lets one transaction write at a time, and waits by its own setting
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout TO {setting}")


def _purge() -> None:
    """Delete some expired rows, whosever, but for those that somebody holds: each new row makes room for itself."""
    expired = IdempotencyKey.objects.select_for_update(skip_locked=True).filter(created_at__lt=Now() - KEPT)
    ids = list(expired.values_list("pk", flat=True)[:PURGED_AT_ONCE])
    if ids:
        IdempotencyKey.objects.filter(pk__in=ids).delete()


def _keep(row: IdempotencyKey, response: Response, shown_once: frozenset[str]) -> None:
    """Store the answer; of one that holds a secret, or is too long, only which object it was about."""
    text = JSONRenderer().render(response.data).decode()
    may_be_kept = not shown_once & response.data.keys() and len(text) <= MAX_KEPT_CHARACTERS
    row.status = response.status_code
    row.answer = text if may_be_kept else ""
    row.etag = response.headers.get("ETag", "")
    row.object_id = response.data["id"]
    row.save(update_fields=["status", "answer", "etag", "object_id"])


def _again(view: "Additions[Any]", row: IdempotencyKey, said: str) -> Response:
    """Return the first answer, if this is the same request and the caller may still see what it was about."""
    pepper = settings.KEY_PEPPERS.get(row.pepper_id)
    if pepper is None or not hmac.compare_digest(keyed_digest(pepper, said), row.fingerprint):
        raise KeyReused
    with fence.everything():  # what the caller has lost out of sight is there all the same
        is_there = QuerySet(view.model).filter(pk=row.object_id).exists()
    if is_there and not view.get_queryset().filter(pk=row.object_id).exists():
        raise Http404
    if not row.answer:
        raise Conflict(
            "This was done when it was first asked for, and its answer is not kept: it is too long, or showed a "
            "secret once. The object is named in the details.",
            id=str(row.object_id),
        )
    headers = {REPLAYED: "true"} | ({"ETag": row.etag} if row.etag else {})
    return Response(json.loads(row.answer), status=row.status, headers=headers)
