"""Replacing an API key by a successor: the policies that stand on the key move along."""

from datetime import timedelta

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from apps.audit.changes import Actor, record_change, state_of
from apps.orgs import keys
from apps.orgs.models import ApiKey
from apps.policies.models import Policy


def rotate(key: ApiKey, actor: Actor, grace: timedelta, reason: str = "") -> keys.IssuedKey:
    """Issue a successor with the same owner, name and expiry; revoke the old key, or let it expire after ``grace``.

    Everything is recorded in the same transaction. Raises `ValidationError` for a key that is not active, and for a
    grace on a key with policies of its own, since those can stand on one key only.
    """
    with transaction.atomic():
        policies = list(Policy.objects.select_for_update().filter(api_key=key))
        _refuse_what_cannot_rotate(key, policies, grace)
        issued = keys.issue(
            organization=key.organization,
            application=key.application,
            user=key.user,
            name=key.name,
            expires_at=key.expires_at,
        )
        record_change(
            actor,
            "create",
            issued.row,
            organization_id=key.organization_id,
            after=state_of(issued.row),
            reason=f"Succeeds {key.pk}.",
        )
        for policy in policies:
            _move(policy, issued.row, actor)
        _end(key, actor, grace, reason)
    return issued


def _refuse_what_cannot_rotate(key: ApiKey, policies: list[Policy], grace: timedelta) -> None:
    if key.state != "active":
        raise ValidationError("Only an active key can be rotated.")
    if policies and grace:
        raise ValidationError("The key has policies of its own, which move to the new key: end the old one at once.")


def _move(policy: Policy, successor: ApiKey, actor: Actor) -> None:
    before = state_of(policy)
    policy.api_key = successor
    policy.save()
    record_change(
        actor,
        "change",
        policy,
        organization_id=policy.organization_id,
        before=before,
        after=state_of(policy),
        reason="Its key was rotated.",
    )


def _end(key: ApiKey, actor: Actor, grace: timedelta, reason: str) -> None:
    before = state_of(key)
    if grace:
        moment = timezone.now() + grace
        key.expires_at = min(moment, key.expires_at or moment)
        key.save(update_fields=["expires_at"])
    else:
        key.revoke()
    after, owner = state_of(key), key.organization_id
    record_change(actor, "rotate", key, organization_id=owner, before=before, after=after, reason=reason)
