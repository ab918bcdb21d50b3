"""The nouns that every provider adapter takes and gives. Adapters do no I/O: the transport does.

    Endpoint + request body --build_request--> UpstreamRequest --transport--> bytes --parse_*--> Reply | Chunk
                                                                              |--map_error--> UpstreamError

Bodies inside the gateway are always OpenAI's chat completion shapes; an adapter translates at the edge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider is reached and with which credential.

    ``trusted`` says that the operator's environment named the address, so that it may be a private one.
    """

    provider: str
    base_url: str
    secret: str = field(repr=False, default="")
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One HTTP request as it goes to the provider."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them. ``input_tokens`` includes cached ones (a part of it, not beside it)."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TokenBound:
    """The most tokens a request can use; ``None`` where that cannot be bounded. ``why`` then says what to change."""

    input_tokens: int | None
    output_tokens: int | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: an OpenAI ``chat.completion`` object and the usage it reported (``None`` if it did not)."""

    body: Body = field(repr=False)
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """One step of a streamed answer.

    ``data`` is the JSON of an OpenAI ``chat.completion.chunk`` for the client (the bytes of ``body``), or ``b""``
    where the event has nothing for the client; ``done`` marks the provider's own end of the stream;
    ``usage_only`` marks a chunk that carries usage and no choices (relayed only to clients that asked for it).
    """

    data: bytes = field(repr=False)
    body: Body = field(repr=False)
    usage: Usage | None = None
    usage_only: bool = False
    done: bool = False


class Fault(StrEnum):
    """What went wrong upstream, as far as the gateway's answer depends on it."""

    CONNECT = "connect"  # never reached: nothing was sent, nothing is charged
    TIMEOUT = "timeout"
    BROKEN = "broken"  # the connection ended in the middle of an answer
    GARBAGE = "garbage"  # an answer that is no answer: not JSON, too large, wrong shape
    CREDENTIAL = "credential"  # the provider refused our credential
    REFUSED = "refused"  # the provider's own 400, 404, 413, 422, 429
    SERVER = "server"  # the provider's 5xx and everything else
    ADDRESS = "address"  # the endpoint's address is one the gateway must not connect to


class UpstreamError(Exception):
    """A call that ended without an answer.

    ``message`` is safe to show to the caller and to store: it never holds a credential or the request's text.
    ``status`` is the provider's HTTP status where there was one; ``retry_after`` is in seconds.
    """

    def __init__(
        self,
        fault: Fault,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message
        self.status = status
        self.retry_after = retry_after
        self.details = dict(details or {})


class ChunkParser(Protocol):
    """Reads one stream's events in order; holds what a dialect must remember between them."""

    def parse(self, event: bytes) -> Sequence[Chunk]:
        """Turn one server-sent event's data into chunks. Raises `UpstreamError` for garbage or an error event."""
        ...


class Adapter(Protocol):
    """One provider's dialect."""

    name: str

    def build_request(self, endpoint: Endpoint, model: str, body: Body) -> UpstreamRequest:
        """Translate a chat completion body; ``model`` is the provider's name for it. Always asks for usage."""
        ...

    def parse_reply(self, body: bytes) -> Reply:
        """Read a whole 2xx answer. Raises `UpstreamError` (GARBAGE) if it is not one."""
        ...

    def chunk_parser(self) -> ChunkParser:
        """Make the parser of one streamed answer."""
        ...

    def map_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Read an answer that is not 2xx."""
        ...

    def bound(self, model: str, body: Body, size: int, context_window: int | None) -> TokenBound:
        """Bound what the request can use; ``size`` is the body's length in bytes as it will be sent."""
        ...

    def expected(self, model: str, body: Body) -> Usage:
        """Estimate, before the call, what a request will use: for token rate limits, never for money."""
        ...

    def estimate(self, body: Body, produced: str) -> Usage:
        """Estimate what a request used whose answer ended before the provider told; ``produced`` is what had come."""
        ...
