"""What is noticed in what the gateway has written down anyway, so that no request pays for an alert.

A budget's threshold was recorded in the transaction that crossed it; a key's expiry stands on the key; how providers
answered stands in the records. One process looks at a time, and what it finds is raised once by its topic. (Interrupted
requests raise theirs in the transaction that records them, see `apps.gateway.bookkeeping`.)
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import BooleanField, F, QuerySet
from django.db.models.expressions import RawSQL

from apps.audit.alerts import MOST_TITLE, raise_alerts, resolve
from apps.audit.clock import database_now
from apps.audit.models import Alert, RequestRecord, Status
from apps.audit.money import usd_from_nano
from apps.audit.uuid7 import first_id_at
from apps.gateway.providers.base import Fault
from apps.orgs.models import ApiKey
from apps.policies.models import BudgetAlert, Policy

_LOCK = 0x6C63705F616C7274  # of pg_try_advisory_xact_lock: any number that nothing else uses

BUDGETS_SINCE = timedelta(days=7)
"""How far back thresholds are looked for by a process that has just begun to look."""
BUDGETS_AGAIN = timedelta(minutes=10)
"""How far back they are looked for after that: longer than any transaction takes to commit what is older."""
CLOCKS = timedelta(days=1)
"""How far the clock of the process that made an id may be off; a threshold's time is the database's."""
KEY_DAYS = (1, 3, 14)
KEYS_EVERY, PROVIDERS_EVERY = 60.0, 15.0
"""How often keys and providers are looked at, in seconds."""
PROVIDER_WINDOW = timedelta(minutes=15)
DOWN_AFTER = 5
"""A provider is down once so many attempts in a row got no answer."""
DOWN_FOR = timedelta(seconds=30)
"""And once the first and the last of these lie so far apart."""
FORGOTTEN_AFTER = timedelta(hours=24)
"""An outage that nobody has seen for so long, in either way, is over without a word."""
MOST_RECORDS = 5000
ANSWERED = frozenset({Fault.REFUSED.value})
"""Faults that are an answer: the provider is there, and refuses the request."""


@dataclass
class Watch:
    """Looks for what to tell; remembers when it looked at what, so that it need not look at everything each time."""

    budgets_seen: datetime | None = None
    keys_next: float = 0.0
    providers_next: float = 0.0

    def look(self) -> None:
        """Raise alerts of what there is to tell, unless another process is looking."""
        with transaction.atomic():
            if not _alone():
                return
            now = database_now()
            self._look_at_budgets(now)
            if time.monotonic() >= self.keys_next:
                look_at_keys(now)
                self.keys_next = time.monotonic() + KEYS_EVERY
            if time.monotonic() >= self.providers_next:
                look_at_providers(now)
                self.providers_next = time.monotonic() + PROVIDERS_EVERY

    def _look_at_budgets(self, now: datetime) -> None:
        look_at_budgets(self.budgets_seen or now - BUDGETS_SINCE, now)
        self.budgets_seen = now - BUDGETS_AGAIN


def _alone() -> bool:
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
        return bool(cursor.fetchone()[0])


def _raise_new(alerts: Iterable[Alert]) -> None:
    """Raise those whose topic is not open; asking first is cheaper than the conflicts of what was told long ago."""
    new = {alert.topic: alert for alert in alerts}
    told = Alert.objects.filter(topic__in=new, resolved_at=None).values_list("topic", flat=True)
    raise_alerts([new[topic] for topic in sorted(new.keys() - set(told))])


# --- Budgets


def look_at_budgets(since: datetime, now: datetime) -> None:
    """Tell of thresholds that were crossed."""
    rows = BudgetAlert.objects.filter(id__gte=first_id_at(since - CLOCKS), timestamp__gte=since)
    crossed = list(rows.select_related("budget").order_by("id"))
    names = dict(Policy.objects.filter(pk__in={one.budget.policy_id for one in crossed}).values_list("pk", "name"))
    _raise_new(_budget_alert(one, names.get(one.budget.policy_id, "deleted policy"), now) for one in crossed)


def _budget_alert(crossed: BudgetAlert, policy: str, now: datetime) -> Alert:
    budget = crossed.budget
    limit, spent = usd_from_nano(crossed.limit_nano_usd), usd_from_nano(crossed.spent_nano_usd)
    begins_anew = budget.window_end.isoformat() if budget.window_end else None
    anew = f" It begins anew on {budget.window_end:%Y-%m-%d %H:%M} UTC." if budget.window_end else ""
    return Alert(
        timestamp=crossed.timestamp,
        organization_id=crossed.organization_id,
        kind=Alert.Kind.BUDGET,
        topic=f"budget:{crossed.pk}",
        title=f"{crossed.percent} % of '{policy}' is spent"[:MOST_TITLE],
        text=f"{spent} of {limit} USD of the cost cap '{policy}' were spent when the threshold was crossed.{anew}",
        details={
            "policy_id": str(budget.policy_id),
            "policy": policy,
            "percent": crossed.percent,
            "spent_usd": spent,
            "limit_usd": limit,
            "resets_at": begins_anew,
        },
        due_at=now,
    )


# --- Keys


def look_at_keys(now: datetime) -> None:
    """Tell of keys that expire in 14, 3 and 1 days."""
    soon = now + timedelta(days=max(KEY_DAYS))
    keys = ApiKey.objects.filter(revoked_at=None, expires_at__gt=now, expires_at__lte=soon)
    _raise_new(filter(None, (_key_alert(key, now) for key in keys.select_related("application", "user"))))


def _key_alert(key: ApiKey, now: datetime) -> Alert | None:
    assert key.expires_at is not None
    days = next(days for days in KEY_DAYS if key.expires_at - now <= timedelta(days=days))
    if key.created_at > key.expires_at - timedelta(days=days):
        return None  # it was made to live no longer than that
    owner = f"application '{key.application}'" if key.application else f"user '{key.user}'"
    left = "1 day" if days == 1 else f"{days} days"
    return Alert(
        timestamp=now,
        organization_id=key.organization_id,
        kind=Alert.Kind.KEY,
        topic=f"key:{key.pk}:{key.expires_at.isoformat()}:{days}",
        title=f"API key '{key.name}' expires within {left}"[:MOST_TITLE],
        text=(
            f"The key '{key.name}' (lcp_{key.prefix}_…) of {owner} is refused from "
            f"{key.expires_at:%Y-%m-%d %H:%M} UTC on. Rotate it, or give it a later date."
        ),
        details={
            "key_id": str(key.pk),
            "name": key.name,
            "prefix": key.prefix,
            "application": key.application.name if key.application else None,
            "user": key.user.username if key.user else None,
            "expires_at": key.expires_at.isoformat(),
            "days": days,
        },
        due_at=now,
    )


# --- Providers


@dataclass(frozen=True, slots=True)
class Place:
    """What is up or down for an organization: a model at a provider, by the provider's own name of it."""

    organization_id: UUID
    provider: str
    model: str

    @property
    def topic(self) -> str:
        """What an alert of it goes by."""
        return f"provider:{self.organization_id}:{self.provider}:{self.model}"[:500]


