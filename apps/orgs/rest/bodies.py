"""How the API reads bodies, and in which format it answers."""

from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import ParseError, UnsupportedMediaType
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from apps.orgs.rest.errors import TooLarge
from apps.orgs.strict_json import StrictJsonError, parse_strict


class StrictJsonParser(BaseParser):
    """A JSON body, read strictly and within the server's limit of bytes."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the body's value. Raises `ParseError`, `TooLarge` or `UnsupportedMediaType`."""
        request = (parser_context or {})["request"]
        if request.META.get("HTTP_CONTENT_ENCODING", "identity") != "identity":
            raise UnsupportedMediaType(media_type or "", "A compressed body is not accepted.")
        body = stream.read(settings.MAX_BODY_BYTES + 1)
        if len(body) > settings.MAX_BODY_BYTES:
            raise TooLarge
        try:
            return parse_strict(body)
        except StrictJsonError as error:
            raise ParseError(str(error)) from error


class JsonOnly(BaseContentNegotiation):
    """One format in, one format out, whatever the Accept header wishes."""

    def select_parser(self, request: Request, parsers: Any) -> BaseParser | None:
        """Return the parser of the body's media type, or ``None`` for a 415."""
        content_type = (request.content_type or "").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == content_type), None)

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the first renderer."""
        return renderers[0], renderers[0].media_type
