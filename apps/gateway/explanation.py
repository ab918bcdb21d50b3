"""Would this request be allowed, by which policies, with what left? And which policies are there for a caller at all.

The answer comes from the pipeline's own stages (`Pipeline.rehearse`): nothing is sent, counted, reserved or recorded.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
from django.db import connection
from django.utils import timezone

from apps.audit.money import usd_from_nano
from apps.gateway.configuration import Configuration, caller_of, load_configuration
from apps.gateway.errors import GatewayError
from apps.gateway.exchange import Exchange
from apps.gateway.prompt import parse
from apps.gateway.routing import Route
from apps.gateway.runtime import BACKGROUND
from apps.orgs.models import ApiKey, Organization, User
from apps.orgs.versions import read_versions
from apps.policies.describe import describe_stored
from apps.policies.engine.policy import Broken, Level, Policy
from apps.policies.models import Policy as PolicyRow

ANY_MODEL = ""


def explain(key: ApiKey, body: Mapping[str, Any], person: User) -> dict[str, Any]:
    """Return whether a request of ``key`` with ``body`` would be allowed, and why. Consumes nothing."""
    exchange = Exchange("chat.completions")
    exchange.caller = caller_of(key)
    exchange.configuration = _configuration(key)
    try:
        exchange.prompt = parse(orjson.dumps(body))
    except GatewayError as error:
        return _answer(exchange, [error], key, person)
    refusals = BACKGROUND.run(BACKGROUND.runtime().pipeline.rehearse(exchange))
    return _answer(exchange, refusals, key, person)


def effective_policies(key: ApiKey, person: User) -> list[dict[str, Any]]:
    """Return the policies on every scope of a caller, widest first, with where each comes from and if it holds now."""
    now = timezone.now()
    scopes = caller_of(key).facts(ANY_MODEL, now).scopes()
    return [
        _policy(policy, key, person) | {"state": _state(policy, now)}
        for policy in _configuration(key).policies.on(scopes)
    ]


def _configuration(key: ApiKey) -> Configuration:
    assert key.organization_id is not None
    organization = key.organization_id
    found = load_configuration(organization, read_versions(connection, [organization])[organization])
    if found is None:
        raise Organization.DoesNotExist
    return found


def _answer(exchange: Exchange, refusals: list[GatewayError], key: ApiKey, person: User) -> dict[str, Any]:
    first = refusals[0].body()["error"] if refusals else None
    said = exchange.reasons()
    return {
        "allowed": not refusals,
        "status": int(refusals[0].status) if refusals else 200,
        "error": first,
        "reasons": said + [_reason(error) for error in refusals if error.message not in {r["message"] for r in said}],
        "policies": [
            _policy(policy, key, person)
            for policy in (exchange.judgement.decision.applied if exchange.judgement else ())
        ],
        "limits": [_left(reading) for reading in exchange.limits()],
        "findings": exchange.findings(),
        "cost": _cost(exchange.route) if exchange.route else None,
        "route": [
            {"provider": candidate.target.endpoint.provider, "model": candidate.target.model}
            for candidate in (exchange.route.candidates if exchange.route else ())
        ],
    }


def _reason(error: GatewayError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "enforced": True} | error.details


def _policy(policy: Policy, key: ApiKey, person: User) -> dict[str, Any]:
    level = policy.level
    names = {
        Level.PLATFORM: "the platform",
        Level.ORGANIZATION: str(key.organization),
        Level.APPLICATION: str(key.application),
        Level.USER: str(key.user),
        Level.KEY: key.name,
    }
    scope = {"level": level.value, "id": str(policy.scope_id) if policy.scope_id else None, "name": names[level]}
    return policy.stamp() | {"scope": scope, "says": _sentence(policy, person)}


def _sentence(policy: Policy, person: User) -> str | None:
    """Say what a policy does; what the platform's own say in full is for superadmins."""
    if policy.level is Level.PLATFORM and not person.is_superuser:
        return None
    row = PolicyRow.objects.filter(pk=policy.id).first()
    return describe_stored(row) if row else None


def _state(policy: Policy, now: datetime) -> str:
    if isinstance(policy.rule, Broken):
        return "broken"
    terms = policy.terms
    if terms.valid_from is not None and now < terms.valid_from:
        return "not yet"
    return "ended" if terms.valid_until is not None and now >= terms.valid_until else "holds"


def _left(reading: dict[str, Any]) -> dict[str, Any]:
    """Say money in dollars too, and what is left of it."""
    limit, spent, held = (reading.get(f"{name}_nano_usd") for name in ("limit", "spent", "reserved"))
    if not isinstance(limit, int):
        return reading
    said = reading | {"limit_usd": usd_from_nano(limit)}
    if isinstance(spent, int) and isinstance(held, int):
        said["left_usd"] = usd_from_nano(max(0, limit - spent - held))
    return said


def _cost(route: Route) -> dict[str, Any]:
    bounds = [candidate.bound for candidate in route.candidates]
    inputs, outputs = [b.input_tokens for b in bounds], [b.output_tokens for b in bounds]
    most_input, most_output = _most(inputs), _most(outputs)
    bounded = most_input is not None and most_output is not None
    return {
        "worst_case_usd": usd_from_nano(route.worst.with_output(most_output or 0)) if bounded else None,
        "most_input_tokens": most_input,
        "most_output_tokens": most_output,
    }


def _most(tokens: list[int | None]) -> int | None:
    known = [count for count in tokens if count is not None]
    return max(known) if len(known) == len(tokens) else None
