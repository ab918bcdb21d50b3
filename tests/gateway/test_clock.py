"""The clock of a process is wrong: keys expire early or late there, and nothing else of the call goes by it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apps.gateway import pipeline as path_module
from apps.orgs.models import ApiKey
from tests.gateway.house import House, chat, pipeline, run


@pytest.mark.parametrize(
    ("clock_hours", "expires_hours", "status"), [(0, 1, 200), (0, -1, 401), (2, 1, 401), (-2, -1, 200)]
)
def test_a_key_expires_by_the_clock_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock_hours: int, expires_hours: int, status: int
) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(hours=clock_hours)

    house = House([("cost_cap", {"limit_usd": "1", "per": "day"})])
    expires_at = datetime.now(UTC) + timedelta(hours=expires_hours)
    ApiKey.objects.filter(pk=house.api_key.pk).update(expires_at=expires_at)
    monkeypatch.setattr(path_module, "datetime", Wrong)

    async def call() -> int:
        async with pipeline(tmp_path) as path:
            return (await path.complete_chat(chat(house.key))).status

    assert run(call) == status
    assert [record.status for record in house.records()] == ["success"] * (status == 200)
    assert house.open_requests() == 0
