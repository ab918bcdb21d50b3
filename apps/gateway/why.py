"""Why a request ended as it did: its record, taken apart for a person who wants to understand it.

The path stage by stage, the policies and versions that applied, the limits and what was left of them, what the
guardrails found and where, the attempts, the price and the cost. Records of older versions, which do not say when their
stages began, are explained all the same: where they ended follows from how.
"""

from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q

from apps.audit.models import RequestRecord, Status
from apps.audit.money import usd_from_nano
from apps.audit.values import uuid_or_none
from apps.gateway.readings import could_cost, counted, dollars, entries, price, readings_of
from apps.gateway.sentences import (
    DEGRADED,
    STREAMS,
    attempt_in_words,
    full_limit,
    notes,
    path_of,
    refusal,
    refusing,
    sentence,
    used,
)
from apps.orgs.models import User
from apps.orgs.scoping import visible
from apps.policies.describe import DETECTOR_NAMES, describe_stored
from apps.policies.models import PolicyVersion

STAGES = {
    "authenticate": "Who calls",
    "parse": "What is asked for",
    "judge": "What the policies say",
    "inspect": "What guardrails find in the request",
    "plan": "Where it goes and what it could cost",
    "take_limits": "Rate limits",
    "open": "Budgets, and the record before the call",
    "call": "The provider",
    "deliver": "The answer",
}
"""The stages of `Pipeline`, by the names of its methods, in their order."""
ENDED_IN = {
    "MODEL_NOT_FOUND": "judge",
    "MODEL_NOT_ALLOWED": "judge",
    "FORBIDDEN": "judge",
    "PII_DETECTED": "inspect",
    "SECRET_DETECTED": "inspect",
    "INJECTION_DETECTED": "inspect",
    "UNSCANNABLE_CONTENT": "inspect",
    "RATE_LIMIT_EXCEEDED": "take_limits",
    "BUDGET_EXCEEDED": "open",
    "PROVIDER_ERROR": "call",
    "PROVIDER_TIMEOUT": "call",
}
"""By the code of a refusal, where it is decided: for records that do not say."""
_WAITED_US = 1000


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage. Times in microseconds, since the request came; ``None`` where the record does not say.

    ``outcome`` is ``passed``, ``ended`` (the request went no further) or ``not reached``.
    """

    stage: str
    title: str
    outcome: str
    began_us: int | None
    took_us: int | None
    says: list[str]

    @property
    def took(self) -> str:
        """How long it took, for people."""
        return _milliseconds(self.took_us)

    @property
    def began(self) -> str:
        """When it began, for people."""
        return _milliseconds(self.began_us)


@dataclass(frozen=True, slots=True)
class Applied:
    """A policy in the version that applied. ``part`` is ``refused``, ``would have refused`` (shadow) or ``applied``."""

    id: str
    name: str
    version: int | None
    kind: str
    mode: str
    level: str
    part: str
    says: str | None


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that was read, in words."""

    policy: str
    policy_id: str
    allows: str
    left: str
    asked: str
    refused: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What a guardrail found: a kind, a number and places, never the words."""

    detector: str
    rule: str
    count: int
    where: str
    at: list[str]
    action: str
    policy: str
    shadow_action: str
    shadow_policy: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of a provider. Times in milliseconds since the request came."""

    provider: str
    model: str
    began_ms: int | None
    ended_ms: int | None
    status: int | None
    fault: str
    says: str
    worst_case_usd: str | None


@dataclass(frozen=True, slots=True)
class Cost:
    """What the request cost, and by which price. Amounts in US dollars."""

    cost_usd: str
    worst_case_usd: str | None
    overrun_usd: str
    tokens_input: int
    tokens_output: int
    tokens_cached: int
    counted_by: str
    price: str


@dataclass(frozen=True, slots=True)
class Stream:
    """How the answer was sent: ``whole``, ``held`` to its end, ``relayed`` as it came, ``none``; or ``unknown``."""

    mode: str
    says: str


@dataclass(frozen=True, slots=True)
class Degraded:
    """A part that was not what it should be while the request was served."""

    part: str
    says: str


