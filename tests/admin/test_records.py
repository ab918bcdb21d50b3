"""Finding a request and reading what happened to it and why."""

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID, uuid4

import pytest
from django.db import DEFAULT_DB_ALIAS, connections
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from apps.audit.models import ChangeRecord, RequestRecord, RequestText, Status
from apps.audit.uuid7 import first_id_at
from apps.gateway.readings import price, readings
from apps.gateway.sentences import sentence
from apps.orgs.scoped_admin import MOST_COUNTED
from tests.admin.cast import Cast, address, make_record, unique
from tests.services.database_roles import as_the_server

LIST = "admin:audit_requestrecord_changelist"


def found(cast: Cast, **query: Any) -> set[UUID]:
    response = cast.browser("auditor").get(reverse(LIST), query)
    assert response.status_code == 200
    return {record.pk for record, _ in response.context["rows"]}


@pytest.mark.parametrize("part", ["id", "application", "end_user", "model", "metadata"])
def test_a_request_is_found_by_what_one_remembers_of_it(onlookers: Cast, part: str) -> None:
    home = onlookers.home
    other = make_record(home.organization, None, unique("other"))
    term = {
        "id": str(home.record.pk),
        "application": home.application.name,
        "end_user": f"end {home.marker}",
        "model": f"asked-{home.marker}".upper(),
        "metadata": f"ticket {home.marker}",
    }[part]
    result = found(onlookers, q=term)
    assert home.record.pk in result
    assert other.pk not in result


def test_a_search_for_nothing_that_is_there_finds_nothing(onlookers: Cast) -> None:
    assert found(onlookers, q="100% _unlikely_") == set()
    assert found(onlookers, q=str(uuid4())) == set()


def test_filters_narrow_the_list(cast: Cast) -> None:
    home = cast.home
    refused = make_record(home.organization, None, "m1", status="blocked", provider="", model="o1-pro")
    served = make_record(home.organization, home.application, "m2", provider="openai", model="gpt-4o")
    assert found(cast, status="blocked") == {refused.pk}
    assert found(cast, provider="openai") == {served.pk}
    assert found(cast, model="GPT-*") == {served.pk}
    assert found(cast, model="gpt") == set()
    assert found(cast, application=str(home.application.pk)) == {served.pk, home.record.pk}


def test_days_narrow_the_list(cast: Cast) -> None:
    long_ago = timezone.now() - timedelta(days=40)
    old = make_record(
        cast.home.organization, None, "old", id=UUID(int=first_id_at(long_ago).int + 7), timestamp=long_ago
    )
    day, next_day = f"{long_ago:%Y-%m-%d}", f"{long_ago + timedelta(days=1):%Y-%m-%d}"
    today = f"{timezone.now():%Y-%m-%d}"
    assert found(cast, since=day, until=next_day) == {old.pk}
    assert old.pk not in found(cast, since=today)
    assert found(cast, until=next_day) == {old.pk}


def test_a_link_in_the_words_of_plain_filters_leads_to_the_same_search(onlookers: Cast) -> None:
    old = {
        "status__exact": "blocked",
        "served_by": "openai",
        "timestamp_from": "2026-03-01",
        "timestamp_to": "2026-03-31",
    }
    answer = onlookers.browser("auditor").get(reverse(LIST), old)
    assert answer.status_code == 302
    assert dict(parse_qsl(urlsplit(answer.url).query)) == {
        "status": "blocked", "provider": "openai", "since": "2026-03-01", "until": "2026-04-01"
    }  # fmt: skip


def test_a_list_counts_no_further_than_its_bound_and_the_search_of_requests_not_at_all(onlookers: Cast) -> None:
    counts: dict[type, list[str]] = {}
    for model in (ChangeRecord, RequestRecord):
        with as_the_server(), CaptureQueriesContext(connections[DEFAULT_DB_ALIAS]) as queries:
            onlookers.browser("superadmin").get(address(model, "changelist"))
        asked = [query["sql"] for query in queries if f'FROM "{model._meta.db_table}"' in query["sql"]]
        counts[model] = [sql for sql in asked if "COUNT(" in sql]
    assert counts[ChangeRecord]
    assert all(f"LIMIT {MOST_COUNTED}" in sql for sql in counts[ChangeRecord])
    assert counts[RequestRecord] == []


def test_the_page_tells_what_happened_and_why(cast: Cast) -> None:
    policy_id = str(cast.home.policy.pk)
    stamp = {"id": policy_id, "version": 7, "name": "No cards", "kind": "guardrail", "mode": "enforce", "level": "key"}
    record = make_record(
        cast.home.organization,
        cast.home.application,
        "told",
        status="blocked",
        http_status=400,
        error_code="PII_DETECTED",
        error_message="Policy 'No cards' blocks credit_card in requests.",
        reasons=[
            {
                "code": "PII_DETECTED",
                "message": "Because.",
                "enforced": True,
                "policy": "No cards",
                "policy_id": policy_id,
                "version": 7,
            }
        ],
        policies=[stamp],
        findings=[{"detector": "credit_card", "rule": "visa", "count": 2, "where": "input", "action": "block"}],
        limits=[{"policy": "Pace", "kind": "requests", "limit": 5, "window_seconds": 60, "remaining": 4}],
        attempts=[{"provider": "openai", "model": "gpt-4o", "started_ms": 3, "fault": "timeout", "status": None}],
        degraded=["rate_limits"],
        price={"source": "own", "input_nano_usd_per_million": 10**9, "output_nano_usd_per_million": 2 * 10**9},
    )
    page = cast.browser("auditor").get(address(record, "change", record.pk)).content.decode()
    for text in (
        "Withheld: the provider answered, but",
        "PII_DETECTED",
        "No cards",
        "v7",
        "credit_card (visa)",
        "5 requests a minute",
        "4 left",
        "did not answer in time",
        "Redis did not answer",
        "$2 per million output tokens",
        "prompt told",
    ):
        assert text in page, text


