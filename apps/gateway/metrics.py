"""What Prometheus may know: counts and times by outcome, never a tenant's name."""

from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from apps.audit.money import NANO

if TYPE_CHECKING:
    from apps.gateway.exchange import Exchange, Outcome

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

REQUESTS = Counter("lcp_requests_total", "Requests with a final record.", ["endpoint", "provider", "status", "code"])
SECONDS = Histogram("lcp_request_seconds", "Time from the first byte in to the record.", ["endpoint"], buckets=_BUCKETS)
TOKENS = Counter("lcp_tokens_total", "Tokens used.", ["provider", "direction"])
COST = Counter("lcp_cost_usd_total", "Cost in US dollars, as a float: the ledger is exact.", ["provider"])
UNAUTHENTICATED = Counter("lcp_unauthenticated_total", "Requests without a valid credential.")
SHED = Counter("lcp_shed_total", "Requests sent away for want of capacity, before anything was done.", ["signal"])
DEGRADED = Counter("lcp_degraded_total", "Requests served while a part was degraded.", ["part"])
JOURNAL_BACKLOG = Gauge("lcp_journal_backlog", "Members waiting for the journal's writer.", multiprocess_mode="livesum")
SPOOLED = Gauge("lcp_spooled_records", "Final records waiting on disk.", multiprocess_mode="livesum")

# Looking a child up by its labels costs more than counting: each combination is looked up once.
_requests = cache(REQUESTS.labels)
_seconds = cache(SECONDS.labels)
_tokens = cache(TOKENS.labels)
_cost = cache(COST.labels)
_shed = cache(SHED.labels)


def unauthenticated() -> None:
    """Count a request without a valid credential: it is not recorded anywhere else."""
    UNAUTHENTICATED.inc()


def shed(signal: str) -> None:
    """Count a request that was sent away at once: it is not recorded anywhere else."""
    _shed(signal).inc()


def journal(backlog: int, spooled: int) -> None:
    """Note how much waits for the journal, in memory and on disk."""
    JOURNAL_BACKLOG.set(backlog)
    SPOOLED.set(spooled)


def finished(exchange: "Exchange", outcome: "Outcome") -> None:
    """Count a request that has its final record."""
    provider = exchange.served_by.target.endpoint.provider if exchange.served_by else ""
    _requests(exchange.endpoint, provider, outcome.status.value, outcome.error_code).inc()
    _seconds(exchange.endpoint).observe(exchange.elapsed_ms() / 1000)
    if outcome.usage is not None:
        _tokens(provider, "input").inc(outcome.usage.input_tokens)
        _tokens(provider, "output").inc(outcome.usage.output_tokens)
    if exchange.cost_nano_usd:
        _cost(provider).inc(exchange.cost_nano_usd / NANO)
    if exchange.verdict is not None and exchange.verdict.degraded:
        DEGRADED.labels("rate_limits").inc()
