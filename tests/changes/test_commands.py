"""What an operator scripts: each command says what it did, refuses clearly, and leaves its record."""

import getpass
import json
import os
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from apps.audit.models import ChangeRecord
from apps.orgs import keys
from apps.orgs.models import ApiKey, Organization, User
from tests.api.cast import Cast, gather, unique


@pytest.fixture
def cast() -> Cast:
    return gather()


def run(*words: str, **options: Any) -> dict[str, Any]:
    out = StringIO()
    call_command(*words, "--json", stdout=out, **options)
    return dict(json.loads(out.getvalue()))


def record_of(pk: object, action: str) -> ChangeRecord:
    record = ChangeRecord.objects.get(object_id=str(pk), action=action)
    assert (record.via, record.actor_name, record.actor_id) == ("command", getpass.getuser(), None)
    return record


def test_an_organization_is_made_with_its_record() -> None:
    name = unique("Acme")
    made = run("create_organization", name, "--reason", "contract 4711")
    organization = Organization.objects.get(name=name)
    assert made == {"id": str(organization.pk), "name": name, "state": "active"}
    record = record_of(organization.pk, "create")
    assert (record.reason, record.after["name"], record.organization_id) == ("contract 4711", name, organization.pk)
    with pytest.raises(CommandError, match="already exists"):
        run("create_organization", name.upper())


def test_a_key_of_an_application_is_issued_by_id_or_by_names(cast: Cast) -> None:
    for which in (str(cast.application.pk), f"{cast.organization.name}/{cast.application.name}"):
        made = run("issue_key", "--application", which, "--name", "cron", "--days", "30")
        row = keys.find(made["key"])
        assert row is not None
        assert (str(row.pk), row.prefix, row.application) == (made["id"], made["prefix"], cast.application)
        assert row.expires_at is not None
        assert made["key"] not in json.dumps(record_of(row.pk, "create").after)


def test_a_key_of_a_person_is_held_to_the_organization_that_is_named(cast: Cast) -> None:
    user = cast.developer.user
    made = run("issue_key", "--user", user.username, "--organization", cast.organization.name, "--name", "ci")
    row = ApiKey.objects.get(pk=made["id"])
    assert (row.user, row.organization) == (user, cast.organization)
    with pytest.raises(CommandError, match="not a member"):
        run("issue_key", "--user", str(user.pk), "--organization", cast.elsewhere.name, "--name", "ci")


def test_a_key_is_rotated_by_its_id_or_its_prefix_and_the_old_one_ends(cast: Cast) -> None:
    old = keys.issue(organization=cast.organization, application=cast.application, name="old").row
    made = run("rotate_key", old.prefix, "--reason", "left on a bus")
    old.refresh_from_db()
    assert (old.state, made["replaces"]) == ("revoked", str(old.pk))
    assert record_of(old.pk, "rotate").reason == "left on a bus"
    successor = ApiKey.objects.get(pk=made["id"])
    run("rotate_key", str(successor.pk), "--grace-seconds", "60")
    successor.refresh_from_db()
    assert (successor.state, successor.expires_at is not None) == ("active", True)


@pytest.mark.parametrize("kind", ["organization", "application", "user"])
def test_suspending_and_reinstating_hold_and_are_recorded(cast: Cast, kind: str) -> None:
    row: Any = {"organization": cast.organization, "application": cast.application, "user": cast.developer.user}[kind]
    which = f"{cast.organization}/{row}" if kind == "application" else str(row)
    assert run("suspend", kind, which) == {"kind": kind, "id": str(row.pk), "state": "suspended"}
    row.refresh_from_db()
    assert (row.state == "suspended") if kind == "organization" else not row.is_active
    with pytest.raises(CommandError, match="already"):
        run("suspend", kind, str(row.pk))
    run("reinstate", kind, str(row.pk))
    row.refresh_from_db()
    assert (row.state == "active") if kind == "organization" else row.is_active
    for action in ("suspend", "activate"):
        assert record_of(row.pk, action).before != {}


def test_suspending_the_last_admin_says_so_in_the_record(cast: Cast) -> None:
    run("suspend", "user", cast.admin.user.username, "--reason", "left")
    assert record_of(cast.admin.user.pk, "suspend").reason == f"left No admin is left in {cast.organization}."
    assert cast.admin.get("applications").status_code == 401


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("suspend", "user", "nobody-of-this-name"), "There is no user"),
        (("suspend", "application", "no/such"), "There is no application"),
        (("issue_key", "--user", "nobody-of-this-name", "--name", "x"), "There is no user"),
        (("issue_key", "--name", "x"), "--application --user"),
        (("issue_key", "--application", "a/b", "--organization", "a", "--name", "x"), "goes with --user"),
        (("rotate_key", "Ab3dEf9h"), "There is no key"),
        (("rotate_key", "lcp_" + "a" * 60), "not the key"),
        (("create_organization", ""), "cannot be blank"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(CommandError, match=said) as refused:
        run(*words)
    assert "aaaa" not in str(refused.value)


def test_for_people_the_answer_is_a_sentence() -> None:
    out = StringIO()
    call_command("create_organization", unique("Acme"), stdout=out)
    assert out.getvalue().startswith("Created the organization")


def test_a_superadmin_made_on_the_command_line_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    name = unique("root")
    monkeypatch.setitem(os.environ, "DJANGO_SUPERUSER_PASSWORD", "a long enough one")
    call_command("createsuperuser", "--noinput", username=name, stdout=StringIO())
    user = User.objects.get(username=name)
    assert user.is_superuser
    assert record_of(user.pk, "create").after["password"] == "(set)"


def test_a_password_set_on_the_command_line_is_recorded(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getpass", lambda prompt: "quite another long one")
    call_command("changepassword", cast.admin.user.username, stdout=StringIO())
    record = record_of(cast.admin.user.pk, "change")
    assert (record.before, record.after) == ({"password": "(set)"}, {"password": "(set anew)"})


def test_nothing_is_left_of_a_command_that_fails(cast: Cast) -> None:
    with pytest.raises(CommandError, match="200 characters"):
        run("issue_key", "--application", str(cast.application.pk), "--name", "x" * 300)
    assert not ApiKey.objects.filter(application=cast.application).exists()
    assert not ChangeRecord.objects.filter(organization_id=cast.organization.pk).exists()
