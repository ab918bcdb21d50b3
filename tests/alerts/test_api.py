"""Destinations over the admin API: made, tried, rotated; what came of messages; and bad input."""

from typing import Any

import pytest
from django.test import override_settings

from apps.alerts import upkeep
from apps.alerts.models import Delivery, Destination
from apps.audit.models import Alert, ChangeRecord
from apps.orgs.encryption_rotation import renew_data_keys
from tests.alerts.telling import an_alert, let_time_pass, tell_all
from tests.alerts.test_docs import verify
from tests.api.cast import Cast, error_of, gather, unique
from tests.services.receiver import Receiver


@pytest.fixture
def cast() -> Cast:
    return gather()


def body(cast: Cast, **fields: Any) -> dict[str, Any]:
    given = {
        "organization": str(cast.organization.id),
        "name": unique("on call"),
        "channel": "webhook",
        "kinds": ["key_expiring"],
        "url": "https://alerts.invalid/hook",
        **fields,
    }
    return {name: value for name, value in given.items() if value is not ...}


def test_a_secret_is_shown_once_signs_and_is_replaced_with_a_day_of_both(cast: Cast) -> None:
    with Receiver() as receiver:
        made = cast.admin.made("alert-destinations", body(cast, url=receiver.url))
        path, first = f"alert-destinations/{made['id']}", made["signing_secret"]
        assert first.startswith("whsec_")
        assert first not in cast.admin.get(path).content.decode()
        assert cast.admin.post(f"{path}/test").json()["arrived"] is True
        second = cast.admin.made(f"{path}/rotate", {})["signing_secret"]
        cast.admin.patch(path, {"url": f"{receiver.url}/moved"})
        renew_data_keys()
        an_alert(cast.organization)
        tell_all()
        tried, told = receiver.received
        for secret in (first, second):
            assert verify(secret, told.headers["lcp-signature"], told.body)
        assert not verify(second, tried.headers["lcp-signature"], tried.body)
        assert (tried.json["alerts"][0]["kind"], told.path) == ("test", "/moved")
        Destination.objects.filter(pk=made["id"]).update(former_until=made["created_at"])
        cast.admin.post(f"{path}/test")
        assert not verify(first, receiver.received[2].headers["lcp-signature"], receiver.received[2].body)
    row = Destination.objects.get(pk=made["id"])
    said = str(list(ChangeRecord.objects.filter(object_id=made["id"]).values()))
    for secret in (first, second, row.encrypted_secret, row.encrypted_former):
        assert secret not in said
    assert [one.action for one in ChangeRecord.objects.filter(object_id=made["id"]).order_by("id")] == [
        "create",
        "test",
        "rotate",
        "change",
        "test",
    ]


def test_the_outcome_of_a_test_is_told_in_words_whatever_it_is(cast: Cast) -> None:
    with Receiver() as receiver:
        hook = cast.admin.made("alert-destinations", body(cast, url=receiver.url))
        receiver.script.append(500)
        refused = cast.admin.post(f"alert-destinations/{hook['id']}/test").json()
        assert (refused["arrived"], refused["outcome"]) == (False, "The receiver answered 500.")
    away = cast.admin.post(f"alert-destinations/{hook['id']}/test").json()
    assert (away["arrived"], away["outcome"]) == (False, "The receiver could not be reached.")
    mail = body(cast, channel="email", recipients=["ops@example.com"], url=...)
    made = cast.admin.made("alert-destinations", mail)
    with override_settings(EMAIL_URL=""):
        assert "EMAIL_URL" in cast.admin.post(f"alert-destinations/{made['id']}/test").json()["outcome"]


def test_tests_are_bounded_for_an_organization(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "MOST_TRIALS", 2)
    ids = [cast.admin.made("alert-destinations", body(cast))["id"] for _ in range(2)]
    statuses = [cast.admin.post(f"alert-destinations/{ids[n % 2]}/test").status_code for n in range(3)]
    assert statuses == [200, 200, 429]


