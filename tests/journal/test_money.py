"""The connection is lost between COMMIT and its answer, and one organization's row is locked: real rows, real money."""

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection, connections

from apps.audit.journal import Journal
from apps.audit.models import OpenRequest
from apps.audit.spool import Spool
from apps.gateway.bookkeeping import STEPS
from apps.policies.models import Budget, LedgerEntry, Reservation
from tests.gateway.house import House, chat, pipeline, read_all, run
from tests.services.postgres import with_name

CAP = ("cost_cap", {"limit_usd": "1", "per": "total"})


class Wiretap:
    """Stands between a client and PostgreSQL's socket, and may cut the line when a COMMIT has been carried out."""

    def __init__(self, folder: Path, behind: str) -> None:
        self.cut_after_commit = False
        self.cuts = 0
        self._behind = behind
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._behind)
                committing = threading.Event()
                threading.Thread(target=self._to_server, args=(client, server, committing), daemon=True).start()
                threading.Thread(target=self._to_client, args=(server, client, committing), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket, committing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.cut_after_commit and b"COMMIT" in data:
                    committing.set()
                server.sendall(data)
        _end(server)

    def _to_client(self, server: socket.socket, client: socket.socket, committing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if committing.is_set():
                    self.cut_after_commit = False
                    self.cuts += 1
                    break  # it is committed, and the client shall not learn of it
                client.sendall(data)
        _end(client)
        _end(server)


@pytest.fixture
def wiretap(postgres_only: None) -> Iterator[Wiretap]:
    options = connection.settings_dict["OPTIONS"]
    host = str(options.get("host") or connection.settings_dict["HOST"])
    folder = Path(tempfile.mkdtemp(prefix="lcp-wire-"))
    tap = Wiretap(folder, f"{host}/.s.PGSQL.5432")
    connections.databases["tapped"] = {
        **connection.settings_dict,
        "HOST": str(folder),
        "OPTIONS": {**options, "host": str(folder)},
    }
    yield tap
    del connections.databases["tapped"]
    tap.close()
    shutil.rmtree(folder)


def tapped_journal(folder: Path) -> Journal:
    return Journal(STEPS, Spool(folder), wait_seconds=5, using="tapped")


def test_an_intent_whose_commit_nobody_confirmed_is_refused_and_reserves_nothing(
    wiretap: Wiretap, tmp_path: Path
) -> None:
    house = House([CAP])

    async def call() -> list[int]:
        async with pipeline(tmp_path, journal=tapped_journal(tmp_path)) as path:
            statuses = [(await path.complete_chat(chat(house.key))).status]
            wiretap.cut_after_commit = True
            statuses += [(await path.complete_chat(chat(house.key))).status for _ in range(2)]
            return statuses

    assert run(call) == [200, 503, 200]
    assert wiretap.cuts == 1
    until(lambda: not OpenRequest.objects.filter(organization_id=house.organization.id).exists())
    budget = Budget.objects.get(organization_id=house.organization.id)
    assert (budget.reserved_nano_usd, Reservation.objects.filter(budget=budget).count()) == (0, 0)
    assert [record.status == "success" for record in house.records()] == [True, False, True]
    assert budget.spent_nano_usd == sum(record.cost_nano_usd for record in house.records())


def test_an_end_whose_commit_nobody_confirmed_is_recorded_and_charged_once(wiretap: Wiretap, tmp_path: Path) -> None:
    house = House([CAP])

    async def call() -> bytes:
        async with pipeline(tmp_path, journal=tapped_journal(tmp_path)) as path:
            answer = await path.complete_chat(chat(house.key, "sim-stream-3", stream=True))
            wiretap.cut_after_commit = True
            return await read_all(answer)

    assert b"[DONE]" in run(call)
    assert wiretap.cuts == 1
    record = house.only_record()
    assert record.status == "success"
    (entry,) = LedgerEntry.objects.filter(request_id=record.id)
    assert entry.amount_nano_usd == record.cost_nano_usd
    assert house.open_requests() == 0


def test_one_organizations_locked_budget_holds_up_no_other(tmp_path: Path, postgres_only: None) -> None:
    locked, free = House([CAP]), House([CAP])

    async def calls() -> tuple[list[int], list[int]]:
        journal = Journal(STEPS, Spool(tmp_path), wait_seconds=2)
        async with pipeline(tmp_path, journal=journal) as path:
            for house in (locked, free):  # so that both have a counter
                assert (await path.complete_chat(chat(house.key))).status == 200
            with locked_budget(locked):
                held = [asyncio.ensure_future(path.complete_chat(chat(locked.key))) for _ in range(20)]
                others = []
                while not all(call.done() for call in held):
                    others.append((await path.complete_chat(chat(free.key))).status)
            refused = [(await call).status for call in held]
            while (await path.complete_chat(chat(locked.key))).status != 200:
                await asyncio.sleep(0.1)
            return refused, others

    refused, others = run(calls)
    assert refused == [503] * 20
    assert set(others) == {200}
    assert len(others) > 10


@contextlib.contextmanager
def locked_budget(house: House) -> Iterator[None]:
    url = with_name(os.environ["DATABASE_URL"], str(connection.settings_dict["NAME"]))
    with psycopg.connect(url.replace("postgres://", "postgresql://", 1)) as other:
        other.execute("SELECT id FROM policies_budget WHERE organization_id = %s FOR UPDATE", [house.organization.id])
        yield


def _end(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()
