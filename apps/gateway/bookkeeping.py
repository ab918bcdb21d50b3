"""What the journal writes for the gateway: intents, final records, and the money between them.

    Intent   versions still hold? budgets reach? -> reservations + OpenRequest     before a call
    Closing  OpenRequest deleted, cost settled, RequestRecord + RequestText        after a call, once
    Refusal  versions still hold? -> RequestRecord + RequestText                   no call was made

All of a group's members are handled in one transaction; closings go first, since they free money. Counters that do not
exist yet are created before any is locked: to create one may mean to wait for another process that is creating it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from django.db.backends.base.base import BaseDatabaseWrapper

from apps.audit.alerts import count_interrupted
from apps.audit.clock import database_now
from apps.audit.journal import LATER, Steps
from apps.audit.models import Status
from apps.audit.rows import Row, dump_rows
from apps.gateway.group_store import GroupStore, Sheet, group_store
from apps.orgs.versions import Versions
from apps.policies.budgets import Budgets, Claim, Reserved, Settlement

MOST_SEEN = 100_000
_seen: set[UUID] = set()
"""Counters that exist, as far as this process has seen: it need not try to create them."""


class StaleConfiguration(Exception):
    """The configuration changed after this process read it: decide again."""


@dataclass(frozen=True, slots=True)
class Intent:
    """The wish to call a provider. Its result is `Reserved`, `OverBudget` or `StaleConfiguration`."""

    organization_id: UUID
    versions: Versions
    claim: Claim
    row: Row
    durable = False


@dataclass(frozen=True, slots=True)
class Closing:
    """The end of a call. Its result is the overrun in nano-USD, or ``None`` if the request was closed before."""

    record: Row
    text: Row | None
    durable = True


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that ends without a call. With ``versions`` its result may be `StaleConfiguration`; else ``None``."""

    record: Row
    text: Row | None
    versions: Versions | None
    durable = True


Member = Intent | Closing | Refusal


def write_group(connection: BaseDatabaseWrapper, members: Sequence[Member]) -> list[Any]:
    """Write a group inside the journal's transaction; return one result for each member."""
    results = write_members(group_store(connection), members)
    _tell_of_interrupted(members, results)
    return results


def write_members(store: GroupStore, members: Sequence[Member]) -> list[Any]:
    """Write a group as `write_group` does, with the statements and the time of ``store``."""
    closings = [m for m in members if isinstance(m, Closing)]
    situation = store.begin(_organizations(members), [m.record["id"] for m in closings])
    fresh = [not _stale(member, situation.versions) for member in members]
    claims = [m.claim for m, ok in zip(members, fresh, strict=True) if ok and isinstance(m, Intent) and m.claim.caps]
    budgets = _locked(store, Budgets(situation.now, situation.held), claims)
    opened = {m.record["id"]: m.record["cost_nano_usd"] for m in closings if m.record["id"] in situation.opened}
    overruns = {request: budgets.settle(Settlement(request, cost)) for request, cost in opened.items()}
    results = [
        _intent_result(member, budgets, is_fresh)
        if isinstance(member, Intent)
        else _final_result(member, overruns, is_fresh)
        for member, is_fresh in zip(members, fresh, strict=True)
    ]
    sheet = Sheet(reservations=budgets.reservations, ledger=budgets.ledger, counters=budgets.changed())
    sheet.alerts, sheet.parts, sheet.expired_parts = budgets.alerts, budgets.changed_parts(), budgets.expired_parts()
    for member, result in zip(members, results, strict=True):
        _enter(sheet, member, result, situation.now)
    store.write(sheet)
    return results


def write_free(connection: BaseDatabaseWrapper, members: Sequence[Member]) -> list[Any]:
    """Write, as `write_group` does, the members whose budgets nobody else has locked; `LATER` is the others' result.

    So that one organization's locked counter holds up nobody else. Costs two statements more than `write_group`.
    """
    store = group_store(connection)
    claims = {m.claim.request_id: m.claim for m in members if isinstance(m, Intent)}
    now, held = store.look([m.record["id"] for m in members if isinstance(m, Closing)])
    _create_missing(store, Budgets(now, ()), list(claims.values()))
    needs: dict[UUID, list[UUID]] = {request: Budgets(now, ()).wanted([claim]) for request, claim in claims.items()}
    for request, budget in held:
        needs.setdefault(request, []).append(budget)
    locked = store.locked(sorted({budget for budgets in needs.values() for budget in budgets}))
    free = [m for m in members if locked.isdisjoint(needs.get(_request_id(m), ()))]
    results = iter(write_group(connection, free) if free else ())
    written = set(map(id, free))
    return [next(results) if id(m) in written else LATER for m in members]


def undo(member: Member, result: Any) -> Closing | None:
    """Close an intent whose request left before it learnt of the commit: no call was made, nothing is charged."""
    if not isinstance(member, Intent) or not isinstance(result, Reserved):
        return None
    record = {
        **record_of_intent(member.row["intent"], member.row["id"]),
        "status": Status.CANCELLED.value,
        "http_status": 499,
        "error_code": "CLIENT_CLOSED",
        "error_message": "The client left before the provider was called.",
    }
    return Closing(record, None)


