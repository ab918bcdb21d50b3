"""What a reservation would find, without making it: the budgets' own reckoning on counters that nobody writes back."""

from apps.audit.clock import database_now
from apps.policies.budgets import Budgets, Claim, OverBudget, Part, Reserved, counter_of
from apps.policies.models import Budget, SpanPart


def rehearse_claim(claim: Claim) -> Reserved | OverBudget:
    """Return what reserving ``claim`` would answer now, by the database's time. Reads only."""
    budgets = Budgets(database_now(), ())
    rows = Budget.objects.filter(pk__in=budgets.wanted([claim]))
    budgets.load(counter_of(row) for row in rows)
    budgets.load([counter_of(row) for row in budgets.missing([claim])])
    parts = SpanPart.objects.filter(budget_id__in=budgets.rolling([claim]))
    budgets.load_parts(Part(*row) for row in parts.values_list("budget_id", "starts_at", "used_nano_usd"))
    return budgets.reserve(claim)
