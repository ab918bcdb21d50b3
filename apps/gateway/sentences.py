"""What happened to a request and why, in sentences for people, from its record alone.

Names are those that the record holds: its own organization's and the platform's. Of what a guardrail found there is the
kind, the number and the place, never the words themselves: a record does not have them.
"""

from collections.abc import Callable
from typing import Any

from apps.audit.models import RequestRecord, Status
from apps.gateway.providers.base import Fault
from apps.gateway.readings import could_cost, counted, dollars, entries, left_of, window_of
from apps.policies.describe import DETECTOR_NAMES

Entry = dict[str, Any]

_PLACES = {"input": "requests", "output": "answers"}
_FAULTS = {
    Fault.CONNECT: "could not be reached",
    Fault.TIMEOUT: "did not answer in time",
    Fault.BROKEN: "broke off in the middle of its answer",
    Fault.GARBAGE: "sent an answer that cannot be read",
    Fault.CREDENTIAL: "refused the gateway's credential",
    Fault.REFUSED: "refused the request",
    Fault.SERVER: "failed",
    Fault.ADDRESS: "has an address that the gateway must not call",
}
DEGRADED = {
    "rate_limits": "Redis did not answer, so that each process counted its share of the rate limits alone.",
}
"""By the part that was degraded, what that meant for the request."""
STREAMS = {
    "held": "Streamed, but held until its end, since a guardrail had to read all of it before any was sent.",
    "relayed": "Streamed, each piece sent on as it came. Guardrails read it at its end and could only record.",
}
"""By the mode of a stream's enforcement, what that meant for the answer."""


def sentence(record: RequestRecord) -> str:
    """Return in a sentence or two how a request ended and why."""
    return _ENDINGS.get(record.status, _failed)(record)


def notes(record: RequestRecord) -> list[str]:
    """Return what else is worth knowing of it, a sentence each: nothing, mostly."""
    said = [_tried(attempt) for attempt in list(entries(record.attempts))[:-1]]
    if path_of(record).get("decided", 1) > 1:
        said.append("The configuration changed while this was decided, so it was decided again.")
    said += [DEGRADED.get(str(part), f"Degraded: {part}.") for part in record.degraded or ()]
    said += _taken_out(record) + _shortened(record) + would_have_refused(record)
    if record.overrun_nano_usd:
        said.append(f"The provider used {dollars(record.overrun_nano_usd)} more than had been set aside.")
    if record.usage_source == "estimate":
        said.append("The provider did not say what it used: the tokens are estimated from the texts.")
    return said


def would_have_refused(record: RequestRecord) -> list[str]:
    """Return a sentence for each policy in shadow that would have refused the request or changed it."""
    said = [
        f"In shadow: {quoted(str(reason.get('message', '')), reason)} It was not refused for that."
        for reason in entries(record.reasons)
        if not reason.get("enforced", True)
    ]
    said += [
        f'In shadow: policy "{found.get("shadow_policy")}" would {found["shadow_action"]} {_found(found)}.'
        for found in entries(record.findings)
        if found.get("shadow_action")
    ]
    shadow = {policy.get("id") for policy in entries(record.policies) if policy.get("mode") == "shadow"}
    caps = [e for e in entries(record.limits) if e.get("kind") == "cost_cap" and e.get("policy_id") in shadow]
    return said + [f"In shadow: {_budget(cap)}" for cap in caps if (could_cost(cap) or 0) > (left_of(cap) or 0)]


def quoted(message: str, reason: Entry | None) -> str:
    """Return a recorded message as a part of a sentence, the policy's name in the quotation marks of a text."""
    name = str((reason or {}).get("policy", ""))
    before = f"Policy '{name}'"
    if name and message.startswith(before):
        return f'policy "{name}"{message.removeprefix(before)}'
    return message[:1].lower() + message[1:]


def refusing(record: RequestRecord) -> Entry | None:
    """Return the reason that refused a request; ``None`` if nothing did, or no reason of the record says so."""
    enforced = [reason for reason in entries(record.reasons) if reason.get("enforced", True)]
    return next((reason for reason in enforced if reason.get("code") == record.error_code), None)


def full_limit(record: RequestRecord) -> Entry | None:
    """Return the reading of the limit or budget that refused a request."""
    reason = refusing(record) or {}
    of_policy = [e for e in entries(record.limits) if e.get("policy_id") == reason.get("policy_id", "-")]
    if record.error_code == "BUDGET_EXCEEDED":
        return next((entry for entry in of_policy if entry.get("kind") == "cost_cap"), None)
    if record.error_code == "RATE_LIMIT_EXCEEDED":
        full = [e for e in of_policy if _number(e.get("asked")) > _number(e.get("remaining"))]
        return max(full, key=lambda e: _number(e.get("reset_seconds")) or float("inf"), default=None)
    return None


