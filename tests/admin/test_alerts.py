"""Destinations in the admin, as a person sets them up."""

from typing import Any

import pytest

from apps.alerts.models import Delivery, Destination
from apps.audit.models import ChangeRecord
from tests.admin.cast import Cast, address, errors, filled, unique
from tests.alerts.telling import an_alert, tell_all
from tests.alerts.test_docs import verify
from tests.services.receiver import Receiver


def made(cast: Cast, **fields: Any) -> tuple[Any, Destination]:
    name = unique("on call")
    answer = filled(cast.browser("admin"), address(Destination, "add"), name=name, **fields)
    return answer, Destination.objects.get(name=name)


def test_a_webhook_is_added_its_secret_shown_once_and_tried_on_the_spot(cast: Cast) -> None:
    client = cast.browser("admin")
    with Receiver() as receiver:
        answer, row = made(cast, channel="webhook", url=receiver.url)
        page = answer.content.decode()
        assert answer.status_code == 200
        assert "It cannot be shown again." in page
        secret = row.secret()
        assert secret in page
        assert row.organization == cast.home.organization
        send = address(Destination, "send_test", row.pk)
        assert "Send a test" in client.get(send).content.decode()
        said = client.post(send, follow=True).content.decode()
        assert "The test has arrived. The receiver answered 204." in said
        assert secret not in said
        assert verify(secret, receiver.received[0].headers["lcp-signature"], receiver.received[0].body)
    said = client.post(send, follow=True).content.decode()
    assert "The test has not arrived. The receiver could not be reached." in said
    renewed = client.post(address(Destination, "new_secret", row.pk)).content.decode()
    assert Destination.objects.get(pk=row.pk).secret() in renewed
    assert secret not in renewed


def test_an_address_moves_with_its_secret_and_what_another_channel_needs_is_dropped(cast: Cast) -> None:
    _, row = made(cast, channel="webhook", url="https://alerts.invalid/one", recipients="a@example.com", slack_url="x")
    secret = row.secret()
    assert row.recipients == []
    url = address(Destination, "change", row.pk)
    assert filled(cast.browser("admin"), url, url="https://alerts.invalid/two").status_code == 302
    moved = Destination.objects.get(pk=row.pk)
    assert (moved.url, moved.secret()) == ("https://alerts.invalid/two", secret)
    record = ChangeRecord.objects.filter(object_id=str(row.pk), action="change").get()
    assert record.after["url"] == "https://alerts.invalid/two"


def test_slacks_address_goes_in_and_never_comes_out(cast: Cast) -> None:
    slack_url = "https://alerts.invalid/services/T0/B0/xyzzy1234"
    _, row = made(cast, channel="slack", slack_url=slack_url)
    client, url = cast.browser("admin"), address(Destination, "change", row.pk)
    page = client.get(url).content.decode()
    assert "…1234" in page
    assert "xyzzy" not in page
    assert filled(client, url, name=unique("renamed")).status_code == 302
    assert Destination.objects.get(pk=row.pk).secret() == slack_url
    assert filled(client, url, slack_url="https://alerts.invalid/new").status_code == 302
    assert Destination.objects.get(pk=row.pk).secret() == "https://alerts.invalid/new"
    assert "xyzzy" not in str(list(ChangeRecord.objects.filter(object_id=str(row.pk)).values()))


def test_mail_is_written_as_people_write_addresses(cast: Cast) -> None:
    _, row = made(cast, channel="email", recipients="ops@example.com; boss@example.com\nanna@example.com")
    assert row.recipients == ["ops@example.com", "boss@example.com", "anna@example.com"]
    page = cast.browser("admin").get(address(Destination, "change", row.pk)).content.decode()
    assert "ops@example.com, boss@example.com, anna@example.com" in page


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"channel": "webhook"}, "url"),
        ({"channel": "webhook", "url": "https://192.168.0.1/"}, "url"),
        ({"channel": "webhook", "url": "http://93.184.215.14/"}, "url"),
        ({"channel": "slack"}, "slack_url"),
        ({"channel": "slack", "slack_url": "https://169.254.169.254/latest"}, "slack_url"),
        ({"channel": "email"}, "recipients"),
        ({"channel": "email", "recipients": "ops@example.com, nonsense"}, "recipients"),
        ({"channel": "webhook", "url": "https://alerts.invalid/", "kinds": None}, "kinds"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(cast: Cast, fields: dict[str, Any], field: str) -> None:
    answer = filled(cast.browser("admin"), address(Destination, "add"), name=unique("x"), **fields)
    assert list(errors(answer)) == [field]
    assert "provider" not in str(errors(answer))


def test_the_pages_show_what_was_told_and_a_failed_message_is_tried_again(cast: Cast) -> None:
    client, row = cast.browser("admin"), cast.home.delivery
    assert cast.home.destination.name in client.get(address(type(cast.home.notice), "changelist")).content.decode()
    assert "1 failed" in client.get(address(Destination, "changelist")).content.decode()
    page = client.get(address(Delivery, "change", row.pk)).content.decode()
    assert "No answer." in page
    assert cast.home.notice.title in page
    again = address(Delivery, "send_again", row.pk)
    assert cast.browser("auditor").post(again).status_code == 403
    assert client.post(again).status_code == 302
    assert Delivery.objects.get(pk=row.pk).state == "waiting"
    assert client.post(again).status_code == 403  # it waits already
    Delivery.objects.filter(pk=row.pk).update(state="failed")


def test_an_auditor_sees_destinations_and_their_secrets_not(cast: Cast) -> None:
    row = cast.home.destination
    client = cast.browser("auditor")
    page = client.get(address(Destination, "change", row.pk)).content.decode()
    assert row.secret() not in page
    assert "Send a test" not in page
    for button in ("send_test", "new_secret"):
        assert client.post(address(Destination, button, row.pk)).status_code == 403
    assert cast.browser("developer").get(address(Destination, "changelist")).status_code == 403


def test_what_is_told_reaches_the_page_of_alerts(cast: Cast) -> None:
    alert = an_alert(cast.home.organization, "budget_threshold", title=f"80 % of {unique('cap')} is spent")
    tell_all()
    for person in ("admin", "developer", "auditor"):
        page = cast.browser(person).get(address(type(alert), "change", alert.pk)).content.decode()
        assert alert.title in page.replace("&#x27;", "'")
