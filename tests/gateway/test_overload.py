"""What is beyond a process is sent away at once, by a named signal, and one organization does not crowd out another."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from django.test import Client, override_settings
from prometheus_client import REGISTRY

from apps.gateway.admission import BURST_ROOM, BURST_SECONDS, Admission, Ticket
from apps.gateway.errors import Overloaded
from apps.gateway.runtime import BACKGROUND
from tests.gateway.house import House, Request, chat, pipeline, read_all, run
from tests.services.server import ServerProcess, fresh_database

ONE, OTHER = uuid4(), uuid4()


class Gate:
    """An admission with a clock and a journal that a test sets."""

    def __init__(self, in_flight: int = 1, held: int = 1000) -> None:
        self.now = self.age = 0.0
        self.admission = Admission(
            in_flight=in_flight,
            held=held,
            longest_queue_age=0.5,
            queue_age=lambda: self.age,
            clock=lambda: self.now,
        )
        self.order: list[UUID] = []

    async def enter(self, organization: UUID = ONE) -> Ticket:
        ticket = await self.admission.enter(lambda: organization)
        self.order.append(organization)
        return ticket

    async def queue(self, *organizations: UUID) -> "list[asyncio.Task[Ticket]]":
        """Let requests come one after the other, each until it waits or has been let in."""
        tasks = []
        for organization in organizations:
            tasks.append(asyncio.ensure_future(self.enter(organization)))
            await asyncio.sleep(0)
        return tasks

    async def signal(self, organization: UUID = ONE) -> str:
        """Return the signal that sends a request away."""
        with pytest.raises(Overloaded) as caught:
            await self.enter(organization)
        return str(caught.value.details["signal"])

    async def overload(self) -> None:
        """Wait until the burst is one no more."""
        self.now += BURST_SECONDS + 0.1


async def signals(tasks: "list[asyncio.Task[Ticket]]") -> list[str]:
    """Return why each was sent away, ``""`` for who was not or still waits."""
    await asyncio.sleep(0)
    errors = [t.exception() if t.done() else None for t in tasks]
    return [str(e.details["signal"]) if isinstance(e, Overloaded) else "" for e in errors]


def in_loop(work: Callable[[], Awaitable[Any]]) -> Callable[[], None]:
    """Run a test's coroutine; what still waits at its end is cancelled."""

    def test() -> None:
        run(work)

    test.__name__, test.__doc__ = getattr(work, "__name__", "test"), work.__doc__
    return test


@in_loop
async def test_a_burst_waits_for_its_turn_and_nobody_is_sent_away() -> None:
    gate = Gate(in_flight=2)
    tickets = [await gate.enter(), await gate.enter()]
    waiting = await gate.queue(*[ONE] * 2 * BURST_ROOM)
    assert not any(task.done() for task in waiting)
    for task in waiting:
        tickets.pop(0).close()
        tickets.append(await task)
    assert gate.admission.working == 2


@in_loop
async def test_a_burst_beyond_the_room_is_sent_away_at_once() -> None:
    gate = Gate(in_flight=1)
    await gate.enter()
    waiting = await gate.queue(*[ONE] * BURST_ROOM)
    assert await gate.signal() == "in_flight"
    assert await signals(waiting) == [""] * BURST_ROOM


@in_loop
async def test_a_room_that_does_not_become_empty_is_overload_and_lets_few_wait() -> None:
    gate = Gate(in_flight=16)
    for _ in range(16):
        await gate.enter()
    waiting = await gate.queue(*[ONE] * 16 * BURST_ROOM)
    await gate.overload()
    assert await gate.signal() == "in_flight"
    (neighbour,) = await gate.queue(OTHER)
    assert await signals(waiting) == [""] + ["fair_share"] + ["in_flight"] * (16 * BURST_ROOM - 2)
    assert not neighbour.done()


@in_loop
async def test_overload_ends_when_nobody_had_to_be_sent_away_for_a_while() -> None:
    gate = Gate(in_flight=1)
    ticket = await gate.enter()
    (waiting,) = await gate.queue(ONE)
    await gate.overload()
    await gate.signal()
    ticket.close()
    await waiting
    assert gate.admission.overloaded
    gate.now += BURST_SECONDS + 0.1
    assert not gate.admission.overloaded


