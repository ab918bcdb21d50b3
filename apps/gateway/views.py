"""The Django REST framework's door: inference under WSGI, and the source of its OpenAPI description."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.http import HttpRequest as DjangoRequest
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from apps.audit.models import Status
from apps.gateway.asgi import check_length, too_large
from apps.gateway.description import (
    CHAT_ANSWERS,
    CHAT_HEADERS,
    CHAT_REQUEST,
    MODEL_ANSWERS,
    MODEL_LIST_ANSWERS,
)
from apps.gateway.errors import InvalidRequest
from apps.gateway.pipeline import Answer
from apps.gateway.runtime import BACKGROUND
from apps.gateway.streaming import AnswerStream

_READ_BYTES = 65_536


class WsgiRequest:
    """One HTTP request under WSGI, as the pipeline wants it."""

    def __init__(self, request: DjangoRequest) -> None:
        self._request = request
        # A WSGI server joins repeated headers with a comma, which no credential of ours contains.
        value = request.headers.get("authorization")
        self.authorization = [] if value is None else value.split(",")
        self.content_encoding = request.headers.get("content-encoding", "").strip().lower()
        self._body: bytes | None = None

    async def body(self) -> bytes:
        """Read the body within its deadline and its size, on a thread: the server's stream blocks."""
        if self._body is None:
            self._body = await asyncio.get_running_loop().run_in_executor(None, self._read)
        return self._body

    def gone(self) -> bool:
        """Whether the client has left: a WSGI server does not tell."""
        return False

    def _read(self) -> bytes:
        environment = self._request.META
        check_length(environment.get("CONTENT_LENGTH") or "")
        # Django reads as much as Content-Length says; a body in pieces has none, and some servers can tell its end.
        source = environment["wsgi.input"] if environment.get("wsgi.input_terminated") else self._request
        deadline = time.monotonic() + settings.BODY_DEADLINE_SECONDS
        pieces, size = [], 0
        while piece := source.read(_READ_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size > settings.MAX_BODY_BYTES:
                raise too_large()
            if time.monotonic() > deadline:
                raise InvalidRequest("The body did not come in time.", status=408)
        return b"".join(pieces)


class StreamBytes:
    """A stream as WSGI iterates it; closed by the server when the client leaves or the answer has ended."""

    def __init__(self, stream: AnswerStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data = BACKGROUND.run(_next(self._stream))
        if data is None:
            raise StopIteration
        return data

    def close(self) -> None:
        """Settle what was used if the client left early."""
        BACKGROUND.run(_close(self._stream))


@method_decorator(csrf_exempt, name="dispatch")
class ChatCompletions(APIView):
    """Chat completions, whole and streamed."""

    parser_classes: list[Any] = []

    @extend_schema(
        operation_id="chat_completions",
        summary="Create a chat completion",
        parameters=CHAT_HEADERS,
        request={"application/json": CHAT_REQUEST},
        responses=CHAT_ANSWERS,
        tags=["inference"],
    )
    def post(self, request: Request) -> HttpResponseBase:
        """Answer an OpenAI chat completion request under the caller's policies."""
        pipeline = BACKGROUND.runtime().pipeline
        return _response(BACKGROUND.run(pipeline.complete_chat(WsgiRequest(request._request))))  # noqa: SLF001


class Models(APIView):
    """The models a caller may use."""

    @extend_schema(operation_id="list_models", summary="List models", responses=MODEL_LIST_ANSWERS, tags=["inference"])
    def get(self, request: Request) -> HttpResponseBase:
        """List the models that exist and that the caller's policies allow."""
        pipeline = BACKGROUND.runtime().pipeline
        return _response(BACKGROUND.run(pipeline.list_models(WsgiRequest(request._request))))  # noqa: SLF001


class Model(APIView):
    """One model."""

    @extend_schema(
        operation_id="retrieve_model", summary="Retrieve a model", responses=MODEL_ANSWERS, tags=["inference"]
    )
    def get(self, request: Request, model: str) -> HttpResponseBase:
        """Describe a model that exists and that the caller's policies allow; any other is not found."""
        pipeline = BACKGROUND.runtime().pipeline
        return _response(BACKGROUND.run(pipeline.retrieve_model(WsgiRequest(request._request), model)))  # noqa: SLF001


def _response(answer: Answer) -> HttpResponseBase:
    response: HttpResponseBase
    if answer.stream is None:
        response = HttpResponse(answer.body, status=answer.status)
    else:
        response = StreamingHttpResponse(StreamBytes(answer.stream), status=answer.status)
    for name, value in answer.headers:
        response[name] = value
    return response


async def _next(stream: AnswerStream) -> bytes | None:
    return await anext(stream, None)


async def _close(stream: AnswerStream) -> None:
    stream.close(Status.CANCELLED)
