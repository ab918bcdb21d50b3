"""Which provider a request goes to, and to which one next."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction

from apps.audit.money import usd_from_nano
from apps.gateway.models import ModelRoute
from apps.gateway.transport import Timeouts, Transport
from apps.orgs.models import ProviderCredential
from apps.policies.models import Budget, Price
from tests.gateway.house import LOOPBACK, House, chat, pipeline, read_all, run
from tests.mock_upstream import Behaviour, MockUpstream

CHEAP, DEAR = 1000, 5000
"""Prices of a token of either provider, in nano-USD."""


class Served(House):
    """A tenant whose model "assistant" a first provider serves, and a second one if that fails."""

    def __init__(self, first: MockUpstream, second: MockUpstream) -> None:
        super().__init__([("cost_cap", {"limit_usd": "1", "per": "total"})], allow=("*",))
        self.first = self.serve(first, "small", CHEAP, priority=0)
        self.second = self.serve(second, "large", DEAR, priority=1)

    def serve(self, upstream: MockUpstream, name: str, price: int, **route: Any) -> ProviderCredential:
        credential = ProviderCredential(
            organization=self.organization, name=name, provider="openai_compatible", base_url=upstream.base_url
        )
        with transaction.atomic():
            credential.set_secret(f"secret of {name} {uuid4()}")
            credential.save()
        rates = {"input_nano_usd": price * 10**6, "output_nano_usd": price * 10**6}
        Price.objects.get_or_create(provider="openai_compatible", model=name, defaults=rates)
        ModelRoute.objects.create(
            organization=self.organization,
            credential=credential,
            upstream_model=name,
            **{"model": "assistant", **route},
        )
        return credential


@pytest.fixture
def upstreams() -> Iterator[tuple[MockUpstream, MockUpstream]]:
    with MockUpstream() as first, MockUpstream() as second:
        yield first, second


def ask(
    house: House, folder: Path, model: str = "assistant", parts: dict[str, Any] | None = None, **fields: Any
) -> tuple[int, dict[str, str], bytes]:
    async def call() -> tuple[int, dict[str, str], bytes]:
        async with pipeline(folder, **(parts or {})) as path:
            answer = await path.complete_chat(chat(house.key, model, max_tokens=50, **fields))
            return answer.status, dict(answer.headers), await read_all(answer)

    return run(call)


def impatient(first_byte: float = 0.4) -> dict[str, Any]:
    """Return the parts of a pipeline that waits so many seconds for a provider."""
    return {"transport": Transport(timeouts=Timeouts(first_byte=first_byte), allowed_networks=[LOOPBACK])}


def spent(house: House) -> int:
    return Budget.objects.get(organization_id=house.organization.id).spent_nano_usd


@pytest.mark.parametrize(
    "failure",
    [Behaviour(status=500), Behaviour(status=429), Behaviour(status=401)],
)
@pytest.mark.parametrize("stream", [False, True])
def test_where_the_first_target_fails_the_next_one_answers_and_is_paid(
    tmp_path: Path, upstreams: tuple[MockUpstream, MockUpstream], failure: Behaviour, stream: bool
) -> None:
    house = Served(*upstreams)
    upstreams[0].script(failure)
    upstreams[1].script(Behaviour(input_tokens=7, output_tokens=11))
    status, _, _ = ask(house, tmp_path, stream=stream)
    record = house.only_record()
    assert (status, record.status, record.upstream_model) == (200, "success", "large")
    assert [attempt["model"] for attempt in record.attempts] == ["small", "large"]
    assert record.attempts[0]["fault"]
    assert record.cost_nano_usd == (7 + 11) * DEAR
    assert (record.model, upstreams[0].calls[0].json["model"]) == ("assistant", "small")


@pytest.mark.parametrize("silence", [Behaviour(breaks="headers"), Behaviour(hang="headers")])
def test_a_target_that_may_have_billed_is_paid_its_worst_case_beside_the_one_that_answers(
    tmp_path: Path, upstreams: tuple[MockUpstream, MockUpstream], silence: Behaviour
) -> None:
    house = Served(*upstreams)
    upstreams[0].script(silence)
    upstreams[1].script(Behaviour(input_tokens=7, output_tokens=11))
    assert ask(house, tmp_path, parts=impatient())[0] == 200
    record = house.only_record()
    silent, answered = record.attempts
    assert silent["worst_case_nano_usd"] > 50 * CHEAP
    assert "worst_case_nano_usd" not in answered
    assert record.cost_nano_usd == silent["worst_case_nano_usd"] + (7 + 11) * DEAR
    assert (record.tokens_output, record.usage_source, record.overrun_nano_usd) == (11, "provider", 0)
    assert spent(house) == record.cost_nano_usd


def test_a_cap_that_does_not_reach_for_every_target_refuses(
    tmp_path: Path, upstreams: tuple[MockUpstream, MockUpstream]
) -> None:
    house = Served(*upstreams)
    upstreams[0].script(Behaviour(hang="headers"))
    upstreams[1].script(Behaviour(hang="headers"))
    assert ask(house, tmp_path, parts=impatient())[0] == 504
    both = house.only_record().cost_nano_usd
    assert both == spent(house)
    for limit, status in ((both - 1, 429), (both + 1, 504)):
        poor = Served(*upstreams)
        poor.add("cost_cap", {"limit_usd": usd_from_nano(limit), "per": "total"})
        upstreams[0].script(*[Behaviour(hang="headers")] * (status == 504))
        upstreams[1].script(*[Behaviour(hang="headers")] * (status == 504))
        assert ask(poor, tmp_path, parts=impatient())[0] == status


def test_one_deadline_holds_for_all_targets_together(
    tmp_path: Path, upstreams: tuple[MockUpstream, MockUpstream]
) -> None:
    house = Served(*upstreams)
    upstreams[0].script(Behaviour(hang="headers"))
    upstreams[1].script(Behaviour(delay=1.2))
    parts = {**impatient(first_byte=0.8), "deadline_seconds": 1.5}
    status, _, body = ask(house, tmp_path, parts=parts)
    assert (status, json.loads(body)["error"]["code"]) == (504, "PROVIDER_TIMEOUT")
    assert [attempt["fault"] for attempt in house.only_record().attempts] == ["timeout", "timeout"]


def test_once_the_deadline_has_passed_no_other_target_is_tried(
    tmp_path: Path, upstreams: tuple[MockUpstream, MockUpstream]
) -> None:
    house = Served(*upstreams)
    upstreams[0].script(Behaviour(hang="headers"))
    assert ask(house, tmp_path, parts={"deadline_seconds": 0.5})[0] == 504
    assert upstreams[1].calls == []
    assert house.only_record().usage_source == "worst_case"


def test_a_stream_that_waits_for_its_client_is_settled_at_the_deadline(
    tmp_path: Path, upstreams: tuple[MockUpstream, MockUpstream]
) -> None:
    house = Served(*upstreams)
    upstreams[0].script(Behaviour(words=1000, gap=0.01))

    async def call() -> bytes:
        async with pipeline(tmp_path, deadline_seconds=0.5) as path:
            answer = await path.complete_chat(chat(house.key, "assistant", max_tokens=1000, stream=True))
            assert answer.stream is not None
            await anext(answer.stream)
            while not await asyncio.to_thread(house.records):
                await asyncio.sleep(0.02)
            rest = await read_all(answer)
            answer.stream.close()
            return rest

    rest = run(call)
    assert b"PROVIDER_TIMEOUT" in rest
    assert b"[DONE]" not in rest
    record = house.only_record()
    assert (record.status, record.error_code) == ("error", "PROVIDER_TIMEOUT")
    assert record.cost_nano_usd == spent(house) == (record.tokens_input + record.tokens_output) * CHEAP


def test_a_request_that_the_provider_refuses_is_not_taken_to_the_next_one(
    tmp_path: Path, upstreams: tuple[MockUpstream, MockUpstream]
) -> None:
    house = Served(*upstreams)
    upstreams[0].script(Behaviour(status=422))
    status, _, body = ask(house, tmp_path)
    assert (status, json.loads(body)["error"]["code"]) == (422, "PROVIDER_ERROR")
    assert upstreams[1].calls == []
    assert house.only_record().cost_nano_usd == 0


def test_a_stream_that_breaks_once_it_has_begun_is_not_begun_anew(
    tmp_path: Path, upstreams: tuple[MockUpstream, MockUpstream]
) -> None:
    house = Served(*upstreams)
    upstreams[0].script(Behaviour(words=5, breaks="stream", after=2))
    _, _, body = ask(house, tmp_path, stream=True)
    assert b"[DONE]" not in body
    assert upstreams[1].calls == []
    assert house.only_record().status == "error"


def test_where_every_target_fails_the_last_failure_is_answered_and_nothing_charged(
    tmp_path: Path, upstreams: tuple[MockUpstream, MockUpstream]
) -> None:
    house = Served(*upstreams)
    upstreams[0].script(Behaviour(status=500))
    upstreams[1].script(Behaviour(status=503))
    status, _, _ = ask(house, tmp_path)
    record = house.only_record()
    assert (status, record.status, record.cost_nano_usd) == (502, "error", 0)
    assert [attempt["status"] for attempt in record.attempts] == [500, 503]


def test_the_most_particular_name_decides(tmp_path: Path, upstreams: tuple[MockUpstream, MockUpstream]) -> None:
    house = Served(*upstreams)
    house.serve(upstreams[1], "everything else", CHEAP, model="*")
    assert ask(house, tmp_path)[0] == 200
    assert house.only_record().upstream_model == "small"
    assert ask(house, tmp_path, "anything")[0] == 200
    assert house.records()[-1].upstream_model == "everything else"


def test_an_unreadable_credential_is_passed_over_and_alone_it_is_a_503(
    tmp_path: Path, upstreams: tuple[MockUpstream, MockUpstream]
) -> None:
    house = Served(*upstreams)
    # What was encrypted for one row does not open in another.
    ProviderCredential.objects.filter(id=house.first.id).update(encrypted_secret=house.second.encrypted_secret)
    assert ask(house, tmp_path)[0] == 200
    assert house.only_record().upstream_model == "large"
    ModelRoute.objects.filter(credential=house.second).delete()
    status, headers, body = ask(house, tmp_path)
    assert (status, json.loads(body)["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert int(headers["retry-after"]) >= 1
    assert upstreams[0].calls == []


def test_a_route_without_a_credential_names_the_field() -> None:
    with pytest.raises(ValidationError) as refused:
        ModelRoute(model="assistant").full_clean()
    assert "credential" in refused.value.error_dict


def test_a_route_to_anothers_credential_names_the_field(upstreams: tuple[MockUpstream, MockUpstream]) -> None:
    house, other = Served(*upstreams), House()
    with pytest.raises(ValidationError) as refused:
        ModelRoute(organization=other.organization, model="assistant", credential=house.first).full_clean()
    assert "credential" in refused.value.error_dict
