"""Where the money goes: the usage page, its numbers, and the records behind each of them."""

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib import admin
from django.test import RequestFactory
from django.utils import timezone

from apps.audit import rollups
from apps.audit.models import ChangeRecord, RequestRecord
from apps.gateway.usage_rolls import roll_usage
from apps.orgs.models import UsageTag, User
from tests.admin.cast import Cast, address, filled, make_record

PAGE = "/admin/usage/"
LINK = re.compile(r'<a class="cp-[\w -]+" href="(/admin/audit/requestrecord/\?[^"]*)"[^>]*>([\d,]+)</a>')


@pytest.fixture(scope="module")
def spent(onlookers: Cast) -> Cast:
    """A house with requests of every end, which are summed up in part."""
    home, now = onlookers.home, timezone.now()
    reason = {"code": "BUDGET_EXCEEDED", "message": "", "enforced": True, "policy": home.policy.name}
    blocked = {"status": "blocked", "error_code": "BUDGET_EXCEEDED"}
    UsageTag.objects.create(organization=home.organization, key="team")
    ends: list[dict[str, Any]] = [
        {"cost_nano_usd": 1_500_000_000, "tokens_input": 1234, "latency_ms": 900, "metadata": {"team": "red & blue"}},
        {"cost_nano_usd": 10, "provider": "openai", "user_id": home.user.pk, "user_name": home.user.username},
        {"status": "error", "error_code": "PROVIDER_ERROR", "provider": "openai"},
        {"status": "interrupted", "error_code": "INTERRUPTED", "model": ""},
        {**blocked, "reasons": [{**reason, "policy_id": str(home.policy.pk)}]},
        {**blocked, "reasons": [], "error_code": "MODEL_NOT_FOUND", "metadata": {"team": ""}},
    ]
    for number, columns in enumerate(ends):
        application = None if "user_id" in columns else home.application
        make_record(home.organization, application, home.marker, timestamp=now - timedelta(seconds=number), **columns)
        if number == 3:
            roll_usage()
    return onlookers


def counted(link: str, user: User) -> int:
    """Return how many records the list behind a link shows, without drawing it."""
    request = RequestFactory().get(unescape(link))
    request.user = user
    found: int = admin.site._registry[RequestRecord].get_changelist_instance(request).result_count
    return found


@pytest.mark.parametrize("role", ["superadmin", "developer"])
def test_every_number_leads_to_as_many_records(spent: Cast, role: str) -> None:
    client, user = spent.browser(role), spent.people[role]
    text = client.get(PAGE, {"period": "7d", "organization": spent.home.organization.pk}).content.decode()
    links = LINK.findall(text)
    assert len(links) > 20
    for link, number in links:
        assert number in (f"{counted(link, user):,}", "1,234"), link  # tokens lead to the requests that used them
    assert client.get(unescape(links[0][0])).status_code == 200
    assert spent.foreign.marker not in text or role == "superadmin"


def test_it_is_narrowed_to_an_application_or_a_person_and_says_so(spent: Cast) -> None:
    client, home = spent.browser("admin"), spent.home
    of_app = client.get(PAGE, {"application": home.application.pk})
    assert f"Usage of application {home.application.name}" in unescape(of_app.content.decode())
    assert of_app.context["sums"].cost_nano_usd == 1_500_000_000
    of_person = client.get(PAGE, {"user": home.user.pk})
    assert (of_person.context["sums"].requests, of_person.context["sums"].cost_nano_usd) == (1, 10)
    assert "Show all" in of_person.content.decode()


def test_each_chart_has_its_numbers_in_a_table(spent: Cast) -> None:
    text = spent.browser("auditor").get(PAGE, {"period": "7d"}).content.decode()
    assert text.count('role="img"') == 3
    today = timezone.now().date()
    assert re.search(rf"<title>{today}: 1\.50 USD</title>", text)
    assert re.search(rf'<th scope="row">{today}</th>\s*<td>1\.50</td>', text)
    assert " style=" not in text[text.index('id="content"') :]