@in_loop
async def test_places_go_to_organizations_in_turn() -> None:
    gate = Gate(in_flight=1)
    ticket = await gate.enter()
    waiting = await gate.queue(ONE, ONE, ONE, OTHER)
    gate.order.clear()
    while waiting:
        ticket.close()
        (let_in,), others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        ticket, waiting = let_in.result(), list(others)
    assert gate.order == [ONE, OTHER, ONE, ONE]


@in_loop
async def test_the_last_of_the_longest_queue_makes_room_for_a_neighbour() -> None:
    gate = Gate(in_flight=1)
    await gate.enter()
    waiting = await gate.queue(*[ONE] * BURST_ROOM)
    (neighbour,) = await gate.queue(OTHER)
    assert await signals(waiting) == [""] * (BURST_ROOM - 1) + ["fair_share"]
    assert not neighbour.done()


@in_loop
async def test_while_several_organizations_wait_fewer_are_at_work() -> None:
    gate = Gate(in_flight=16)
    for _ in range(16):
        await gate.enter()
    await gate.queue(ONE)
    await gate.overload()
    assert gate.admission.places == 16
    await gate.queue(OTHER)
    assert gate.admission.places == 4
    gate.now += BURST_SECONDS
    assert gate.admission.places == 16


@in_loop
async def test_who_asks_for_little_beside_a_flood_goes_past_the_room_and_is_not_paced() -> None:
    gate = Gate(in_flight=32)
    flood = [await gate.enter() for _ in range(32)]
    waiting = await gate.queue(ONE, ONE)
    await gate.overload()
    (first,) = await gate.queue(OTHER)
    waiting += await gate.queue(ONE, ONE)
    light = [await gate.enter(OTHER) for _ in range(8)]
    (ninth,) = await gate.queue(OTHER)
    assert not ninth.done()  # so many go past the room, and no more
    light[0].step_aside()
    light.append(await gate.enter(OTHER))
    for ticket in flood:
        ticket.close()
    assert [(await task).paced for task in waiting] == [False, False, True, True]  # two came before it
    assert not any(ticket.paced for ticket in (*light, await first, await ninth))


@in_loop
async def test_who_waits_behind_a_longer_queue_is_not_sent_away_with_it() -> None:
    gate = Gate(in_flight=32)
    for _ in range(32):
        await gate.enter()
    first = await gate.queue(ONE)
    await gate.overload()
    waiting = await gate.queue(OTHER, ONE, ONE)
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0.1)
    assert await signals([*first, *waiting]) == ["", "", "in_flight", "in_flight"]


@in_loop
async def test_an_old_queue_of_the_journal_sends_everyone_away() -> None:
    gate = Gate()
    gate.age = 0.6
    assert await gate.signal() == "journal_queue_age"


@in_loop
async def test_who_waits_for_somebody_else_leaves_the_place_and_comes_back_without_a_queue() -> None:
    gate = Gate(in_flight=1)
    ticket = await gate.enter()
    with ticket.aside():
        assert gate.admission.working == 1  # what is there at once is no wait
    with ticket.aside():
        await asyncio.sleep(0)
        await gate.enter()
    assert gate.admission.working == 2


@in_loop
async def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    gate = Gate(in_flight=1)
    ticket = await gate.enter()
    gone, let_in = await gate.queue(ONE, ONE)
    gone.cancel()
    await asyncio.sleep(0)
    ticket.close()
    let_in.cancel()  # in the moment it was given the place
    await asyncio.gather(gone, let_in, return_exceptions=True)
    assert (gate.admission.working, gate.admission.held, gate.admission.waiting) == (0, 0, 0)


class Unread(Request):
    """A request whose body must not be read."""

    async def body(self) -> bytes:
        raise AssertionError("The body was read.")


def test_who_is_sent_away_is_told_why_counted_and_not_recorded(tmp_path: Path) -> None:
    house = House()
    before = _shed("journal_queue_age")

    async def shed() -> Any:
        full = Admission(in_flight=1, held=1, longest_queue_age=0.5, queue_age=lambda: 1.0)
        async with pipeline(tmp_path, admission=full) as path:
            return await path.complete_chat(Unread(house.key, b""))

    answer = run(shed)
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"], error["details"]) == (
        503,
        "SERVICE_UNAVAILABLE",
        {"signal": "journal_queue_age"},
    )
    assert {"x-request-id", "retry-after"} <= dict(answer.headers).keys()
    assert house.records() == []
    assert _shed("journal_queue_age") == before + 1


