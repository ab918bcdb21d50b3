"""The path of a request, from its headers to its record. Read `Pipeline._through` from top to bottom.

A stage takes nouns, returns nouns and raises a `GatewayError` to stop. There is one exit: `Pipeline.complete_chat`
answers whatever happened, after the record of it was handed to the journal.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol
from uuid import UUID

import orjson
from django.db import DatabaseError, InterfaceError

from apps.audit.journal import Journal, JournalUnavailable
from apps.audit.models import Status
from apps.audit.money import usd_from_nano
from apps.gateway import metrics
from apps.gateway.admission import Admission
from apps.gateway.bookkeeping import Intent, StaleConfiguration
from apps.gateway.configuration import Caller, Configuration, Configurations, NoOrganization, Visitor
from apps.gateway.errors import (
    Forbidden,
    GatewayError,
    GuardrailBlocked,
    InternalFailure,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    ProviderFailed,
    Unauthenticated,
    Unavailable,
)
from apps.gateway.exchange import Exchange, Outcome
from apps.gateway.inspection import NO_GUARD, inspected, refuse_unscannable
from apps.gateway.judgement import Judgement
from apps.gateway.limits import SHADOW, shadow_reason
from apps.gateway.pacing import Paced
from apps.gateway.prompt import parse
from apps.gateway.providers.base import Fault, Reply, UpstreamError, Usage
from apps.gateway.refusals import over_budget, rate_limited
from apps.gateway.rehearsal import peek_budgets, peek_limits
from apps.gateway.routing import (
    Candidate,
    Environment,
    asked_of,
    clamp,
    find_targets,
    plan_route,
    price_targets,
    with_output_limit,
)
from apps.gateway.settlement import Settlement, usage_of
from apps.gateway.streaming import AnswerStream
from apps.gateway.transcript import answer_transcript
from apps.gateway.transport import Transport, UpstreamResponse
from apps.orgs.identities import NotAdmitted
from apps.orgs.jwks import SigningKeysUnavailable
from apps.policies.budgets import Claim, OverBudget, Reserved
from apps.policies.engine.evaluate import Decision, Reason, first_enforced
from apps.policies.engine.request import output_allowance, request_reasons
from apps.policies.rates.base import RateStore, RatesUnavailable

logger = logging.getLogger(__name__)

READINGS_OF_A_CHANGING_CONFIGURATION = 5
SLOT_GRACE_SECONDS = 60.0
"""How much longer than a request may take a limit remembers it: a late correction must still find it."""
JSON = [("content-type", "application/json")]
NOT_USABLE = "The API key or token is missing, unknown, expired or revoked."


class Inbound(Protocol):
    """A request as a door hands it in."""

    @property
    def authorization(self) -> Sequence[str]:
        """The values of every Authorization header, as they came."""
        ...

    @property
    def content_encoding(self) -> str:
        """The Content-Encoding header's value, ``""`` without one."""
        ...

    async def body(self) -> bytes:
        """Return the whole body, read once. Raises `InvalidRequest` if it is too large or too slow."""
        ...

    def gone(self) -> bool:
        """Whether the client has left, as far as the door can tell."""
        ...


