"""The end of a request: its record handed to the journal, its cost to the budgets, its limits given back.

Every way out of the pipeline ends in one of three: `Settlement.settle` (a call was made and this task waits for the
commit), `Settlement.interrupt` (this task must not wait for it), `Settlement.refuse` (what was decided refused it).
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from apps.audit.journal import Journal
from apps.gateway import metrics
from apps.gateway.bookkeeping import Closing, Refusal, StaleConfiguration
from apps.gateway.exchange import Exchange, Outcome
from apps.gateway.providers.base import Usage
from apps.orgs.versions import Versions
from apps.policies.rates.base import RateStore


class Settlement:
    """Ends requests, each of them once."""

    def __init__(self, journal: Journal, rates: RateStore) -> None:
        self._journal = journal
        self._rates = rates
        self._loose_ends: set[asyncio.Task[None]] = set()

    async def settle(self, exchange: Exchange, outcome: Outcome) -> None:
        """Write the final record of a call and wait for its commit (or for the spool's disk)."""
        if not exchange.closed:
            await self._journal.post(self._closing(exchange, outcome))

    def interrupt(self, exchange: Exchange, outcome: Outcome) -> None:
        """Have the final record written without waiting for it. May be called any number of times."""
        if exchange.closed or exchange.caller is None:
            return
        if not exchange.opened:
            self._finish(exchange, outcome)
            self._journal.post_soon(Refusal(exchange.record(outcome), exchange.text(outcome), None))
            return
        self._journal.post_soon(self._closing(exchange, outcome))

    async def refuse(self, exchange: Exchange, outcome: Outcome, versions: Versions) -> None:
        """Write the record of a request that led to no call.

        Raises `StaleConfiguration` if the configuration is no longer at ``versions``.
        """
        result = await self._journal.post(Refusal(exchange.record(outcome), exchange.text(outcome), versions))
        if isinstance(result, StaleConfiguration):
            raise result
        self._finish(exchange, outcome)

    def give_back(self, exchange: Exchange) -> None:
        """Undo the take of a request that a later stage refused."""
        assert exchange.judgement is not None
        assert exchange.route is not None
        limits = exchange.judgement.limits.enforced
        self.later(self._rates.give_back(str(exchange.id), limits, exchange.route.expected_tokens))

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something after the answer; `close` waits for it."""
        task = asyncio.ensure_future(work)
        self._loose_ends.add(task)
        task.add_done_callback(self._loose_ends.discard)

    async def close(self) -> None:
        """Wait for what was left to do after answers."""
        await asyncio.gather(*self._loose_ends, return_exceptions=True)

    def _closing(self, exchange: Exchange, outcome: Outcome) -> Closing:
        closing = Closing(exchange.record(outcome), exchange.text(outcome))
        self._finish(exchange, outcome)
        self._release_limits(exchange, outcome)
        return closing

    def _finish(self, exchange: Exchange, outcome: Outcome) -> None:
        exchange.closed = True
        metrics.finished(exchange, outcome)
        metrics.journal(self._journal.backlog(), self._journal.spooled())

    def _release_limits(self, exchange: Exchange, outcome: Outcome) -> None:
        judgement, route = exchange.judgement, exchange.route
        assert judgement is not None
        assert route is not None
        used = outcome.usage.input_tokens + outcome.usage.output_tokens if outcome.usage else 0
        if outcome.usage is None and exchange.charged_nano_usd():
            used = route.expected_tokens
        for suffix, limits in judgement.to_release:
            self.later(self._rates.release(f"{exchange.id}{suffix}", limits, route.expected_tokens, used))


def usage_of(exchange: Exchange, reported: Usage | None, produced: Callable[[], str]) -> tuple[Usage, str]:
    """Return what a call used and who says so: the provider, or our estimate from the text it had ``produced``."""
    if reported is not None:
        return reported, "provider"
    candidate = exchange.served_by
    assert candidate is not None
    assert exchange.inspection is not None
    return candidate.target.adapter.estimate(exchange.inspection.passed, produced()), "estimate"
