"""An organization in its third week, for pictures: people, software, policies, and what they asked for.

What is configured is made through the admin API, and today's requests go through the gateway. Those of the days before
are copies of today's with earlier times: no door makes the past.
"""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from django.utils import timezone

DAYS = 14
A_DAY = 90
MODELS = {"gpt-4o": "sim-usage-1850-420", "gpt-4o-mini": "sim-usage-640-180", "claude-sonnet-4-5": "sim-usage-3200-760"}
PROMPTS = (
    "Summarise the complaint of the customer in two sentences.",
    "Which clauses of this contract deal with liability?",
    "Write a friendly answer: the parcel is late, and we are sorry.",
    "Translate the release notes into German.",
    "Mail the offer to jane.doe@example.org and call 030 5550 1234 if it bounces.",
    "Find the three products that match 'waterproof, red, under 40 euros'.",
)
PEOPLE = {"admin": "The admin", "developer": "The developer", "auditor": "The auditor"}
POLICIES: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    ("Models we have vetted", "model_restriction", {"allow": ["gpt-4o*", "claude-*"], "deny": ["*-preview"]}, ""),
    ("No secrets to providers", "guardrail", {"detectors": {"secret": "block"}, "direction": "input"}, ""),
    (
        "Personal data stays here",
        "guardrail",
        {"detectors": {"email": "redact", "phone": "redact", "credit_card": "block"}, "direction": "both"},
        "Support assistant",
    ),
    ("Company budget", "cost_cap", {"limit_usd": "25.00", "per": "month", "alert_at": [1, 50, 80]}, ""),
    (
        "Support budget",
        "cost_cap",
        {"limit_usd": "0.60", "per": "day", "fit": "clamp"},
        "Support assistant",
    ),
    (
        "Pilot budget",
        "cost_cap",
        {"limit_usd": "0.05", "per": "month", "hard": False, "alert_at": [50, 80]},
        "Contract review",
    ),
    ("Fair use", "rate_limit", {"requests": 600, "per": "minute"}, ""),
    ("Search in bursts", "rate_limit", {"requests": 12, "per": "minute", "concurrent": 8}, "Product search"),
    ("Short answers", "request_limits", {"max_output_tokens": 2000}, "Product search"),
)
APPLICATIONS = ("Support assistant", "Contract review", "Product search")


@dataclass
class Lively:
    """What the addresses of the pictures name."""

    people: dict[str, tuple[str, str]]
    """Username and password of each role."""
    organization: str = ""
    application: str = ""
    key: str = ""
    policy: str = ""
    refused: str = ""
    destination: str = ""
    keys: dict[str, str] = field(default_factory=dict)


class Api:
    """The admin API, as a superadmin."""

    def __init__(self, base: str, key: str) -> None:
        self._http = httpx.Client(base_url=f"{base}/v1/admin", headers={"Authorization": f"Bearer {key}"}, timeout=30)

    def made(self, collection: str, **body: Any) -> dict[str, Any]:
        answer = self._http.post(f"/{collection}", json=body)
        answer.raise_for_status()
        return dict(answer.json())

    def made_of(self, collection: str, row: str, action: str) -> None:
        self._http.post(f"/{collection}/{row}/{action}").raise_for_status()

    def listed(self, collection: str, **query: str) -> list[dict[str, Any]]:
        answer = self._http.get(f"/{collection}", params=query)
        answer.raise_for_status()
        return list(answer.json()["results"])


def build(base: str, demo: dict[str, Any], hook: str) -> Lively:
    """Make the organization on the server at ``base``; ``demo`` is what its first run described.

    ``hook`` is the address that alerts are posted to.
    """
    api = Api(base, demo["admin_api_key"])
    superadmin = next(user for user in demo["users"] if user["role"] == "superadmin")
    lively = Lively({"superadmin": (superadmin["username"], superadmin["password"])})
    _configure(api, lively)
    _have_alerts_sent(api, lively, hook)
    _ask(base, lively)
    refused = api.listed("audit-logs", organization=lively.organization, status="blocked")
    lively.refused = next(one["id"] for one in refused if one["error_code"] == "SECRET_DETECTED")
    _yesterdays(UUID(lively.organization))
    _wait_for_alerts(lively)
    return lively


def _configure(api: Api, lively: Lively) -> None:
    lively.organization = api.made("organizations", name="Example organization")["id"]
    credential = api.made(
        "provider-credentials", organization=lively.organization, name="OpenAI production", provider="simulated"
    )
    for model, upstream in MODELS.items():
        api.made(
            "routes",
            organization=lively.organization,
            model=model,
            credential=credential["id"],
            upstream_model=upstream,
        )
    owned = {name: api.made("applications", organization=lively.organization, name=name)["id"] for name in APPLICATIONS}
    lively.application = owned[APPLICATIONS[0]]
    for name, application in owned.items():
        key = api.made("keys", application=application, name="production")
        lively.keys[name] = key["key"]
        lively.key = lively.key or key["id"]
    for name, kind, config, application in POLICIES:
        where = {"application": owned[application]} if application else {}
        made = api.made(
            "policies", organization=lively.organization, name=name, kind=kind, mode="enforce", config=config, **where
        )
        lively.policy = lively.policy or made["id"]
    _people(lively)


