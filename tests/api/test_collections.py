"""What every collection has in common."""

from uuid import UUID

import pytest

from apps.audit.models import ChangeRecord
from tests.api.cast import NOBODYS_ID, Cast, error_of, unique
from tests.api.collections import OF_AN_ORGANIZATION, SAMPLES, Sample

each = pytest.mark.parametrize("sample", SAMPLES, ids=str)
each_of_an_organization = pytest.mark.parametrize("sample", OF_AN_ORGANIZATION, ids=str)


@each
def test_an_object_is_made_read_changed_and_deleted(cast: Cast, sample: Sample) -> None:
    editor = cast.by_role(sample.editor)
    body = sample.body(cast)
    made = editor.made(sample.path, body)
    assert str(UUID(made["id"])) == made["id"]
    address = f"{sample.path}/{made['id']}"
    assert {name: made[name] for name in body if name != "secret"} == {
        name: {"2": "2.00", "1.50": "1.50"}.get(str(value), value) for name, value in body.items() if name != "secret"
    }

    made.pop({"keys": "key"}.get(sample.path, "signing_secret"), None)  # which is shown once
    assert editor.get(address).json() == made

    changed = editor.patch(address, sample.change)
    assert changed.status_code == 200
    later = {name for name in made if changed.json()[name] != made[name]}
    assert later - {"version", "updated_at"} == set(sample.change)
    assert editor.get(address).json() == changed.json()

    assert editor.delete(address).status_code == 204
    error_of(editor.get(address), 404, "NOT_FOUND")


@each
def test_an_object_is_replaced_by_put(cast: Cast, sample: Sample) -> None:
    editor = cast.by_role(sample.editor)
    body = sample.body(cast)
    made = editor.made(sample.path, body)
    answer = editor.put(f"{sample.path}/{made['id']}", body | sample.change)
    assert answer.status_code == 200, answer.content
    assert {name: answer.json()[name] for name in sample.change} == sample.change


@each
def test_each_change_leaves_a_record_that_names_the_actor(cast: Cast, sample: Sample) -> None:
    editor = cast.by_role(sample.editor)
    made = editor.made(sample.path, sample.body(cast))
    editor.patch(f"{sample.path}/{made['id']}", sample.change)
    editor.delete(f"{sample.path}/{made['id']}")
    records = list(ChangeRecord.objects.filter(object_id=made["id"]).order_by("timestamp"))
    assert [record.action for record in records] == ["create", "change", "delete"]
    assert {record.actor_id for record in records} == {editor.user.id}
    assert {(record.via, record.address) for record in records} == {("api", "127.0.0.1")}
    created, changed, deleted = records
    assert created.before == {}
    assert created.after["id"] == made["id"]
    assert set(sample.change) <= set(changed.after)
    assert set(changed.before) == set(changed.after)
    assert deleted.before["id"] == made["id"]
    assert deleted.after == {}


@each
def test_a_refused_change_leaves_no_record(cast: Cast, sample: Sample) -> None:
    made = cast.by_role(sample.editor).made(sample.path, sample.body(cast))
    before = ChangeRecord.objects.filter(object_id=made["id"]).count()
    assert cast.auditor.patch(f"{sample.path}/{made['id']}", sample.change).status_code in {403, 404}
    assert cast.auditor.delete(f"{sample.path}/{made['id']}").status_code in {403, 404}
    assert ChangeRecord.objects.filter(object_id=made["id"]).count() == before


def _is_id(value: object) -> bool:
    try:
        UUID(str(value))
    except ValueError:
        return False
    return True


@each_of_an_organization
def test_an_object_cannot_be_moved_to_another_organization(cast: Cast, sample: Sample) -> None:
    made = cast.superadmin.made(sample.path, sample.body(cast))
    answer = cast.superadmin.patch(f"{sample.path}/{made['id']}", {"organization": str(cast.elsewhere.id)})
    assert error_of(answer, 400, "INVALID_REQUEST")["param"] == "organization"


@each_of_an_organization
def test_an_admin_with_two_organizations_keeps_them_apart(cast: Cast, sample: Sample) -> None:
    made = cast.by_role(sample.editor).made(sample.path, sample.body(cast))
    answer = cast.superadmin.get(sample.path, organization=str(cast.elsewhere.id), limit=200)
    assert made["id"] not in {one["id"] for one in answer.json()["results"]}
    answer = cast.superadmin.get(sample.path, organization=str(cast.organization.id), limit=200)
    assert made["id"] in {one["id"] for one in answer.json()["results"]}


@each
def test_what_is_read_only_cannot_be_written(cast: Cast, sample: Sample) -> None:
    editor = cast.by_role(sample.editor)
    made = editor.made(sample.path, sample.body(cast) | {"id": NOBODYS_ID})
    assert made["id"] != NOBODYS_ID
    if "created_at" in made:
        as_shown = editor.get(f"{sample.path}/{made['id']}").json() | {"created_at": "2001-01-01T00:00:00Z"}
        answer = editor.put(f"{sample.path}/{made['id']}", as_shown)
        assert (answer.status_code, answer.json()["created_at"]) == (200, made["created_at"])


@each
def test_what_is_no_field_is_refused_by_its_name(cast: Cast, sample: Sample) -> None:
    editor = cast.by_role(sample.editor)
    for name, said in (("expires", "expires"), ("x" * 200, "x" * 100)):
        error = error_of(editor.post(sample.path, sample.body(cast) | {name: None}), 400, "INVALID_REQUEST")
        assert error["param"] == said


@each
def test_a_body_without_anything_is_refused_by_name(cast: Cast, sample: Sample) -> None:
    error = error_of(cast.superadmin.post(sample.path, {}), 400, "INVALID_REQUEST")
    assert error["param"] in error["details"]


@pytest.mark.parametrize("sample", [one for one in SAMPLES if one.path not in {"keys", "policies", "prices"}], ids=str)
def test_a_duplicate_is_refused_and_the_refusal_names_the_field(cast: Cast, sample: Sample) -> None:
    editor = cast.by_role(sample.editor)
    body = sample.body(cast)
    editor.made(sample.path, body)
    error = error_of(editor.post(sample.path, body), 400, "INVALID_REQUEST")
    field = {"users": "username", "memberships": "user", "routes": "priority"}.get(sample.path, "name")
    assert error["param"] == field
    assert error["details"] == {field: ["This is taken; choose another."]}


def test_two_organizations_may_use_the_same_names(cast: Cast) -> None:
    name = unique("bot")
    cast.admin.made("applications", {"organization": str(cast.organization.id), "name": name})
    cast.outsider.made("applications", {"organization": str(cast.elsewhere.id), "name": name})


def test_deleting_says_in_the_record_what_went_with_it(cast: Cast) -> None:
    application = cast.admin.made("applications", {"organization": str(cast.organization.id), "name": unique("app")})
    cast.admin.made("keys", {"application": application["id"], "name": "one"})
    cast.admin.delete(f"applications/{application['id']}")
    record = ChangeRecord.objects.get(object_id=application["id"], action="delete")
    assert record.reason == "With it: 1 orgs.ApiKey."
