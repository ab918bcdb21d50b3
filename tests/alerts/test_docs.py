"""docs/alerts.md against the code: its snippet verifies, its example is the form, its kinds are those there are."""

import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from django.utils import timezone

from apps.alerts.message import VERSION, Message, Told, as_json
from apps.alerts.signature import signed
from apps.audit.models import Alert
from apps.orgs.models import Organization
from tests.docs.documents import document, quoted, table_rows

DOCUMENT = document("docs/alerts.md")


def _snippet() -> Callable[..., bool]:
    (source,) = DOCUMENT.fences("python")
    assert len(source.strip().splitlines()) <= 12
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    verify: Callable[..., bool] = namespace["verify"]
    return verify


verify = _snippet()


def test_the_snippet_takes_what_is_signed_and_nothing_else() -> None:
    body, now = b'{"version":1}', int(time.time())
    header = signed(body, ["whsec_new", "whsec_old"], now)
    assert verify("whsec_new", header, body)
    assert verify("whsec_old", header, body)
    assert not verify("whsec_other", header, body)
    assert not verify("whsec_new", header, body.replace(b"1", b"2"))
    assert not verify("whsec_new", header.replace(f"t={now}", f"t={now + 1}"), body)
    assert not verify("whsec_new", signed(body, ["whsec_new"], now - 301), body)


def test_the_example_has_the_form_of_a_message() -> None:
    (example,) = (json.loads(text) for text in DOCUMENT.fences("json"))
    told = Told(uuid4(), "budget_threshold", "raised", timezone.now(), "t", "t", {})
    message = json.loads(as_json(Message(uuid4(), Organization(name="x"), (told,)), timezone.now()))
    assert example.keys() == message.keys()
    assert example["version"] == VERSION
    assert example["alerts"][0].keys() == message["alerts"][0].keys()


def test_every_kind_of_alert_is_described() -> None:
    named = {quoted(row[0])[0] for row in table_rows(DOCUMENT.section("What is told"))[1:]}
    assert named == set(Alert.Kind.values)