@pytest.mark.parametrize(
    ("asked", "field", "says"),
    [
        ({"first": "2026-02-01", "last": "2026-01-01"}, "last", "The last day comes before the first one."),
        ({"first": "2024-01-01", "last": "2026-01-01"}, "first", "Choose at most 366 days; these are 732."),
        ({"first": "2026-01-01", "last": "9998-01-01"}, "last", "This day lies in the future."),
        ({"first": "0001-01-01", "last": "0001-01-02"}, "first", "There is nothing before 2000-01-01."),
        ({"first": "=1+1", "last": "2026-01-01"}, "first", "Enter a valid date."),
        ({"last": "2026-01-01"}, "first", "Choose a day, such as 2026-01-31."),
    ],
)
def test_an_absurd_period_is_refused_beside_its_field_and_nothing_is_lost(
    onlookers: Cast, asked: dict[str, str], field: str, says: str
) -> None:
    answer = onlookers.browser("admin").get(PAGE, {"period": "custom", **asked})
    text = unescape(answer.content.decode())
    assert answer.status_code == 200
    assert f'id="error_{field}" class="cp-broken">{says}' in text
    assert all(f'value="{value}"' in text for value in asked.values())
    assert "Nothing is shown" in text


def test_what_is_no_id_and_what_is_out_of_reach_shows_nothing(onlookers: Cast) -> None:
    client, foreign = onlookers.browser("admin"), onlookers.foreign
    assert "Nothing is shown" in client.get(PAGE, {"organization": "'; --"}).content.decode()
    assert client.get(PAGE, {"organization": foreign.organization.pk}).status_code == 403
    for name, pk in (("application", foreign.application.pk), ("user", foreign.user.pk)):
        page = client.get(PAGE, {name: pk})
        assert page.context["sums"].requests == 0
        assert foreign.marker not in page.content.decode()
    assert onlookers.browser("nobody").get(PAGE).status_code in (302, 403)


def test_a_budget_says_what_is_left_and_when_it_runs_out(cast: Cast) -> None:
    home, now = cast.home, timezone.now()
    home.budget.window_start = now - timedelta(days=1)
    home.budget.window_end = now + timedelta(days=29)
    home.budget.save()
    [budget] = cast.browser("developer").get(PAGE).context["budgets"]
    assert (budget.limit, budget.spent, budget.left, budget.used_percent) == ("5.00", "1.00", "4.00", 20)
    assert (budget.runs_out[:10], budget.is_short) == (f"{now + timedelta(days=4):%Y-%m-%d}", True)
    home.budget.window_end = now + timedelta(days=1)
    home.budget.save()
    [budget] = cast.browser("developer").get(PAGE).context["budgets"]
    assert (budget.runs_out, budget.is_short) == ("Lasts until the window ends", False)


def test_an_admin_chooses_the_keys_of_metadata_and_a_record_says_so(cast: Cast) -> None:
    client, organization = cast.browser("admin"), cast.home.organization
    assert "Choose up to five of its keys" in client.get(PAGE).content.decode()
    assert "Choose up to five of its keys" not in cast.browser("auditor").get(PAGE).content.decode()
    url, form = address(type(organization), "change", organization.pk), "usage_tags"
    chosen = {f"{form}-TOTAL_FORMS": "1", f"{form}-0-key": "ticket", f"{form}-0-organization": str(organization.pk)}
    assert filled(client, url, **chosen).status_code == 302
    assert [tag.key for tag in organization.usage_tags.all()] == ["ticket"]
    assert ChangeRecord.objects.filter(object_type="orgs.usagetag", organization_id=organization.pk).count() == 1
    roll_usage()
    [found] = [one for one in client.get(PAGE).context["breakdowns"] if one.title == "By metadata: ticket"]
    assert [(row.name, row.sums.requests) for row in found.rows] == [(f"ticket {cast.home.marker}", 1)]
    many = {f"{form}-TOTAL_FORMS": "7"} | {f"{form}-{n}-key": f"key {n}" for n in range(1, 7)}
    assert filled(client, url, **many).status_code == 200
    assert organization.usage_tags.count() == 1
    rollups.choose_tags([])
