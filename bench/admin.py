"""``python -m bench.admin``: how long the admin's pages take with millions of records.

Fills a PostgreSQL of its own, which is thrown away, with 90 days of records of 40 organizations, brings the sums of
usage up to date, and prints for each page the processor time of the server's process and its database session
together, which does not depend on what else the machine is doing, and the time that passed: the middle one and the
longest of a few visits, after a first one that does not count. Texts of prompts are left out: no page measured here
reads them. A million records take about 2.1 GB of disk, the database's log up to 3 GB: 24 GB for ten millions. The run
refuses to begin without half as much again free.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.services.postgres import EmbeddedPostgres

DAYS = 90
BATCH = 250_000
BYTES_A_RECORD, BYTES_OF_LOG = 2_100, 3 * 10**9
VISITS = 3
GOAL_MS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000, help="how many records (200000)")
    parser.add_argument("--folder", help="where to put the database for the time of the run (the system's own)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lcp-bench-admin-", dir=options.folder) as name:
        folder = Path(name)
        free, wanted = shutil.disk_usage(folder).free, options.records * BYTES_A_RECORD * 1.5 + BYTES_OF_LOG
        if free < wanted:
            sys.exit(f"{folder} has {free / 1e9:.1f} GB free; {wanted / 1e9:.1f} GB are wanted.")
        postgres = EmbeddedPostgres(folder / "postgres")
        try:
            run(postgres.start(), folder, options.records)
        finally:
            postgres.stop()


def run(database_url: str, folder: Path, records: int) -> None:
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "controlplane.settings",
        "DATABASE_URL": database_url,
        "DATA_DIR": str(folder / "data"),
        "LOG_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore",
    }
    os.environ.pop("REDIS_URL", None)
    import django

    django.setup()
    from django.test.utils import setup_test_environment

    setup_test_environment()
    prepare()
    timed(f"{records:,} records of {DAYS} days", lambda: fill(records))
    timed("the sums of usage, from nothing", sum_up)
    timed("VACUUM ANALYZE", lambda: execute("VACUUM ANALYZE"))
    say_sizes(folder)
    measure()


def timed(what: str, work: Callable[[], Any]) -> None:
    began = time.monotonic()
    work()
    print(f"{what}: {time.monotonic() - began:.1f} s", flush=True)


def execute(statement: str, parameters: list[Any] | None = None) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def prepare() -> None:
    """Make the tables, the partitions of the past, and the tenants."""
    from django.core.management import call_command

    # It is thrown away: nothing has to survive a crash.
    for setting in (
        "fsync = off",
        "synchronous_commit = off",
        "max_wal_size = '2GB'",
        "full_page_writes = off",
        "max_parallel_workers_per_gather = 0",
    ):
        execute(f"ALTER SYSTEM SET {setting}")
    execute("SELECT pg_reload_conf()")
    call_command("migrate", verbosity=0)
    from apps.audit.partitions import TABLES, _partition

    months = {(datetime.now(UTC) - timedelta(days=day)).strftime("%Y-%m") for day in range(DAYS + 2)}
    this_month = datetime.now(UTC).strftime("%Y-%m")
    for table in TABLES:
        for month in sorted(months - {this_month}):
            name, bounds = _partition(table, datetime.fromisoformat(f"{month}-01").replace(tzinfo=UTC))
            execute(f'CREATE TABLE "{name}" PARTITION OF "{table}" FOR VALUES FROM {bounds}')
    tenants()


def tenants() -> None:
    """Make 40 organizations, of which the first has most requests, with applications, people, policies, budgets."""
    from apps.orgs.models import Application, Membership, Organization, UsageTag, User
    from apps.policies.models import Budget, Policy

    for number in range(40):
        organization = Organization.objects.create(name=f"Organization {number:02}")
        Application.objects.bulk_create(
            [Application(organization=organization, name=f"application {n}") for n in range(6)]
        )
        for n in range(10):
            user = User.objects.create(username=f"user-{number}-{n}")
            Membership.objects.create(organization=organization, user=user, role="admin" if n == 0 else "developer")
        UsageTag.objects.create(organization=organization, key="team")
        for n in range(3):
            cap = {"limit_usd": "1000", "per": "month", "hard": True, "fit": "refuse"}
            policy = Policy(organization=organization, name=f"budget {n}", kind="cost_cap", config=cap)
            policy.save()
            Budget.objects.create(
                id=policy.pk,
                policy_id=policy.pk,
                organization_id=organization.pk,
                window_start=datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0),
                window_end=datetime.now(UTC) + timedelta(days=7),
                limit_nano_usd=10**12,
                spent_nano_usd=3 * 10**11,
            )
    User.objects.create_superuser("root", password="bench")
    execute(
        "CREATE TABLE bench_callers AS SELECT row_number() OVER (ORDER BY o.name, c.id) - 1 AS n, o.id AS o_id,"
        " o.name AS o_name, c.* FROM orgs_organization o JOIN ("
        " SELECT id, organization_id, id AS a_id, name AS a_name, NULL::uuid AS u_id, '' AS u_name"
        " FROM orgs_application UNION ALL"
        " SELECT u.id, m.organization_id, NULL, '', u.id, u.username FROM orgs_user u"
        " JOIN orgs_membership m ON m.user_id = u.id) c ON c.organization_id = o.id"
    )
    execute("CREATE UNIQUE INDEX ON bench_callers (n)")


_INSERT = """
INSERT INTO audit_requestrecord (
    id, timestamp, organization_id, organization_name, application_id, application_name, user_id, user_name,
    api_key_prefix, end_user, endpoint, model, provider, upstream_model, streamed, status, http_status, error_code,
    error_message, tokens_input, tokens_output, tokens_cached, usage_source, cost_nano_usd, overrun_nano_usd, price,
    latency_ms, first_byte_ms, metadata, reasons, policies, findings, limits, attempts, degraded, prompt_hash,
    response_hash)