def path_of(record: RequestRecord) -> Entry:
    """Return what a record keeps of the way its request went; nothing of one that is older than that."""
    path: Any = record.path
    return path if isinstance(path, dict) else {}


def attempt_in_words(attempt: Entry) -> str:
    """Return how an attempt ended: ``answered``, or what was wrong."""
    fault = attempt.get("fault")
    if fault:
        status = f" (HTTP {attempt['status']})" if _number(attempt.get("status")) >= 300 else ""
        return f"{_FAULTS.get(fault, str(fault))}{status}"
    return "answered" if attempt.get("status") else "did not answer"


def used(record: RequestRecord) -> str:
    """Return what a request used and cost."""
    tokens = f"{counted(record.tokens_input, 'input tokens')} and {counted(record.tokens_output, 'output tokens')}"
    return f"{tokens}, {dollars(record.cost_nano_usd)}"


# --- How it ended


def _answered(record: RequestRecord) -> str:
    failed = list(entries(record.attempts))[:-1]
    after = f", after {_target(failed[-1])} {attempt_in_words(failed[-1])}" if failed else ""
    return f"Answered by {_served_by(record)} in {record.latency_ms:,} ms{after}: {used(record)}."


def refusal(record: RequestRecord) -> str:
    """Return why a request was refused, as a part of a sentence that ends it."""
    return _REFUSALS.get(record.error_code, _as_recorded)(record)


def _refused(record: RequestRecord) -> str:
    words = refusal(record)
    if record.attempts:
        cost = dollars(record.cost_nano_usd)
        return f"Withheld: {_served_by(record)} answered, but {words} The call cost {cost}."
    return f"Refused: {words}"


def _cancelled(record: RequestRecord) -> str:
    if not record.attempts:
        return "The client left before a provider was called. Nothing was charged."
    if not record.error_code:
        return f"The answer was complete, but the client had left by then: {used(record)}."
    return f"The client left before the answer's end. Charged is what had been used by then: {used(record)}."


def _interrupted(record: RequestRecord) -> str:
    if record.http_status:
        if not record.attempts:
            return "The server was stopping before a provider was called. Nothing was charged."
        return f"The server was stopping before the answer's end. Charged is {_what_is_charged(record)}."
    if not record.cost_nano_usd:
        return "The gateway's process ended before it recorded how this request ended. Nothing was charged."
    return (
        "The gateway's process ended before it recorded how this request ended. Nobody knows what the provider did, "
        f"so the most that it can have cost is charged: {dollars(record.cost_nano_usd)}."
    )


def _failed(record: RequestRecord) -> str:
    if record.attempts:
        return _provider_failed(record)
    words = _message(record)
    match record.error_code:
        case "INTERNAL_ERROR":
            return (
                "Not sent: the gateway failed, by a defect of its own. Its log has the cause, under the request's id."
            )
        case "SERVICE_UNAVAILABLE":
            return f"Not sent: {words}"
        case "INVALID_REQUEST":
            return f"Refused: the request cannot be served as it is. {record.error_message}".rstrip()
        case "MODEL_NOT_FOUND":
            return f"Refused: {words}"
        case _:
            return f"Failed: {words}"


def _provider_failed(record: RequestRecord) -> str:
    charged = f" Charged is {_what_is_charged(record)}." if record.cost_nano_usd else " Nothing was charged."
    if record.error_code == "INTERNAL_ERROR":
        return f"Failed after the provider was called: a defect of the gateway. Its log has the cause.{charged}"
    *before, last = list(entries(record.attempts)) or [{}]
    if not last.get("fault"):  # the answer was there, and what came after it failed
        return f"Failed: {_message(record)}{charged}"
    others = f", and so had {counted(len(before), 'targets')} before it" if before else ""
    return f"Failed: {_served_by(record)} {attempt_in_words(last)}{others}. {record.error_message}{charged}"


def _what_is_charged(record: RequestRecord) -> str:
    if record.usage_source == "worst_case":
        return f"the most that it can have cost, since nobody knows what it used: {dollars(record.cost_nano_usd)}"
    return f"what had been used by then: {used(record)}"


_ENDINGS: dict[str, Callable[[RequestRecord], str]] = {
    Status.SUCCESS: _answered,
    Status.BLOCKED: _refused,
    Status.CANCELLED: _cancelled,
    Status.INTERRUPTED: _interrupted,
}


# --- Why it was refused


