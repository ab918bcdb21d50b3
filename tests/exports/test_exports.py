"""Exports: what is in them, who has them, and how they end."""

import csv
import io
import json
import threading
import time
import tracemalloc
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import connection
from django.test import override_settings
from django.urls import reverse
from django.utils import timezone

from apps.audit.exports import formats, orders, work
from apps.audit.models import ChangeRecord, Export, RequestText
from apps.gateway.exporter import PRODUCERS, export_now
from tests.admin.cast import gather as gather_admin
from tests.admin.conftest import static_files_as_they_are  # noqa: F401  (a fixture)
from tests.api.cast import Api, Cast, error_of, gather
from tests.search.test_search import many, recorded

HEADER = "id,request_id,timestamp,organization,organization_name"
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "=cmd|' /C calc'!A0", '"=1"']


@pytest.fixture
def cast() -> Cast:
    return gather()


@pytest.fixture
def only_for_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is small enough to be written while somebody waits."""
    monkeypatch.setattr(work, "SMALL_RECORDS", -1)


@pytest.fixture(autouse=True)
def nothing_waits() -> None:
    Export.objects.filter(state__in=["waiting", "running"]).update(state="cancelled")


def ordered(api: Api, **body: Any) -> dict[str, Any]:
    made = api.made("exports", body)
    return dict(api.get(f"exports/{made['id']}").json())


def content(api: Api, export: dict[str, Any]) -> bytes:
    answer = api.get(f"exports/{export['id']}/download")
    assert answer.status_code == 200, answer.content
    said = b"".join(answer.streaming_content)
    assert answer["Content-Length"] == str(len(said))
    assert answer["Content-Disposition"].startswith("attachment")
    return said


def drafts() -> list[Path]:
    folder = Path(settings.DATA_DIR) / "exports"
    return list(folder.glob("*.part")) if folder.is_dir() else []


def test_a_small_export_is_there_at_once_and_every_step_is_recorded(cast: Cast) -> None:
    kept = recorded(cast.organization.id, status="blocked", prompt="hello")
    recorded(cast.organization.id)
    recorded(cast.elsewhere.id, status="blocked")
    export = ordered(cast.auditor, search={"status": "blocked"}, reason="ticket 7", format="jsonl")
    assert (export["state"], export["records"], export["organization"]) == ("done", 1, str(cast.organization.id))
    (line,) = content(cast.auditor, export).splitlines()
    assert json.loads(line) == cast.auditor.get(f"audit-logs/{kept}").json()
    steps = list(ChangeRecord.objects.filter(object_id=export["id"]).order_by("pk"))
    assert [step.action for step in steps] == ["create", "finish", "download"]
    for step in steps:
        assert (step.actor_id, step.address, step.reason) == (cast.auditor.user.pk, "127.0.0.1", "ticket 7")
        assert step.organization_id == cast.organization.id
        assert step.after["criteria"]["status"] == "blocked"
    assert steps[1].after["records"] == steps[2].after["records"] == 1
    assert steps[1].after["sha256"] == export["sha256"]


def test_no_cell_of_a_csv_is_a_formula_and_nothing_is_lost(cast: Cast) -> None:
    for text in FORMULAS:
        recorded(cast.organization.id, end_user=text, model=text, prompt=text, metadata={"=x": text})
    said = content(cast.auditor, ordered(cast.auditor)).decode()
    assert said.startswith(HEADER)
    rows = list(csv.DictReader(io.StringIO(said, newline="")))
    assert sorted(json.loads(row["metadata"])["=x"] for row in rows) == sorted(FORMULAS)
    for row in rows:
        text = json.loads(row["metadata"])["=x"]
        assert not [cell for cell in row.values() if cell.startswith(formats._STARTS_A_FORMULA)]
        assert {row["end_user"].removeprefix("'"), row["prompt_redacted"].removeprefix("'")} == {text}


def test_a_parquet_file_has_what_the_records_say(cast: Cast) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    recorded(cast.organization.id, cost_nano_usd=1_500_000_001, tokens_input=7, reasons=[{"code": "X"}], prompt="=é")
    (row,) = parquet.read_table(io.BytesIO(content(cast.auditor, ordered(cast.auditor, format="parquet")))).to_pylist()
    assert (str(row["cost_usd"]), row["tokens_input"], row["first_byte_ms"]) == ("1.500000001", 7, None)
    assert (row["prompt_redacted"], json.loads(row["reasons"])) == ("=é", [{"code": "X"}])
    assert row["timestamp"].tzinfo is not None


def test_without_pyarrow_the_choice_says_so(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    error = error_of(cast.auditor.post("exports", {"format": "parquet"}), 400, "INVALID_REQUEST")
    assert (error["param"], "pyarrow" in error["message"]) == ("format", True)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"search": {"since": "x"}}, "search.since"),
        ({"search": {"colour": "red"}}, "search.colour"),
        ({"format": "xls"}, "format"),
        ({"format": "zip"}, "format"),
        ({"kind": "evidence", "format": "csv"}, "format"),
    ],
)
def test_what_cannot_be_exported_is_refused_by_name(cast: Cast, body: dict[str, Any], param: str) -> None:
    assert error_of(cast.auditor.post("exports", body), 400, "INVALID_REQUEST")["param"] == param


def test_an_export_is_its_organizations_and_a_developer_makes_none(cast: Cast) -> None:
    recorded(cast.organization.id)
    export = ordered(cast.admin)
    for address in (f"exports/{export['id']}", f"exports/{export['id']}/download"):
        error_of(cast.outsider.get(address), 404, "NOT_FOUND")
        error_of(cast.developer.get(address), 403, "FORBIDDEN")
        assert cast.auditor.get(address).status_code == 200
    error_of(cast.developer.post("exports", {}), 403, "FORBIDDEN")
    theirs = {"organization": str(cast.organization.id)}
    assert error_of(cast.outsider.post("exports", theirs), 400, "INVALID_REQUEST")["param"] == "organization"
    asked = {"search": {"organization": str(cast.organization.id)}}
    assert cast.outsider.post("exports", asked).status_code in {400, 403}
    # Even a row that says otherwise looks in its own organization alone.
    Export.objects.filter(pk=export["id"]).update(
        state="waiting",
        attempts=0,
        organization_id=cast.elsewhere.id,
        criteria={"organization": str(cast.organization.id)},
    )
    export_now()
    assert Export.objects.get(pk=export["id"]).records == 0


def test_a_large_one_is_written_by_a_worker(cast: Cast, only_for_workers: None) -> None:
    for _ in range(3):
        recorded(cast.organization.id)
    export = ordered(cast.auditor)
    assert export["state"] == "waiting"
    error_of(cast.auditor.get(f"exports/{export['id']}/download"), 404, "NOT_FOUND")
    recorded(cast.organization.id)  # comes too late: an export has what there was when it was ordered
    assert export_now() == 1
    done = cast.auditor.get(f"exports/{export['id']}").json()
    assert (done["state"], done["records"], done["percent"]) == ("done", 3, 100)
    assert len(content(cast.auditor, done).splitlines()) == 4


def test_a_few_may_be_under_way_and_no_more(cast: Cast, only_for_workers: None) -> None:
    for _ in range(orders.MOST_UNDER_WAY):
        ordered(cast.auditor)
    error_of(cast.auditor.post("exports", {}), 409, "CONFLICT")
    assert cast.outsider.post("exports", {}).status_code == 201


def test_a_cancelled_export_stops_at_once_and_leaves_nothing(
    cast: Cast, only_for_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        recorded(cast.organization.id)
    export = ordered(cast.auditor)
    is_at_it, may_go_on = threading.Event(), threading.Event()
    ask = work.entries

    def slowly(records: Any) -> Any:
        is_at_it.set()
        may_go_on.wait(20)
        return ask(records)

    monkeypatch.setattr(work, "entries", slowly)
    monkeypatch.setattr(work, "SAY_SECONDS", 0.0)
    worker = threading.Thread(target=lambda: (export_now(), connection.close()))
    worker.start()
    assert is_at_it.wait(20)
    assert cast.auditor.get(f"exports/{export['id']}").json()["state"] == "running"
    assert cast.auditor.post(f"exports/{export['id']}/cancel").json()["state"] == "cancelled"
    may_go_on.set()
    worker.join(20)
    assert not worker.is_alive()
    assert cast.auditor.get(f"exports/{export['id']}").json()["state"] == "cancelled"
    error_of(cast.auditor.get(f"exports/{export['id']}/download"), 404, "NOT_FOUND")
    assert [path for path in drafts() if export["id"] in path.name] == []
    assert cast.auditor.post(f"exports/{export['id']}/cancel").json()["state"] == "cancelled"


def test_what_a_dead_worker_held_is_begun_anew_and_given_up_in_the_end(cast: Cast, only_for_workers: None) -> None:
    recorded(cast.organization.id)
    export = ordered(cast.auditor)
    for attempt in range(1, orders.MOST_ATTEMPTS + 1):
        held = orders.take()
        assert held is not None
        assert (str(held.pk), held.attempts) == (export["id"], attempt)
        assert orders.take() is None
        Export.objects.filter(pk=held.pk).update(held_until=timezone.now() - timedelta(seconds=1))
        if attempt == 1:
            with pytest.raises(orders.Stopped):
                orders.say(Export(pk=held.pk, worker=uuid4()), 1, 1)
    assert export_now() == 0
    failed = cast.auditor.get(f"exports/{export['id']}").json()
    assert failed["state"] == "failed"
    assert "worker died" in failed["problem"]


def test_a_failure_is_told_and_leaves_no_file(
    cast: Cast, only_for_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(cast.organization.id)
    export = ordered(cast.auditor)

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(formats.CsvWriter, "write", full)
    export_now()
    failed = cast.auditor.get(f"exports/{export['id']}").json()
    assert (failed["state"], "disk is full" in failed["problem"]) == ("failed", True)
    assert drafts() == []
    assert ChangeRecord.objects.get(object_id=export["id"], action="fail").organization_id == cast.organization.id


def test_after_its_time_there_is_no_download_and_then_no_file(cast: Cast) -> None:
    recorded(cast.organization.id)
    export = ordered(cast.auditor)
    (path,) = (Path(settings.DATA_DIR) / "exports").glob(f"{export['id']}*")
    Export.objects.filter(pk=export["id"]).update(expires_at=timezone.now() - timedelta(seconds=1))
    error_of(cast.auditor.get(f"exports/{export['id']}/download"), 404, "NOT_FOUND")
    assert work.tidy() >= 1
    assert not path.exists()
    assert cast.auditor.get(f"exports/{export['id']}").json()["state"] == "expired"


def test_an_erased_text_is_null_and_texts_are_held_a_few_at_a_time(
    cast: Cast, only_for_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [recorded(cast.organization.id, prompt="erased")]
    RequestText.objects.filter(pk=kept[0]).delete()
    kept += many(cast.organization.id, 100, "word " * 10_000)
    monkeypatch.setattr("apps.audit.entries.MOST_TEXT_BYTES", 150_000)
    export = ordered(cast.auditor, format="jsonl")
    tracemalloc.start()
    export_now()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    lines = content(cast.auditor, export).splitlines()
    assert [json.loads(line)["id"] for line in (lines[0], lines[-1])] == [kept[0], kept[1]]
    assert json.loads(lines[0])["prompt_redacted"] is None
    assert sum(map(len, lines)) > 5_000_000
    assert peak < 2_500_000


def test_files_lie_in_the_bucket_where_there_is_one(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    recorded(cast.organization.id)
    with mock_aws(), override_settings(S3_BUCKET_NAME="audit-bucket"):
        bucket = boto3.client("s3")
        bucket.create_bucket(Bucket="audit-bucket")
        export = ordered(cast.auditor)
        (kept,) = bucket.list_objects_v2(Bucket="audit-bucket")["Contents"]
        assert kept["Key"].startswith(f"exports/{cast.organization.id}/{export['id']}")
        assert content(cast.auditor, export).decode().startswith(HEADER)
        Export.objects.filter(pk=export["id"]).update(expires_at=timezone.now() - timedelta(seconds=1))
        work.tidy()
        assert bucket.list_objects_v2(Bucket="audit-bucket")["KeyCount"] == 0
        assert drafts() == []


def test_in_the_admin_an_export_is_ordered_watched_and_downloaded(only_for_workers: None) -> None:
    cast = gather_admin()
    client = cast.browser("auditor")
    form = client.get(reverse("admin:audit_export_add") + f"?q={cast.home.marker}").context["adminform"].form
    data = {"query": form["query"].value(), "kind": "records", "format": "csv", "reason": "for the auditors"}
    page = client.post(reverse("admin:audit_export_add"), data, follow=True)
    export = page.context["export"]
    assert (export.state, export.organization_id) == ("waiting", cast.home.organization.pk)
    assert "Cancel the export" in page.content.decode()
    orders_page = reverse("admin:audit_export_change", args=[export.pk])
    export_now()
    assert "Download csv" in client.get(orders_page).content.decode()
    download = reverse("admin:audit_export_download", args=[export.pk])
    assert client.get(download).status_code == 302
    assert cast.home.marker in b"".join(client.post(download).streaming_content).decode()
    assert cast.browser("developer").post(download).status_code == 403
    assert cast.browser("outsider").post(download).status_code in {302, 403}


def test_the_servers_thread_writes_what_waits_and_gives_back_what_it_cannot_finish(
    cast: Cast, only_for_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apps.gateway.exporter import Exporter

    recorded(cast.organization.id)
    export = ordered(cast.auditor)
    held = orders.take()
    assert held is not None
    run = work.Run(held, must_end=lambda: True)
    work._attempt(run, PRODUCERS)
    held.refresh_from_db()
    assert (held.state, held.attempts) == ("waiting", 0)
    with override_settings(CELERY_BROKER_URL="memory://"):
        exporter = Exporter(0.05)
        exporter.start()
    deadline = time.monotonic() + 20
    while cast.auditor.get(f"exports/{export['id']}").json()["state"] != "done" and time.monotonic() < deadline:
        time.sleep(0.05)
    exporter.stop()
    assert len(content(cast.auditor, export).splitlines()) == 2