SELECT (lpad(to_hex(ms), 12, '0') || '7' || substr(md5(random()::text), 1, 3) || '8'
        || substr(md5(random()::text), 1, 15))::uuid,
    to_timestamp(ms / 1000.0), c.o_id, c.o_name, c.a_id, c.a_name, c.u_id, c.u_name, 'abcdefghijkl',
    'visitor-' || (r1 * 1000)::int, 'chat/completions',
    'model-' || m, (ARRAY['openai','anthropic','azure'])[1 + m %% 3],
    'model-' || m || '-2026', r2 < 0.4, s.status, s.http, s.code, CASE WHEN s.code = '' THEN '' ELSE 'Refused.' END,
    CASE WHEN s.status = 'blocked' THEN 0 ELSE (r2 * 4000)::int END,
    CASE WHEN s.status = 'success' THEN (r3 * 1500)::int ELSE 0 END, 0, 'provider',
    CASE WHEN s.status = 'blocked' THEN 0 ELSE (r2 * r3 * 20000000)::bigint END, 0,
    '{"source": "own", "input_nano_usd_per_million": 1000000000, "output_nano_usd_per_million": 2000000000}',
    CASE WHEN s.status = 'blocked' THEN (r2 * 20)::int ELSE (200 + exp(r2 * 9))::int END, (100 + r3 * 900)::int,
    jsonb_build_object('team', 'team-' || (r3 * 12)::int, 'ticket', (r1 * 1000000)::int::text),
    CASE WHEN s.status = 'blocked' THEN jsonb_build_array(jsonb_build_object(
        'code', s.code, 'message', 'A policy refused.', 'enforced', true, 'policy', 'policy ' || s.code,
        'policy_id', md5(c.o_id::text || s.code)::uuid, 'version', 3)) ELSE '[]' END,
    jsonb_build_array(jsonb_build_object('id', c.o_id, 'name', 'Models of the house', 'kind', 'model_restriction',
        'mode', 'enforce', 'version', 2, 'level', 'organization')),
    '[]',
    jsonb_build_array(jsonb_build_object('policy', 'Month', 'kind', 'cost_cap', 'per', 'month', 'limit_nano_usd',
        1000000000000, 'spent_nano_usd', 300000000000, 'reserved_nano_usd', 0)),
    jsonb_build_array(jsonb_build_object('provider', 'openai', 'model', 'model-' || m, 'started_ms', 3, 'status', 200)),
    '[]', md5(r1::text) || md5(r2::text), md5(r3::text) || md5(r1::text)