def _over_budget(record: RequestRecord) -> str:
    cap = full_limit(record)
    return _as_recorded(record) if cap is None or left_of(cap) is None else _budget(cap)


def _budget(cap: Entry) -> str:
    held = cap.get("reserved_nano_usd")
    aside = f", {dollars(held)} was set aside for requests under way," if held else ""
    could = could_cost(cap)
    asked = "did not reach for this request" if could is None else f"this request could have cost {dollars(could)}"
    return (
        f'policy "{cap.get("policy", "")}" allows {dollars(cap.get("limit_nano_usd"))} {window_of(cap)}; '
        f"{dollars(cap.get('spent_nano_usd'))} was spent{aside} and {asked}."
    )


def _over_rate(record: RequestRecord) -> str:
    limit = full_limit(record)
    if limit is None:
        return _as_recorded(record)
    kind, most, left = limit.get("kind"), _number(limit.get("limit")), _number(limit.get("remaining"))
    said = f'policy "{limit.get("policy", "")}" allows '
    if kind == "concurrent":
        return f"{said}{counted(most, 'requests')} at the same time, and as many were under way."
    said += f"{counted(most, str(kind))} {window_of(limit)}; "
    asked = _number(limit.get("asked"))
    if asked > most:
        return f"{said}this request alone was expected to use {asked:,}."
    used_up = "none was left" if left <= 0 else f"{left:,} {'was' if left == 1 else 'were'} left"
    expected = f" and this request was expected to use {asked:,}" if kind == "tokens" else ""
    wait = _number(limit.get("reset_seconds"))
    return f"{said}{used_up}{expected}.{f' It would have fitted {wait:,.1f} s later.' if wait else ''}"


def _found_something(record: RequestRecord) -> str:
    where = "output" if record.attempts else "input"
    name = (refusing(record) or {}).get("policy")
    blocked = [f for f in entries(record.findings) if f.get("action") == "block" and f.get("where") == where]
    if not name or not blocked:
        return _as_recorded(record)
    kinds = list(dict.fromkeys(_kind(found) for found in blocked))
    count = sum(int(_number(found.get("count"))) for found in blocked)
    places = [place for found in blocked for place in found.get("at") or () if isinstance(place, str)]
    at = f", at {places[0]}" if len(set(places)) == 1 and places[0] else ""
    number = "one was" if count == 1 else f"{count:,} were"
    return f'policy "{name}" blocks {_enumerated(kinds)} in {_PLACES[where]}, and {number} found{at}.'


def _as_recorded(record: RequestRecord) -> str:
    return _message(record) or f"{record.error_code}."


def _message(record: RequestRecord) -> str:
    return quoted(record.error_message, refusing(record))


_REFUSALS: dict[str, Callable[[RequestRecord], str]] = {
    "BUDGET_EXCEEDED": _over_budget,
    "RATE_LIMIT_EXCEEDED": _over_rate,
    "PII_DETECTED": _found_something,
    "SECRET_DETECTED": _found_something,
    "INJECTION_DETECTED": _found_something,
}


# --- What else there is to know


def _tried(attempt: Entry) -> str:
    said = f"{_target(attempt)} was tried first and {attempt_in_words(attempt)}."
    worst = attempt.get("worst_case_nano_usd")
    return f"{said} It may have been billed, so its worst case is charged: {dollars(worst)}." if worst else said


def _taken_out(record: RequestRecord) -> list[str]:
    return [
        f'Policy "{found.get("policy")}" took {_found(found)} out before it went on.'
        for found in entries(record.findings)
        if found.get("action") == "redact" and record.attempts
    ]


def _shortened(record: RequestRecord) -> list[str]:
    given = [e["output_allowance"] for e in entries(record.limits) if e.get("output_allowance") is not None]
    clamped = path_of(record).get("clamped")
    said = [f"The request named no limit for its answer, so it got {counted(given[0], 'tokens')}."] if given else []
    if clamped is not None:
        said.append(f"A budget reached for an answer of {counted(clamped, 'tokens')} only, so it was limited to that.")
    return said


def _found(found: Entry) -> str:
    place = "the request" if found.get("where") == "input" else "the answer"
    return f"{_kind(found)} ({counted(found.get('count'), 'times')}) in {place}"


def _kind(found: Entry) -> str:
    detector = str(found.get("detector", ""))
    return DETECTOR_NAMES.get(detector, detector)


def _enumerated(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _served_by(record: RequestRecord) -> str:
    return _target({"provider": record.provider, "model": record.upstream_model})


def _target(attempt: Entry) -> str:
    provider, model = attempt.get("provider"), attempt.get("model")
    return f"{provider} ({model})" if provider and model else str(provider or "the provider")


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0
