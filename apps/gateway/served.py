"""Which of the models that a policy names nobody serves: a name spelt wrong, or a model that is to come."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Q

from apps.gateway.models import ModelRoute
from apps.gateway.routing import pattern_matches
from apps.gateway.runtime import environment
from apps.policies.engine.kinds import is_exact
from apps.policies.models import Policy

MOST_WARNINGS = 20


@dataclass(frozen=True, slots=True)
class Warning:  # noqa: A001 (what it is; nothing here warns as Python does)
    """Something about an object that is allowed and probably not meant. ``param`` is the API's name of the field."""

    param: str
    message: str


def unserved(policy: Policy) -> list[Warning]:
    """Return a warning for each exact model name of a policy that no route, prefix or simulated model can serve."""
    named = [(param, name) for param, names in _named(policy) for name in names if is_exact(name)]
    if not named:
        return []
    routes, serving = _routes(policy.organization_id), environment()
    return [
        Warning(param, f"No route and no provider serves the model '{name}' yet.")
        for param, name in named
        if not any(pattern_matches(route, name) for route in routes) and not serving.targets(name)
    ][:MOST_WARNINGS]


def _named(policy: Policy) -> list[tuple[str, list[str]]]:
    config: Any = policy.config if isinstance(policy.config, dict) else {}
    lists = [(f"config.{field}", config.get(field)) for field in ("allow", "deny")] + [("models", policy.models)]
    return [(param, [n for n in names if isinstance(n, str)]) for param, names in lists if isinstance(names, list)]


def _routes(organization_id: UUID | None) -> list[str]:
    rows = ModelRoute.objects.filter(is_active=True)
    if organization_id is not None:  # a policy of the platform speaks for every organization's routes
        rows = rows.filter(Q(organization_id=organization_id) | Q(organization__isnull=True))
    return list(rows.values_list("model", flat=True).distinct())
