"""One request and what is known of it so far; at its end, the record it leaves."""

import math
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.conf import settings

from apps.audit.models import Status
from apps.audit.rows import Row
from apps.audit.uuid7 import uuid7
from apps.gateway.admission import Aside, Ticket
from apps.gateway.configuration import Caller, Configuration, Visitor
from apps.gateway.inspection import Inspection, safe_text
from apps.gateway.judgement import Judgement, storable
from apps.gateway.limits import rate_headers, reading_json
from apps.gateway.prompt import Prompt
from apps.gateway.providers.base import Fault, UpstreamError, Usage
from apps.gateway.routing import Candidate, PricedTarget, Route, worst_of
from apps.gateway.transcript import prompt_transcript
from apps.orgs.keys import keyed_digest
from apps.policies.budgets import Reserved
from apps.policies.engine.evaluate import Reason
from apps.policies.engine.request import Asked
from apps.policies.rates.base import RateVerdict

NOT_BILLED = frozenset({Fault.CONNECT, Fault.ADDRESS, Fault.REFUSED, Fault.CREDENTIAL, Fault.SERVER})
"""Faults after which a provider charges nothing: it was never reached, or it said that it did not answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended."""

    status: Status
    http_status: int
    error_code: str = ""
    error_message: str = ""
    usage: Usage | None = None
    usage_source: str = ""
    response: str = ""


