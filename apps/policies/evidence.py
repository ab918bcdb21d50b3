"""The evidence pack: records, the versions of the policies that applied, the changes of that time, and a manifest.

One ZIP archive, written as a stream: what is held in memory are a group of records and the names of the versions.
"""

import hashlib
import inspect
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any
from uuid import UUID

import orjson
from django.db.models import Q
from django.utils import timezone

from apps.audit import evidence_check
from apps.audit.changes import state_of
from apps.audit.entries import Entry, entries
from apps.audit.exports import orders
from apps.audit.exports.work import AT_ONCE, Run
from apps.audit.finding import find_all
from apps.audit.models import ChangeRecord, Export
from apps.audit.search import in_words
from apps.audit.values import as_uuid
from apps.policies.models import PolicyVersion

MOST_VERSIONS = 100_000
"""Versions of policies that one pack names; an organization has thousands at most."""
_VERSIONS_AT_ONCE = 500

Version = tuple[str, int]


class TooManyVersions(OSError):
    """More versions of policies applied than a pack can name."""


@dataclass
class _Pack:
    """An archive that is being written, and what its manifest will say of its files."""

    archive: zipfile.ZipFile
    files: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def file(self, name: str) -> "Iterator[_File]":
        """Give a file of the archive to write."""
        with self.archive.open(name, "w", force_zip64=True) as out:
            made = _File(out)
            yield made
        self.files.append({"name": name, "bytes": made.bytes, "lines": made.lines, "sha256": made.digest.hexdigest()})


class _File:
    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.bytes = self.lines = 0
        self.digest = hashlib.sha256()

    def write(self, text: bytes) -> None:
        self._out.write(text)
        self.digest.update(text)
        self.bytes += len(text)
        self.lines += text.count(b"\n")

    def write_lines(self, rows: Iterable[Any]) -> None:
        """Write each row as a line of JSON."""
        self.write(b"".join(orjson.dumps(row, default=str, option=orjson.OPT_APPEND_NEWLINE) for row in rows))


def write_evidence(run: Run, out: IO[bytes]) -> None:
    """Write the pack that an export asks for."""
    export = run.export
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        pack = _Pack(archive)
        with pack.file("records.jsonl") as file:
            applied, oldest = _write_records(run, file)
        with pack.file("policy_versions.jsonl") as file:
            _write_versions(export, applied, file)
        with pack.file("changes.jsonl") as file:
            _write_changes(run, oldest, file)
        with pack.file("verify.py") as file:
            file.write(inspect.getsource(evidence_check).encode())
        with pack.file("README.txt") as file:
            file.write(_README.encode())
        archive.writestr(evidence_check.MANIFEST, orjson.dumps(_manifest(run, pack), option=orjson.OPT_INDENT_2))


def _write_records(run: Run, file: _File) -> tuple[dict[Version, Entry], UUID | None]:
    """Write the records; return the versions that they name, each as a record has it, and the oldest record's id."""
    applied: dict[Version, Entry] = {}
    oldest: UUID | None = None
    for records, place in find_all(orders.search_of(run.export), orders.reach_of(run.export), AT_ONCE):
        for group in entries(records):
            file.write_lines(group)
            for one in group:
                applied |= _versions_in(one)
            if len(applied) > MOST_VERSIONS:
                raise TooManyVersions
            oldest = UUID(group[-1]["id"])
            run.went_on(len(group), oldest)
        run.went_on(0, place)
    return applied, oldest


def _versions_in(record: Entry) -> dict[Version, Entry]:
    named = [one for one in record["policies"] if isinstance(one, dict)] if isinstance(record["policies"], list) else []
    return {(str(one.get("id")), one["version"]): one for one in named if isinstance(one.get("version"), int)}


def _write_versions(export: Export, applied: dict[Version, Entry], file: _File) -> None:
    """Write what each version said; of one that is not the organization's, as of the platform's, what records say."""
    for keys in _pieces(sorted(applied)):
        found = {(str(row.policy_id), row.version): row for row in _stored(export, keys)}
        for key in keys:
            row = found.get(key)
            said = state_of(row) if row else {"policy_id": key[0], **applied[key], "is_content_left_out": True}
            file.write_lines([said])


def _stored(export: Export, keys: list[Version]) -> Iterable[PolicyVersion]:
    ids = {known for known, _ in keys if _is_id(known)}
    rows = PolicyVersion.objects.filter(policy_id__in=ids, version__in={version for _, version in keys})
    return rows.filter(organization_id=export.organization_id) if export.organization_id else rows


def _is_id(text: str) -> bool:
    try:
        as_uuid(text)
    except ValueError:
        return False
    return True


def _write_changes(run: Run, oldest: UUID | None, file: _File) -> None:
    """Write the changes of the time that the search speaks of, or without a beginning that its records are from."""
    export, search = run.export, orders.search_of(run.export)
    changes = ChangeRecord.objects.filter(organization_id=export.organization_id) if export.organization_id else None
    rows = ChangeRecord.objects.all() if changes is None else changes
    if "since" in search.values:
        rows = rows.filter(timestamp__gte=search.values["since"])
    elif oldest is not None:
        rows = rows.filter(pk__gte=oldest)
    rows = rows.filter(timestamp__lt=search.values.get("until", timezone.now())).order_by("pk")
    last: UUID | None = None
    while page := list(rows.filter(Q(pk__gt=last) if last else Q())[:AT_ONCE]):
        file.write_lines(state_of(row) for row in page)
        last = page[-1].pk
        run.went_on(0, oldest)


def _manifest(run: Run, pack: _Pack) -> dict[str, Any]:
    export = run.export
    return {
        "format": "llm-control-plane evidence 1",
        "export": str(export.pk),
        "organization": str(export.organization_id) if export.organization_id else None,
        "asked_for_by": {"id": str(export.owner_id), "name": export.owner_name},
        "asked_for_at": export.created_at.isoformat(),
        "made_at": timezone.now().isoformat(),
        "reason": export.reason,
        "search": dict(export.criteria),
        "search_in_words": [f"{label}: {text}" for label, text in in_words(orders.search_of(export))],
        "records": run.records,
        "files": pack.files,
    }


def _pieces(keys: list[Version]) -> Iterator[list[Version]]:
    for start in range(0, len(keys), _VERSIONS_AT_ONCE):
        yield keys[start : start + _VERSIONS_AT_ONCE]


_README = """An evidence pack of the LLM Control Plane.

records.jsonl          one request a line, the newest first; texts are redacted, null once erased
policy_versions.jsonl  every version of a policy that those records name
changes.jsonl          who changed what in that time, the oldest first
manifest.json          what was asked for, by whom and why; bytes, lines and SHA-256 of each file
verify.py              checks all of this: python verify.py evidence.zip

The SHA-256 of the whole pack stands in the change record of its making, which nobody can rewrite.
A version of the platform's own policies is named with what the records say of it, without its configuration.
"""
