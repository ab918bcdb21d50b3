"""One search behind the admin, the API and exports: what it finds, and how it ends whatever is asked for."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.db.models import Q
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.audit import finding
from apps.audit.finding import Reach, find, find_all
from apps.audit.models import RequestRecord, RequestText
from apps.audit.search import CRITERIA, SearchRefused, read_search
from apps.audit.uuid7 import first_id_at, uuid7
from tests.admin.cast import Cast as AdminCast
from tests.admin.cast import gather as gather_admin
from tests.admin.conftest import static_files_as_they_are  # noqa: F401  (a fixture)
from tests.api.cast import Cast, error_of, gather, unique

LIST = "admin:audit_requestrecord_changelist"


@pytest.fixture
def cast() -> Cast:
    return gather()


@pytest.fixture(scope="module")
def onlookers() -> AdminCast:
    return gather_admin()


def recorded(organization_id: UUID, *, prompt: str = "Hello", answer: str = "", **columns: Any) -> str:
    moment = columns.pop("timestamp", datetime.now(UTC))
    record = RequestRecord.objects.create(
        **{
            "id": UUID(int=first_id_at(moment).int | (uuid7().int & ((1 << 80) - 1))),
            "timestamp": moment,
            "organization_id": organization_id,
            "organization_name": "Acme",
            "endpoint": "chat.completions",
            "status": "success",
            "http_status": 200,
        }
        | columns
    )
    RequestText.objects.create(
        id=record.pk, organization_id=organization_id, prompt_redacted=prompt, response_redacted=answer
    )
    return str(record.pk)


def many(organization_id: UUID, count: int, prompt: str) -> list[str]:
    """Record so many requests at once, one after the other."""
    now = datetime.now(UTC) - timedelta(seconds=1)
    moments = [now + timedelta(milliseconds=number) for number in range(count)]
    ids = [UUID(int=first_id_at(moment).int | (uuid7().int & ((1 << 80) - 1))) for moment in moments]
    said = {"organization_id": organization_id, "endpoint": "chat.completions", "status": "success", "http_status": 200}
    RequestRecord.objects.bulk_create(
        [RequestRecord(id=one, timestamp=moment, **said) for one, moment in zip(ids, moments, strict=True)]
    )
    RequestText.objects.bulk_create(
        [RequestText(id=one, organization_id=organization_id, prompt_redacted=prompt) for one in ids]
    )
    return [str(one) for one in ids]


def found(cast: Cast, **query: str) -> list[str]:
    answer = cast.auditor.get("audit-logs", **query)
    assert answer.status_code == 200, answer.content
    return [one["id"] for one in answer.json()["results"]]


def test_each_criterion_finds_what_it_names_and_nothing_else(cast: Cast) -> None:
    there, policy = cast.organization.id, str(uuid4())
    plain = recorded(there, cost_nano_usd=1)
    wanted = recorded(
        there,
        prompt="user: Please pay the Invoice of Müller, quickly",
        answer="It has been paid.",
        model="gpt-4o-mini",
        error_code="BUDGET_EXCEEDED",
        cost_nano_usd=250_000_000,
        policies=[{"id": str(uuid4()), "version": 1}, {"id": policy, "version": 3}],
        findings=[{"detector": "email", "rule": "email_address", "count": 1}],
        metadata={"team": "red", "odd key.__x": "1"},
        end_user="visitor",
        user_id=uuid4(),
        user_name="Ada Lovelace",
    )
    recorded(cast.elsewhere.id, prompt="invoice", policies=[{"id": policy}], findings=[{"detector": "email"}])
    for query in (
        {"words": "invoice"},
        {"words": "paid invoice"},
        {"words": "INVOICE Müller"},
        {"policy": policy},
        {"finding": "email"},
        {"cost_min": "0.25", "cost_max": "0.25"},
        {"cost_min": "0.000000002"},
        {"model": "gpt-*-mini"},
        {"model": "*4O*"},
        {"error_code": "BUDGET*"},
        {"end_user": "visitor"},
        {"metadata.odd key.__x": "1", "metadata.team": "red"},
        {"q": "lovelace"},
        {"q": "red"},
        {"q": wanted},
        {"words": "invoice", "finding": "email", "model": "gpt-4o-mini", "cost_min": "0.1"},
    ):
        assert found(cast, **query) == [wanted], query
    for query in (
        {"words": "invoice", "status": "error"},
        {"policy": str(uuid4())},
        {"finding": "phone"},
        {"model": "gpt_4o*"},
        {"words": "nowhere"},
        {"cost_min": "0.3"},
    ):
        assert found(cast, **query) == [], query
    assert set(found(cast)) == {plain, wanted}


def test_words_are_whole_words_and_a_phrase_is_one(cast: Cast, postgres_only: None) -> None:
    wanted = recorded(cast.organization.id, prompt="ship the blue boat", answer="done")
    recorded(cast.organization.id, prompt="the boat is blue", answer="done")
    assert found(cast, words='"blue boat"') == [wanted]
    assert found(cast, words="boa") == []
    assert found(cast, words="boat -ship") != [wanted]
    assert len(found(cast, words="ship or blue")) == 2


def test_what_cannot_be_meant_is_said_beside_its_field(cast: Cast, onlookers: AdminCast) -> None:
    browser = onlookers.browser("auditor")
    for name, text in (
        ("since", "yesterday"),
        ("until", "2026-02-30"),
        ("cost_min", "-1"),
        ("cost_min", "1e400"),
        ("cost_max", "NaN"),
        ("cost_max", "9" * 40),
        ("policy", "=cmd|' /C calc'!A0"),
        ("model", "*a*b*c*d*"),
        ("words", "!!! --- ???"),
        ("words", "word " * 17),
        ("words", "x" * 600),
        ("request_id", "<script>alert(1)</script>"),
        ("status", "fine"),
    ):
        assert error_of(cast.auditor.get("audit-logs", **{name: text}), 400, "INVALID_REQUEST")["param"] == name
        page = browser.get(reverse(LIST), {name: text})
        assert page.status_code == 200
        assert list(page.context["form"].errors) == [name]
        assert page.context["rows"] == []
        assert "<script>alert(1)" not in page.content.decode()


def test_criteria_that_contradict_each_other_are_refused(cast: Cast) -> None:
    for query, name in (
        ({"since": "2026-03-02", "until": "2026-03-01"}, "until"),
        ({"cost_min": "2", "cost_max": "1.99"}, "cost_max"),
        ({f"metadata.{number}": "x" for number in range(9)}, "metadata"),
    ):
        assert error_of(cast.auditor.get("audit-logs", **query), 400, "INVALID_REQUEST")["param"] == name


@given(st.dictionaries(st.sampled_from([*CRITERIA, "metadata.x", "nothing"]), st.text(max_size=40), max_size=5))
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_a_search_of_anything_finds_or_is_refused_and_never_breaks(given_texts: dict[str, str]) -> None:
    try:
        search = read_search(given_texts)
    except SearchRefused:
        return
    assert find(search, Reach(frozenset({uuid4()})), 5).records == []


def test_a_search_that_is_a_formula_or_a_script_is_shown_as_text(onlookers: AdminCast) -> None:
    attack = "\"><script>alert('x')</script>"
    for name in ("words", "q", "model", "end_user", "metadata.<b>"):
        page = onlookers.browser("auditor").get(reverse(LIST), {name: attack})
        assert page.status_code == 200
        assert "<script>alert" not in page.content.decode()


def test_whatever_the_window_every_record_is_found_once_newest_first(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    made = [
        recorded(
            cast.organization.id, timestamp=start + timedelta(hours=number), model="rare" if number % 7 == 0 else "m"
        )
        for number in range(40)
    ]
    monkeypatch.setattr(finding, "FIRST_WINDOW", 3)
    monkeypatch.setattr(finding, "LARGEST_WINDOW", 5)
    reach = Reach(frozenset({cast.organization.id}))
    for given_texts, wanted in (({}, made), ({"q": "rare"}, made[::7]), ({"model": "rare"}, made[::7])):
        search = read_search(given_texts)
        assert [str(one.pk) for group, _ in find_all(search, reach, 4) for one in group] == wanted[::-1]
        seen: list[str] = []
        page = find(search, reach, 4)
        while page.next:
            seen += [str(one.pk) for one in page.records]
            page = find(search, reach, 4, page.next)
        assert [*seen, *(str(one.pk) for one in page.records)] == wanted[::-1]


def test_a_page_that_has_no_more_time_says_where_it_goes_on(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    oldest = recorded(cast.organization.id, end_user="the one", timestamp=datetime.now(UTC) - timedelta(minutes=1))
    for _ in range(12):
        recorded(cast.organization.id)
    monkeypatch.setattr(finding, "FIRST_WINDOW", 2)
    monkeypatch.setattr(finding, "LARGEST_WINDOW", 2)
    ticks = iter(range(1000))
    monkeypatch.setattr(finding.time, "monotonic", lambda: next(ticks) * 0.5)
    answer = cast.auditor.get("audit-logs", q="the one").json()
    pages = 1
    while not answer["results"]:
        answer = cast.auditor.call("GET", answer["next"].removeprefix("http://testserver")).json()
        pages += 1
    assert [one["id"] for one in answer["results"]] == [oldest]
    assert pages > 2


def test_a_search_looks_at_bounded_windows_and_uses_its_indexes(cast: Cast, postgres_only: None) -> None:
    for number in range(30):
        recorded(cast.organization.id, model=f"m{number % 3}", end_user="visitor")
    queries = (
        {},
        {"model": "m1"},
        {"status": "error"},
        {"end_user": "visitor"},
        {"words": "nowhere"},
        {"finding": "email"},
    )
    for query in queries:
        with CaptureQueriesContext(connection) as captured:
            finding._find(read_search(query), Reach(frozenset({cast.organization.id})), 5, None)
        asked = [one["sql"] for one in captured if "audit_request" in one["sql"]]
        assert asked
        for sql in asked:
            with connection.cursor() as cursor:
                cursor.execute("SET enable_seqscan = off")
                cursor.execute(f"EXPLAIN {sql}")
                plan = "\n".join(row[0] for row in cursor.fetchall())
                cursor.execute("RESET enable_seqscan")
            assert "Seq Scan" not in plan, (query, plan)


def test_a_search_that_forgot_its_reach_shows_nothing(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(cast.elsewhere.id, end_user="of somebody else")
    monkeypatch.setattr(Reach, "within", lambda *_: Q())
    with pytest.raises(finding.OutOfReach):
        find(read_search({"end_user": "of somebody else"}), Reach(frozenset({cast.organization.id})), 5)


def test_a_text_of_any_length_and_oddness_can_be_kept_and_found(cast: Cast) -> None:
    word = unique("needle").replace("-", "")
    odd = " ".join(chr(0x4E00 + number) for number in range(20_000)) * 40
    kept = recorded(cast.organization.id, prompt=f"{word} {odd}", answer="é1 " * 400_000 + "x" * 50_000)
    assert found(cast, words=word) == [kept]


def test_a_developer_searches_and_an_outsider_finds_nothing(cast: Cast) -> None:
    kept = recorded(cast.organization.id, prompt="secret plan")
    assert [one["id"] for one in cast.developer.get("audit-logs", words="plan").json()["results"]] == [kept]
    for query in ({"words": "plan"}, {"q": kept}, {"organization": str(cast.organization.id)}, {"request_id": kept}):
        assert cast.outsider.get("audit-logs", **query).json()["results"] == []


# --- Saved searches


def test_a_saved_search_is_its_owners_until_it_is_shared(cast: Cast) -> None:
    body = {"name": unique("blocked"), "search": {"status": "blocked", "metadata.team": "red"}}
    made = cast.auditor.made("saved-searches", body)
    assert made["organization"] == str(cast.organization.id)
    error_of(cast.developer.get(f"saved-searches/{made['id']}"), 404, "NOT_FOUND")
    assert cast.auditor.patch(f"saved-searches/{made['id']}", {"is_shared": True}).status_code == 200
    assert cast.developer.get(f"saved-searches/{made['id']}").json()["search"] == body["search"]
    error_of(cast.outsider.get(f"saved-searches/{made['id']}"), 404, "NOT_FOUND")
    refused = cast.auditor.post("saved-searches", body | {"name": "x", "search": {"status": "odd"}})
    assert error_of(refused, 400, "INVALID_REQUEST")["param"] == "search.status"


def test_a_saved_search_is_one_click_away_and_says_what_it_asks_for(onlookers: AdminCast) -> None:
    client, name = onlookers.browser("auditor"), unique("refused in red")
    url = reverse("admin:audit_savedsearch_add") + "?status=blocked&metadata.team=red"
    page = client.get(url)
    assert ("Metadata: team", "red") in page.context["adminform"].form.says
    query = page.context["adminform"].form["query"].value()
    assert client.post(url, {"name": name, "query": query}).status_code == 302
    assert f'href="?metadata.team=red&amp;status=blocked">{name}' in client.get(reverse(LIST)).content.decode()
    assert name not in onlookers.browser("admin").get(reverse(LIST)).content.decode()