def dump(member: Member) -> str:
    """Write a closing or a refusal as the spool keeps it."""
    assert not isinstance(member, Intent)
    kind = "closing" if isinstance(member, Closing) else "refusal"
    return dump_rows({"kind": kind, "record": member.record, "text": member.text})


def load(line: str) -> Member:
    """Read what `dump` wrote. The configuration it was decided under is not checked again."""
    stored = orjson.loads(line)
    record, text = stored["record"], stored["text"]
    record["id"] = UUID(record["id"])
    record["organization_id"] = UUID(record["organization_id"])
    return Closing(record, text) if stored["kind"] == "closing" else Refusal(record, text, None)


STEPS = Steps(run=write_group, run_free=write_free, undo=undo, dump=dump, load=load)


def record_of_intent(intent: Row, request_id: UUID) -> Row:
    """Return the final record of a request as far as its intent knows it; the caller says how it ended."""
    return {**intent, "id": request_id, "organization_id": UUID(str(intent["organization_id"]))}


def _tell_of_interrupted(members: Sequence[Member], results: Sequence[Any]) -> None:
    """Raise alerts of the requests that were recorded as interrupted just now, summed by organization."""
    ended = [
        member.record["organization_id"]
        for member, result in zip(members, results, strict=True)
        if isinstance(member, Closing) and result is not None and member.record["status"] == Status.INTERRUPTED
    ]
    for organization_id, number in sorted(Counter(ended).items()):
        count_interrupted(organization_id, number, database_now())


def _request_id(member: Member) -> UUID:
    request: UUID = member.row["id"] if isinstance(member, Intent) else member.record["id"]
    return request


def _organizations(members: Sequence[Member]) -> list[UUID]:
    """Return the organizations whose versions decide about a member."""
    found = {
        m.organization_id if isinstance(m, Intent) else m.record["organization_id"]
        for m in members
        if isinstance(m, Intent) or (isinstance(m, Refusal) and m.versions is not None)
    }
    return list(found)


def _stale(member: Member, current: dict[UUID, Versions]) -> bool:
    if isinstance(member, Intent):
        return current[member.organization_id] != member.versions
    if isinstance(member, Refusal) and member.versions is not None:
        return current[member.record["organization_id"]] != member.versions
    return False


def _intent_result(member: Intent, budgets: Budgets, is_fresh: bool) -> Any:
    if not is_fresh:
        return StaleConfiguration()
    if not member.claim.caps:
        return Reserved(member.claim.worst.output_tokens, 0, ())
    return budgets.reserve(member.claim)


def _final_result(member: Closing | Refusal, overruns: dict[UUID, int], is_fresh: bool) -> Any:
    if isinstance(member, Closing):
        return overruns.get(member.record["id"])
    return None if is_fresh else StaleConfiguration()


def _locked(store: GroupStore, budgets: Budgets, claims: Sequence[Claim]) -> Budgets:
    """Lock the counters that the group touches, creating those of windows that begin with it."""
    wanted = budgets.wanted(claims)
    if wanted:
        created = _create_missing(store, budgets, claims)
        counters = store.lock(wanted)
        budgets.load(counters)
        _remember(counter.id for counter in counters if counter.id not in created)
        gone = budgets.missing(claims)
        if gone:  # somebody deleted a counter that had been there
            _seen.difference_update(budget.id for budget in gone)
            store.create(gone)
            budgets.load(store.lock([budget.id for budget in gone]))
        rolling = budgets.rolling(claims)
        if rolling:
            budgets.load_parts(store.parts(rolling))
    return budgets


def _create_missing(store: GroupStore, budgets: Budgets, claims: Sequence[Claim]) -> set[UUID]:
    """Create the claimed counters that this process has not seen yet, in the order of their ids; return which."""
    missing = budgets.missing(claims, _seen)
    if missing:
        store.create(missing)
    return {budget.id for budget in missing}


def _remember(budgets: Iterable[UUID]) -> None:
    """Note counters that were there before this transaction: they are there even if it is rolled back."""
    if len(_seen) > MOST_SEEN:
        _seen.clear()
    _seen.update(budgets)


def _enter(sheet: Sheet, member: Member, result: Any, now: datetime) -> None:
    if isinstance(member, Intent):
        if isinstance(result, Reserved):
            sheet.opens.append(_reserved_row(member, result, now))
        return
    if isinstance(member, Closing):
        if result is None:
            return  # closed before: by the sweeper, or by a replay
        member.record["overrun_nano_usd"] = result
    elif result is not None:
        return  # decided on an outdated configuration
    sheet.records.append(member.record)
    if member.text:
        sheet.texts.append(member.text)


def _reserved_row(member: Intent, reserved: Reserved, now: datetime) -> Row:
    """Return the open request's row with what the budgets said: whoever has to finish it charges what was reserved.

    Its deadline is by the database's clock, which the sweeper goes by too: this process's may be an hour off.
    """
    intent = member.row["intent"]
    row = {**member.row, "deadline": now + (member.row["deadline"] - intent["timestamp"])}
    if not reserved.readings:
        return row
    intent = {**intent, "limits": [*intent["limits"], *reserved.readings]}
    return {**row, "worst_case_nano_usd": reserved.nano_usd, "intent": intent}
