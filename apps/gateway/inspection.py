"""Guardrails applied: what the detectors find in a request or an answer, and what the policies do about it.

Every text is scanned by every detector, whatever the policies say, because the audit trail keeps no PII and no
secret in any case. The policies decide what else happens: block, redact (what goes on), or flag.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from apps.gateway.errors import GuardrailBlocked
from apps.gateway.providers.base import Body
from apps.policies.engine.evaluate import Decision
from apps.policies.engine.kinds import Direction, FindingAction, Guardrail, Unscannable
from apps.policies.engine.policy import Policy
from apps.policies.guardrails.findings import Detector, Finding
from apps.policies.guardrails.redaction import redact
from apps.policies.guardrails.scan import scan, scan_all
from apps.policies.guardrails.strings import places_of, replace_strings, strings_of, unscannable_parts

NEVER_STORED = frozenset(Detector) - {Detector.INJECTION}
"""What is redacted in every stored text; a phrase of an injection is no secret and is what an auditor looks for."""

UNSCANNABLE = "UNSCANNABLE_CONTENT"
MOST_INSPECTED_AT_ONCE = 256 * 1024
MOST_PLACES = 5
"""Places that a record names of what one rule found; how often it was found is counted in full."""
_SEVERITY = {FindingAction.FLAG: 0, FindingAction.REDACT: 1, FindingAction.BLOCK: 2}
_CODES = {Detector.SECRET: "SECRET_DETECTED", Detector.INJECTION: "INJECTION_DETECTED"}


@dataclass(frozen=True, slots=True)
class Guard:
    """What the enforced guardrails of one direction do about each detector, the strictest one deciding."""

    actions: Mapping[Detector, tuple[FindingAction, Policy]]
    shadow: Mapping[Detector, tuple[FindingAction, Policy]]
    texts_only: Policy | None
    """The policy that lets nothing pass which cannot be scanned as text."""

    @property
    def intervenes(self) -> bool:
        """Whether anything may be blocked or changed, so that a text must be seen before it goes on."""
        return any(action is not FindingAction.FLAG for action, _ in self.actions.values())


NO_GUARD = Guard({}, {}, None)
"""Finds and does nothing about it."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found in a value: the value as it goes on, the value as it is stored, and the findings' types."""

    passed: Any = field(repr=False)
    stored: Any = field(repr=False)
    findings: tuple[dict[str, Any], ...]
    blocked: GuardrailBlocked | None


def guard_for(decision: Decision, direction: Direction) -> Guard:
    """Collect what a decision's guardrails do in one direction (input or output)."""
    here = [(p, rule) for p, rule in decision.guardrails if rule.direction in (direction, Direction.BOTH)]
    strictest: tuple[dict[Detector, tuple[FindingAction, Policy]], ...] = ({}, {})
    for policy, rule in here:
        table = strictest[0 if policy.enforced else 1]
        for name, action in rule.detectors.items():
            known = table.get(Detector(name))
            if known is None or _SEVERITY[action] > _SEVERITY[known[0]]:
                table[Detector(name)] = (action, policy)
    texts_only = next((policy for policy, rule in here if policy.enforced and _texts_only(rule)), None)
    return Guard(strictest[0], strictest[1], texts_only)


def _texts_only(rule: Guardrail) -> bool:
    """A guardrail that only flags is no reason to refuse what it cannot read."""
    intervenes = any(action is not FindingAction.FLAG for action in rule.detectors.values())
    return intervenes and rule.unscannable is Unscannable.BLOCK


def inspect(value: Any, guard: Guard, where: str) -> Inspection:
    """Scan every string of a JSON value. ``where`` is ``input`` or ``output``; blocking is reported, not raised."""
    texts = strings_of(value)
    found = scan_all(texts)
    if not any(found):
        return Inspection(value, value, (), None)
    redacted = frozenset(d for d, (action, _) in guard.actions.items() if action is FindingAction.REDACT)
    return Inspection(
        passed=_without(value, texts, found, redacted),
        stored=_without(value, texts, found, NEVER_STORED),
        findings=_summary(found, places_of(value, {n for n, here in enumerate(found) if here}), guard, where),
        blocked=blocked_by({f.detector for findings in found for f in findings}, guard, where),
    )