@dataclass(slots=True)
class Answer:
    """What goes back: a whole body, or a stream that must be closed by whoever sends it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = field(repr=False, default=b"")
    stream: AnswerStream | None = None


class Pipeline:
    """The stages and what they work with. One for each event loop."""

    def __init__(
        self,
        *,
        admission: Admission,
        configurations: Configurations,
        rates: RateStore,
        journal: Journal,
        transport: Transport,
        environment: Environment,
        deadline_seconds: float,
    ) -> None:
        self.admission = admission
        self.configurations = configurations
        self.rates = rates
        self.journal = journal
        self.transport = transport
        self.environment = environment
        self.deadline_seconds = deadline_seconds
        self._hold_seconds = deadline_seconds + SLOT_GRACE_SECONDS
        self.settlement = Settlement(journal, rates)

    # --- the doors' entrances

    async def complete_chat(self, inbound: Inbound, visitor: Visitor | None = None) -> Answer:
        """Answer a chat completion request, whatever happens, and leave exactly one record of it once it is let in.

        A ``visitor`` is who asks where the request brings no key. All else is the same for them.
        """
        return await self._admitted(Exchange("chat.completions", visitor), inbound, self._complete)

    async def list_models(self, inbound: Inbound, visitor: Visitor | None = None) -> Answer:
        """Answer which models the caller, or the visitor, may use."""
        return await self._admitted(Exchange("models", visitor), inbound, self._models)

    async def retrieve_model(self, inbound: Inbound, model: str) -> Answer:
        """Answer for one model that the caller may use; any other does not exist."""
        return await self._admitted(Exchange("models"), inbound, partial(self._model, model))

    async def close(self) -> None:
        """Wait for what was left to do in the background."""
        await self.settlement.close()

    # --- the path

    async def _admitted(
        self, exchange: Exchange, inbound: Inbound, work: Callable[[Exchange, Inbound], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        """Do the work when there is a place for it. Who is shed is counted, not recorded: nothing was done for them."""
        try:
            exchange.ticket = await self.admission.enter(lambda: self._whose(exchange, inbound))
        except Overloaded as error:
            return _refusal_answer(exchange, error)
        stream = None
        try:
            path = work(exchange, inbound)
            answer = await (Paced(path, self.admission.pace) if exchange.ticket.paced else path)
            stream = answer.stream
        finally:
            if stream is None:
                exchange.ticket.close()
        exchange.ticket.step_aside()  # a stream is closed by whoever sends it, and mostly waits
        return answer

    def refuse_at_once(self, authorization: Sequence[str]) -> Overloaded | None:
        """Say whether a request with these headers would be shed, and count it if so: for a door that can save more."""
        try:
            self.admission.check(lambda: self.configurations.organization_of(_bearer(authorization)))
        except Overloaded as error:
            return error
        return None

    def _whose(self, exchange: Exchange, inbound: Inbound) -> UUID | None:
        if exchange.visitor is not None:
            return exchange.visitor.organization_id
        return self.configurations.organization_of(_bearer(inbound.authorization))

    async def _complete(self, exchange: Exchange, inbound: Inbound) -> Answer:
        try:
            return await self._with_current_configuration(exchange, inbound)
        except asyncio.CancelledError:
            self.settlement.interrupt(
                exchange, Outcome(Status.INTERRUPTED, 499, "INTERRUPTED", "The server was stopping.")
            )
            raise
        except Exception:
            logger.exception("Request %s failed inside the gateway.", exchange.id)
            return await self._fail(exchange, InternalFailure())

    async def _models(self, exchange: Exchange, inbound: Inbound) -> Answer:
        try:
            await self._authenticate_anew(exchange, inbound)
            data = [_model(name) for name in self._usable_models(exchange)]
            return self._whole(exchange, 200, {"object": "list", "data": data})
        except GatewayError as error:
            return _refusal_answer(exchange, error)

    async def _model(self, model: str, exchange: Exchange, inbound: Inbound) -> Answer:
        try:
            await self._authenticate_anew(exchange, inbound)
            if not self._may_use(exchange, model):
                raise ModelNotFound(f"The model '{model}' does not exist or you may not use it.", param="model")
            return self._whole(exchange, 200, _model(model))
        except GatewayError as error:
            return _refusal_answer(exchange, error)

    async def rehearse(self, exchange: Exchange) -> list[GatewayError]:
        """Take a request, of which caller, configuration and prompt are known, through the stages up to the call.

        Nothing is sent, counted, reserved or recorded. Return what would refuse it, the first of the path first; limits
        and budgets are both read even if one refuses.
        """
        assert exchange.caller is not None
        if not _may_call(exchange.caller):
            return [Unauthenticated(NOT_USABLE)]
        try:
            self._judge(exchange)
            await self._inspect(exchange)
            self._plan(exchange)
        except GatewayError as error:
            return [error]
        refusals = (await peek_limits(self.rates, exchange), await self._peek_budgets(exchange))
        return [refusal for refusal in refusals if refusal is not None]

    async def _with_current_configuration(self, exchange: Exchange, inbound: Inbound) -> Answer:
        for _ in range(READINGS_OF_A_CHANGING_CONFIGURATION):
            self._forget(exchange)
            try:
                return await self._through(exchange, inbound)
            except GatewayError as error:
                with suppress(StaleConfiguration):
                    return await self._fail(exchange, error)
            except StaleConfiguration:
                continue
        return await self._fail(exchange, Unavailable("The configuration is changing too quickly. Try again."))

    async def _through(self, exchange: Exchange, inbound: Inbound) -> Answer:
        await self._authenticate(exchange, inbound)
        await self._parse(exchange, inbound)
        self._judge(exchange)
        await self._inspect(exchange)
        self._plan(exchange)
        await self._take_limits(exchange)
        await self._open(exchange)
        return await self._call(exchange, inbound)

    async def _authenticate(self, exchange: Exchange, inbound: Inbound) -> None:
        exchange.begin("authenticate")
        try:
            await self._identify(exchange, inbound)
        except Forbidden:  # a key of no organization is valid: its request's shape comes first
            await self._parse(exchange, inbound)
            raise

    async def _identify(self, exchange: Exchange, inbound: Inbound) -> None:
        found = await self._find_caller(exchange, inbound)
        if found is None:
            metrics.unauthenticated()
            raise Unauthenticated(NOT_USABLE)
        exchange.caller, exchange.configuration = found

    async def _parse(self, exchange: Exchange, inbound: Inbound) -> None:
        exchange.begin("parse")
        if exchange.prompt is None:
            if inbound.content_encoding not in ("", "identity"):
                raise InvalidRequest("Compressed bodies are not read: send it without Content-Encoding.", status=415)
            with exchange.aside():
                body = await inbound.body()
            exchange.prompt = parse(body)

    def _judge(self, exchange: Exchange) -> None:
        """Find who serves the model (404), what the policies say (403) and what it costs (403 if nobody knows)."""
        exchange.begin("judge")
        caller, configuration, prompt = exchange.caller, exchange.configuration, exchange.prompt
        assert caller is not None
        assert configuration is not None
        assert prompt is not None
        targets = find_targets(configuration, self.environment, prompt.model)
        if configuration.suspended:
            raise Forbidden("FORBIDDEN", "The organization is suspended.")
        exchange.judgement = configuration.judge(caller, prompt.model, exchange.timestamp)
        _refuse(exchange, exchange.judgement.decision.refusal)
        exchange.priced = price_targets(configuration, targets, exchange.timestamp)
        self._limit_request(exchange, exchange.judgement.decision)

    def _limit_request(self, exchange: Exchange, decision: Decision) -> None:
        """Hold what the request asks for against its limits (403)."""
        if decision.request_limits:
            assert exchange.prompt is not None
            exchange.asked = asked_of(exchange.prompt, exchange.priced)
            exchange.request_reasons = request_reasons(decision.request_limits, exchange.asked)
            _refuse(exchange, first_enforced(exchange.request_reasons))
            exchange.output_allowance = output_allowance(decision.request_limits, exchange.asked)

    async def _inspect(self, exchange: Exchange) -> None:
        exchange.begin("inspect")
        prompt, judgement = exchange.prompt, exchange.judgement
        assert prompt is not None
        assert judgement is not None
        exchange.inspection = await inspected(prompt.body, prompt.size, judgement.input_guard, "input")
        if exchange.inspection.blocked:
            raise exchange.inspection.blocked
        refuse_unscannable(prompt.body, judgement.input_guard)

    def _plan(self, exchange: Exchange) -> None:
        exchange.begin("plan")
        assert exchange.inspection is not None
        assert exchange.judgement is not None
        assert exchange.prompt is not None
        body = exchange.inspection.passed
        if exchange.output_allowance is not None:
            body = with_output_limit(body, exchange.prompt.choices, exchange.output_allowance)
        exchange.route = plan_route(body, exchange.priced, exchange.judgement.decision)

    async def _take_limits(self, exchange: Exchange) -> None:
        exchange.begin("take_limits")
        judgement, route = exchange.judgement, exchange.route
        assert judgement is not None
        assert route is not None
        limits = judgement.limits.enforced
        if limits:
            try:
                verdict = await self.rates.take(str(exchange.id), limits, route.expected_tokens, self._hold_seconds)
            except RatesUnavailable as error:
                raise Unavailable("Rate limits cannot be checked right now.") from error
            except asyncio.CancelledError:
                self.settlement.give_back(exchange)  # it may have been counted all the same
                raise
            exchange.verdict = verdict
            if not verdict.allowed:
                assert verdict.refused_by is not None
                raise rate_limited(exchange, verdict.refused_by, verdict.retry_after_seconds)
        if judgement.limits.shadow:
            await self._take_shadow_limits(exchange, judgement, route.expected_tokens)

    async def _take_shadow_limits(self, exchange: Exchange, judgement: Judgement, tokens: int) -> None:
        for limit in judgement.limits.shadow:
            verdict = await self.rates.take(f"{exchange.id}{SHADOW}", [limit], tokens, self._hold_seconds)
            if not verdict.allowed:
                exchange.shadow_reasons.append(shadow_reason(limit, judgement.decision))

    async def _peek_budgets(self, exchange: Exchange) -> GatewayError | None:
        result = await peek_budgets(self.configurations, exchange, self._intent(exchange).claim)
        if isinstance(result, GatewayError):
            return result
        self._clamp(exchange, result)
        return None

    async def _open(self, exchange: Exchange) -> None:
        """Commit the intent and the reservations, or give back what was taken."""
        exchange.begin("open")
        try:
            exchange.reserved = await self._commit_intent(exchange)
        except BaseException:
            if exchange.verdict is not None and exchange.verdict.allowed:
                self.settlement.give_back(exchange)
            raise
        exchange.opened = True

    async def _commit_intent(self, exchange: Exchange) -> Reserved:
        exchange.deadline = asyncio.get_running_loop().time() + self.deadline_seconds
        try:
            result = await self.journal.post(self._intent(exchange))
        except JournalUnavailable as error:
            raise Unavailable("The request cannot be recorded right now, so it was not sent.") from error
        if isinstance(result, Exception):
            raise result
        if isinstance(result, OverBudget):
            raise over_budget(exchange, result)
        assert isinstance(result, Reserved)
        exchange.budget_readings = result.readings
        self._clamp(exchange, result)
        return result

    def _intent(self, exchange: Exchange) -> Intent:
        caller, configuration, judgement, route = (
            exchange.caller,
            exchange.configuration,
            exchange.judgement,
            exchange.route,
        )
        assert caller is not None
        assert configuration is not None
        assert judgement is not None
        assert route is not None
        claim = Claim(exchange.id, caller.organization_id, judgement.decision.cost_caps, route.worst)
        deadline = exchange.timestamp + timedelta(seconds=self.deadline_seconds)
        row = {
            "id": exchange.id,
            "organization_id": caller.organization_id,
            "deadline": deadline,
            "worst_case_nano_usd": route.worst.nano_usd,
            "intent": exchange.intent(),
        }
        return Intent(caller.organization_id, configuration.versions, claim, row)

    def _clamp(self, exchange: Exchange, reserved: Reserved) -> None:
        route, prompt, inspection = exchange.route, exchange.prompt, exchange.inspection
        assert route is not None
        assert prompt is not None
        assert inspection is not None
        if reserved.output_tokens < route.worst.output_tokens:
            exchange.route = clamp(route, inspection.passed, prompt.choices, reserved.output_tokens)

    # --- the call

    async def _call(self, exchange: Exchange, inbound: Inbound) -> Answer:
        exchange.begin("call")
        assert exchange.prompt is not None
        candidate, response = await self._reach_provider(exchange)
        if exchange.prompt.stream:
            stream = AnswerStream(self.settlement, exchange, candidate, response)
            headers = [
                *exchange.headers(),
                ("content-type", "text/event-stream; charset=utf-8"),
                ("cache-control", "no-cache"),
            ]
            return Answer(200, headers, stream=stream)
        try:
            with exchange.aside():
                content = await response.read()
            reply = candidate.target.adapter.parse_reply(content)
        except UpstreamError as error:
            exchange.attempts[-1]["fault"] = error.fault.value
            raise ProviderFailed(error) from error
        finally:
            await response.close()
        return await self._deliver(exchange, inbound, reply, len(content))

    async def _reach_provider(self, exchange: Exchange) -> tuple[Candidate, UpstreamResponse]:
        """Send the request to the first candidate that takes it; another one only before anything was answered.

        The reservation covers every candidate, so that one that may have been billed does not stand in the way.
        """
        assert exchange.route is not None
        *others, last = exchange.route.candidates
        for candidate in others:
            try:
                return candidate, await self._send(exchange, candidate)
            except UpstreamError as error:
                if not _another_may_answer(error) or asyncio.get_running_loop().time() >= exchange.deadline:
                    raise ProviderFailed(error) from error
        try:
            return last, await self._send(exchange, last)
        except UpstreamError as error:
            raise ProviderFailed(error) from error

    async def _send(self, exchange: Exchange, candidate: Candidate) -> UpstreamResponse:
        exchange.try_next(candidate)
        try:
            with exchange.aside():
                response = await self.transport.send(candidate.request, exchange.deadline)
            if response.status >= 300:
                raise await _refused(candidate, response)
        except UpstreamError as error:
            exchange.give_up(error)
            raise
        exchange.attempts[-1]["status"] = response.status
        exchange.first_byte_ms = exchange.elapsed_ms()
        return response

    async def _deliver(self, exchange: Exchange, inbound: Inbound, reply: Reply, size: int) -> Answer:
        exchange.begin("deliver")
        judgement = exchange.judgement
        assert judgement is not None
        choices = reply.body["choices"]
        usage, source = usage_of(exchange, reply.usage, lambda: _choices_text(choices))
        inspection = await inspected(choices, size, judgement.output_guard, "output")
        exchange.output_findings = inspection.findings
        response = _choices_text(inspection.stored)
        if inspection.blocked:
            exchange.refusal = inspection.blocked.reason
            outcome = _blocked_outcome(inspection.blocked, usage, source, response)
            await self.settlement.settle(exchange, outcome)
            return _refusal_answer(exchange, inspection.blocked)
        status = Status.CANCELLED if inbound.gone() else Status.SUCCESS
        await self.settlement.settle(
            exchange, Outcome(status, 200, usage=usage, usage_source=source, response=response)
        )
        return self._whole(exchange, 200, {**reply.body, "choices": inspection.passed})

    def _whole(self, exchange: Exchange, status: int, body: Any) -> Answer:
        headers = [*exchange.headers(), *JSON]
        if exchange.closed:
            headers.append(("x-lcp-cost-usd", usd_from_nano(exchange.cost_nano_usd)))
        return Answer(status, headers, orjson.dumps(body))

    # --- refusals and failures

    async def _fail(self, exchange: Exchange, error: GatewayError) -> Answer:
        """Record and answer a refusal or failure. Raises `StaleConfiguration` if what it was decided on is outdated."""
        if isinstance(error, Unauthenticated) and exchange.caller is None:
            return _refusal_answer(exchange, error)
        if not exchange.closed and exchange.caller is not None:
            await self._record_failure(exchange, error)
        return _refusal_answer(exchange, error)

    async def _record_failure(self, exchange: Exchange, error: GatewayError) -> None:
        outcome = Outcome(error.outcome, error.status, error.code, error.message)
        if isinstance(error, GuardrailBlocked):
            exchange.refusal = error.reason
        if exchange.opened:
            await self.settlement.settle(exchange, outcome)
            return
        assert exchange.configuration is not None
        if exchange.prompt is not None and exchange.inspection is None:
            # Refused before its texts were read; an auditor wants to see them all the same, redacted as ever.
            prompt = exchange.prompt
            exchange.inspection = await inspected(prompt.body, prompt.size, NO_GUARD, "input")
        if error.decided:
            await self.settlement.refuse(exchange, outcome, exchange.configuration.versions)
        else:
            self.settlement.interrupt(
                exchange, outcome
            )  # what fails here may be the database: nobody waits for it twice

    # --- who calls

    async def _find_caller(self, exchange: Exchange, inbound: Inbound) -> tuple[Caller, Configuration] | None:
        """Return the visitor, or the caller of a key that may be used now.

        A refusal from memory is checked with the database first.
        """
        for _ in range(READINGS_OF_A_CHANGING_CONFIGURATION):
            try:
                found = await self._known(exchange, inbound)
            except NoOrganization as error:
                raise Forbidden("FORBIDDEN", "This key belongs to no organization: it cannot call models.") from error
            except NotAdmitted as error:
                raise Forbidden("FORBIDDEN", str(error)) from error
            except (DatabaseError, InterfaceError, SigningKeysUnavailable) as error:
                raise Unavailable("Keys cannot be checked right now.") from error
            if found is None or _may_call(found[0]):
                return found
            if await self._is_current(found[1]):
                return None
        return None

    async def _known(self, exchange: Exchange, inbound: Inbound) -> tuple[Caller, Configuration] | None:
        if exchange.visitor is not None:
            return await self.configurations.find_visitor(exchange.visitor)
        return await self.configurations.find(_bearer(inbound.authorization))

    async def _is_current(self, configuration: Configuration) -> bool:
        try:
            return await self.configurations.is_current(configuration)
        except (DatabaseError, InterfaceError) as error:
            raise Unavailable("The configuration cannot be checked right now.") from error

    def _forget(self, exchange: Exchange) -> None:
        if exchange.configuration is not None:
            self.configurations.drop(exchange.configuration)
        exchange.forget()

    async def _authenticate_anew(self, exchange: Exchange, inbound: Inbound) -> None:
        """Authenticate for an answer that the journal does not check: by the configuration as the database has it."""
        await self._identify(exchange, inbound)
        assert exchange.configuration is not None
        if not await self._is_current(exchange.configuration):
            exchange.forget()
            await self._identify(exchange, inbound)

    def _usable_models(self, exchange: Exchange) -> list[str]:
        assert exchange.configuration is not None
        targets = exchange.configuration.targets
        named = [t.pattern for t in targets if "*" not in t.pattern and "?" not in t.pattern]
        return sorted(m for m in {*named, *self.environment.models()} if self._is_allowed(exchange, m))

    def _may_use(self, exchange: Exchange, model: str) -> bool:
        assert exchange.configuration is not None
        with suppress(ModelNotFound):
            find_targets(exchange.configuration, self.environment, model)
            return self._is_allowed(exchange, model)
        return False

    def _is_allowed(self, exchange: Exchange, model: str) -> bool:
        caller, configuration = exchange.caller, exchange.configuration
        assert caller is not None
        assert configuration is not None
        decision = configuration.judge(caller, model, exchange.timestamp).decision
        return not configuration.suspended and decision.refusal is None


def _refuse(exchange: Exchange, refusal: Reason | None) -> None:
    if refusal is not None:
        exchange.refusal = refusal
        policy = {"policy": refusal.policy.name} if refusal.policy else {}
        raise Forbidden(refusal.code, refusal.message, policy)


def _bearer(values: Sequence[str]) -> str:
    if len(values) != 1:
        return ""
    scheme, _, credential = values[0].strip().partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else ""


def _may_call(caller: Caller) -> bool:
    return caller.usable and (caller.expires_at is None or caller.expires_at > datetime.now(UTC))


def _another_may_answer(error: UpstreamError) -> bool:
    return error.fault is not Fault.REFUSED or error.status == 429


async def _refused(candidate: Candidate, response: UpstreamResponse) -> UpstreamError:
    try:
        body = await response.read()
    finally:
        await response.close()
    return candidate.target.adapter.map_error(response.status, response.headers, body)


def _choices_text(choices: Sequence[dict[str, Any]]) -> str:
    return answer_transcript([choice["message"] for choice in choices])


def _blocked_outcome(error: GatewayError, usage: Usage, source: str, response: str) -> Outcome:
    return Outcome(Status.BLOCKED, error.status, error.code, error.message, usage, source, response)


def _refusal_answer(exchange: Exchange, error: GatewayError) -> Answer:
    headers = [*exchange.headers(), *JSON]
    if error.retry_after is not None:
        headers.append(("retry-after", str(max(1, math.ceil(error.retry_after)))))
    if error.status == 401:
        headers.append(("www-authenticate", "Bearer"))
    return Answer(int(error.status), headers, orjson.dumps(error.body()))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "llm-control-plane"}
