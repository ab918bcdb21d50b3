"""A POST that is sent again with its ``Idempotency-Key`` does nothing again."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from apps.audit.models import ChangeRecord
from apps.orgs import keys
from apps.orgs.models import ApiKey, Application, IdempotencyKey, Membership, Organization
from apps.orgs.rest import idempotency
from tests.api.cast import Api, Cast, error_of, unique
from tests.api.collections import SAMPLES, Sample
from tests.services.server import ROOT

REUSED = "IDEMPOTENCY_KEY_REUSED"


def post(caller: Api, path: str, body: Any, key: str) -> Any:
    return caller.call("POST", path, body, **{"Idempotency-Key": key})


def app(cast: Cast, name: str | None = None) -> dict[str, Any]:
    return {"organization": str(cast.organization.id), "name": name or unique("app")}


@pytest.mark.parametrize("sample", [one for one in SAMPLES if one.path not in {"keys", "alert-destinations"}], ids=str)
def test_the_first_answer_comes_again_and_nothing_is_made_twice(cast: Cast, sample: Sample) -> None:
    editor, key, body = cast.by_role(sample.editor), unique("key"), sample.body(cast)
    first, again = (post(editor, sample.path, body, key) for _ in range(2))
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert first.headers["etag"] == again.headers["etag"]
    assert ("Idempotency-Replayed" in first.headers, again.headers["Idempotency-Replayed"]) == (False, "true")
    assert ChangeRecord.objects.filter(object_id=first.json()["id"]).count() == 1


@pytest.mark.parametrize("action", ["issue", "rotate"])
def test_the_text_of_a_key_is_stored_nowhere_and_the_repeat_names_the_key(cast: Cast, action: str) -> None:
    body = {"application": str(cast.application.id), "name": unique("once")}
    path = "keys" if action == "issue" else f"keys/{cast.admin.made('keys', body)['id']}/rotate"
    key, said = unique("key"), body if action == "issue" else {"grace_seconds": 60}
    first = post(cast.admin, path, said, key)
    assert first.status_code == 201
    error = error_of(post(cast.admin, path, said, key), 409, "CONFLICT")
    assert error["details"] == {"id": first.json()["id"]}
    stored = str(list(IdempotencyKey.objects.filter(object_id=first.json()["id"]).values()))
    assert first.json()["key"].split("_")[2] not in stored
    assert ApiKey.objects.filter(name=body["name"]).count() == (1 if action == "issue" else 2)


def test_a_key_that_is_revoked_again_answers_as_it_did(cast: Cast) -> None:
    made = cast.admin.made("keys", {"application": str(cast.application.id), "name": "k"})
    first, again = (post(cast.admin, f"keys/{made['id']}/revoke", None, "revoke it") for _ in range(2))
    assert first.status_code == 400  # a space is no visible character
    first, again = (post(cast.admin, f"keys/{made['id']}/revoke", None, "revoke-it") for _ in range(2))
    assert first.status_code == again.status_code == 200
    assert first.content == again.content


def test_another_body_or_another_address_with_the_same_key_is_refused(cast: Cast) -> None:
    key, body = unique("key"), app(cast)
    assert post(cast.admin, "applications", body, key).status_code == 201
    error_of(post(cast.admin, "applications", body | {"name": "other"}, key), 422, REUSED)
    error_of(post(cast.admin, "policies", body, key), 422, REUSED)
    assert not Application.objects.filter(organization=cast.organization, name="other").exists()


def test_the_order_of_fields_makes_no_other_body(cast: Cast) -> None:
    key, body = unique("key"), app(cast)
    first = post(cast.admin, "applications", body, key)
    assert post(cast.admin, "applications", dict(reversed(body.items())), key).content == first.content


def test_a_refused_request_leaves_its_key_free(cast: Cast) -> None:
    key = unique("key")
    error_of(post(cast.admin, "applications", {"name": "x"}, key), 400, "INVALID_REQUEST")
    error_of(post(cast.auditor, "applications", app(cast), key), 403, "FORBIDDEN")
    assert post(cast.admin, "applications", app(cast), key).status_code == 201
    error_of(post(Api(None), "applications", app(cast), key), 401, "UNAUTHENTICATED")


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "ümlaut"])
def test_a_key_that_is_none_is_refused_by_name(cast: Cast, key: str) -> None:
    error = error_of(post(cast.admin, "applications", app(cast), key), 400, "INVALID_REQUEST")
    assert error["param"] == "Idempotency-Key"


def test_callers_do_not_meet_in_a_key(cast: Cast) -> None:
    key = unique("key")
    first = post(cast.admin, "applications", app(cast), key)
    theirs = {"organization": str(cast.elsewhere.id), "name": unique("app")}
    other = post(cast.outsider, "applications", theirs, key)
    assert other.status_code == 201
    assert first.json()["id"] != other.json()["id"]
    # The same person with a key for one organization is another caller than with a key for all.
    everywhere = Api(keys.issue(user=cast.admin.user, name="everywhere").text)
    assert post(everywhere, "applications", app(cast), key).status_code == 201


def test_whoever_lost_the_object_out_of_sight_does_not_get_it_from_the_answer(cast: Cast) -> None:
    key, body = unique("key"), app(cast)
    Membership.objects.create(organization=cast.elsewhere, user=cast.admin.user, role="admin")
    both = Api(keys.issue(user=cast.admin.user, name="everywhere").text)
    assert post(both, "applications", body, key).status_code == 201
    Membership.objects.filter(organization=cast.organization, user=cast.admin.user).delete()
    error_of(post(both, "applications", body, key), 404, "NOT_FOUND")


def test_a_day_later_the_key_means_new_work_and_old_rows_are_gone(cast: Cast) -> None:
    key, name = unique("key"), unique("Org")
    first = post(cast.superadmin, "organizations", {"name": name}, key).json()["id"]
    other = post(cast.superadmin, "organizations", {"name": unique("Org")}, unique("key")).json()["id"]
    ended = timezone.now() - timedelta(hours=24, seconds=1)
    IdempotencyKey.objects.filter(object_id__in=[first, other]).update(created_at=ended)
    Organization.objects.filter(pk=first).delete()
    again = post(cast.superadmin, "organizations", {"name": name}, key)
    assert again.status_code == 201
    assert again.json()["id"] != first
    assert not IdempotencyKey.objects.filter(object_id__in=[first, other]).exists()


def test_of_many_at_once_one_does_the_work_and_the_others_get_its_answer(cast: Cast) -> None:
    key, body = unique("key"), app(cast)

    def send(_number: int) -> Any:
        try:
            return post(cast.admin, "applications", body, key)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(send, range(16)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert Application.objects.filter(organization=cast.organization, name=body["name"]).count() == 1


def test_a_request_whose_twin_does_not_end_is_sent_away(
    cast: Cast, postgres_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "WAIT_SECONDS", 1)
    key, body = unique("key"), app(cast)
    scope = f"{cast.admin.user.id}/{cast.organization.id}"

    def send() -> Any:
        try:
            return post(cast.admin, "applications", body, key)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            idempotency._claim(scope, key, "the twin")
            error_of(threads.submit(send).result(), 409, "CONFLICT")
            transaction.set_rollback(True)
        assert threads.submit(send).result().status_code == 201


DIES = """
import os, signal, sys
from unittest import mock
import django
django.setup()
from apps.orgs.rest import idempotency, views
from tests.api.cast import Api
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
place = {"before the commit": (idempotency, "_keep"), "after the commit": (views.ApiView, "finalize_response")}
moment, caller, body, key = sys.argv[1:]
with mock.patch.object(*place[moment], die):
    Api(caller).call("POST", "applications", body.encode(), **{"Idempotency-Key": key})
