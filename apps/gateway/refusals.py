"""The words in which a limit or a budget refuses a request; each notes in the exchange what refused."""

import math

from apps.audit.money import usd_from_nano
from apps.gateway.errors import BudgetExceeded, RateLimited
from apps.gateway.exchange import Exchange
from apps.gateway.limits import refusal_message
from apps.policies.budgets import OverBudget
from apps.policies.engine.evaluate import Reason
from apps.policies.engine.policy import Level
from apps.policies.rates.base import RateLimit


def rate_limited(exchange: Exchange, limit: RateLimit, retry_after: float) -> RateLimited:
    """Return the refusal of a rate limit; ``retry_after`` in seconds, infinite if the request never fits."""
    assert exchange.judgement is not None
    message = refusal_message(limit, retry_after)
    policy = next(p for p, _ in exchange.judgement.decision.rate_limits if str(p.id) == limit.policy_id)
    exchange.refusal = Reason(RateLimited.code, message, policy)
    wait = 3600.0 if math.isinf(retry_after) else retry_after
    return RateLimited(message, details={"policy": limit.policy_name}, retry_after=wait)


def over_budget(exchange: Exchange, over: OverBudget) -> BudgetExceeded:
    """Return the refusal of a cost cap. What the whole platform spends is nobody's business but the platform's."""
    assert exchange.route is not None
    exchange.budget_readings = over.readings
    could_cost = usd_from_nano(exchange.route.worst.nano_usd)
    said = f"Policy '{over.policy.name}' "
    if over.policy.level is Level.PLATFORM:
        said += f"does not leave enough for this request, which could cost {could_cost} USD."
    else:
        window = "in all" if over.cap.per.value == "total" else f"per {over.cap.per.value}"
        if over.cap.span_hours is not None:
            window = f"in any {over.cap.span_hours} hours"
        left, limit = usd_from_nano(over.left_nano_usd), usd_from_nano(over.cap.limit_nano_usd)
        said += f"allows {limit} USD {window}; {left} USD is left and this request could cost {could_cost} USD."
    exchange.refusal = Reason(BudgetExceeded.code, said, over.policy)
    wait = 3600.0
    if over.resets_at is not None:
        wait = max(1.0, (over.resets_at - exchange.timestamp).total_seconds())
    return BudgetExceeded(said, details={"policy": over.policy.name}, retry_after=wait)
