"""ETags, and writes that happen only to what the caller has seen."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from apps.orgs.models import ProviderCredential
from tests.api.cast import Api, Cast, error_of, unique
from tests.api.collections import SAMPLES, Sample

each = pytest.mark.parametrize("sample", SAMPLES, ids=str)


def made(cast: Cast, sample: Sample) -> tuple[Api, str, str]:
    editor = cast.by_role(sample.editor)
    answer = editor.post(sample.path, sample.body(cast))
    assert answer.status_code == 201, answer.content
    return editor, f"{sample.path}/{answer.json()['id']}", answer.headers["etag"]


def write(caller: Api, method: str, address: str, body: Any, tag: str) -> Any:
    return caller.call(method, address, body, **{"If-Match": tag})


@each
def test_the_answer_to_a_write_has_the_etag_of_the_next_read(cast: Cast, sample: Sample) -> None:
    editor, address, first = made(cast, sample)
    assert editor.get(address).headers["etag"] == first
    changed = editor.patch(address, sample.change)
    assert changed.headers["etag"] == editor.get(address).headers["etag"] != first


@each
def test_a_write_to_what_was_seen_goes_through_and_to_what_has_changed_does_not(cast: Cast, sample: Sample) -> None:
    editor, address, first = made(cast, sample)
    changed = write(editor, "PATCH", address, sample.change, first)
    assert changed.status_code == 200, changed.content
    for method in ("PATCH", "PUT", "DELETE"):
        error_of(write(editor, method, address, sample.change, first), 412, "PRECONDITION_FAILED")
    assert editor.get(address).json() == changed.json()
    assert write(editor, "DELETE", address, None, f'"another", {changed.headers["etag"]}').status_code == 204


def test_without_if_match_and_with_a_star_any_state_will_do(cast: Cast) -> None:
    editor, address, _ = made(cast, SAMPLES[1])
    assert editor.patch(address, {"is_active": False}).status_code == 200
    assert write(editor, "PATCH", address, {"is_active": True}, "*").status_code == 200
    error_of(write(editor, "PATCH", "applications/" + "0" * 8, {}, "*"), 404, "NOT_FOUND")


@pytest.mark.parametrize("tag", ["", "bare", '"open', "W/x", '"a" "b"', '"a",', '"ü"'])
def test_an_if_match_that_is_none_is_refused_by_name(cast: Cast, tag: str) -> None:
    editor, address, _ = made(cast, SAMPLES[1])
    error = error_of(write(editor, "PATCH", address, {"is_active": False}, tag), 400, "INVALID_REQUEST")
    assert error["param"] == "If-Match"


def test_a_weak_etag_matches_nothing(cast: Cast) -> None:
    editor, address, tag = made(cast, SAMPLES[1])
    error_of(write(editor, "PATCH", address, {}, f"W/{tag}"), 412, "PRECONDITION_FAILED")


def test_a_secret_that_was_set_anew_is_a_change_although_nothing_of_it_shows(cast: Cast) -> None:
    editor, address, first = made(cast, next(one for one in SAMPLES if one.path == "provider-credentials"))
    shown = editor.get(address).json()
    row = ProviderCredential.objects.get(pk=shown["id"])
    assert editor.patch(address, {"secret": row.secret()}).json() == shown
    error_of(write(editor, "PATCH", address, {"is_active": False}, first), 412, "PRECONDITION_FAILED")


def test_what_others_have_changed_is_told_only_to_who_may_change(cast: Cast) -> None:
    _, address, _ = made(cast, SAMPLES[1])
    error_of(write(cast.auditor, "PATCH", address, {}, '"x"'), 403, "FORBIDDEN")
    error_of(write(cast.outsider, "PATCH", address, {}, '"x"'), 404, "NOT_FOUND")


def test_a_key_is_rotated_and_revoked_only_as_it_was_seen(cast: Cast) -> None:
    editor, address, first = made(cast, next(one for one in SAMPLES if one.path == "keys"))
    seen = editor.patch(address, {"name": unique("renamed")}).headers["etag"]
    error_of(write(editor, "POST", f"{address}/rotate", {}, first), 412, "PRECONDITION_FAILED")
    error_of(write(editor, "POST", f"{address}/revoke", None, first), 412, "PRECONDITION_FAILED")
    assert write(editor, "POST", f"{address}/revoke", None, seen).status_code == 200


def test_of_many_writers_who_saw_the_same_exactly_one_writes(cast: Cast) -> None:
    editor, address, tag = made(cast, SAMPLES[1])

    def rename(number: int) -> int:
        try:
            return int(write(editor, "PATCH", address, {"name": f"name {number}"}, tag).status_code)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as threads:
        statuses = sorted(threads.map(rename, range(12)))
    assert statuses == [200] + [412] * 11
