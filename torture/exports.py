"""A million records: searched, exported in bounded memory, and exported all the same by workers that are killed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from apps.audit.evidence_check import differences
from apps.audit.exports import orders
from apps.audit.exports.work import tidy
from apps.audit.finding import Reach, find
from apps.audit.models import Export
from apps.audit.search import read_search
from apps.orgs.models import Organization
from tests.search.filled import fill
from tests.services.postgres import with_name
from tests.services.server import ROOT
from torture import Figures, long_test

# RECORDS makes it smaller: a million may take most of the hour that each of these tests has.
ROWS, FEW = int(os.environ.get("RECORDS", "1000000")), 5_000
MONTH_MS = 28 * 24 * 3600 * 1000
MOST_GROWTH_MIB = {"csv": 64, "jsonl": 64, "parquet": 256, "zip": 96}
"""How much more memory a million records may take than five thousand."""
PAGE_SECONDS = 5.0
KILLS = 2
WORKER = """
import json, resource, time
import django
django.setup()
from apps.gateway.exporter import export_now
began = time.monotonic()
done = export_now()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"done": done, "peak_mib": peak / 1024, "seconds": time.monotonic() - began}))
"""


def filled(rows: int) -> Organization:
    organization = Organization.objects.create(name=f"Many {time.monotonic_ns()}")
    now = int(datetime.now(UTC).timestamp() * 1000)
    fill(organization.pk, rows, now - MONTH_MS, MONTH_MS - 60_000)
    return organization


def order(organization: Organization, form: str) -> Export:
    kind = Export.Kind.EVIDENCE if form == "zip" else Export.Kind.RECORDS
    return Export.objects.create(
        organization_id=organization.pk,
        owner_id=organization.pk,
        owner_name="torture",
        via="command",
        created_at=timezone.now(),
        kind=kind,
        format=form,
        criteria=orders.criteria_of(read_search({}), organization.pk),
    )


def use(folder: Path) -> None:
    """Let files lie in the test's own folder."""
    settings.DATA_DIR = folder


def worker() -> "subprocess.Popen[bytes]":
    url = with_name(os.environ["DATABASE_URL"], str(connection.settings_dict["NAME"]))
    environment = {**os.environ, "DATABASE_URL": url, "DATA_DIR": str(settings.DATA_DIR)}
    return subprocess.Popen([sys.executable, "-c", WORKER], cwd=ROOT, env=environment, stdout=subprocess.PIPE)


def exported(organization: Organization, form: str) -> tuple[Export, dict[str, float]]:
    export = order(organization, form)
    process = worker()
    said, _ = process.communicate()
    assert process.returncode == 0
    export.refresh_from_db()
    assert export.state == Export.State.DONE, export.problem
    return export, json.loads(said)


def file_of(export: Export) -> Path:
    return Path(settings.DATA_DIR) / "exports" / f"{export.pk}.{export.worker}"


def count_of(export: Export, form: str) -> int:
    path = file_of(export)
    if form == "csv":
        with path.open(newline="") as file:
            return sum(1 for _ in csv.reader(file)) - 1
    if form == "parquet":
        from pyarrow import parquet

        return int(parquet.ParquetFile(path).metadata.num_rows)
    if form == "zip":
        assert list(differences(str(path))) == []
        with zipfile.ZipFile(path) as pack, pack.open("records.jsonl") as file:
            return sum(1 for _ in file)
    with path.open("rb") as file:
        return sum(1 for _ in file)


@long_test(seconds=3600)
def exports_of_a_million(folder: Path) -> Figures:
    """Each format holds every record once, and a million take hardly more memory than five thousand."""
    use(folder)
    few, many = filled(FEW), filled(ROWS)
    figures: dict[str, object] = {}
    for form, most in MOST_GROWTH_MIB.items():
        _, small = exported(few, form)
        export, large = exported(many, form)
        assert count_of(export, form) == export.records == ROWS
        growth = large["peak_mib"] - small["peak_mib"]
        assert growth < most, (form, growth)
        figures[form] = f"{ROWS / large['seconds']:,.0f}/s +{growth:.0f} MiB"
        Export.objects.filter(pk=export.pk).update(expires_at=Now() - timedelta(seconds=1))
        tidy()
        assert not file_of(export).exists()
    return figures


@long_test(seconds=3600)
def exports_killed_and_cancelled(folder: Path) -> Figures:
    """Workers that are killed leave nothing that looks whole, and another finishes; a cancelled one stops."""
    use(folder)
    many = filled(ROWS // 4)
    export = order(many, "jsonl")
    for attempt in range(1, KILLS + 1):
        process = worker()
        wait_until_it_writes(export, attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not list((Path(settings.DATA_DIR) / "exports").glob(f"{export.pk}.*[!t]"))
        Export.objects.filter(pk=export.pk).update(held_until=Now() - timedelta(seconds=1))
    process = worker()
    assert process.wait() == 0
    export.refresh_from_db()
    assert count_of(export, "jsonl") == export.records == ROWS // 4
    cancelled = order(many, "csv")
    process = worker()
    wait_until_it_writes(cancelled, 1)
    began = time.monotonic()
    assert orders.cancel(cancelled, orders.Actor(None, "torture", "command"))
    assert process.wait(30) == 0
    stopped = time.monotonic() - began
    cancelled.refresh_from_db()
    assert cancelled.state == Export.State.CANCELLED
    assert not list((Path(settings.DATA_DIR) / "exports").glob(f"{cancelled.pk}.*"))
    return {"kills": KILLS, "stopped_after_s": f"{stopped:.2f}"}


def wait_until_it_writes(export: Export, attempt: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        export.refresh_from_db()
        if export.state == Export.State.RUNNING and export.attempts == attempt and export.records > 0:
            return
        time.sleep(0.02)
    raise TimeoutError(export.state)


@long_test(seconds=3600)
def searches_of_a_million(folder: Path) -> Figures:  # noqa: ARG001  # every long test is given one
    """A page of each search ends in time, whatever it asks for; what is rare is found by its index or page by page."""
    many = filled(ROWS)
    reach = Reach(frozenset({many.pk}))
    figures: dict[str, object] = {}
    for given in (
        {},
        {"model": "gpt-7"},
        {"model": "*-7"},
        {"status": "blocked"},
        {"status": "interrupted"},
        {"words": "needle"},
        {"words": "word77"},
        {"words": "answer"},
        {"words": "word7 word77 word777"},
        {"finding": "email"},
        {"finding": "phone"},
        {"policy": "6f1e3f0a-0000-4000-8000-000000000001"},
        {"metadata.ticket": "3"},
        {"q": "nowhere"},
        {"cost_min": "0.00009999"},
        {"cost_min": "5"},
    ):
        longest, pages, place, records = 0.0, 0, None, []
        while True:
            began = time.monotonic()
            found = find(read_search(given), reach, 50, place)
            longest = max(longest, time.monotonic() - began)
            pages, records, place = pages + 1, records + found.records, found.next
            if records or place is None or pages > 100:
                break
        assert longest < PAGE_SECONDS, (given, longest)
        name = "+".join(f"{name}={text}" for name, text in given.items()) or "all"
        figures[name.replace(" ", "_")] = f"{longest * 1000:.0f}ms/{pages}p/{len(records)}"
    assert "needle" in str(figures)
    return figures
