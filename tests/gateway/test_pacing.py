"""Beside others, who has much to do goes on one step in each round of the event loop; nothing else changes for it."""

import asyncio
from typing import Any

import pytest

from apps.gateway.pacing import Pace, Paced
from tests.gateway.test_overload import in_loop


class Work:
    """Something with steps, which notes each in a list that it shares with others."""

    def __init__(self, name: str, said: list[str]) -> None:
        self.name, self.said = name, said

    async def steps(self, count: int) -> str:
        for _ in range(count):
            self.said.append(self.name)
            await asyncio.sleep(0)
        return self.name


@in_loop
async def test_of_those_that_are_paced_one_goes_on_in_each_round_and_all_others_in_every_round() -> None:
    said: list[str] = []
    pace = Pace(lambda: True)
    paced = [asyncio.ensure_future(_await(Paced(Work(name, said).steps(3), pace))) for name in "abcd"]
    other = asyncio.ensure_future(Work("-", said).steps(12))
    assert await asyncio.gather(*paced) == list("abcd")
    await other
    text = "".join(said)
    first, later = text[: text.index("-", 5)], text[text.index("-", 5) :].rstrip("-")
    assert sorted(first) == sorted("abcd-")  # nobody waits for a first step
    assert later.replace("-", "") == "abcdabcd"
    assert [part for part in later.split("-") if len(part) > 1] == []


@in_loop
async def test_where_nobody_has_to_wait_every_step_goes_on_at_once() -> None:
    said: list[str] = []
    pace = Pace(lambda: False)
    await asyncio.gather(*(_await(Paced(Work(name, said).steps(2), pace)) for name in "ab"))
    assert said == list("abab")


@in_loop
async def test_what_the_work_waits_for_comes_back_to_it_be_it_a_result_or_an_error() -> None:
    result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, result.set_result, "here")
    asyncio.get_running_loop().call_later(0.02, failure.set_exception, LookupError("gone"))

    async def work() -> str:
        found = await result
        try:
            await failure
        except LookupError as error:
            return f"{found} and {error}"
        return "not reached"

    assert await Paced(work(), Pace(lambda: True)) == "here and gone"


@in_loop
async def test_an_error_of_the_work_is_the_error_of_whoever_awaits_it() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await Paced(work(), Pace(lambda: True))


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_cancelled_wait_is_the_works_to_clean_up_after_whether_for_a_turn_or_for_something(rounds: int) -> None:
    ends: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(60)
        finally:
            ends.append("cleaned up")

    async def cancelled() -> None:
        pace = Pace(lambda: True)
        task = asyncio.ensure_future(_await(Paced(work(), pace)))
        for _ in range(rounds):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await Paced(Work("next", []).steps(2), pace) == "next"  # the turn that was left holds up nobody

    in_loop(cancelled)()
    assert ends == ["cleaned up"]


async def _await(work: Any) -> Any:
    return await work
