"""`manage.py rotate_encryption`: both keys are replaced in steps, beside traffic, whatever ends it on the way."""

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import connection, transaction
from django.test import override_settings

from apps.alerts.models import Destination
from apps.audit.models import ChangeRecord
from apps.gateway.models import ModelRoute
from apps.orgs.data_keys import OPEN
from apps.orgs.models import DataKey, ProviderCredential
from apps.policies.models import Price
from tests.encryption.kept import execute, kept, key_of, read, rotate
from tests.gateway.house import House, chat, pipeline, read_all, run
from tests.mock_upstream import MockUpstream
from tests.services.postgres import with_name
from tests.services.server import ROOT

NEW, OLD = bytes(range(32)), bytes(range(32, 64))
SECRET = "sk-the-secret-of-one-row"


class Shop(House):
    """A tenant with credentials at one provider, each behind a model of its own."""

    def __init__(self, upstream: MockUpstream, number: int = 5) -> None:
        super().__init__(allow=("*",))
        self.upstream = upstream
        given = {"provider": "openai_compatible", "base_url": upstream.base_url}
        rows = [kept(self.organization, f"sk-secret-number-{n}-of-the-shop", **given) for n in range(number)]
        self.rows = sorted(rows, key=lambda row: row.id)
        self.secrets = [row.secret() for row in self.rows]
        rates = {"input_nano_usd": 10**9, "output_nano_usd": 10**9}
        Price.objects.get_or_create(provider="openai_compatible", model="rotating-*", defaults=rates)
        for n, row in enumerate(self.rows):
            ModelRoute.objects.create(organization=self.organization, model=f"rotating-{n}", credential=row)

    def serves(self, folder: Path) -> None:
        """Have each model called, and see that the provider got each row's own secret."""

        async def work() -> list[int]:
            async with pipeline(folder) as built:
                answers = [await built.complete_chat(chat(self.key, f"rotating-{n}")) for n in range(len(self.rows))]
                for answer in answers:
                    await read_all(answer)
                return [answer.status for answer in answers]

        before = len(self.upstream.calls)
        assert run(work) == [200] * len(self.rows)
        got = [call.headers["authorization"] for call in self.upstream.calls[before:]]
        assert got == [f"Bearer {secret}" for secret in self.secrets]

    def keys(self) -> list[Any]:
        return [read(row).data_key_id for row in self.rows]


@pytest.fixture
def shop() -> Iterator[Shop]:
    """A tenant whose secrets are the only ones: a rotation is of them all, and other tests leave some unreadable."""
    ModelRoute.objects.all().delete()
    ProviderCredential.objects.all().delete()
    Destination.objects.all().delete()
    DataKey.objects.all().delete()
    with MockUpstream() as upstream:
        yield Shop(upstream)


def test_data_keys_are_wrapped_by_the_new_key_and_the_old_one_can_go(shop: Shop, tmp_path: Path) -> None:
    ring = settings.ENCRYPTION_KEYS
    (old,) = ring
    before = key_of(shop.rows[0])
    with override_settings(ENCRYPTION_KEYS={"fresh": NEW, **ring}):
        shop.serves(tmp_path)
        assert "by local:fresh" in rotate()
    after = key_of(shop.rows[0])
    assert (before.wrapped_by, after.wrapped_by) == (f"local:{old}", "local:fresh")
    assert after.pk == before.pk
    record = ChangeRecord.objects.get(object_id=str(after.pk), action="rotate")
    assert (record.organization_id, record.before, record.after) == (
        None,
        {"wrapped_by": f"local:{old}"},
        {"wrapped_by": "local:fresh"},
    )
    try:
        with override_settings(ENCRYPTION_KEYS={"fresh": NEW}):
            OPEN.clear()
            shop.serves(tmp_path)
            assert "Wrapped 0 data keys" in rotate()
    finally:
        with override_settings(ENCRYPTION_KEYS={**ring, "fresh": NEW}):
            rotate()


def test_a_data_key_that_nothing_opens_is_named_and_holds_up_no_other(shop: Shop) -> None:
    ring = settings.ENCRYPTION_KEYS
    lost = key_of(kept(House().organization, SECRET))
    execute("UPDATE orgs_datakey SET wrapped_by = 'local:lost' WHERE id = %s", lost.pk)
    with override_settings(ENCRYPTION_KEYS={"fresh": NEW, **ring}):
        said = rotate()
    try:
        assert f"Data key {lost.pk} cannot be opened" in said
        assert key_of(shop.rows[0]).wrapped_by == "local:fresh"
    finally:
        with override_settings(ENCRYPTION_KEYS={**ring, "fresh": NEW}):
            rotate()


