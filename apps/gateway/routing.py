"""From a model's name to the providers that may serve it, at what price and worst case, in the order to try them."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache

from apps.gateway.configuration import Configuration, Target
from apps.gateway.errors import Forbidden, InvalidRequest, ModelNotFound, Unavailable
from apps.gateway.prompt import Prompt
from apps.gateway.providers.base import Adapter, Body, Endpoint, TokenBound, UpstreamRequest
from apps.gateway.providers.registry import adapter_for
from apps.gateway.simulated import is_simulated_model, simulated_models
from apps.policies.engine.evaluate import Decision
from apps.policies.engine.request import Asked
from apps.policies.prices import MILLION, ModelPrice, WorstCase, context_window


@dataclass(frozen=True, slots=True)
class PricedTarget:
    """A target with its dialect and its price."""

    endpoint: Endpoint
    adapter: Adapter
    model: str
    price: ModelPrice


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target and the request as it would go there."""

    target: PricedTarget
    request: UpstreamRequest = field(repr=False)
    bound: TokenBound


@dataclass(frozen=True, slots=True)
class Route:
    """The candidates in the order to try them, and a worst case that holds even if each of them is paid."""

    candidates: tuple[Candidate, ...]
    worst: WorstCase
    expected_tokens: int


@dataclass(frozen=True, slots=True)
class Environment:
    """Models that no route names and the operator's environment serves: a prefix of the name, and where it goes."""

    endpoints: Mapping[str, Endpoint]
    simulated: bool

    def targets(self, model: str) -> tuple[Target, ...]:
        """Return the target of a model, or none."""
        if self.simulated and is_simulated_model(model):
            return (Target(model, Endpoint("simulated", "simulated://local"), model, own=False),)
        return tuple(
            Target(model, endpoint, model, own=False)
            for prefix, endpoint in self.endpoints.items()
            if model.startswith(prefix)
        )

    def models(self) -> list[str]:
        """Return names to list that are served without a route."""
        return simulated_models() if self.simulated else []


def find_targets(configuration: Configuration, environment: Environment, model: str) -> tuple[Target, ...]:
    """Return the targets of a model: the most particular pattern decides, an organization's own before the platform's.

    Raises `ModelNotFound`.
    """
    named = [target for target in configuration.targets if pattern_matches(target.pattern, model)]
    if named:
        best = max(named, key=_particularity)
        return tuple(
            replace(target, upstream_model=target.upstream_model or model)
            for target in named
            if _particularity(target) == _particularity(best)
        )
    targets = environment.targets(model)
    if not targets:
        raise ModelNotFound(f"The model '{model}' does not exist or no provider is set up for it.", param="model")
    return targets


def price_targets(configuration: Configuration, targets: Sequence[Target], now: datetime) -> tuple[PricedTarget, ...]:
    """Find each target's price. Raises `Forbidden` if none has one: what cannot be priced cannot be governed."""
    priced, readable = [], False
    for target in targets:
        if target.endpoint is None:
            continue
        readable = True
        price = configuration.prices.price(target.endpoint.provider, target.upstream_model, now)
        if price is not None:
            adapter = adapter_for(target.endpoint.provider)
            priced.append(PricedTarget(target.endpoint, adapter, target.upstream_model, price))
    if priced:
        return tuple(priced)
    if not readable:
        raise Unavailable("The provider's credential for this model cannot be read.")
    raise Forbidden("MODEL_NOT_ALLOWED", "The model has no price, so that its cost could not be governed.")


def plan_route(body: Body, targets: Sequence[PricedTarget], decision: Decision) -> Route:
    """Build each candidate's request and the worst case of all. Raises `InvalidRequest` if a hard cap needs one."""
    counts_tokens = any(rule.tokens is not None for _, rule in decision.rate_limits)
    candidates = tuple(_candidate(body, target) for target in targets)
    capped = next((p for p, cap in decision.cost_caps if cap.hard and p.enforced), None)
    if capped is not None:
        for candidate in candidates:
            if candidate.bound.input_tokens is None or candidate.bound.output_tokens is None:
                message = f"Under the cost cap '{capped.name}' the worst case must be bounded. {candidate.bound.why}"
                raise InvalidRequest(
                    message.strip(), param="max_tokens" if candidate.bound.input_tokens else "messages"
                )
    return Route(
        candidates,
        _worst_of(candidates, body.get("n") or 1),
        _expected_tokens(targets[0], body) if counts_tokens else 0,
    )


def clamp(route: Route, body: Body, choices: int, output_tokens: int) -> Route:
    """Rebuild the requests so that the answer uses at most ``output_tokens``, over all its choices.

    There is at least one token for each choice: budgets reserve for no fewer.
    """
    clamped = with_output_limit(body, choices, output_tokens)
    candidates = tuple(_candidate(clamped, candidate.target) for candidate in route.candidates)
    return Route(candidates, route.worst, route.expected_tokens)


def with_output_limit(body: Body, choices: int, output_tokens: int) -> Body:
    """Return a request whose answer uses at most ``output_tokens``, over all its choices (one each at least).

    A limit of the request's own that is lower already stays.
    """
    each = max(1, output_tokens // choices)
    lowered = {name: min(each, body[name]) for name in OUTPUT_LIMITS if body.get(name) is not None}
    return {**body, **(lowered or {"max_completion_tokens": each})}


def asked_of(prompt: Prompt, targets: Sequence[PricedTarget]) -> Asked:
    """Return what a request asks for: its input bounded for each target, its output as it says itself."""
    bounds = [_candidate(prompt.body, target).bound.input_tokens for target in targets]
    known = [bound for bound in bounds if bound is not None]
    most = [prompt.body[name] for name in OUTPUT_LIMITS if prompt.body.get(name) is not None]
    return Asked(
        input_tokens=max(known) if len(known) == len(bounds) else None,
        output_tokens=max(most) * prompt.choices if most else None,
        choices=prompt.choices,
        features=prompt.features(),
    )


OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens")


def _expected_tokens(target: PricedTarget, body: Body) -> int:
    expected = target.adapter.expected(target.model, body)
    return expected.input_tokens + expected.output_tokens


def _candidate(body: Body, target: PricedTarget) -> Candidate:
    request = target.adapter.build_request(target.endpoint, target.model, body)
    window = context_window(target.endpoint.provider, target.model)
    return Candidate(target, request, target.adapter.bound(target.model, body, len(request.body), window))


def _worst_of(candidates: Sequence[Candidate], choices: int) -> WorstCase:
    """Add up: one that fell silent may be paid beside the next. Each is rounded up alone, so there is room for that."""
    worst = [worst_of(candidate) for candidate in candidates]
    return WorstCase(
        sum(w.input_times_million for w in worst) + (len(worst) - 1) * (MILLION - 1),
        sum(w.output_rate for w in worst),
        max(w.output_tokens for w in worst),
        least_output=choices,
    )


def worst_of(candidate: Candidate) -> WorstCase:
    """Return the most that one call to a candidate can cost, as far as it can be bounded."""
    price, bound = candidate.target.price, candidate.bound
    return WorstCase(price.worst_input(bound.input_tokens or 0), price.output.highest, bound.output_tokens or 0)


def _particularity(target: Target) -> tuple[bool, bool, int]:
    wild = "*" in target.pattern or "?" in target.pattern
    return (target.own, not wild, len(target.pattern))


@lru_cache(maxsize=4096)
def pattern_matches(pattern: str, model: str) -> bool:
    """Whether a route's pattern stands for a model."""
    return fnmatch.fnmatchcase(model, pattern)
