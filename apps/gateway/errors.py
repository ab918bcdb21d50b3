"""Every way the gateway refuses or fails, and the one shape in which it says so.

GatewayError
├── InvalidRequest      400 (413 too large, 415 encoding, 408 too slow)
├── GuardrailBlocked    400 PII_DETECTED, SECRET_DETECTED, INJECTION_DETECTED, UNSCANNABLE_CONTENT
├── Unauthenticated     401
├── Forbidden           403 FORBIDDEN, MODEL_NOT_ALLOWED
├── ModelNotFound       404
├── RateLimited         429 RATE_LIMIT_EXCEEDED
├── BudgetExceeded      429 BUDGET_EXCEEDED
├── ProviderFailed      502, 504, or the provider's own 400, 404, 413, 422, 429
├── Unavailable         503
│   └── Overloaded      503 with the signal that says so
└── InternalFailure     500
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from apps.audit.models import Status
from apps.gateway.providers.base import Fault, UpstreamError
from apps.policies.engine.evaluate import Reason
from apps.policies.engine.policy import Policy


class GatewayError(Exception):
    """Stops a request. Its message and details are shown to the caller: never a secret, never a matched value."""

    status: int = 500
    code: str = "INTERNAL_ERROR"
    type: str = "server_error"
    outcome: Status = Status.ERROR
    decided: bool = True
    """Whether the configuration had a part in it, so that it must be a current one."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.details = dict(details or {})
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """Return the JSON of the answer."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
                "details": self.details,
            }
        }


class InvalidRequest(GatewayError):
    """The request itself is wrong; ``status`` may be 408, 413 or 415 where these say more."""

    status = 400
    code = "INVALID_REQUEST"
    type = "invalid_request_error"

    def __init__(self, message: str, *, param: str | None = None, status: int = 400) -> None:
        super().__init__(message, param=param)
        self.status = status


class GuardrailBlocked(GatewayError):
    """A guardrail found what a policy blocks."""

    status = 400
    type = "invalid_request_error"
    outcome = Status.BLOCKED

    def __init__(self, code: str, message: str, details: Mapping[str, Any], policy: Policy) -> None:
        super().__init__(message, details=details)
        self.code = code
        self.reason = Reason(code, message, policy)


class Unauthenticated(GatewayError):
    """No valid credential came with the request."""

    status = 401
    code = "UNAUTHENTICATED"
    type = "authentication_error"


class Forbidden(GatewayError):
    """A policy, or the kind of credential, does not allow it."""

    status = 403
    type = "permission_error"
    outcome = Status.BLOCKED

    def __init__(self, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, param="model" if code == "MODEL_NOT_ALLOWED" else None, details=details)
        self.code = code


class ModelNotFound(GatewayError):
    """No route serves the model."""

    status = 404
    code = "MODEL_NOT_FOUND"
    type = "invalid_request_error"


class RateLimited(GatewayError):
    """A rate limit is used up."""

    status = 429
    code = "RATE_LIMIT_EXCEEDED"
    type = "rate_limit_error"
    outcome = Status.BLOCKED


class BudgetExceeded(GatewayError):
    """A hard cost cap does not reach for the request's worst case."""

    status = 429
    code = "BUDGET_EXCEEDED"
    type = "insufficient_quota"
    outcome = Status.BLOCKED


class InternalFailure(GatewayError):
    """A defect of ours. What failed stands in the log, under the request's id."""

    decided = False

    def __init__(self) -> None:
        super().__init__("The gateway failed. The request's id helps to find out why.")


class Unavailable(GatewayError):
    """The gateway cannot keep its promises right now, so it makes none."""

    decided = False
    status = 503
    code = "SERVICE_UNAVAILABLE"
    type = "server_error"

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message, retry_after=retry_after)


class Overloaded(Unavailable):
    """There is more to do than can be done. ``signal`` says how that was seen."""

    def __init__(self, signal: str) -> None:
        super().__init__("There is more to do than can be done right now. Try again.")
        self.details = {"signal": signal}


class ProviderFailed(GatewayError):
    """The provider did not answer, or answered with an error."""

    code = "PROVIDER_ERROR"
    type = "provider_error"

    def __init__(self, error: UpstreamError) -> None:
        super().__init__(error.message, details=error.details, retry_after=error.retry_after)
        self.fault = error.fault
        self.status = HTTPStatus.BAD_GATEWAY
        if error.fault is Fault.TIMEOUT:
            self.status, self.code = HTTPStatus.GATEWAY_TIMEOUT, "PROVIDER_TIMEOUT"
        elif error.fault is Fault.REFUSED and error.status is not None:
            self.status = error.status
        if self.status == HTTPStatus.TOO_MANY_REQUESTS and self.retry_after is None:
            self.retry_after = 1.0