async def inspected(value: Any, size: int, guard: Guard, where: str) -> Inspection:
    """Inspect as `inspect` does; a value of a large ``size`` on a thread, so that other requests need not wait for it.

    ``size``: its texts in bytes or characters, or more.
    """
    if size < MOST_INSPECTED_AT_ONCE:
        return inspect(value, guard, where)
    return await asyncio.get_running_loop().run_in_executor(None, inspect, value, guard, where)


def refuse_unscannable(body: Body, guard: Guard) -> None:
    """Raise `GuardrailBlocked` if a guardrail for texts only meets parts that cannot be scanned as text."""
    policy = guard.texts_only
    if policy is None:
        return
    parts = unscannable_parts(body)
    if parts:
        message = f"Policy '{policy.name}' scans requests, and this one has content that cannot be scanned as text."
        raise GuardrailBlocked(UNSCANNABLE, message, {"policy": policy.name, "parts": parts[:20]}, policy)


@lru_cache(maxsize=4096)
def safe_text(text: str) -> str:
    """Redact a short text of the caller's (a label, a piece of metadata) for the record."""
    found = [finding for finding in scan(text) if finding.detector in NEVER_STORED]
    return redact(text, found) if found else text


def _without(
    value: Any, texts: Sequence[str], found: Sequence[Sequence[Finding]], unwanted: frozenset[Detector]
) -> Any:
    replacements = {}
    for number, findings in enumerate(found):
        here = [finding for finding in findings if finding.detector in unwanted]
        if here:
            replacements[number] = redact(texts[number], here)
    return replace_strings(value, replacements) if replacements else value


def _summary(
    found: Sequence[Sequence[Finding]], places: Mapping[int, str], guard: Guard, where: str
) -> tuple[dict[str, Any], ...]:
    """Say what was found, how often and where: never what it reads."""
    counts: Counter[tuple[Detector, str]] = Counter()
    at: dict[tuple[Detector, str], dict[str, None]] = {}
    for number, findings in enumerate(found):
        for finding in findings:
            kind = (finding.detector, finding.rule)
            counts[kind] += 1
            place = places[number] if where == "input" else f"choices{places[number]}"
            at.setdefault(kind, {})[place] = None
    return tuple(
        {
            "detector": detector.value,
            "rule": rule,
            "count": count,
            "where": where,
            **_what_happens(detector, guard),
            "at": list(at[detector, rule])[:MOST_PLACES],
        }
        for (detector, rule), count in sorted(counts.items())
    )


def _what_happens(detector: Detector, guard: Guard) -> dict[str, Any]:
    said: dict[str, Any] = {"action": "none"}
    for table, name in ((guard.actions, "action"), (guard.shadow, "shadow_action")):
        if detector in table:
            action, policy = table[detector]
            said |= {name: action.value, "policy" if name == "action" else "shadow_policy": policy.name}
    return said


def blocked_by(found: Iterable[Detector], guard: Guard, where: str) -> GuardrailBlocked | None:
    """Return the refusal of a text in which some detectors found something; ``None`` if none of them blocks."""
    blocked = sorted(
        (detector for detector in found if _blocks(guard, detector)),
        key=lambda detector: (detector not in _CODES, detector),
    )
    if not blocked:
        return None
    policy = guard.actions[blocked[0]][1]
    names = ", ".join(detector.value for detector in blocked)
    message = f"Policy '{policy.name}' blocks {names} in {'requests' if where == 'input' else 'answers'}."
    details = {"policy": policy.name, "detectors": [detector.value for detector in blocked], "where": where}
    return GuardrailBlocked(_CODES.get(blocked[0], "PII_DETECTED"), message, details, policy)


def _blocks(guard: Guard, detector: Detector) -> bool:
    return detector in guard.actions and guard.actions[detector][0] is FindingAction.BLOCK