@dataclass(frozen=True, slots=True)
class Why:
    """The whole explanation. ``route`` names the targets in the order to try, where there was more than one."""

    id: str
    sentence: str
    notes: list[str]
    status: str
    http_status: int
    error_code: str
    latency_ms: int
    ended_in: str
    stages: list[Stage]
    policies: list[Applied]
    limits: list[Limit]
    findings: list[Found]
    route: list[dict[str, str]]
    attempts: list[Attempt]
    cost: Cost
    stream: Stream
    degraded: list[Degraded] = field(default_factory=list)

    @property
    def most_us(self) -> int:
        """The whole time in microseconds, beside which a stage's is drawn."""
        return max(1, self.latency_ms * 1000)


def why(record: RequestRecord, person: User) -> Why:
    """Explain a record that ``person`` may see. What a policy says is told of those that they may see."""
    mode = _stream_mode(record)
    return Why(
        id=str(record.pk),
        sentence=sentence(record),
        notes=notes(record),
        status=record.status,
        http_status=record.http_status,
        error_code=record.error_code,
        latency_ms=record.latency_ms,
        ended_in=ended_in(record),
        stages=_stages(record),
        policies=_policies(record, person),
        limits=_limits(record),
        findings=[_found(entry) for entry in entries(record.findings)],
        route=[
            {"provider": _text(target, "provider"), "model": _text(target, "model")}
            for target in entries(path_of(record).get("route"))
        ],
        attempts=[_attempt(entry) for entry in entries(record.attempts)],
        cost=_cost(record),
        stream=Stream(mode, _STREAMS[mode]),
        degraded=[Degraded(str(part), DEGRADED.get(str(part), "")) for part in record.degraded or ()],
    )


def ended_in(record: RequestRecord) -> str:
    """Return the stage that a request did not leave, or left last; ``call`` where nobody can know."""
    began = _began(record)
    if record.status == Status.INTERRUPTED and not record.http_status:
        return "call"  # the record is what was known before the call
    if began:
        return max(began, key=lambda stage: (began[stage], list(STAGES).index(stage)))
    if record.attempts or record.status == Status.SUCCESS:
        return "deliver" if record.status in (Status.SUCCESS, Status.BLOCKED) else "call"
    judged = bool(record.policies)
    otherwise = {"INVALID_REQUEST": "plan" if judged else "parse"}.get(record.error_code, "open" if judged else "judge")
    return ENDED_IN.get(record.error_code, otherwise)


# --- The stages


def _milliseconds(us: int | None) -> str:
    return "" if us is None else f"{us / 1000:,.2f} ms"


def _began(record: RequestRecord) -> dict[str, int]:
    stages = path_of(record).get("stages")
    known = stages if isinstance(stages, dict) else {}
    return {stage: known[stage] for stage in STAGES if isinstance(known.get(stage), int)}


def _stages(record: RequestRecord) -> list[Stage]:
    began, last = _began(record), ended_in(record)
    names = list(STAGES)
    ends = dict(zip(began, [*list(began.values())[1:], record.latency_ms * 1000], strict=False))
    stages = []
    for number, name in enumerate(names):
        start = began.get(name)
        outcome = "passed" if number <= names.index(last) else "not reached"
        if name == last and record.status != Status.SUCCESS:
            outcome = "ended"
        says = _SAYS[name](record) if outcome != "not reached" else []
        took = None if start is None else max(0, ends[name] - start)
        stages.append(Stage(name, STAGES[name], outcome, start, took, says))
    return stages


def _who(record: RequestRecord) -> list[str]:
    names = {"Application": record.application_name, "User": record.user_name}
    said = ", ".join(f"{what} {name}" for what, name in names.items() if name)
    key = f"{' by' if said else 'By'} the key lcp_{record.api_key_prefix}" if record.api_key_prefix else ""
    waited = _began(record).get("authenticate", 0)
    wait = [f"It had waited {waited / 1000:,.0f} ms for a place."] if waited >= _WAITED_US else []
    return [*([f"{said}{key}."] if said or key else []), *wait]


def _what(record: RequestRecord) -> list[str]:
    if ended_in(record) == "parse":
        return [record.error_message]
    return [f"The model '{record.model}'{', streamed' if record.streamed else ''}."]