def test_open_streams_are_held_beyond_what_is_at_work_up_to_a_number_of_their_own(tmp_path: Path) -> None:
    house = House()

    async def three_streams() -> list[int]:
        gate = Gate(in_flight=1, held=2)
        async with pipeline(tmp_path, admission=gate.admission) as path:
            ask = lambda: path.complete_chat(chat(house.key, "sim-stream-2", stream=True))  # noqa: E731
            first, second, third = await ask(), await ask(), await ask()
            assert first.stream is not None
            assert second.stream is not None
            await read_all(first)
            first.stream.close()
            fourth = await ask()
            for answer in (second, fourth):
                await read_all(answer)
                assert answer.stream is not None
                answer.stream.close()
            assert (gate.admission.working, gate.admission.held) == (0, 0)
            return [answer.status for answer in (first, second, third, fourth)]

    assert run(three_streams) == [200, 200, 503, 200]


def test_a_slow_provider_does_not_keep_others_from_their_work(tmp_path: Path) -> None:
    house = House()

    async def quick_beside_slow() -> int:
        async with pipeline(tmp_path, admission=Gate(in_flight=1).admission) as path:
            slow = asyncio.ensure_future(path.complete_chat(chat(house.key, "sim-slow-60000")))
            while not house_is_calling(path.admission):
                await asyncio.sleep(0.01)
            quick = await path.complete_chat(chat(house.key))
            assert not slow.done()
            slow.cancel()
            await asyncio.gather(slow, return_exceptions=True)
            return quick.status

    def house_is_calling(admission: Admission) -> bool:
        return admission.held == 1 and admission.working == 0

    assert run(quick_beside_slow) == 200


def test_every_way_out_gives_the_place_back(tmp_path: Path) -> None:
    house = House()

    async def many_ways() -> tuple[int, int]:
        gate = Gate(in_flight=8)
        async with pipeline(tmp_path, admission=gate.admission) as path:
            await path.complete_chat(chat(house.key))
            await path.complete_chat(chat(house.key, "no-such-model"))
            await path.complete_chat(chat("lcp_wrong"))
            await path.complete_chat(Request(house.key, b"no JSON"))
            await path.complete_chat(chat(house.key, "sim-error-500"))
            await path.list_models(chat(house.key))
        return gate.admission.working, gate.admission.held

    assert run(many_ways) == (0, 0)


@pytest.fixture
def background() -> Iterator[None]:
    """A runtime of the WSGI door that this test alone uses."""
    BACKGROUND.stop()
    yield
    BACKGROUND.stop()


@pytest.mark.usefixtures("background")
def test_the_wsgi_door_sends_away_as_well() -> None:
    with override_settings(MAX_HELD=0):
        answer = Client().post("/v1/chat/completions", b"{}", content_type="application/json")
    assert (answer.status_code, answer.json()["error"]["details"]) == (503, {"signal": "in_flight"})


def test_health_admin_and_api_answer_while_every_request_is_sent_away(tmp_path: Path) -> None:
    front_end = "https://console.example.com"
    settings = {"MAX_HELD": "0", "DATABASE_URL": fresh_database(), "FRONT_END_URL": front_end}
    server = ServerProcess(tmp_path, settings).start()
    try:
        with httpx.Client(base_url=server.url, timeout=20) as client:
            for page in ({}, {"origin": front_end}):
                shed = client.post("/v1/chat/completions", json={}, headers=page)
                assert (shed.status_code, shed.json()["error"]["details"]) == (503, {"signal": "in_flight"})
                assert shed.headers.get("access-control-allow-origin") == page.get("origin")
            pages = {"/health": {}, "/health/ready": {}, "/admin/login/": {}}
            api = {"/v1/admin/policies": {"Authorization": f"Bearer {server.demo['admin_api_key']}"}}
            answers = {
                path: client.get(path, headers=headers).status_code for path, headers in {**pages, **api}.items()
            }
            assert set(answers.values()) == {200}
    finally:
        server.stop()


def _shed(signal: str) -> float:
    return REGISTRY.get_sample_value("lcp_shed_total", {"signal": signal}) or 0.0
