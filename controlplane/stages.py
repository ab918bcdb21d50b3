"""What each stage of the path did to a request, as its record tells it: short, for beside an answer."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from apps.audit.explain import price, readings_of
from apps.audit.models import RequestRecord, Status


class State(StrEnum):
    """What became of the request at a stage."""

    PASSED = "passed"
    REFUSED = "refused"
    FAILED = "failed"
    CUT = "cut short"
    SKIPPED = "not reached"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage, what it did, and how that ended."""

    title: str
    says: tuple[str, ...]
    state: State


_CALLER, _SHAPE, _POLICIES, _TEXTS, _LIMITS, _BUDGET, _PROVIDER, _ANSWER = range(8)
_TITLES = (
    "Who asks",
    "The request",
    "Model and policies",
    "Its texts",
    "Rate limits",
    "Budgets",
    "Provider",
    "The answer",
)
_REFUSED_AT = {
    "UNAUTHENTICATED": _CALLER,
    "INVALID_REQUEST": _SHAPE,
    "MODEL_NOT_FOUND": _POLICIES,
    "MODEL_NOT_ALLOWED": _POLICIES,
    "FORBIDDEN": _POLICIES,
    "PII_DETECTED": _TEXTS,
    "SECRET_DETECTED": _TEXTS,
    "INJECTION_DETECTED": _TEXTS,
    "UNSCANNABLE_CONTENT": _TEXTS,
    "RATE_LIMIT_EXCEEDED": _LIMITS,
    "BUDGET_EXCEEDED": _BUDGET,
}


def stages_of(record: RequestRecord) -> list[Stage]:
    """Return the stages in the order of the path. After the one that ended the request, none was reached."""
    end = _end_of(record)
    said = (
        _caller(record),
        _shape(record),
        _policies(record),
        _findings(record, "input") or ["Nothing was found."],
        _limits(record, is_money=False) or ["None holds here."],
        _limits(record, is_money=True) or ["None holds here."],
        _attempts(record),
        _answer(record),
    )
    return [_stage(record, number, end, tuple(lines)) for number, lines in enumerate(said)]


def _stage(record: RequestRecord, number: int, end: int, lines: tuple[str, ...]) -> Stage:
    title = _TITLES[number]
    if number > end:
        return Stage(title, (), State.SKIPPED)
    if number < end or record.status == Status.SUCCESS:
        return Stage(title, lines, State.PASSED)
    state = {Status.BLOCKED: State.REFUSED, Status.CANCELLED: State.CUT}.get(Status(record.status), State.FAILED)
    return Stage(title, (*(line for line in lines if number == _ANSWER), record.error_message), state)


def _end_of(record: RequestRecord) -> int:
    """Return the last stage that a request reached."""
    if record.status in (Status.SUCCESS, Status.CANCELLED):
        return _ANSWER
    if record.attempts:
        answered = _is_dict(record.attempts[-1]) and not record.attempts[-1].get("fault")
        return _ANSWER if answered else _PROVIDER
    return _REFUSED_AT.get(record.error_code, _PROVIDER)


def _caller(record: RequestRecord) -> list[str]:
    named = [f"application {record.application_name}"] if record.application_name else []
    named += [f"person {record.user_name}"] if record.user_name else []
    named += [f"key lcp_{record.api_key_prefix}_…"] if record.api_key_prefix else []
    return [f"{_capital(', '.join(named))}."] if named else []


def _shape(record: RequestRecord) -> list[str]:
    return [f"Asks for {record.model}{', streamed' if record.streamed else ''}."]


def _policies(record: RequestRecord) -> list[str]:
    names = [str(policy.get("name")) for policy in record.policies if _is_dict(policy)]
    lines = [f"Judged by {', '.join(names)}."] if names else ["No policy holds here."]
    return lines + [
        f"{reason.get('message')} (in shadow: not refused for it)"
        for reason in record.reasons
        if _is_dict(reason) and not reason.get("enforced")
    ]


def _findings(record: RequestRecord, where: str) -> list[str]:
    words = {"none": "left in", "flag": "noted", "redact": "taken out", "block": "refused"}
    return [
        f"{finding.get('count')} times {str(finding.get('detector')).replace('_', ' ')}: "
        f"{words.get(str(finding.get('action')), finding.get('action'))}."
        for finding in record.findings
        if _is_dict(finding) and finding.get("where") == where
    ]


def _limits(record: RequestRecord, *, is_money: bool) -> list[str]:
    chosen = [entry for entry in record.limits if _is_dict(entry) and (entry.get("kind") == "cost_cap") is is_money]
    return [f"{reading.policy}: {reading.what}; {reading.left}." for reading in readings_of(chosen)]


def _attempts(record: RequestRecord) -> list[str]:
    return [
        f"{attempt.get('provider')} ({attempt.get('model')}) "
        + (f"failed: {attempt['fault']}." if attempt.get("fault") else "answered.")
        for attempt in record.attempts
        if _is_dict(attempt)
    ]


def _answer(record: RequestRecord) -> list[str]:
    first = f", first byte after {record.first_byte_ms:,} ms" if record.first_byte_ms is not None else ""
    lines = [f"{record.latency_ms:,} ms in all{first}."]
    lines.append(f"Tokens: {record.tokens_input:,} in, {record.tokens_output:,} out. Cost: {record.cost_usd} USD.")
    lines += [f"{price(record)}."] if price(record) else []
    return lines + _findings(record, "output")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)