FROM (
    SELECT %s + (i * %s)::bigint AS ms, random() AS r1, random() AS r2, random() AS r3, random() AS r4, random() AS r5
    FROM generate_series(%s, %s) i OFFSET 0
) g
JOIN bench_callers c ON c.n = floor(power(g.r1, 2.5) * %s)::int
JOIN LATERAL (SELECT ((c.n * 7 + floor(power(g.r5, 1.6) * 3)::int) %% 15)::int AS m) m ON true
JOIN LATERAL (
    SELECT CASE WHEN g.r4 < 0.9 THEN 'success' WHEN g.r4 < 0.96 THEN 'blocked' WHEN g.r4 < 0.985 THEN 'error'
        WHEN g.r4 < 0.995 THEN 'cancelled' ELSE 'interrupted' END AS status,
    CASE WHEN g.r4 < 0.9 THEN 200 WHEN g.r4 < 0.96 THEN 403 ELSE 502 END AS http,
    CASE WHEN g.r4 < 0.9 THEN '' WHEN g.r4 < 0.92 THEN 'MODEL_NOT_ALLOWED' WHEN g.r4 < 0.94 THEN 'BUDGET_EXCEEDED'
        WHEN g.r4 < 0.96 THEN 'PII_DETECTED' WHEN g.r4 < 0.985 THEN 'PROVIDER_ERROR' WHEN g.r4 < 0.995 THEN ''
        ELSE 'INTERRUPTED' END AS code
) s ON true
"""


def fill(records: int) -> None:
    """Make records evenly over time, up to now. No trigger marks them as late: they are counted in their turn."""
    from django.db import connection

    now = datetime.now(UTC)
    start = int((now - timedelta(days=DAYS)).timestamp() * 1000)
    step = DAYS * 86_400_000 / records
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM bench_callers")
        callers = cursor.fetchone()[0]
        cursor.execute("SET session_replication_role = replica")
        for first in range(0, records, BATCH):
            cursor.execute(_INSERT, [start, step, first, min(first + BATCH, records) - 1, callers])
        cursor.execute("SET session_replication_role = origin")


def sum_up() -> None:
    from apps.gateway.usage_rolls import roll_usage

    roll_usage()


def say_sizes(folder: Path) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        size = cursor.fetchone()[0]
        for table in ("audit_usageseries", "audit_usagehour", "audit_usageday", "audit_tagday"):
            cursor.execute(f"SELECT count(*), pg_total_relation_size('{table}') FROM {table}")
            rows, taken = cursor.fetchone()
            print(f"{table}: {rows:,} rows, {taken / 1e6:,.0f} MB")
    on_disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"database: {size / 1e9:.2f} GB; on disk with its log: {on_disk / 1e9:.2f} GB", flush=True)


def measure() -> None:
    """Visit every page as who would, and print what each took."""
    from django.test import Client

    from apps.audit.models import RequestRecord
    from apps.audit.uuid7 import first_id_at
    from apps.orgs.models import Application, Organization, User

    largest, small = (Organization.objects.get(name=f"Organization {number}") for number in ("00", "39"))
    application = Application.objects.filter(organization=largest).order_by("id").first()
    someone = RequestRecord.objects.filter(organization_id=largest.pk, user_id__isnull=False).first()
    assert application is not None
    assert someone is not None
    today = datetime.now(UTC).date()
    custom = f"period=custom&first={today - timedelta(days=DAYS - 1)}&last={today}"
    usage, records = "/admin/usage/?", "/admin/audit/requestrecord/?"
    month = f"since={today - timedelta(days=29)}T00:00:00%2B00:00&until={today}T00:00:00%2B00:00"
    people = {
        "superadmin": User.objects.get(username="root"),
        "admin of the largest": User.objects.get(username="user-0-0"),
        "admin of a small one": User.objects.get(username="user-39-0"),
    }
    pages = ["/admin/", *(usage + f"period={period}" for period in ("today", "7d", "30d", "month")), usage + custom]
    older = first_id_at(datetime.now(UTC) - timedelta(days=DAYS // 2))
    pages += [records, records + f"before={older}", records + month, records + "status=blocked"]
    pages += [records + f"{month}&error_code=INTERRUPTED", records + f"{month}&status=failed&model_is=model-14"]
    pages += [records + f"{month}&provider=azure", records + f"{month}&metadata.team=team-12"]
    pages += [records + "metadata.team=nobody", records + f"{month}&cost_min=0.019", records + "end_user=visitor-999"]
    visits = [(who, page) for who in people for page in pages]
    visits += [
        ("superadmin", f"{usage}organization={largest.pk}&period=30d"),
        ("admin of the largest", f"{usage}application={application.pk}&period=30d"),
        ("admin of the largest", f"{usage}user={someone.user_id}&period=30d"),
        ("admin of the largest", f"{records}application={application.pk}"),
        ("admin of the largest", f"{records}{month}&user={someone.user_id}"),
        ("admin of the largest", f"{records}request_id={someone.pk}"),
        ("admin of the largest", f"/admin/audit/requestrecord/{someone.pk}/change/"),
        ("superadmin", f"{records}organization={small.pk}"),
    ]
    over = 0
    print(f"{'CPU':>8} {'middle':>8} {'longest':>8}   ms")
    for who, page in visits:
        client = Client()
        client.force_login(people[who])
        times, cpu = [], []
        for _ in range(VISITS + 1):
            worked, began = processor_ms(), time.perf_counter()
            answer = client.get(page)
            times.append((time.perf_counter() - began) * 1000)
            cpu.append(processor_ms() - worked)
            assert answer.status_code == 200, (page, answer.status_code)
        middle, longest, of_cpu = statistics.median(times[1:]), max(times[1:]), statistics.median(cpu[1:])
        over += of_cpu > GOAL_MS
        print(f"{of_cpu:8.0f} {middle:8.0f} {longest:8.0f}   {who}: {page}", flush=True)
    print(f"{len(visits) - over} of {len(visits)} pages within {GOAL_MS} ms of CPU")


def processor_ms() -> float:
    """Return the processor time that this process and its database session have used: what others do adds nothing."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return time.process_time() * 1000 + (int(user) + int(system)) * 1000 / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