"""


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
def test_a_process_that_is_killed_leaves_the_work_and_its_key_or_neither(
    cast: Cast, postgres_only: None, moment: str
) -> None:
    key, name = unique("key"), unique("app")
    body = json.dumps(app(cast, name))
    place = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
    killed = subprocess.run(
        [sys.executable, "-c", DIES, moment, cast.admin.key or "", body, key],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": place, "ALLOWED_HOSTS": "testserver"},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    made = Application.objects.filter(organization=cast.organization, name=name)
    assert made.count() == (moment == "after the commit")
    again = cast.admin.call("POST", "applications", body.encode(), **{"Idempotency-Key": key})
    assert again.status_code == 201
    assert again.json()["id"] == str(made.get().pk)
    assert ("Idempotency-Replayed" in again.headers) is (moment == "after the commit")


def test_an_answer_that_is_too_long_is_not_kept(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "MAX_KEPT_CHARACTERS", 10)
    key, body = unique("key"), app(cast)
    made = post(cast.admin, "applications", body, key).json()
    assert error_of(post(cast.admin, "applications", body, key), 409, "CONFLICT")["details"] == {"id": made["id"]}


def test_a_password_cannot_be_guessed_from_what_is_stored(cast: Cast, settings: Any) -> None:
    key, body = unique("key"), {"username": unique("someone"), "password": "correct horse battery"}
    made = post(cast.superadmin, "users", body, key).json()
    row = IdempotencyKey.objects.get(object_id=made["id"])
    assert row.fingerprint == keys.keyed_digest(
        settings.KEY_PEPPERS[row.pepper_id], json.dumps(["POST", "/v1/admin/users", body], sort_keys=True)
    )


def test_a_key_whose_pepper_is_gone_is_taken_for_used(cast: Cast) -> None:
    key, body = unique("key"), app(cast)
    made = post(cast.admin, "applications", body, key).json()
    IdempotencyKey.objects.filter(object_id=made["id"]).update(pepper_id="removed")
    error_of(post(cast.admin, "applications", body, key), 422, REUSED)
