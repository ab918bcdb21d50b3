"""From alerts to messages: once for each destination that wants them, tried until they are there, and never a storm."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

from apps.alerts import sending
from apps.alerts.models import MOST_ATTEMPTS, Delivery
from apps.alerts.outbox import deliver, hand_out, wait_after
from apps.alerts.upkeep import retry
from apps.audit.changes import Actor
from apps.audit.models import Alert, ChangeRecord
from tests.alerts.telling import an_alert, an_organization, destination, let_time_pass, of, tell_all
from tests.services.mail_server import MailServer
from tests.services.receiver import Receiver


@pytest.fixture
def receiver() -> Any:
    with Receiver() as running:
        yield running


def test_an_alert_goes_to_each_destination_of_its_organization_that_wants_it_and_nowhere_else(
    receiver: Receiver,
) -> None:
    home, foreign = an_organization(), an_organization()
    wants = destination(home, url=f"{receiver.url}/wants")
    others = [
        destination(home, url=f"{receiver.url}/kind", kinds=["provider_down"]),
        destination(home, url=f"{receiver.url}/off", is_active=False),
        destination(foreign, url=f"{receiver.url}/foreign"),
        destination(None, url=f"{receiver.url}/platform"),
    ]
    alert = an_alert(home)
    tell_all()
    tell_all()
    (came,) = receiver.received
    assert came.path == "/wants"
    assert came.json["organization"] == {"id": str(home.pk), "name": home.name}
    assert [one["id"] for one in came.json["alerts"]] == [str(alert.pk)]
    assert not any(of(other) for other in others)
    assert of(wants)[0].state == "sent"
    assert foreign.name not in came.body.decode()


def test_a_message_is_tried_again_after_a_500_and_after_silence_with_the_same_id_and_body_but_for_its_time(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "SECONDS", 0.3)
    receiver.script.extend([500, "hang", 302, 204])
    there = destination(an_organization(), url=receiver.url)
    an_alert(there.organization)
    said = []
    for _ in range(4):
        let_time_pass(there)
        tell_all()
        (message,) = of(there)
        said.append((message.state, message.outcome))
    assert [state for state, _ in said] == ["waiting", "waiting", "waiting", "sent"]
    assert "500" in said[0][1]
    assert "did not answer" in said[1][1]
    assert "redirects are not followed" in said[2][1]
    assert len({came.headers["lcp-delivery"] for came in receiver.received}) == 1
    assert len({str(came.json["alerts"]) for came in receiver.received}) == 1
    assert len(receiver.received) == 4


def test_what_fails_as_often_as_it_may_stands_there_as_failed_and_can_be_tried_again(receiver: Receiver) -> None:
    receiver.script.extend([503] * MOST_ATTEMPTS)
    there = destination(an_organization(), url=receiver.url)
    an_alert(there.organization)
    for _ in range(MOST_ATTEMPTS + 2):
        let_time_pass(there)
        tell_all()
    (message,) = of(there)
    assert (message.state, message.attempts, len(receiver.received)) == ("failed", MOST_ATTEMPTS, MOST_ATTEMPTS)
    assert retry(message, Actor(None, "a person", "admin"))
    assert not retry(message, Actor(None, "a person", "admin"))
    tell_all()
    assert of(there)[0].state == "sent"
    assert ChangeRecord.objects.filter(object_id=str(message.pk), action="retry").count() == 1


def test_waits_grow_to_an_hour_are_spread_and_are_no_shorter_than_the_receiver_asks() -> None:
    waits = [wait_after(attempts) for attempts in range(1, 40)]
    assert timedelta(seconds=7) < waits[0] <= timedelta(seconds=15)
    assert max(waits) <= timedelta(hours=1)
    assert len(set(waits)) > 30
    assert wait_after(1, 300.0) == timedelta(seconds=300)


def test_a_receiver_that_asks_for_patience_is_given_it(receiver: Receiver) -> None:
    receiver.script.append(429)
    receiver.headers["Retry-After"] = "1200"
    there = destination(an_organization(), url=receiver.url)
    an_alert(there.organization)
    tell_all()
    (message,) = of(there)
    assert message.next_at - message.due_at > timedelta(seconds=1100)


def test_a_storm_of_alerts_is_a_few_messages_and_what_was_tried_is_not_added_to(receiver: Receiver) -> None:
    there = destination(an_organization(), url=receiver.url)
    for _ in range(70):
        an_alert(there.organization)
    tell_all()
    assert [len(came.json["alerts"]) for came in receiver.received] == [50]
    late = an_alert(there.organization)
    tell_all()
    assert len(receiver.received) == 1  # the next ones wait a minute after the one before
    first, second = of(there)
    assert second.due_at - first.due_at == timedelta(minutes=1)
    let_time_pass(there)
    tell_all()
    told = [one["id"] for came in receiver.received for one in came.json["alerts"]]
    assert len(told) == len(set(told)) == 71
    assert str(late.pk) in told


def test_a_message_whose_sender_died_is_sent_by_the_next_one(receiver: Receiver) -> None:
    from apps.alerts.outbox import _claim

    there = destination(an_organization(), url=receiver.url)
    an_alert(there.organization)
    hand_out()
    (taken,) = _claim()  # and then the process is gone
    assert deliver() == 0
    let_time_pass(there)
    assert deliver() == 1
    assert receiver.received[0].headers["lcp-delivery"] == str(taken.pk)
    assert of(there)[0].state == "sent"


def test_many_processes_at_once_send_each_message_once(receiver: Receiver, postgres_only: None) -> None:
    places = [destination(an_organization(), url=f"{receiver.url}/{number}") for number in range(8)]
    alerts = [an_alert(place.organization) for place in places for _ in range(2)]

    def work(_: int) -> None:
        tell_all()
        connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    for place in places:
        let_time_pass(place)
    tell_all()
    told = [one["id"] for came in receiver.received for one in came.json["alerts"]]
    assert sorted(told) == sorted(str(alert.pk) for alert in alerts)


def test_one_topic_is_one_alert_until_it_is_resolved() -> None:
    home = an_organization()
    first = an_alert(home, topic=f"same:{home.pk}")
    an_alert(home, topic=f"same:{home.pk}")
    assert Alert.objects.filter(organization_id=home.pk).count() == 1
    Alert.objects.filter(pk=first.pk).update(resolved_at=first.timestamp)
    an_alert(home, topic=f"same:{home.pk}")
    assert Alert.objects.filter(organization_id=home.pk).count() == 2


def test_a_switched_off_destination_gets_nothing_more() -> None:
    there = destination(an_organization(), url="http://127.0.0.1:9/")
    an_alert(there.organization)
    hand_out()
    there.is_active = False
    there.save()
    tell_all()
    (message,) = of(there)
    assert (message.state, message.outcome, message.attempts) == ("failed", "The destination was switched off.", 0)


# --- The other channels


def test_slack_gets_one_text_in_which_a_name_calls_nobody(receiver: Receiver) -> None:
    there = destination(an_organization(), "slack", url=f"{receiver.url}/T0/B0/secret")
    an_alert(there.organization, title="<!channel> & 'x'")
    tell_all()
    (came,) = receiver.received
    assert came.path == "/T0/B0/secret"
    assert came.json.keys() == {"text"}
    assert "&lt;!channel&gt; &amp; 'x'" in came.json["text"]
    assert "lcp-signature" not in came.headers


def test_a_mail_is_plain_whole_and_names_whose_it_is() -> None:
    home = an_organization()
    with MailServer() as server, mail_settings(server):
        there = destination(home, "email", recipients=["ops@example.com", "boss@example.com"])
        an_alert(home, title="80 % of 'Müller\r\nBcc: x@example.com' is spent", text="4.00 of 5.00 USD were spent.")
        an_alert(home, state="resolved", title="openai answers again")
        tell_all()
        (mail,) = server.mails
    assert mail.recipients == ["ops@example.com", "boss@example.com"]
    subject = str(mail.message["Subject"]).strip()
    assert subject == f"[{home.name}] 80 % of 'Müller Bcc: x@example.com' is spent, and 1 more"
    assert mail.message["Message-ID"] == f"<{of(there)[0].pk}@example.org>"
    text = mail.message.get_content()
    assert "4.00 of 5.00 USD were spent." in text
    assert "Resolved: openai answers again" in text
    assert mail.message.get_content_type() == "text/plain"


def test_a_mail_that_is_refused_or_finds_no_server_is_tried_again_and_says_why() -> None:
    there = destination(an_organization(), "email", recipients=["refused@example.com"])
    an_alert(there.organization)
    with MailServer() as server, mail_settings(server):
        tell_all()
        assert "refused" in of(there)[0].outcome
    let_time_pass(there)
    with mail_settings(server):
        tell_all()
    assert "could not be reached" in of(there)[0].outcome
    let_time_pass(there)
    with override_settings(EMAIL_URL=""):
        tell_all()
    assert "EMAIL_URL" in of(there)[0].outcome
    assert of(there)[0].state == Delivery.State.WAITING


def mail_settings(server: MailServer) -> Any:
    return override_settings(
        EMAIL_URL=server.url,
        EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=server.port,
        DEFAULT_FROM_EMAIL="alerts@example.org",
    )