def test_slacks_address_is_shown_to_nobody_and_can_be_replaced(cast: Cast) -> None:
    with Receiver() as receiver:
        url = f"{receiver.url}/T000/B000/secretXYZ"
        made = cast.admin.made("alert-destinations", body(cast, channel="slack", url=url))
        assert (made["url"], made["last_four"]) == ("", "tXYZ")
        assert "signing_secret" not in made
        path = f"alert-destinations/{made['id']}"
        error_of(cast.admin.post(f"{path}/rotate"), 400, "INVALID_REQUEST")
        assert cast.admin.patch(path, {"url": f"{receiver.url}/T111-and-more"}).status_code == 200
        assert cast.admin.post(f"{path}/test").json()["arrived"] is True
        assert receiver.received[0].path == "/T111-and-more"
    shown = cast.admin.get(path).content + cast.admin.get("changes").content
    assert b"secretXYZ" not in shown
    assert b"T111" not in shown


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "http://93.184.215.14/"}, "url"),
        ({"url": "https://user:password@example.com/"}, "url"),
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": "https://0x7f.1/"}, "url"),
        ({"url": ""}, "url"),
        ({"url": ...}, "url"),
        ({"url": 7}, "url"),
        ({"channel": "slack", "url": ...}, "url"),
        ({"channel": "pigeon"}, "channel"),
        ({"kinds": []}, "kinds"),
        ({"kinds": ["everything"]}, "kinds"),
        ({"kinds": "key_expiring"}, "kinds"),
        ({"kinds": [["key_expiring"]]}, "kinds"),
        ({"channel": "email", "url": ...}, "recipients"),
        ({"channel": "email", "url": ..., "recipients": ["nobody"]}, "recipients"),
        ({"channel": "email", "url": ..., "recipients": ["a@example.com\nBcc: b@example.com"]}, "recipients"),
        ({"channel": "email", "url": ..., "recipients": [f"a{n}@example.com" for n in range(11)]}, "recipients"),
        ({"channel": "email", "recipients": ["a@example.com"]}, "url"),
        ({"recipients": ["a@example.com"]}, "recipients"),
        ({"name": "two\u202eeman"}, "name"),
        ({"organization": None}, None),
    ],
)
def test_bad_input_is_refused_by_its_field(cast: Cast, fields: dict[str, Any], param: str | None) -> None:
    answer = cast.admin.post("alert-destinations", body(cast, **fields))
    if param is None:
        error_of(answer, 403, "FORBIDDEN")
        return
    error = error_of(answer, 400, "INVALID_REQUEST")
    assert str(error["param"]).startswith(param), error
    assert "password" not in str(error)


def test_a_message_that_failed_is_tried_again_by_who_may_and_once(cast: Cast) -> None:
    with Receiver() as receiver:
        made = cast.admin.made("alert-destinations", body(cast, url=receiver.url))
        alert = an_alert(cast.organization)
        tell_all()
        (sent,) = cast.admin.get("alert-deliveries", destination=made["id"]).json()["results"]
        assert (sent["state"], sent["alerts"], sent["attempts"]) == ("sent", [str(alert.pk)], 1)
        again = f"alert-deliveries/{sent['id']}/retry"
        error_of(cast.admin.post(again), 409, "CONFLICT")
        Delivery.objects.filter(pk=sent["id"]).update(state="failed")
        error_of(cast.auditor.post(again), 403, "FORBIDDEN")
        error_of(cast.developer.post(again), 403, "FORBIDDEN")
        error_of(cast.outsider.post(again), 404, "NOT_FOUND")
        for wrong, status, code in (("x", 400, "INVALID_REQUEST"), ('"x"', 412, "PRECONDITION_FAILED")):
            error_of(cast.admin.call("POST", again, **{"If-Match": wrong}), status, code)
        seen = cast.admin.get(f"alert-deliveries/{sent['id']}").headers["etag"]
        as_seen = {"If-Match": seen, "Idempotency-Key": sent["id"]}
        first, second = (cast.admin.call("POST", again, **as_seen) for _ in range(2))
        assert first.json()["state"] == "waiting"
        assert (first.content, second.headers["idempotency-replayed"]) == (second.content, "true")
        let_time_pass(Destination.objects.get(pk=made["id"]))
        tell_all()
        assert len(receiver.received) == 2
    assert [one["title"] for one in cast.developer.get("alerts").json()["results"]] == [alert.title]
    assert cast.outsider.get("alerts").json()["results"] == []
    assert Alert.objects.get(pk=alert.pk).told_at is not None


def test_the_platforms_destinations_are_a_superadmins(cast: Cast) -> None:
    made = cast.superadmin.made("alert-destinations", body(cast, organization=None, kinds=["journal_spooling"]))
    for person in (cast.admin, cast.outsider):
        assert made["id"] not in person.get("alert-destinations").content.decode()
        error_of(person.post(f"alert-destinations/{made['id']}/test"), 404, "NOT_FOUND")
    assert cast.superadmin.delete(f"alert-destinations/{made['id']}").status_code == 204