def _judged(record: RequestRecord) -> list[str]:
    count = len(record.policies)
    said = [f"{counted(count, 'policies') if count != 1 else '1 policy'} applied."] if count else []
    said += [_refusal_in_words(record)] if ended_in(record) == "judge" else []
    return said or ["Passed."]


def _inspected(record: RequestRecord) -> list[str]:
    return _found_in(record, "input") + ([_refusal_in_words(record)] if ended_in(record) == "inspect" else [])


def _planned(record: RequestRecord) -> list[str]:
    if ended_in(record) == "plan":
        return [record.error_message]
    targets = list(entries(path_of(record).get("route"))) or [
        {"provider": record.provider, "model": record.upstream_model}
    ]
    named = [f"{_text(target, 'provider')} ({_text(target, 'model')})" for target in targets if target.get("provider")]
    worst = _worst(record)
    return [
        *([f"To {', then '.join(named)}."] if named else []),
        *([] if worst is None else [f"It could cost {dollars(worst)} at most."]),
    ]


def _counted(record: RequestRecord) -> list[str]:
    if ended_in(record) == "take_limits":
        return [_refusal_in_words(record)]
    return _read(record, ("requests", "tokens", "concurrent"), "No rate limit applied.")


def _opened(record: RequestRecord) -> list[str]:
    if ended_in(record) == "open":
        return [_refusal_in_words(record)]
    return _read(record, ("cost_cap",), "No budget applied.")


def _called(record: RequestRecord) -> list[str]:
    said = [f"{attempt.provider} ({attempt.model}) {attempt.says}." for attempt in map(_attempt, _attempts(record))]
    if record.first_byte_ms is not None:
        said.append(f"The answer began after {record.first_byte_ms:,} ms.")
    if record.status == Status.INTERRUPTED and not record.http_status:
        said.append("From here on nothing is recorded.")
    return said


def _delivered(record: RequestRecord) -> list[str]:
    said = _found_in(record, "output")
    said += [_STREAMS[mode]] if (mode := _stream_mode(record)) in STREAMS else []
    said += [_refusal_in_words(record)] if record.status == Status.BLOCKED else []
    return [*said, f"Charged: {used(record)}."]


_SAYS = {
    "authenticate": _who,
    "parse": _what,
    "judge": _judged,
    "inspect": _inspected,
    "plan": _planned,
    "take_limits": _counted,
    "open": _opened,
    "call": _called,
    "deliver": _delivered,
}


def _refusal_in_words(record: RequestRecord) -> str:
    said = refusal(record)
    return said[:1].upper() + said[1:]


def _read(record: RequestRecord, kinds: tuple[str, ...], nothing: str) -> list[str]:
    limits = [entry for entry in entries(record.limits) if entry.get("kind") in kinds]
    said = [f'Policy "{reading.policy}": {reading.what}, {reading.left or "kept"}.' for reading in readings_of(limits)]
    return said or [nothing]


def _found_in(record: RequestRecord, where: str) -> list[str]:
    found = [_found(entry) for entry in entries(record.findings) if entry.get("where") == where]
    if not found:
        return ["Nothing was found." if where == "input" else "Nothing was found in it."]
    return [f"{_finding(one)}: {_DONE.get(one.action, one.action)}." for one in found]


def _finding(one: Found) -> str:
    kind = DETECTOR_NAMES.get(one.detector, one.detector)
    return f"{kind[:1].upper()}{kind[1:]}, {counted(one.count, 'times')} ({one.rule})"


_DONE = {"none": "only recorded", "flag": "flagged", "redact": "taken out", "block": "blocked"}
_STREAMS = {
    **STREAMS,
    "whole": "Answered whole: guardrails read all of it before it was sent.",
    "none": "No answer was sent.",
    "unknown": "Streamed. How guardrails kept watch over it was not yet recorded then.",
}


def _stream_mode(record: RequestRecord) -> str:
    if record.first_byte_ms is None and record.status != Status.SUCCESS:
        return "none"
    if not record.streamed:
        return "none" if record.status == Status.ERROR else "whole"
    mode = path_of(record).get("stream")
    return mode if mode in STREAMS else "unknown"


