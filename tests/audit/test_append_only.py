"""The past cannot be rewritten, and records find their month."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection, models, transaction
from django.utils import timezone

from apps.audit.changes import Actor, record_change
from apps.audit.models import ChangeRecord, RequestRecord
from apps.audit.partitions import ensure_partitions
from apps.audit.uuid7 import first_id_at, uuid7
from apps.orgs.models import Organization
from apps.policies.models import Policy, PolicyVersion


def a_record(**columns: object) -> RequestRecord:
    given = {
        "organization_id": uuid4(),
        "status": "success",
        "http_status": 200,
        "timestamp": timezone.now(),
        **columns,
    }
    return RequestRecord.objects.create(**given)


def a_change() -> ChangeRecord:
    organization = Organization.objects.create(name=f"org {uuid4()}")
    return record_change(Actor(None, "test", "command"), "create", organization, organization_id=organization.id)


def a_version() -> PolicyVersion:
    organization = Organization.objects.create(name=f"org {uuid4()}")
    policy = Policy.objects.create(
        organization=organization, name="p", kind="model_restriction", config={"allow": ["*"]}
    )
    return PolicyVersion.objects.get(policy_id=policy.id)


@pytest.mark.parametrize("make", [a_record, a_change, a_version])
def test_a_row_of_the_past_can_neither_be_changed_nor_deleted(make: Callable[[], models.Model]) -> None:
    row = make()
    rows = type(row)._default_manager.filter(pk=row.pk)
    for rewrite in (lambda: rows.update(id=uuid4()), rows.delete):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            rewrite()
    assert rows.exists()


def test_ids_sort_by_time_and_bound_a_search() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=5)
    made = uuid7()
    assert first_id_at(before) < made < first_id_at(before + timedelta(minutes=1))
    assert made.version == 7


def test_a_record_lies_in_the_partition_of_its_month(postgres_only: None) -> None:
    record = a_record()
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM audit_requestrecord WHERE id = %s", [record.id])
        assert cursor.fetchone()[0] == f"audit_requestrecord_{timezone.now():%Y_%m}"


def test_a_record_of_a_month_without_a_partition_is_kept_all_the_same(postgres_only: None) -> None:
    record = a_record(id=first_id_at(datetime(2019, 5, 1, tzinfo=UTC)))
    assert RequestRecord.objects.filter(id=record.id).exists()


def test_making_partitions_again_makes_none() -> None:
    ensure_partitions()
    assert ensure_partitions() == []


def test_saving_a_policy_publishes_a_version_and_keeps_the_old_one() -> None:
    version = a_version()
    policy = Policy.objects.get(id=version.policy_id)
    policy.config = {"allow": ["sim-*"]}
    policy.save()
    said = PolicyVersion.objects.filter(policy_id=policy.id).order_by("version").values_list("version", "config")
    assert list(said) == [(1, {"allow": ["*"]}), (2, {"allow": ["sim-*"]})]
