"""Where the files of exports lie: in a folder below ``DATA_DIR``, or in the bucket ``S3_BUCKET_NAME``.

A file is written beside its place and put there whole: what lies under an export's name is never half a file. Its name
has the attempt's too, so that of two workers, one of which was given up too early, each has a file of its own.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from django.conf import settings

from apps.audit.models import Export

PREFIX = "exports/"
"""Under which the bucket has them."""
PIECE_BYTES = 256 * 1024
FORGOTTEN_SECONDS = 3600
"""Age at which a file that no export knows is taken for left behind."""
_NAME = re.compile(r"([0-9a-f-]{36})\.([0-9a-f-]{36})(?:\.part)?")


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was put in its place."""

    bytes: int
    sha256: str


@contextmanager
def draft(export: Export) -> Iterator[Path]:
    """Give the path of a file to write, of this worker alone; it is gone afterwards unless `put` has moved it."""
    folder = _folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{_name(export)}.part"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def put(export: Export, path: Path) -> Written:
    """Put a finished draft in its place."""
    written = Written(path.stat().st_size, _sha256(path))
    if settings.S3_BUCKET_NAME:
        _s3().upload_file(str(path), settings.S3_BUCKET_NAME, _key(export))
    else:
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.replace(_folder() / _name(export))
    return written


def opened(export: Export) -> Any:
    """Return the file, open for reading. Raises `FileNotFoundError` if it is not there."""
    if not settings.S3_BUCKET_NAME:
        return (_folder() / _name(export)).open("rb")
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # noqa: PLC0415 (as below)

    try:
        return _s3().get_object(Bucket=settings.S3_BUCKET_NAME, Key=_key(export))["Body"]
    except ClientError as error:
        raise FileNotFoundError(str(export.pk)) from error


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Give a file in pieces, and close it."""
    try:
        while piece := file.read(PIECE_BYTES):
            yield piece
    finally:
        file.close()


def remove(export: Export) -> None:
    """Remove the file, if it is there."""
    if settings.S3_BUCKET_NAME:
        _s3().delete_object(Bucket=settings.S3_BUCKET_NAME, Key=_key(export))
    else:
        (_folder() / _name(export)).unlink(missing_ok=True)


def remove_what_was_left_behind() -> int:
    """Remove drafts of workers that died, and files that no export knows; return how many."""
    folder, removed = _folder(), 0
    if not folder.is_dir():
        return 0
    for path in folder.iterdir():
        if time.time() - path.stat().st_mtime > FORGOTTEN_SECONDS and not _is_known(path.name):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _is_known(name: str) -> bool:
    found = _NAME.fullmatch(name)
    if found is None:
        return True  # not ours
    states = [Export.State.RUNNING, Export.State.DONE]
    return Export.objects.filter(pk=found[1], worker=found[2], state__in=states).exists()


def _name(export: Export) -> str:
    return f"{export.pk}.{export.worker}"


def _folder() -> Path:
    return Path(settings.DATA_DIR) / "exports"


def _key(export: Export) -> str:
    return f"{PREFIX}{export.organization_id or 'platform'}/{_name(export)}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _s3() -> Any:
    import boto3  # type: ignore[import-untyped]  # noqa: PLC0415 (slow to import, and needed with a bucket alone)

    return boto3.client("s3", endpoint_url=settings.AWS_ENDPOINT_URL or None)