def _have_alerts_sent(api: Api, lively: Lively, hook: str) -> None:
    """Have them sent to two places, and let one key be about to expire."""
    from apps.orgs.models import ApiKey

    kinds = ["budget_threshold", "key_expiring", "provider_down"]
    mail = {"name": "Finance", "channel": "email", "recipients": ["finance@example.com"], "kinds": kinds[:1]}
    webhook = {"name": "On call", "channel": "webhook", "url": hook, "kinds": kinds}
    for body in (mail, webhook):
        made = api.made("alert-destinations", organization=lively.organization, **body)
        api.made_of("alert-destinations", made["id"], "test")
        lively.destination = lively.destination or made["id"]
    now = timezone.now()
    key = ApiKey.objects.get(pk=lively.key)
    key.created_at, key.expires_at = now - timedelta(days=80), now + timedelta(days=10)
    key.save(update_fields=["created_at", "expires_at"])


def _wait_for_alerts(lively: Lively) -> None:
    """Wait until the server has told of a budget and of the key, which it looks for once a minute."""
    from apps.audit.models import Alert

    told = Alert.objects.filter(organization_id=lively.organization).exclude(told_at=None)
    until = time.monotonic() + 90
    while {"budget_threshold", "key_expiring"} - set(told.values_list("kind", flat=True)) and time.monotonic() < until:
        time.sleep(1)
    time.sleep(2)  # what was handed out is being sent


def _people(lively: Lively) -> None:
    from apps.orgs.models import Membership, User

    for role, name in PEOPLE.items():
        username, password = name.lower().replace(" ", "."), f"a long password of {role}"
        user = User.objects.create_user(username, password, full_name=name, email=f"{username}@example.com")
        Membership.objects.create(organization_id=lively.organization, user=user, role=role)
        lively.people[role] = (username, password)


def _ask(base: str, lively: Lively) -> None:
    drawn = random.Random(7)
    with httpx.Client(base_url=f"{base}/v1", timeout=30) as http, ThreadPoolExecutor(4) as pool:
        bodies = [*_bodies(drawn), *_refused()]
        list(pool.map(lambda one: _call(http, lively.keys[one[0]], one[1]), bodies))


def _bodies(drawn: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    for number in range(A_DAY):
        application = drawn.choices(APPLICATIONS, (6, 3, 2))[0]
        yield (
            application,
            {
                "model": drawn.choices([*MODELS, "gpt-5-preview"], (5, 6, 3, 0.4))[0],
                "messages": [{"role": "user", "content": drawn.choice(PROMPTS)}],
                "max_tokens": 1000,
                "stream": drawn.random() < 0.3,
                "user": f"customer-{drawn.randrange(40):03}",
                "metadata": {"team": application.split()[0].lower(), "ticket": f"NW-{4000 + number}"},
            },
        )


def _refused() -> Iterator[tuple[str, dict[str, Any]]]:
    key = "AKIA" + "ZQ3DRSTUVWXY2345"
    for text in ("Pay with 4111 1111 1111 1111, please.", f"Deploy with {key}, it must be live tonight."):
        yield (
            "Support assistant",
            {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], "max_tokens": 400},
        )


def _call(http: httpx.Client, key: str, body: dict[str, Any]) -> None:
    http.post("/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"})


def _yesterdays(organization: UUID) -> None:
    """Copy today's records to the days before, fewer at weekends and growing towards today."""
    from apps.audit.models import RequestRecord, RequestText

    drawn = random.Random(11)
    today = list(RequestRecord.objects.filter(organization_id=organization))
    texts = {text.pk: text for text in RequestText.objects.filter(organization_id=organization)}
    newest = max(record.timestamp for record in today)
    for day in range(1, DAYS):
        then = newest - timedelta(days=day)
        if then.month != newest.month:
            break  # older months have no partition
        share = (0.35 if then.weekday() > 4 else 1.0) * (1 - day / (DAYS * 2))
        chosen = drawn.sample(today, int(len(today) * share))
        copies = [(_copy(record, _at(then, drawn)), texts.get(record.pk)) for record in chosen]
        RequestRecord.objects.bulk_create([copy for copy, _ in copies])
        RequestText.objects.bulk_create([_text(text, copy.pk) for copy, text in copies if text is not None])


def _at(day: datetime, drawn: random.Random) -> datetime:
    return day.replace(hour=min(22, max(5, int(drawn.gauss(13, 3)))), minute=drawn.randrange(60))


def _copy(record: Any, when: datetime) -> Any:
    from apps.audit.uuid7 import first_id_at, uuid7

    random_bits = uuid7().int & ((1 << 80) - 1)
    columns = {one.attname: one.value_from_object(record) for one in record._meta.concrete_fields}
    return type(record)(**columns | {"id": UUID(int=first_id_at(when).int | random_bits), "timestamp": when})


def _text(text: Any, pk: UUID) -> Any:
    columns = {one.attname: one.value_from_object(text) for one in text._meta.concrete_fields}
    return type(text)(**columns | {"id": pk})