@dataclass(slots=True, eq=False)
class Exchange:
    """A request on its way through the stages. Each stage fills in what it found out."""

    endpoint: str
    visitor: Visitor | None = None
    """Who asks, where no key says it."""
    id: UUID = field(default_factory=uuid7)
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=time.perf_counter)
    ticket: Ticket | None = None
    caller: Caller | None = None
    configuration: Configuration | None = None
    prompt: Prompt | None = None
    judgement: Judgement | None = None
    priced: tuple[PricedTarget, ...] = ()
    asked: Asked | None = None
    request_reasons: tuple[Reason, ...] = ()
    output_allowance: int | None = None
    inspection: Inspection | None = None
    route: Route | None = None
    verdict: RateVerdict | None = None
    reserved: Reserved | None = None
    budget_readings: tuple[dict[str, Any], ...] = ()
    deadline: float = math.inf
    """By the event loop's clock. Set when the intent is opened; everything after that ends by then."""
    served_by: Candidate | None = None
    """The candidate that was tried last."""
    unanswered: bool = False
    """Whether a provider is, or may be, at work for this request, and has not said what that used."""
    attempts: list[dict[str, Any]] = field(default_factory=list)
    output_findings: tuple[dict[str, Any], ...] = ()
    shadow_reasons: list[Reason] = field(default_factory=list)
    refusal: Reason | None = None
    first_byte_ms: int | None = None
    opened: bool = False
    closed: bool = False
    cost_nano_usd: int = 0
    stages: dict[str, int] = field(default_factory=dict)
    """When each stage began, in microseconds since the request came; it ended in the last one."""
    decided: int = 0
    """How often it was decided: more than once if the configuration changed meanwhile."""
    _asked: Row | None = None
    _prompt_text: str | None = None
    _rate_readings: list[dict[str, Any]] | None = None

    def forget(self) -> None:
        """Drop what was decided under a configuration that no longer holds; the prompt and the id stay."""
        self.caller = self.configuration = self.judgement = self.inspection = self.route = None
        self.verdict = self.reserved = self.refusal = self.asked = self.output_allowance = None
        self.request_reasons = ()
        self._asked = self._prompt_text = self._rate_readings = None
        self.budget_readings = ()
        self.shadow_reasons = []
        self.stages = {}
        self.decided += 1

    def begin(self, stage: str) -> None:
        """Note that a stage begins."""
        self.stages[stage] = int((time.perf_counter() - self.started) * 1_000_000)

    def aside(self) -> Aside:
        """Leave the place at work to others while this request waits for a client or a provider."""
        assert self.ticket is not None
        return self.ticket.aside()

    def try_next(self, candidate: Candidate) -> None:
        """Note that the request is about to go to a candidate."""
        self.served_by, self.unanswered = candidate, True
        target = candidate.target
        self.attempts.append(
            {"provider": target.endpoint.provider, "model": target.model, "started_ms": self.elapsed_ms()}
        )

    def give_up(self, error: UpstreamError) -> None:
        """Note that the last attempt failed. One that the provider may charge for costs its worst case."""
        self.attempts[-1] |= {"fault": error.fault.value, "status": error.status, "ended_ms": self.elapsed_ms()}
        if error.fault in NOT_BILLED:
            self.unanswered = False
        else:
            self._charge_worst_case()

    def charged_nano_usd(self) -> int:
        """Return what the attempts cost that may have been billed although their usage is not known."""
        return sum(attempt.get("worst_case_nano_usd", 0) for attempt in self.attempts)

    def elapsed_ms(self) -> int:
        """Return the milliseconds since the request came."""
        return int((time.perf_counter() - self.started) * 1000)

    def headers(self) -> list[tuple[str, str]]:
        """Return the headers that every answer of this request carries, as far as they are known."""
        headers = [("x-request-id", str(self.id))]
        if self.attempts:
            headers.append(("x-lcp-provider", self.attempts[-1]["provider"]))
        if self.verdict is not None:
            headers += rate_headers(self.verdict)
        return headers

    def intent(self) -> Row:
        """Return the record as it stands when the call is about to be made, for whoever may have to finish it."""
        return self.record(Outcome(Status.INTERRUPTED, 0))

    def record(self, outcome: Outcome) -> Row:
        """Return the final record's columns. The cost follows from the outcome's usage and the price that applied."""
        candidate = self.served_by or (self.route.candidates[0] if self.route else None)
        if outcome.usage is None:
            self._charge_worst_case()
        self.cost_nano_usd = self.charged_nano_usd() + _cost(candidate, outcome.usage)
        return {
            **self._question(),
            **_provider(candidate),
            **self._usage(outcome),
            **self._why(),
            "status": outcome.status.value,
            "http_status": outcome.http_status,
            "error_code": outcome.error_code,
            "error_message": safe_text(_storable(outcome.error_message)) if outcome.error_message else "",
            "cost_nano_usd": self.cost_nano_usd,
            "overrun_nano_usd": 0,
            "latency_ms": self.elapsed_ms(),
            "first_byte_ms": self.first_byte_ms,
            "attempts": self.attempts,
            "path": self.path(),
            "response_hash": keyed_hash(_storable(outcome.response)),
        }

    def text(self, outcome: Outcome) -> Row | None:
        """Return the redacted texts to be stored beside the record; ``None`` where there is none."""
        prompt, response = self.prompt_text(), _storable(outcome.response)
        if self.caller is None or not (prompt or response):
            return None
        return {
            "id": self.id,
            "organization_id": self.caller.organization_id,
            "prompt_redacted": prompt,
            "response_redacted": response,
        }

    def prompt_text(self) -> str:
        """Return the redacted conversation; empty as long as it has not been inspected."""
        if self._prompt_text is None and self.inspection is not None:
            self._prompt_text = _storable(prompt_transcript(self.inspection.stored))
        return self._prompt_text or ""

    def _charge_worst_case(self) -> None:
        """Nobody knows what the provider did: the last attempt is charged what had been reserved for it."""
        if self.unanswered:
            assert self.served_by is not None
            self.unanswered = False
            self.attempts[-1]["worst_case_nano_usd"] = worst_of(self.served_by).nano_usd

    def _usage(self, outcome: Outcome) -> Row:
        usage = outcome.usage or Usage(0, 0)
        source = "worst_case" if self.charged_nano_usd() else ""
        return {
            "tokens_input": usage.input_tokens,
            "tokens_output": usage.output_tokens,
            "tokens_cached": usage.cache_read_tokens,
            "usage_source": outcome.usage_source if outcome.usage else source,
        }

    def _question(self) -> Row:
        """Return who asked what: worked out once, for the intent, and the same in the final record."""
        if self._asked is None:
            self._asked = {**self._caller_columns(), **self._prompt_columns()}
        return self._asked

    def _caller_columns(self) -> Row:
        caller = self.caller
        assert caller is not None
        return {
            "id": self.id,
            "timestamp": self.timestamp,
            "endpoint": self.endpoint,
            "organization_id": caller.organization_id,
            "organization_name": caller.organization_name,
            "application_id": caller.application_id,
            "application_name": caller.application_name,
            "user_id": caller.user_id,
            "user_name": caller.user_name,
            "api_key_id": caller.api_key_id,
            "api_key_prefix": caller.api_key_prefix,
        }

    def _prompt_columns(self) -> Row:
        prompt = self.prompt
        if prompt is None:
            return {"model": "", "streamed": False, "end_user": "", "metadata": {}, "prompt_hash": ""}
        return {
            "model": safe_text(prompt.model),
            "streamed": prompt.stream,
            "end_user": safe_text(prompt.end_user) if prompt.end_user else "",
            "metadata": {safe_text(key): safe_text(value) for key, value in prompt.metadata.items()},
            "prompt_hash": keyed_hash(self.prompt_text()),
        }

    def reasons(self) -> list[dict[str, Any]]:
        """Return why it was refused, or in shadow mode would have been."""
        reasons = list(self.judgement.reasons) if self.judgement else []
        reasons += [storable(reason) for reason in (*self.request_reasons, *self.shadow_reasons)]
        return reasons + ([storable(self.refusal)] if self.refusal and self.refusal not in self._decided() else [])

    def limits(self) -> list[dict[str, Any]]:
        """Return every limit that was read, as it was found."""
        worst = self.route.worst.as_json() if self.route else {}
        budgets = [{**reading, "asked": worst} for reading in self.budget_readings]
        return [*self._request_readings(), *self._readings(), *budgets]

    def findings(self) -> list[dict[str, Any]]:
        """Return what the guardrails found."""
        return [*(self.inspection.findings if self.inspection else ()), *self.output_findings]

    def path(self) -> Row:
        """Return the way the request went: its stages, and what of it the other columns do not tell."""
        path: Row = {"stages": self.stages}
        if self.decided > 1:
            path["decided"] = self.decided
        if self.route is not None and len(self.route.candidates) > 1:
            targets = [candidate.target for candidate in self.route.candidates]
            path["route"] = [{"provider": target.endpoint.provider, "model": target.model} for target in targets]
        if self.route is not None and self.reserved is not None:
            given = self.reserved.output_tokens
            path |= {"clamped": given} if given < self.route.worst.output_tokens else {}
        if self.judgement is not None and self.prompt is not None and self.prompt.stream:
            path["stream"] = "held" if self.judgement.output_guard.intervenes else "relayed"
        return path

    def _why(self) -> Row:
        return {**self._decision(), "findings": self.findings(), "limits": self.limits()}

    def _decision(self) -> Row:
        return {
            "reasons": self.reasons(),
            "policies": self.judgement.stamps if self.judgement else [],
            "degraded": ["rate_limits"] if self.verdict and self.verdict.degraded else [],
        }

    def _readings(self) -> list[dict[str, Any]]:
        if self._rate_readings is None and self.verdict is not None:
            tokens = self.route.expected_tokens if self.route else 0
            self._rate_readings = [
                {**reading_json(reading), "asked": reading.limit.cost(tokens)} for reading in self.verdict.readings
            ]
        return self._rate_readings or []

    def _decided(self) -> tuple[Reason, ...]:
        return (*self.judgement.decision.reasons, *self.request_reasons) if self.judgement else ()

    def _request_readings(self) -> list[dict[str, Any]]:
        if self.judgement is None or self.asked is None:
            return []
        return [
            {
                "policy_id": str(policy.id),
                "policy": policy.name,
                "kind": policy.kind,
                "max_input_tokens": rule.max_input_tokens,
                "max_output_tokens": rule.max_output_tokens,
                "asked": self.asked.as_json(),
                "output_allowance": self.output_allowance,
            }
            for policy, rule in self.judgement.decision.request_limits
        ]


def keyed_hash(text: str) -> str:
    """Return the HMAC-SHA-256 of a stored text, in hexadecimal: the record can prove it without holding it."""
    if not text:
        return ""
    return keyed_digest(_hash_key(), text)


def _hash_key() -> bytes:
    return next(iter(settings.KEY_PEPPERS.values()))


def _provider(candidate: Candidate | None) -> Row:
    if candidate is None:
        return {"provider": "", "upstream_model": "", "price": {}}
    target = candidate.target
    return {"provider": target.endpoint.provider, "upstream_model": target.model, "price": target.price.stamp}


def _cost(candidate: Candidate | None, usage: Usage | None) -> int:
    if candidate is None or usage is None:
        return 0
    price = candidate.target.price
    return price.cost(usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens)


def _storable(text: str) -> str:
    """Replace what a database's text cannot hold."""
    return text.replace("\0", "\ufffd") if "\0" in text else text
