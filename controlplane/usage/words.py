"""Numbers of usage as people read them."""

from decimal import Decimal

from apps.audit.money import NANO
from apps.audit.usage import Sums


def dollars(nano: int) -> str:
    """Write nano-USD for people: cents, and of less than a dollar four places."""
    amount = Decimal(nano) / NANO
    return f"{amount:,.4f}" if 0 < abs(amount) < 1 else f"{amount:,.2f}"


def milliseconds(value: int | None) -> str:
    """Write a latency for people."""
    if value is None:
        return "-"
    return f"{value:,} ms" if value < 10_000 else f"{value / 1000:,.1f} s"


def percentiles(sums: Sums) -> str:
    """Say within which times 50, 95 and 99 of a hundred successful requests were answered."""
    p50, p95, p99 = sums.percentiles
    return f"half within {milliseconds(p50)}, 95 % within {milliseconds(p95)}, 99 % within {milliseconds(p99)}"


def change(now: int, before: int) -> str:
    """Say how a number differs from the one before it, in percent; empty where there is neither."""
    if before == 0:
        return "" if now == 0 else "none before"
    if now == before:
        return "as before"
    return f"{(now - before) / before:+,.0%}"
