"""What the admin shows of the money."""

from datetime import timedelta
from uuid import uuid4

from django.utils import timezone

from apps.policies.budgets import BEGINNING
from apps.policies.models import Budget, BudgetAlert, LedgerEntry, SpanPart
from tests.admin.cast import Cast, address

USD = 10**9


def a_rolling_budget(cast: Cast) -> Budget:
    """Of 5 USD in any 24 hours: 7 USD were spent in all, 1 USD of it lately, and 2 USD are set aside."""
    budget = Budget.objects.create(
        id=uuid4(),
        policy_id=cast.home.policy.pk,
        organization_id=cast.home.organization.pk,
        window_start=BEGINNING,
        span_hours=24,
        limit_nano_usd=5 * USD,
        spent_nano_usd=7 * USD,
        reserved_nano_usd=2 * USD,
    )
    for hours, used in ((30, 6), (2, 3)):
        starts_at = timezone.now() - timedelta(hours=hours)
        SpanPart.objects.create(id=uuid4(), budget=budget, starts_at=starts_at, used_nano_usd=used * USD)
    return budget


def test_a_rolling_budget_shows_what_its_span_holds_now(cast: Cast) -> None:
    budget, client = a_rolling_budget(cast), cast.browser("admin")
    page = client.get(address(Budget, "changelist"))
    columns = page.context["cl"].model_admin
    row = next(row for row in page.context["cl"].result_list if row.pk == budget.pk)
    shown = [getattr(columns, name)(row) for name in ("window", "spent_usd", "reserved_usd", "left_usd")]
    assert shown == ["any 24 hours", "1.00", "2.00", "2.00"]
    assert "7.00" not in client.get(address(Budget, "change", budget.pk)).content.decode()


def test_alerts_and_the_ledger_are_listed_by_day_and_cannot_be_changed(cast: Cast) -> None:
    client, today = cast.browser("admin"), f"{timezone.now():%Y-%m-%d}"
    for row in (cast.home.alert, cast.home.entry):
        listed = client.get(address(row, "changelist"), {"timestamp_from": today})
        assert row in listed.context["cl"].result_list
        assert not client.get(address(row, "changelist"), {"timestamp_to": "2020-01-01"}).context["cl"].result_list
        assert client.post(address(row, "change", row.pk), {"percent": "1"}).status_code == 403
        assert client.post(address(row, "delete", row.pk), {"post": "yes"}).status_code == 403
    assert "20 %" in client.get(address(BudgetAlert, "changelist")).content.decode()
    assert LedgerEntry.objects.filter(pk=cast.home.entry.pk).exists()