def test_what_a_client_wrote_is_shown_as_text(cast: Cast) -> None:
    attack = "<script>alert(1)</script>"
    record = make_record(
        cast.home.organization, None, attack, model=attack, error_message=attack, metadata={attack: attack}
    )
    for url in (address(record, "change", record.pk), reverse(LIST), reverse("admin:index")):
        assert attack not in cast.browser("auditor").get(url).content.decode()


@pytest.mark.parametrize("stored", [None, [], {}, [1], ["x"], [{}], [{"kind": "cost_cap"}]])
def test_a_record_of_another_shape_is_shown_all_the_same(cast: Cast, stored: Any) -> None:
    shapes = {"reasons": stored or [], "policies": stored or [], "findings": stored or [], "limits": stored or []}
    record = make_record(cast.home.organization, None, "odd", **shapes, attempts=stored or [], price=stored or {})
    assert cast.browser("auditor").get(address(record, "change", record.pk)).status_code == 200


def test_an_erased_text_is_said_to_be_gone(cast: Cast) -> None:
    RequestText.objects.filter(pk=cast.home.record.pk).delete()
    record = cast.home.record
    page = cast.browser("auditor").get(address(record, "change", record.pk)).content.decode()
    assert "No text is kept" in page


def test_every_outcome_has_its_sentence() -> None:
    sentences = {sentence(RequestRecord(status=status, error_message="so", error_code="X")) for status in Status}
    assert len(sentences) == len(Status)


def test_a_budget_of_the_platform_is_told_without_what_others_spent() -> None:
    reading = {"policy": "All", "kind": "cost_cap", "per": "total", "limit_nano_usd": 10**9}
    (told,) = readings(RequestRecord(limits=[reading]))
    assert (told.what, told.left) == ("$1 in total", "")


def test_a_record_without_a_price_tells_none() -> None:
    assert price(RequestRecord(price={})) == ""


# --- The front page


def test_the_front_page_counts_ones_own_requests_alone(cast: Cast) -> None:
    make_record(cast.home.organization, None, "b", status="blocked", cost_nano_usd=0)
    make_record(cast.home.organization, None, "c", cost_nano_usd=2_500_000_000)
    week = cast.browser("admin").get(reverse("admin:index")).context["figures"][1]
    assert (week.requests, week.refusals, week.errors, week.spend_usd) == (3, 1, 0, "2.50")


@pytest.mark.parametrize("part", ["user", "key", "whole key", "error"])
def test_a_request_is_found_by_who_made_it_and_by_why_it_was_refused(cast: Cast, part: str) -> None:
    home, person = cast.home, unique("person")
    columns = {"user_name": person, "api_key_prefix": "Zz9Zz9Zz", "error_code": "RATE_LIMIT_EXCEEDED"}
    record = make_record(home.organization, None, "m", status="blocked", **columns)
    foreign = make_record(cast.foreign.organization, None, "m", status="blocked", **columns)
    term = {"user": person, "key": "lcp_Zz9Zz9Zz_…", "whole key": "lcp_Zz9Zz9Zz_x_y", "error": "rate_limit"}[part]
    assert found(cast, q=term) == {record.pk}
    assert foreign.pk not in found(cast, organization=str(cast.foreign.organization.pk))
    assert found(cast, error_code="RATE_LIMIT*") == {record.pk}


def test_only_who_sees_several_organizations_has_them_as_a_column_and_a_filter(onlookers: Cast) -> None:
    for person, several in (("superadmin", True), ("auditor", False)):
        page = onlookers.browser(person).get(reverse(LIST))
        assert page.context["sees_several"] is several
        assert ("organization" in page.context["form"].fields) is several
        assert several or onlookers.foreign.marker not in page.content.decode()


def test_a_record_links_to_what_is_there_and_within_reach_alone(cast: Cast) -> None:
    home = cast.home
    gone, foreign = str(uuid4()), str(cast.foreign.policy.pk)
    policies = [{"id": pk, "name": "p", "version": 1} for pk in (str(home.policy.pk), gone, foreign)]
    reasons = [{"message": "No.", "code": "X", "policy": "p", "version": 1, "policy_id": gone, "enforced": True}]
    columns = {"api_key_id": home.key.pk, "api_key_prefix": home.key.prefix, "user_id": cast.foreign.user.pk}
    record = make_record(home.organization, home.application, "m", policies=policies, reasons=reasons, **columns)
    page = cast.browser("auditor").get(address(record, "change", record.pk)).content.decode()
    for row in (home.organization, home.application, home.key, home.policy):
        assert f'href="{address(row, "change", row.pk)}"' in page
    for missing in (gone, foreign, str(cast.foreign.user.pk)):
        assert missing not in page


def test_a_request_is_found_by_words_of_its_texts_within_reach(cast: Cast) -> None:
    word = unique("word")
    asked, answered = (make_record(cast.home.organization, None, f"{word} {part}") for part in ("first", "second"))
    RequestText.objects.filter(pk=answered.pk).delete()
    text = f"the answer says {word}"
    RequestText.objects.create(id=answered.pk, organization_id=cast.home.organization.pk, response_redacted=text)
    foreign = make_record(cast.foreign.organization, None, word)
    assert found(cast, words=word.upper()) == {asked.pk, answered.pk}
    assert found(cast, words=f"prompt {word}") == {asked.pk}
    assert found(cast, words="100%_") == set()
    assert foreign.pk not in found(cast, words=word)
