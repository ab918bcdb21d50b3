"""Every change through the admin leaves its record, in the same transaction."""

import pytest

from apps.audit.models import ChangeRecord
from apps.gateway.models import ModelRoute
from apps.orgs.models import Application, Membership, Organization
from apps.policies.models import Policy, Price
from tests.admin.cast import Cast, address, errors, filled, unique


def records(row: object, action: str) -> list[ChangeRecord]:
    return list(ChangeRecord.objects.filter(object_id=str(row.pk), action=action))  # type: ignore[attr-defined]


def test_adding_changing_and_deleting_are_recorded_with_before_and_after(cast: Cast) -> None:
    client, name = cast.browser("admin"), unique("application")
    assert filled(client, address(Application, "add"), name=name).status_code == 302
    row = Application.objects.get(name=name)
    filled(client, address(row, "change", row.pk), name=f"{name} 2")
    client.post(address(row, "delete", row.pk), {"post": "yes"})
    created, changed, deleted = (records(row, action)[0] for action in ("create", "change", "delete"))
    assert created.after["name"] == name
    assert (changed.before, changed.after) == ({"name": name}, {"name": f"{name} 2"})
    assert deleted.before["name"] == f"{name} 2"
    for record in (created, changed, deleted):
        assert record.organization_id == cast.home.organization.pk
        assert (record.actor_id, record.via) == (cast.people["admin"].pk, "admin")
        assert record.address == "127.0.0.1"


def test_a_form_saved_as_it_stands_leaves_no_record(cast: Cast) -> None:
    home = cast.home
    for row in (home.application, home.key, home.credential, home.route):
        response = filled(cast.browser("admin"), address(row, "change", row.pk))
        assert response.status_code == 302, errors(response)
        assert records(row, "change") == [] or row == home.application
    assert len(records(home.application, "change")) == 1, "the one that the cast made"


def test_the_rows_of_an_inline_are_recorded(cast: Cast) -> None:
    organization, client = cast.home.organization, cast.browser("admin")
    url = address(organization, "change", organization.pk)
    developer = Membership.objects.get(user=cast.people["developer"])
    page = client.get(url)
    forms = page.context["inline_admin_formsets"][0].formset.forms
    prefix = next(form.prefix for form in forms if form.instance == developer)
    filled(client, url, **{f"{prefix}-role": "auditor"})
    assert [(r.before, r.after) for r in records(developer, "change")] == [({"role": "developer"}, {"role": "auditor"})]
    filled(client, url, **{f"{prefix}-DELETE": "on"})
    assert records(developer, "delete")[0].before["role"] == "auditor"


def test_what_is_deleted_along_has_a_record_of_its_own(cast: Cast) -> None:
    home, client = cast.home, cast.browser("superadmin")
    rows = [home.organization, home.application, home.key, home.policy, home.route, home.credential]
    assert client.post(address(home.organization, "delete", home.organization.pk), {"post": "yes"}).status_code == 302
    for row in rows:
        (record,) = records(row, "delete")
        assert bool(record.reason) is (row != home.organization)
    assert not Organization.objects.filter(pk=home.organization.pk).exists()


def test_deleting_from_a_list_is_recorded(cast: Cast) -> None:
    route = cast.home.route
    chosen = {"action": "delete_selected", "_selected_action": [str(route.pk)], "post": "yes"}
    assert cast.browser("admin").post(address(ModelRoute, "changelist"), chosen).status_code == 302
    assert not ModelRoute.objects.filter(pk=route.pk).exists()
    assert len(records(route, "delete")) == 1


@pytest.mark.parametrize(("button", "state"), [("suspend", "suspended"), ("activate", "active")])
def test_suspending_and_activating_ask_first_and_are_recorded(cast: Cast, button: str, state: str) -> None:
    organization, client = cast.home.organization, cast.browser("superadmin")
    organization.state = "active" if button == "suspend" else "suspended"
    organization.save()
    url = address(organization, button, organization.pk)
    assert client.get(url).status_code == 200
    assert records(organization, button) == []
    assert client.post(url, {"reason": "invoice"}).status_code == 302
    organization.refresh_from_db()
    assert organization.state == state
    (record,) = records(organization, button)
    assert (record.after, record.reason) == ({"state": state}, "invoice")


def test_only_superadmins_suspend(onlookers: Cast) -> None:
    organization = onlookers.home.organization
    assert onlookers.browser("admin").post(address(organization, "suspend", organization.pk)).status_code == 403


def test_the_history_of_a_row_shows_its_records_side_by_side(cast: Cast) -> None:
    application, client = cast.home.application, cast.browser("auditor")
    page = client.get(address(application, "history", application.pk))
    assert page.status_code == 200
    content = page.content.decode()
    assert f"old {cast.home.marker}" in content
    assert f"actor {cast.home.marker}" in content


