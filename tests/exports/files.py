"""Files of exports, put where a worker would have put them."""

from datetime import timedelta
from uuid import uuid4

from django.utils import timezone

from apps.audit.exports import files
from apps.audit.models import Export


def write_file(export: Export, content: bytes = b"id\r\n") -> None:
    """Make the export done, with a file that can be downloaded for an hour."""
    Export.objects.filter(pk=export.pk).update(
        state="done", worker=uuid4(), bytes=len(content), expires_at=timezone.now() + timedelta(hours=1)
    )
    export.refresh_from_db()
    with files.draft(export) as path:
        path.write_bytes(content)
        files.put(export, path)
