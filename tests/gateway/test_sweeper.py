"""Requests whose process died are finished once, and pay their worst case."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from apps.audit.models import OpenRequest
from apps.gateway.sweeper import sweep
from apps.gateway.transport import Transport
from apps.policies.models import Budget
from tests.gateway.house import House, chat, pipeline, run
from tests.services.postgres import with_name
from tests.services.server import ROOT

CAP = ("cost_cap", {"limit_usd": "1", "per": "total"})


def left_open(house: House, folder: Path) -> UUID:
    """Leave a request as a killed process would: its intent is committed, its end is not."""

    class Dying(Transport):
        async def send(self, *args: Any, **kwargs: Any) -> Any:
            raise KeyboardInterrupt

    async def call() -> None:
        async with pipeline(folder, transport=Dying()) as path:
            await path.complete_chat(chat(house.key, "sim-usage-1000-500"))

    with suppress(KeyboardInterrupt):
        run(call)
    open_request = OpenRequest.objects.get(organization_id=house.organization.id)
    OpenRequest.objects.filter(id=open_request.id).update(deadline=timezone.now() - timedelta(minutes=1))
    return open_request.id


def test_an_overdue_request_becomes_interrupted_and_pays_its_worst_case(tmp_path: Path) -> None:
    house = House([CAP])
    request = left_open(house, tmp_path)
    sweep()
    record = house.only_record()
    assert (record.id, record.status, record.usage_source) == (request, "interrupted", "worst_case")
    assert record.cost_nano_usd == 1000 * 1000 + 500 * 2000
    budget = Budget.objects.get(organization_id=house.organization.id)
    assert (budget.reserved_nano_usd, budget.spent_nano_usd) == (0, record.cost_nano_usd)
    assert house.open_requests() == 0


def test_an_overdue_request_that_a_cap_had_clamped_pays_what_was_reserved_and_its_record_names_the_cap(
    tmp_path: Path,
) -> None:
    house = House([("cost_cap", {"limit_usd": "0.0015", "per": "total", "fit": "clamp"})])
    left_open(house, tmp_path)
    sweep()
    record = house.only_record()
    assert (record.cost_nano_usd, record.overrun_nano_usd) == (1_500_000, 0)
    assert [reading["kind"] for reading in record.limits] == ["cost_cap"]


def test_a_request_within_its_deadline_is_left_alone(tmp_path: Path) -> None:
    house = House([CAP])
    request = left_open(house, tmp_path)
    OpenRequest.objects.filter(id=request).update(deadline=timezone.now() + timedelta(minutes=5))
    sweep()
    assert house.records() == []
    assert house.open_requests() == 1


def test_sweeping_by_command_says_how_many(tmp_path: Path, capsys: Any) -> None:
    left_open(House([CAP]), tmp_path)
    call_command("sweep")
    assert "interrupted requests" in capsys.readouterr().out


def test_a_celery_worker_sweeps_when_its_broker_tells_it(tmp_path: Path, postgres_only: None) -> None:
    house = House([CAP])
    left_open(house, tmp_path)
    database = with_name(os.environ["DATABASE_URL"], str(connection.settings_dict["NAME"]))
    broker = os.environ["REDIS_URL"].rsplit("/", 1)[0] + f"/{1 + os.getpid() % 14}"
    environment = {**os.environ, "DATABASE_URL": database, "CELERY_BROKER_URL": broker}
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "controlplane", "worker", "--pool", "solo", "--loglevel", "WARNING"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        subprocess.run(
            [sys.executable, "-m", "celery", "-A", "controlplane", "call", "apps.gateway.tasks.sweep"],
            cwd=ROOT,
            env=environment,
            check=True,
            capture_output=True,
            timeout=60,
        )
        deadline = time.monotonic() + 60
        while not house.records() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert house.only_record().status == "interrupted"
    finally:
        worker.terminate()
        worker.wait(20)
