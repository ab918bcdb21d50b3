"""Every refusal of the API in one shape: ``{"error": {"message", "type", "param", "code", "details"}}``.

A message names a field and a rule, never the value that broke it.
"""

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import (
    NON_FIELD_ERRORS,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import DatabaseError, IntegrityError, InterfaceError, OperationalError
from django.db.models import ProtectedError, RestrictedError
from django.http import Http404
from rest_framework import exceptions, status
from rest_framework.response import Response

from apps.orgs.encryption import KeysUnavailable

logger = logging.getLogger(__name__)

MAX_PARAM_CHARACTERS = 200
_BODY = "non_field_errors"
NOT_FOUND = "There is no such address or object."

# By status: the error's code and its type, in the words of OpenAI's API where it has one.
_CODES: dict[int, tuple[str, str]] = {
    400: ("INVALID_REQUEST", "invalid_request_error"),
    401: ("UNAUTHENTICATED", "authentication_error"),
    403: ("FORBIDDEN", "permission_error"),
    404: ("NOT_FOUND", "invalid_request_error"),
    405: ("METHOD_NOT_ALLOWED", "invalid_request_error"),
    409: ("CONFLICT", "invalid_request_error"),
    412: ("PRECONDITION_FAILED", "invalid_request_error"),
    413: ("INVALID_REQUEST", "invalid_request_error"),
    415: ("INVALID_REQUEST", "invalid_request_error"),
    422: ("IDEMPOTENCY_KEY_REUSED", "invalid_request_error"),
    429: ("RATE_LIMIT_EXCEEDED", "rate_limit_error"),
    500: ("INTERNAL_ERROR", "server_error"),
    503: ("SERVICE_UNAVAILABLE", "server_error"),
}


class TooLarge(exceptions.APIException):
    """The body has more bytes than the server reads."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = "The body is too large."


class Conflict(exceptions.APIException):
    """The change does not go together with what is stored."""

    status_code = status.HTTP_409_CONFLICT
    default_detail = "The change conflicts with what is stored."

    def __init__(self, message: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.details = details


class Changed(exceptions.APIException):
    """The object is no longer what the caller's ``If-Match`` says it is."""

    status_code = status.HTTP_412_PRECONDITION_FAILED
    default_detail = "The object has been changed meanwhile. Read it again; its ETag has changed."


class KeyReused(exceptions.APIException):
    """The ``Idempotency-Key`` belongs to another request of the same caller."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_detail = "This Idempotency-Key was used for another request. Use a new one for each piece of work."


class Unavailable(exceptions.APIException):
    """Something that the answer needs does not answer."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = "The database does not answer. Try again."
    wait = 1


# Other people's exceptions, the narrower before the wider, and what each is to the API.
_FOREIGN: tuple[tuple[type[Exception], Callable[[], exceptions.APIException]], ...] = (
    (Http404, lambda: exceptions.NotFound(NOT_FOUND)),
    (PermissionDenied, exceptions.PermissionDenied),
    (RequestDataTooBig, TooLarge),
    (SuspiciousOperation, lambda: exceptions.ParseError("The request cannot be read.")),
    (ProtectedError, lambda: Conflict("It is in use and cannot be deleted.")),
    (RestrictedError, lambda: Conflict("It is in use and cannot be deleted.")),
    (KeysUnavailable, lambda: Unavailable("The service of the encryption keys does not answer. Try again.")),
)


def exception_handler(error: Exception, _context: Mapping[str, Any]) -> Response:
    """Turn whatever a view raises into an answer; what nobody foresaw is logged without its message, and a 500."""
    known = _known(error)
    if known is None:
        _log(error)
        return Response(error_body(500, "Something went wrong on the server."), status=500)
    headers = {"WWW-Authenticate": known.auth_header} if hasattr(known, "auth_header") else {}
    if wait := getattr(known, "wait", None):
        headers["Retry-After"] = str(int(wait))
    return Response(_body_of(known), status=known.status_code, headers=headers)


def error_body(
    status_code: int, message: str, *, param: str | None = None, details: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the JSON of a refusal."""
    code, kind = _CODES.get(status_code, _CODES[400])
    return {
        "error": {"message": message, "type": kind, "param": param, "code": code, "details": dict(details or {})},
    }


@contextmanager
def model_rules(names: Mapping[str, str], unique: str) -> Iterator[None]:
    """Refuse in the API's words what a model's rules refuse inside.

    ``names`` maps the model's fields to the API's where they differ; ``unique`` is the field that is named when the
    row repeats another. That message says nothing of the other row: it may be another organization's.
    """
    try:
        yield
    except ModelValidationError as error:
        raise exceptions.ValidationError(dict(_fields(error, names, unique))) from error


def _fields(error: ModelValidationError, names: Mapping[str, str], unique: str) -> Iterator[tuple[str, list[str]]]:
    for field, problems in error.error_dict.items():
        if field == NON_FIELD_ERRORS or any(problem.code == "unique" for problem in problems):
            yield unique, ["This is taken; choose another."]
        else:
            yield names.get(field, field), [message for problem in problems for message in problem.messages]


def _known(error: Exception) -> exceptions.APIException | None:
    if isinstance(error, exceptions.APIException):
        return error
    for kind, known in _FOREIGN:
        if isinstance(error, kind):
            return known()
    return _known_of_database(error)


def _known_of_database(error: Exception) -> exceptions.APIException | None:
    if isinstance(error, IntegrityError):
        return Conflict()
    if isinstance(error, OperationalError | InterfaceError):
        _log(error)
        return Unavailable()
    if isinstance(error, DatabaseError) and getattr(error.__cause__, "sqlstate", "").startswith("22"):
        return exceptions.ParseError("A value is outside of what can be stored.")  # class 22 of SQLSTATE
    return None


def _body_of(error: exceptions.APIException) -> dict[str, Any]:
    if not isinstance(error, exceptions.ValidationError):
        return error_body(error.status_code, str(error.detail), details=getattr(error, "details", None))
    details: dict[str, list[str]] = {}
    for path, message in _messages(error.detail, ""):
        details.setdefault(path or _BODY, []).append(message)
    param = next(iter(details), _BODY)
    message = details[param][0] if details else "The request is not valid."
    return error_body(400, message, param=None if param == _BODY else param, details=details)


def _messages(detail: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            place = path if name == _BODY else f"{path}.{name}".strip(".")
            yield from _messages(inner, place[:MAX_PARAM_CHARACTERS])
    elif isinstance(detail, list | tuple):
        for inner in detail:
            yield from _messages(inner, path)
    else:
        yield path, str(detail)


def _log(error: Exception) -> None:
    # Frames and the type, not the message: a database's message quotes the row.
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s while answering\n%s", type(error).__name__, frames)
