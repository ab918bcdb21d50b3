"""From real requests to a receiver's door: a threshold that is crossed is one signed message, whatever dies."""

import time
from pathlib import Path
from typing import Any

import httpx

from tests.alerts.test_docs import verify
from tests.services import accounts
from tests.services.mail_server import MailServer
from tests.services.receiver import Received, Receiver
from tests.services.server import ServerProcess, fresh_database

DUE = "UPDATE alerts_delivery SET next_at = now() - interval '1 second' WHERE state = 'waiting'"


class Tenant:
    """The demo organization of a server, with a soft cap of 0.001 USD a month."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        cap = {"limit_usd": "0.001", "per": "month", "hard": False, "alert_at": [50, 80, 95]}
        self.policy = self.api("POST", "policies", {"kind": "cost_cap", "name": "Team budget", "config": cap})

    def api(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.server.demo['admin_api_key']}"}
        whole = {"organization": self.server.demo["organization"], **body}
        answer = httpx.request(method, f"{self.server.url}/v1/admin/{path}", json=whole, headers=headers, timeout=30)
        assert answer.is_success, answer.text
        return dict(answer.json())

    def spend(self, tokens: int) -> None:
        """Spend so many times a millionth of a dollar."""
        headers = {"Authorization": f"Bearer {self.server.demo['api_key']}"}
        body = {"model": f"sim-usage-{tokens}-1", "messages": [{"role": "user", "content": "The secret prompt."}]}
        answer = httpx.post(f"{self.server.url}/v1/chat/completions", json=body, headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text


def test_thresholds_crossed_by_requests_are_one_signed_message_each_and_a_kill_loses_none(
    tmp_path: Path, postgres_only: None
) -> None:
    database = fresh_database()
    with Receiver() as receiver, MailServer() as mails:
        environment: dict[str, str | None] = {
            "DATABASE_URL": database,
            "ALERT_SECONDS": "0.2",
            "EMAIL_URL": mails.url,
            "EMAIL_FROM": "Gateway <alerts@example.org>",
        }
        server = ServerProcess(tmp_path, environment).start()
        try:
            tenant = Tenant(server)
            hook = {"name": "hook", "channel": "webhook", "url": receiver.url, "kinds": ["budget_threshold"]}
            made = tenant.api("POST", "alert-destinations", hook)
            mail = {"name": "mail", "channel": "email", "recipients": ["ops@example.com"], "kinds": hook["kinds"]}
            tenant.api("POST", "alert-destinations", mail)

            for _ in range(4):
                tenant.spend(150)  # 60 % once all are done
            (first,) = receiver.wait_for(1)
            check(first, made["signing_secret"], tenant, 50)
            assert {one["kind"] for one in first.json["alerts"]} == {"budget_threshold"}

            receiver.script.append("hang")
            tenant.spend(300)  # 90 %
            wait_for_a_message(database)
            accounts.read(database, DUE)
            second = receiver.wait_for(2)[1]  # the receiver has it, and has not answered
            tenant.spend(100)  # 100 %: committed with its record, and nobody was told
            server.kill()

            server = ServerProcess(tmp_path, environment).start()
            for count in (3, 4):
                wait_for_a_message(database)
                accounts.read(database, DUE)
                receiver.wait_for(count)
            third, fourth = sorted(receiver.received[2:], key=lambda came: came.headers["lcp-delivery"])
            assert third.headers["lcp-delivery"] == second.headers["lcp-delivery"]
            check(third, made["signing_secret"], tenant, 80)
            check(fourth, made["signing_secret"], tenant, 95)
        finally:
            server.kill()
        assert len(receiver.received) == 4
        assert mails.mails[0].recipients == ["ops@example.com"]
        assert mails.mails[0].message["From"] == "Gateway <alerts@example.org>"


def check(came: Received, secret: str, tenant: Tenant, percent: int) -> None:
    assert verify(secret, came.headers["lcp-signature"], came.body)
    assert not verify(secret, came.headers["lcp-signature"], came.body + b" ")
    (alert,) = came.json["alerts"]
    assert (alert["details"]["percent"], alert["details"]["policy_id"]) == (percent, tenant.policy["id"])
    assert "secret prompt" not in came.body.decode()


def wait_for_a_message(database: str) -> None:
    for _ in range(200):
        if accounts.read(database, "SELECT 1 FROM alerts_delivery WHERE state = 'waiting'"):
            return
        time.sleep(0.05)
    raise AssertionError("no message waits")