def look_at_providers(now: datetime) -> None:
    """Tell of providers that do not answer an organization any more, and of those that do again.

    Down is a model at a provider of which the last `DOWN_AFTER` attempts or more, over `DOWN_FOR` or longer, all got no
    answer: no connection, silence, a broken or senseless answer, a 5xx, a refused credential. Up again it is with the
    first answer. The platform hears of it where several organizations do.
    """
    seen = _seen(now - PROVIDER_WINDOW)
    _recover(seen, now)
    suspects = [place for place, times in seen.failed.items() if len(times) >= DOWN_AFTER]
    _raise_new(filter(None, (_provider_alert(place, seen, now) for place in suspects)))
    _look_at_the_platform(now)


@dataclass
class Seen:
    """When places gave no answer, and when they last gave one that refused the request."""

    since: datetime
    failed: dict[Place, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    refused: dict[Place, datetime] = field(default_factory=dict)

    def answered(self, place: Place) -> datetime | None:
        """Return when a place answered last: its newest refusal, or the end of its newest successful request."""
        return max(filter(None, (self.refused.get(place), _last_success(place, self.since))), default=None)


def _seen(since: datetime) -> Seen:
    """Look at the records with failed attempts, which an index finds."""
    seen = Seen(since)
    rows = failed_records(since)
    for organization_id, begun, attempts in rows.values_list("organization_id", "timestamp", "attempts")[:MOST_RECORDS]:
        for attempt in attempts:
            if "fault" not in attempt:
                continue
            place = Place(organization_id, attempt["provider"], attempt["model"])
            ended = begun + timedelta(milliseconds=attempt.get("ended_ms", attempt["started_ms"]))
            if attempt["fault"] in ANSWERED:
                seen.refused[place] = max(ended, seen.refused.get(place, ended))
            else:
                seen.failed[place].append(ended)
    return seen


def _provider_alert(place: Place, seen: Seen, now: datetime) -> Alert | None:
    answered = seen.answered(place)
    row = sorted(ended for ended in seen.failed[place] if answered is None or ended > answered)
    if len(row) < DOWN_AFTER or row[-1] - row[0] < DOWN_FOR:
        return None
    return Alert(
        timestamp=now,
        organization_id=place.organization_id,
        kind=Alert.Kind.PROVIDER,
        topic=place.topic,
        title=f"{place.provider} does not answer for {place.model}"[:MOST_TITLE],
        text=(
            f"The last {len(row)} attempts at the model '{place.model}' of {place.provider} got no answer, the first "
            f"at {row[0]:%Y-%m-%d %H:%M:%S} UTC. You will hear when it answers again."
        ),
        details={
            "provider": place.provider,
            "model": place.model,
            "failed_attempts": len(row),
            "since": row[0].isoformat(),
        },
        due_at=now,
    )


def _last_success(place: Place, since: datetime) -> datetime | None:
    """Return the end of a place's newest successful request that began after ``since``."""
    rows = RequestRecord.objects.filter(
        organization_id=place.organization_id,
        status=Status.SUCCESS,
        provider=place.provider,
        upstream_model=place.model,
        id__gte=first_id_at(since),
    ).order_by("-id")
    found = rows.values_list("timestamp", "latency_ms").first()
    return found[0] + timedelta(milliseconds=found[1]) if found else None


def _recover(seen: Seen, now: datetime) -> None:
    """End the outages whose provider has answered since, and those that nobody has met for a day."""
    for alert in _open_outages().exclude(organization_id=None):
        place = Place(alert.organization_id, alert.details["provider"], alert.details["model"])
        answered = seen.answered(place)
        if answered is not None and answered > alert.timestamp:
            _end(alert, f"{place.provider} answers again for {place.model}", now)
        elif alert.timestamp < now - FORGOTTEN_AFTER and place not in seen.failed:
            alert.resolved_at = now
            alert.save(update_fields=["resolved_at"])


def _look_at_the_platform(now: datetime) -> None:
    """Tell the platform of what several organizations meet, and of its end."""
    met: dict[tuple[str, str], int] = defaultdict(int)
    for alert in _open_outages().exclude(organization_id=None):
        met[alert.details["provider"], alert.details["model"]] += 1
    several = {of: number for of, number in met.items() if number > 1}
    _raise_new(_platform_alerts(several, now))
    for alert in _open_outages().filter(organization_id=None):
        provider, model = alert.details["provider"], alert.details["model"]
        if (provider, model) not in met:
            _end(alert, f"{provider} answers again for {model}", now)


def _platform_alerts(several: dict[tuple[str, str], int], now: datetime) -> Iterator[Alert]:
    for (provider, model), number in several.items():
        yield Alert(
            timestamp=now,
            organization_id=None,
            kind=Alert.Kind.PROVIDER,
            topic=f"provider:platform:{provider}:{model}"[:500],
            title=f"{provider} does not answer for {model}"[:MOST_TITLE],
            text=f"{number} organizations get no answer from the model '{model}' of {provider}.",
            details={"provider": provider, "model": model, "organizations": number},
            due_at=now,
        )


def _end(alert: Alert, title: str, now: datetime) -> None:
    held = Alert.objects.select_for_update(no_key=True).filter(pk=alert.pk, resolved_at=None).first()
    if held is not None:
        began = f"It had not answered since {alert.timestamp:%Y-%m-%d %H:%M} UTC, when you were told."
        resolve(held, title, began, now)


def _open_outages() -> Any:
    return Alert.objects.filter(kind=Alert.Kind.PROVIDER, state=Alert.State.RAISED, resolved_at=None).order_by(F("id"))


def failed_records(since: datetime) -> "QuerySet[RequestRecord]":
    """Return the records with an attempt that failed, newest first. On PostgreSQL an index has the same condition."""
    length = "jsonb_array_length" if connection.vendor == "postgresql" else "json_array_length"
    condition = f"error_code IN ('PROVIDER_ERROR', 'PROVIDER_TIMEOUT') OR {length}(attempts) > 1"
    failed = RawSQL(condition, [], BooleanField())  # noqa: S611  # nothing in it comes from outside
    return RequestRecord.objects.filter(failed, id__gte=first_id_at(since)).order_by("-id")
