"""A file of an export as an answer that browsers keep as a file and never show."""

from typing import Any

from django.http import StreamingHttpResponse

from apps.audit.exports.files import pieces
from apps.audit.models import Export

TYPES = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "zip": "application/zip",
}
"""The media type of each format."""


def as_attachment(export: Export, file: Any) -> StreamingHttpResponse:
    """Return the file in pieces. Its length comes first: what breaks off in the middle does not look whole."""
    response = StreamingHttpResponse(pieces(file), content_type=TYPES[export.format])
    response["Content-Length"] = str(export.bytes)
    response["Content-Disposition"] = f'attachment; filename="{export.file_name}"'
    response["Cache-Control"] = "no-store"
    response["X-Content-Type-Options"] = "nosniff"
    return response