# --- What applied


def _policies(record: RequestRecord, person: User) -> list[Applied]:
    stamps = list(entries(record.policies))
    said = _versions(stamps, person)
    refused = (refusing(record) or {}).get("policy_id")
    shadow = {r.get("policy_id") for r in entries(record.reasons) if not r.get("enforced", True)}
    return [
        Applied(
            id=_text(stamp, "id"),
            name=_text(stamp, "name"),
            version=_whole(stamp, "version"),
            kind=_text(stamp, "kind"),
            mode=_text(stamp, "mode"),
            level=_text(stamp, "level"),
            part=_part(stamp.get("id"), refused, shadow),
            says=said.get((_text(stamp, "id"), _whole(stamp, "version"))),
        )
        for stamp in stamps
    ]


def _part(policy_id: Any, refused: Any, shadow: set[Any]) -> str:
    if policy_id is not None and policy_id == refused:
        return "refused"
    return "would have refused" if policy_id in shadow else "applied"


def _versions(stamps: list[dict[str, Any]], person: User) -> dict[tuple[str, int | None], str]:
    """Return what the versions that applied said, of those that a person may see."""
    wanted = Q(pk__in=[])
    for stamp in stamps:
        policy_id, version = uuid_or_none(stamp.get("id")), _whole(stamp, "version")
        if policy_id is not None and version is not None:
            wanted |= Q(policy_id=policy_id, version=version)
    rows = visible(PolicyVersion.objects.filter(wanted), person)
    return {(str(row.policy_id), row.version): describe_stored(row) for row in rows}


def _limits(record: RequestRecord) -> list[Limit]:
    full = full_limit(record)
    stored = list(entries(record.limits))
    return [
        Limit(said.policy, said.policy_id, said.what, said.left, said.asked, entry is full)
        for said, entry in zip(readings_of(stored), stored, strict=True)
    ]


def _found(entry: dict[str, Any]) -> Found:
    return Found(
        detector=_text(entry, "detector"),
        rule=_text(entry, "rule"),
        count=_whole(entry, "count") or 0,
        where=_text(entry, "where"),
        at=[place for place in entry.get("at") or () if isinstance(place, str)],
        action=_text(entry, "action"),
        policy=_text(entry, "policy"),
        shadow_action=_text(entry, "shadow_action"),
        shadow_policy=_text(entry, "shadow_policy"),
    )


def _attempts(record: RequestRecord) -> list[dict[str, Any]]:
    """Return the attempts, the last one with its end: the answer was whole when it began to be delivered."""
    attempts = [dict(entry) for entry in entries(record.attempts)]
    whole = _began(record).get("deliver")
    if attempts and whole is not None and "ended_ms" not in attempts[-1]:
        attempts[-1]["ended_ms"] = whole // 1000
    return attempts


def _attempt(entry: dict[str, Any]) -> Attempt:
    worst = _whole(entry, "worst_case_nano_usd")
    return Attempt(
        provider=_text(entry, "provider"),
        model=_text(entry, "model"),
        began_ms=_whole(entry, "started_ms"),
        ended_ms=_whole(entry, "ended_ms"),
        status=_whole(entry, "status"),
        fault=_text(entry, "fault"),
        says=attempt_in_words(entry),
        worst_case_usd=None if worst is None else usd_from_nano(worst),
    )


def _cost(record: RequestRecord) -> Cost:
    worst = _worst(record)
    return Cost(
        cost_usd=record.cost_usd,
        worst_case_usd=None if worst is None else usd_from_nano(worst),
        overrun_usd=usd_from_nano(record.overrun_nano_usd),
        tokens_input=record.tokens_input,
        tokens_output=record.tokens_output,
        tokens_cached=record.tokens_cached,
        counted_by=record.usage_source,
        price=price(record),
    )


def _worst(record: RequestRecord) -> int | None:
    return next((worst for entry in entries(record.limits) if (worst := could_cost(entry)) is not None), None)


def _text(entry: dict[str, Any], name: str) -> str:
    value = entry.get(name)
    return "" if value is None else str(value)


def _whole(entry: dict[str, Any], name: str) -> int | None:
    value = entry.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
