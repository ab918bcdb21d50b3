"""The limits and budgets of a request, read as its path would find them, and nothing taken from them."""

from dataclasses import replace

from apps.gateway.configuration import Configurations
from apps.gateway.errors import BudgetExceeded, GatewayError, Unavailable
from apps.gateway.exchange import Exchange
from apps.gateway.limits import shadow_reason
from apps.gateway.refusals import over_budget, rate_limited
from apps.policies.budgets import Claim, OverBudget, Reserved
from apps.policies.rates.base import RateStore, RatesUnavailable, allow, refuse
from apps.policies.rehearsal import rehearse_claim


async def peek_limits(rates: RateStore, exchange: Exchange) -> GatewayError | None:
    """Read the rate limits as `Pipeline._take_limits` would find them; return what it would raise."""
    judgement, route = exchange.judgement, exchange.route
    assert judgement is not None
    assert route is not None
    limits, tokens = judgement.limits.enforced, route.expected_tokens
    try:
        readings = await rates.peek((*limits, *judgement.limits.shadow), tokens)
    except RatesUnavailable:
        return Unavailable("Rate limits cannot be checked right now.")
    enforced, shadow = readings[: len(limits)], readings[len(limits) :]
    full = [reading.limit for reading in shadow if reading.refuses(tokens)]
    exchange.shadow_reasons += [shadow_reason(limit, judgement.decision) for limit in full]
    if not any(reading.refuses(tokens) for reading in enforced):
        exchange.verdict = allow(readings)
        return None
    verdict = refuse(enforced, tokens)
    exchange.verdict = replace(verdict, readings=readings)
    assert verdict.refused_by is not None
    return rate_limited(exchange, verdict.refused_by, verdict.retry_after_seconds)


async def peek_budgets(configurations: Configurations, exchange: Exchange, claim: Claim) -> Reserved | BudgetExceeded:
    """Reckon with the budgets as `Pipeline._open` would find them; return what it would get, or raise."""
    result = await configurations.read(lambda: rehearse_claim(claim))
    if isinstance(result, OverBudget):
        return over_budget(exchange, result)
    exchange.budget_readings = result.readings
    return result