def test_a_developer_has_no_history(onlookers: Cast) -> None:
    application, client = onlookers.home.application, onlookers.browser("developer")
    assert client.get(address(application, "history", application.pk)).status_code == 403
    assert "/history/" not in client.get(address(application, "change", application.pk)).content.decode()


def test_a_change_that_fails_leaves_neither_row_nor_record(cast: Cast) -> None:
    before = ChangeRecord.objects.filter(organization_id=cast.home.organization.pk).count()
    found = errors(filled(cast.browser("admin"), address(Application, "add"), name=cast.home.application.name))
    assert found
    assert ChangeRecord.objects.filter(organization_id=cast.home.organization.pk).count() == before


def test_renaming_to_a_name_that_is_taken_is_refused_in_the_form(cast: Cast) -> None:
    other = Application.objects.create(organization=cast.home.organization, name=unique("other"))
    url = address(other, "change", other.pk)
    assert errors(filled(cast.browser("admin"), url, name=cast.home.application.name))


def test_a_name_that_is_taken_elsewhere_is_free_here(cast: Cast) -> None:
    response = filled(cast.browser("admin"), address(Application, "add"), name=cast.foreign.application.name)
    assert response.status_code == 302


def test_prices_are_entered_in_dollars_and_kept_in_nano_dollars(cast: Cast) -> None:
    client, model = cast.browser("superadmin"), unique("model")
    prices = {"input_nano_usd": "0.15", "output_nano_usd": "0.000000001", "cached_input_nano_usd": ""}
    response = filled(client, address(Price, "add"), model=model, **prices)
    assert response.status_code == 302, errors(response)
    price = Price.objects.get(model=model)
    assert (price.input_nano_usd, price.output_nano_usd, price.cached_input_nano_usd) == (150_000_000, 1, None)
    form = client.get(address(price, "change", price.pk)).context["adminform"].form
    assert form["input_nano_usd"].value() == "0.15"
    assert filled(client, address(price, "change", price.pk)).status_code == 302
    assert records(price, "change") == []
    page = cast.browser("auditor").get(address(price, "change", price.pk)).content.decode()
    assert "0.15" in page


@pytest.mark.parametrize("amount", ["", "-1", "NaN", "1.0000000001", "9999999", "cheap"])
def test_a_price_that_is_none_is_refused_at_the_field(onlookers: Cast, amount: str) -> None:
    changes = {"model": "m", "input_nano_usd": amount, "output_nano_usd": "1"}
    assert "input_nano_usd" in errors(filled(onlookers.browser("superadmin"), address(Price, "add"), **changes))


def test_a_policy_deleted_by_an_admin_leaves_its_versions(cast: Cast) -> None:
    policy_id = cast.home.policy.pk
    cast.browser("admin").post(address(Policy, "delete", policy_id), {"post": "yes"})
    assert not Policy.objects.filter(pk=policy_id).exists()
    page = cast.browser("admin").get("/admin/policies/policyversion/").content.decode()
    assert cast.home.policy.name in page


def test_a_change_is_shown_as_the_api_writes_it_with_a_way_to_its_object(cast: Cast) -> None:
    policy, client = cast.home.policy, cast.browser("auditor")
    filled(cast.browser("admin"), address(policy, "change", policy.pk), limit_usd="7")
    (record,) = records(policy, "change")
    page = client.get(address(record, "change", record.pk)).content.decode()
    assert "&quot;limit_usd&quot;: &quot;7&quot;" in page
    assert "&#x27;limit_usd&#x27;" not in page
    link = f'href="{address(policy, "change", policy.pk)}"'
    assert link in page
    policy.delete()
    assert link not in client.get(address(record, "change", record.pk)).content.decode()


def test_a_price_names_a_provider_that_there_is(cast: Cast) -> None:
    client, prices = cast.browser("superadmin"), {"input_nano_usd": "1", "output_nano_usd": "2"}
    refused = filled(client, address(Price, "add"), model=unique("m"), provider="opnai", **prices)
    assert "provider" in errors(refused)
    model = unique("m")
    assert filled(client, address(Price, "add"), model=model, provider="openai", **prices).status_code == 302
    assert Price.objects.get(model=model).provider == "openai"
    older = Price.objects.create(provider="somewhere", model=unique("m"), input_nano_usd=1, output_nano_usd=1)
    assert filled(client, address(older, "change", older.pk), output_nano_usd="3").status_code == 302
    older.refresh_from_db()
    assert (older.provider, older.output_nano_usd) == ("somewhere", 3_000_000_000)


def test_a_deletion_says_what_stays(cast: Cast) -> None:
    row, client = cast.home.application, cast.browser("admin")
    asked = client.get(address(row, "delete", row.pk))
    chosen = {"action": "delete_selected", "_selected_action": [str(row.pk)]}
    for page in (asked, client.post(address(Application, "changelist"), chosen)):
        assert "The records of requests and of changes stay." in page.content.decode()
