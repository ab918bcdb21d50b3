"""Drafts of policies, and going back: what a policy is to say, seen before it holds.

A draft stands on its policy's row and applies to nobody. To publish it is to save the policy, as the next version; to
go back is to publish once more what an older version said. Published versions stay as they are.

Every function here takes a row that its caller has locked, and leaves a change record.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_datetime

from apps.audit.changes import Actor, record_change, state_of
from apps.policies.describe import Stored, describe_in_full
from apps.policies.engine.kinds import Direction, Fit, Kind, Unscannable
from apps.policies.models import Policy, PolicyVersion

CONTENT = ("name", "kind", "mode", "config", "models", "valid_from", "valid_until")
"""What a draft is of, and what going back brings back. What a policy stands on stays."""
_DATES = ("valid_from", "valid_until")
_LEFT_OUT: dict[str, dict[str, Any]] = {
    Kind.COST_CAP: {"hard": True, "fit": Fit.REFUSE.value},
    Kind.GUARDRAIL: {"direction": Direction.BOTH.value, "unscannable": Unscannable.BLOCK.value},
}
"""What a configuration means where it says nothing: to write it down changes nothing."""
_LABELS = {
    "models": "for models",
    "limit_usd": "limit (USD)",
    "hard": "refuses what does not fit",
    "fit": "what could cost more than what is left",
    "valid_from": "from (UTC)",
    "valid_until": "until (UTC)",
}


class NoDraft(Exception):
    """There is nothing to publish."""


class NoChange(Exception):
    """The policy says the same already."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field of a policy that differs: what it says now, and what it is to say. ``""``: nothing."""

    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Difference:
    """What would change if ``after`` were published: the two sentences, and field by field."""

    before: str
    after: str
    changes: list[Change]


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft with who began it when (ISO 8601), and on which version. ``policy`` is the row as it would be."""

    policy: Policy
    base_version: int
    by: str
    at: str

    @property
    def is_behind(self) -> bool:
        """Whether another version was published after the draft was begun."""
        return self.policy.version != self.base_version


def draft_of(policy: Policy) -> Draft | None:
    """Return a policy's draft, ``None`` if it has none. Nothing is stored by saving what it holds: publish it."""
    stored: Any = policy.draft
    if not isinstance(stored, dict):
        return None
    drafted = copy.copy(policy)
    _say(drafted, stored.get("content") or {})
    base = stored.get("base")
    return Draft(
        drafted,
        base if isinstance(base, int) else policy.version,
        str(stored.get("by", "")),
        str(stored.get("at", "")),
    )


def keep_draft(policy: Policy, wanted: Stored, actor: Actor, reason: str = "") -> None:
    """Keep what ``wanted`` says as the draft of ``policy``, in place of the one there was."""
    known = draft_of(policy)
    before = state_of(policy)
    policy.draft = {
        "content": content_of(wanted),
        # A draft that goes on was begun where it was begun: what was published since then still has to be seen.
        "base": known.base_version if known else policy.version,
        "by": actor.name,
        "at": timezone.now().isoformat(timespec="seconds"),
    }
    policy.save_draft()
    _record(actor, "draft", policy, before, reason)


def discard_draft(policy: Policy, actor: Actor, reason: str = "") -> None:
    """Drop the draft; the change record keeps what it said. Raises `NoDraft`."""
    if draft_of(policy) is None:
        raise NoDraft
    before = state_of(policy)
    policy.draft = None
    policy.save_draft()
    _record(actor, "discard draft", policy, before, reason)


def publish_draft(policy: Policy, actor: Actor, reason: str = "") -> None:
    """Publish the draft as the next version. Raises `NoDraft`, and `ValidationError` if it cannot hold as it is."""
    draft = draft_of(policy)
    if draft is None:
        raise NoDraft
    _publish(policy, draft.policy, "publish", actor, reason, draft=None)


def roll_back(policy: Policy, version: PolicyVersion, actor: Actor, reason: str = "") -> None:
    """Publish what an older version said as the next version; a draft stays.

    Raises `NoChange`, and `ValidationError` if it can no longer hold as it is.
    """
    if content_of(policy) == content_of(version):
        raise NoChange(f"Version {version.version} says what the policy says now.")
    said = f"Version {version.version} restored."
    _publish(policy, version, "roll back", actor, f"{said} {reason}".strip(), draft=policy.draft)


def difference(before: Stored, after: Stored) -> Difference:
    """Return what differs between two states of a policy, for people."""
    old, new = dict(_lines(content_of(before))), dict(_lines(content_of(after)))
    changes = [
        Change(name, old.get(name, ""), new.get(name, ""))
        for name in [*new, *(name for name in old if name not in new)]
        if old.get(name, "") != new.get(name, "")
    ]
    return Difference(describe_in_full(before), describe_in_full(after), changes)


def content_of(row: Stored) -> dict[str, Any]:
    """Return what a policy, or a version of one, says, as JSON."""
    said = {name: getattr(row, name) for name in CONTENT}
    return said | {name: said[name].isoformat() if said[name] else None for name in _DATES}


def _publish(
    policy: Policy, wanted: Stored, action: str, actor: Actor, reason: str, *, draft: dict[str, Any] | None
) -> None:
    before = state_of(policy)
    _say(policy, content_of(wanted))
    policy.draft = draft
    policy.full_clean()
    policy.save()
    _record(actor, action, policy, before, reason)


def _say(policy: Policy, content: dict[str, Any]) -> None:
    for name in CONTENT:
        if name in content:
            value = content[name]
            setattr(policy, name, parse_datetime(value) if name in _DATES and value else value)


def _record(actor: Actor, action: str, policy: Policy, before: dict[str, Any], reason: str) -> None:
    record_change(
        actor,
        action,
        policy,
        organization_id=policy.organization_id,
        before=before,
        after=state_of(policy),
        reason=reason,
    )


def _lines(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Give a policy's fields with their values as people read them, those of its configuration one by one."""
    for name, value in content.items():
        if name == "config":
            yield from _of_config({**_LEFT_OUT.get(content["kind"], {}), **value} if isinstance(value, dict) else value)
        else:
            yield _label(name), _written(value)


def _of_config(config: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(config, dict):
        yield "configuration", _written(config)
        return
    for name, value in config.items():
        if isinstance(value, dict):
            yield from ((f"{_label(name)}: {_label(inner)}", _written(said)) for inner, said in value.items())
        else:
            yield _label(name), _written(value)


def _label(name: str) -> str:
    return _LABELS.get(name, str(name).replace("_", " "))


def _written(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