def test_new_data_keys_replace_the_old_ones_which_are_removed(shop: Shop, tmp_path: Path) -> None:
    rotate("--data-keys")
    (before,) = set(shop.keys())
    stored = [read(row).encrypted_secret for row in shop.rows]
    shop.serves(tmp_path)
    rotate("--data-keys")
    (after,) = set(shop.keys())
    assert after != before
    assert all(read(row).encrypted_secret != old for row, old in zip(shop.rows, stored, strict=True))
    assert list(DataKey.objects.filter(organization=shop.organization).values_list("pk", flat=True)) == [after]
    assert ChangeRecord.objects.filter(object_id=str(before), action="delete").exists()
    shop.serves(tmp_path)


def test_a_secret_that_cannot_be_read_is_named_and_kept_and_holds_up_no_other(shop: Shop) -> None:
    broken, others = shop.rows[2], [row for row in shop.rows if row is not shop.rows[2]]
    execute("UPDATE orgs_providercredential SET base_url = 'https://evil.example' WHERE id = %s", broken.pk)
    for _ in range(2):  # nor does it keep a later rotation from being one
        before = {read(row).data_key_id for row in others}
        said = rotate("--data-keys")
        assert f"The secret of provider credential {broken.pk} cannot be read." in said
        assert read(broken).encrypted_secret == broken.encrypted_secret
        assert [read(row).secret() for row in others] == [s for s in shop.secrets if s != shop.secrets[2]]
        assert before.isdisjoint(read(row).data_key_id for row in others)
    execute("UPDATE orgs_providercredential SET base_url = %s WHERE id = %s", broken.base_url, broken.pk)
    assert read(broken).secret() == shop.secrets[2]


class Rotation:
    """A rotation in a process of its own, to be killed where it waits for a row that somebody else holds."""

    def __init__(self, database: str, *options: str) -> None:
        environment = {**os.environ, "DATABASE_URL": database, "COVERAGE_PROCESS_START": ""}
        self._process = subprocess.Popen(
            [sys.executable, "manage.py", "rotate_encryption", *options],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def wait_until_it_waits(self) -> None:
        """Return once another session waits for a lock: asked outside of a transaction, which would see no news."""
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        with psycopg.connect(database_url(), autocommit=True) as apart:
            while self._process.poll() is None:
                if apart.execute(waiting).fetchone() != (0,):
                    return
                time.sleep(0.05)
        pytest.fail(f"It ended: {self._process.communicate()[0]!r}")

    def wait(self) -> int:
        self._process.communicate(timeout=60)
        return self._process.returncode

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        assert self._process.wait(10) == -signal.SIGKILL


def database_url() -> str:
    return with_name(os.environ["DATABASE_URL"], str(connection.settings_dict["NAME"]))


def test_a_rotation_of_data_keys_that_is_killed_in_the_middle_is_finished_by_the_next_and_all_is_served(
    shop: Shop, tmp_path: Path, postgres_only: None
) -> None:
    rotate("--data-keys")
    (before,) = set(shop.keys())
    with transaction.atomic():
        ProviderCredential.objects.select_for_update().get(pk=shop.rows[2].pk)
        rotation = Rotation(database_url(), "--data-keys")
        rotation.wait_until_it_waits()
        shop.serves(tmp_path)
        rotation.kill()
    keys = shop.keys()
    assert keys[2:] == [before] * 3
    assert keys[0] == keys[1] != before
    shop.serves(tmp_path)
    assert "This finished an earlier run" in rotate("--data-keys")
    assert set(shop.keys()) == {keys[0]}
    assert list(DataKey.objects.filter(organization=shop.organization).values_list("pk", flat=True)) == [keys[0]]
    shop.serves(tmp_path)


def test_a_rotation_of_the_wrapping_that_is_killed_in_the_middle_is_finished_by_the_next(
    tmp_path: Path, postgres_only: None
) -> None:
    ring = settings.ENCRYPTION_KEYS
    with override_settings(ENCRYPTION_KEYS={"wrapped-before": OLD, **ring}):
        rows = [kept(House().organization, SECRET) for _ in range(3)]
        keys = sorted((key_of(row) for row in rows), key=lambda key: key.pk)
    with transaction.atomic():
        DataKey.objects.select_for_update().get(pk=keys[1].pk)
        with override_settings(ENCRYPTION_KEYS={**ring, "wrapped-before": OLD}):
            text = ",".join(f"{name}:{_base64(key)}" for name, key in settings.ENCRYPTION_KEYS.items())
            os.environ["ENCRYPTION_KEYS"] = text
            try:
                rotation = Rotation(database_url())
            finally:
                del os.environ["ENCRYPTION_KEYS"]
        rotation.wait_until_it_waits()
        rotation.kill()
    found = [DataKey.objects.get(pk=key.pk).wrapped_by for key in keys]
    assert found == [f"local:{next(iter(ring))}", "local:wrapped-before", "local:wrapped-before"]
    with override_settings(ENCRYPTION_KEYS={**ring, "wrapped-before": OLD}):
        OPEN.clear()
        assert [read(row).secret() for row in rows] == [SECRET] * 3
        rotate()
    OPEN.clear()
    assert [read(row).secret() for row in rows] == [SECRET] * 3


def _base64(key: bytes) -> str:
    return base64.b64encode(key).decode()
