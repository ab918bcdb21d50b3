"""Data keys: one current key for each owner, held open for a bounded time and number."""

import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.test import override_settings

from apps.orgs import data_keys, wrapping
from apps.orgs.data_keys import OPEN, OpenKeys
from apps.orgs.encryption import DecryptionError
from apps.orgs.models import DataKey, Organization
from tests.encryption.kept import an_organization, execute, kept, key_of, read

SECRET = "sk-the-secret-of-one-row"


@pytest.fixture(autouse=True)
def nothing_is_open() -> Iterator[None]:
    OPEN.clear()
    yield
    OPEN.clear()


class Counted:
    """Counts what is unwrapped, by the real function."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self._unwrap = wrapping.unwrap
        monkeypatch.setattr(wrapping, "unwrap", self)

    def __call__(self, *arguments: Any) -> bytes:
        self.calls += 1
        return self._unwrap(*arguments)


def test_a_key_is_unwrapped_once_for_its_time_and_again_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    row = kept(an_organization(), SECRET)
    OPEN.clear()
    counted = Counted(monkeypatch)
    for _ in range(3):
        assert read(row).secret() == SECRET
    assert counted.calls == 1
    OPEN.clear()
    with override_settings(DATA_KEY_SECONDS=0.0):
        for _ in range(3):
            assert read(row).secret() == SECRET
    assert counted.calls == 4


def test_no_more_keys_are_held_open_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_keys, "MAX_OPEN", 3)
    opened, made = OpenKeys(), [(key_id, data_keys.make(key_id, None)) for key_id in (uuid4() for _ in range(5))]
    for key_id, wrapped in made:
        opened.get(key_id, "platform", wrapped)
    assert len(opened) == 3
    counted = Counted(monkeypatch)
    opened.get(*made[-1][:1], "platform", made[-1][1])
    assert counted.calls == 0
    opened.get(*made[0][:1], "platform", made[0][1])
    assert counted.calls == 1


def test_a_key_that_is_held_open_does_not_open_under_another_wrapping(postgres_only: None) -> None:
    row = kept(an_organization(), SECRET)
    assert row.secret() == SECRET
    execute("UPDATE orgs_datakey SET wrapped = 'AAAA' WHERE id = %s", row.data_key_id)
    with pytest.raises(DecryptionError):
        read(row).secret()


def test_first_secrets_that_are_entered_at_once_share_one_key(postgres_only: None) -> None:
    organization, ready, rows = an_organization(), threading.Barrier(4), []

    def enter() -> None:
        try:
            ready.wait(10)
            rows.append(kept(organization, SECRET))
        finally:
            connection.close()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [row.secret() for row in rows] == [SECRET] * 4
    assert DataKey.objects.filter(organization=organization).count() == 1


def test_the_key_of_a_new_secret_cannot_be_retired_before_it_is_stored(postgres_only: None) -> None:
    organization = an_organization()
    retired = threading.Event()

    def retire() -> None:
        try:
            DataKey.objects.filter(organization=organization).update(retired_at="2026-01-01T00:00:00Z")
            retired.set()
        finally:
            connection.close()

    kept(organization, SECRET)
    thread = threading.Thread(target=retire)
    with transaction.atomic():
        current = DataKey.current(organization.id)
        thread.start()
        assert not retired.wait(0.2)
    thread.join(20)
    assert retired.is_set()
    with transaction.atomic():
        assert DataKey.current(organization.id) != current


def test_a_secret_is_entered_again_where_the_key_is_lost() -> None:
    organization = an_organization()
    row = kept(organization, SECRET)
    lost = key_of(row)
    with override_settings(ENCRYPTION_KEYS={"new": bytes(32)}):
        OPEN.clear()
        assert read(row).readable() is False
        with transaction.atomic():
            broken = read(row)
            broken.set_secret("sk-entered-once-more")
            broken.save()
        assert read(row).secret() == "sk-entered-once-more"
    lost.refresh_from_db()
    assert lost.retired_at is not None
    assert key_of(row) != lost


def test_keys_go_with_their_organization() -> None:
    organization = an_organization()
    row = kept(organization, SECRET)
    organization.delete()
    assert not DataKey.objects.filter(pk=row.data_key_id).exists()
    assert not Organization.objects.filter(pk=organization.pk).exists()
