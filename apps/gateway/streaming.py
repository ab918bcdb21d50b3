"""A streamed answer on its way: relayed as it comes, or held to its end where a guardrail must see all of it first.

An object with an idempotent `close`, not a generator with a ``finally``: a server that ends before the first chunk
never starts a generator, and the settlement would be lost with it.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Self

import orjson

from apps.audit.models import Status
from apps.gateway.assembly import Assembly
from apps.gateway.errors import GatewayError, ProviderFailed
from apps.gateway.exchange import Exchange, Outcome
from apps.gateway.inspection import Inspection, inspect, inspected
from apps.gateway.providers.base import Body, Chunk, Fault, UpstreamError
from apps.gateway.routing import Candidate
from apps.gateway.settlement import Settlement, usage_of
from apps.gateway.transcript import answer_transcript
from apps.gateway.transport import UpstreamResponse

DONE = b"data: [DONE]\n\n"
LATE = ProviderFailed(UpstreamError(Fault.TIMEOUT, "The answer did not end in the time that a request may take."))


class AnswerStream:
    """Yields the bytes of a server-sent event stream. Whoever iterates it calls `close` in the end, always."""

    def __init__(
        self, settlement: Settlement, exchange: Exchange, candidate: Candidate, response: UpstreamResponse
    ) -> None:
        assert exchange.prompt is not None
        assert exchange.judgement is not None
        self._settlement = settlement
        self._exchange = exchange
        self._response = response
        self._parser = candidate.target.adapter.chunk_parser()
        self._include_usage = exchange.prompt.include_usage
        self._guard = exchange.judgement.output_guard
        self._assembly = Assembly()
        self._is_late = False
        self._expiry = asyncio.get_running_loop().call_at(exchange.deadline, self._expire)
        self._pieces = self._held() if self._guard.intervenes else self._relayed()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return await self._pieces.__anext__()

    def close(self, status: Status = Status.CANCELLED) -> None:
        """Settle what was used if the stream did not come to its end. May be called any number of times."""
        if self._exchange.ticket is not None:
            self._exchange.ticket.close()
        self._expiry.cancel()
        self._end(status, *_ENDINGS[status])

    def _expire(self) -> None:
        """Settle at the deadline, even what waits for its client just then: after it the request is the sweeper's."""
        self._is_late = True
        if not self._exchange.closed:
            self._exchange.attempts[-1]["fault"] = Fault.TIMEOUT.value
            self._end(Status.ERROR, LATE.code, LATE.message)

    def _end(self, status: Status, code: str, message: str) -> None:
        if not self._exchange.closed:
            inspection = inspect(self._assembly.messages(), self._guard, "output")
            self._settlement.interrupt(self._exchange, self._outcome(inspection, status, code, message))
            self._settlement.later(self._response.close())

    async def _relayed(self) -> AsyncGenerator[bytes, None]:
        try:
            async for chunks in self._chunks():
                data = b"".join(_event(chunk.data) for chunk in chunks if self._wanted(chunk))
                if data:
                    yield data
        except UpstreamError as error:
            yield await self._broken(error)
            return
        inspection = await self._inspected(self._assembly.messages())
        await self._settle(self._outcome(inspection, Status.SUCCESS))
        yield DONE

    async def _held(self) -> AsyncGenerator[bytes, None]:
        held: list[Chunk] = []
        try:
            async for chunks in self._chunks():
                held += chunks
        except UpstreamError as error:
            yield await self._broken(error)
            return
        messages = self._assembly.messages()
        inspection = await self._inspected(messages)
        if inspection.blocked:
            blocked = inspection.blocked
            self._exchange.refusal = blocked.reason
            await self._settle(self._outcome(inspection, Status.BLOCKED, blocked.code, blocked.message))
            yield _error_event(blocked)
            return
        await self._settle(self._outcome(inspection, Status.SUCCESS))
        if inspection.passed is not messages:
            yield b"".join(map(_event, self._assembly.rewritten(held, inspection.passed, self._include_usage))) + DONE
        else:
            yield b"".join(_event(chunk.data) for chunk in held if self._wanted(chunk)) + DONE

    async def _chunks(self) -> AsyncGenerator[Sequence[Chunk], None]:
        """Read the provider's stream to its end. Raises `UpstreamError` if it has none."""
        async for events in self._response.event_batches():
            chunks, failure = self._parse(events)
            yield chunks
            if failure is not None:
                raise failure
            if self._assembly.done:
                break
        if not self._assembly.finished:
            raise UpstreamError(Fault.BROKEN, "The provider's answer ended too early.")
        self._exchange.begin("deliver")

    def _parse(self, events: Sequence[bytes]) -> tuple[list[Chunk], UpstreamError | None]:
        """Read events that came together; what came before a broken one was produced, and counts."""
        chunks: list[Chunk] = []
        try:
            for event in events:
                for chunk in self._parser.parse(event):
                    self._assembly.add(chunk)
                    chunks.append(chunk)
        except UpstreamError as error:
            return chunks, error
        return chunks, None

    def _wanted(self, chunk: Chunk) -> bool:
        return bool(chunk.data) and (self._include_usage or not chunk.usage_only)

    async def _broken(self, error: UpstreamError) -> bytes:
        failed = LATE if self._is_late else ProviderFailed(error)
        if not self._exchange.closed:  # or it broke because it was closed here, and its record has been written
            self._exchange.attempts[-1]["fault"] = failed.fault.value
        inspection = await self._inspected(self._assembly.messages())
        await self._settle(self._outcome(inspection, Status.ERROR, failed.code, failed.message))
        return _error_event(failed)

    async def _settle(self, outcome: Outcome) -> None:
        self._settlement.later(self._response.finish())
        await self._settlement.settle(self._exchange, outcome)

    async def _inspected(self, messages: Sequence[Body]) -> Inspection:
        return await inspected(messages, len(answer_transcript(messages)), self._guard, "output")

    def _outcome(self, inspection: Inspection, status: Status, code: str = "", message: str = "") -> Outcome:
        """Say how the stream ended, with what had come so far, and what that used."""
        self._exchange.output_findings = inspection.findings
        usage, source = usage_of(
            self._exchange, self._assembly.usage, lambda: answer_transcript(self._assembly.messages())
        )
        return Outcome(status, 200, code, message, usage, source, answer_transcript(inspection.stored))


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def _error_event(error: GatewayError) -> bytes:
    return _event(orjson.dumps(error.body()))


_ENDINGS = {
    Status.CANCELLED: ("CLIENT_CLOSED", "The client left before the answer's end."),
    Status.INTERRUPTED: ("INTERRUPTED", "The server was stopping."),
}
