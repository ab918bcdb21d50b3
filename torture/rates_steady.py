"""Rate limits over four processes: a minute at twice the limit, and bursts."""

import asyncio
import os
from collections import Counter
from pathlib import Path
from uuid import uuid4

import httpx

from tests.gateway.everywhere import BODY, everywhere
from tests.rates.take_steadily import take_steadily
from torture import Figures, long_test

PROCESSES, LIMIT, SECONDS = 4, 100, 60.0
BURSTS, BURST = 20, 50


@long_test(180)
def twice_a_rate_limit_is_admitted_up_to_it(_: Path) -> Figures:
    """Within 1 % of the limit over a minute, and no sliding window holds more than the limit and one."""
    seen = take_steadily(
        os.environ["REDIS_URL"], f"torture-{uuid4()}", limit=LIMIT, processes=PROCESSES, seconds=SECONDS
    )
    allowed = LIMIT * seen.seconds
    figures = {
        "asked": seen.asked,
        "admitted": len(seen.admitted),
        "of the limit": f"{len(seen.admitted) / allowed:.2%}",
        "most in a window": seen.most_in_a_window(),
    }
    # Above: the first window is free at once. Below: what is free is taken when somebody asks, 5 ms later at most.
    assert 0.99 * allowed <= len(seen.admitted) <= 1.01 * allowed + LIMIT, figures
    assert seen.most_in_a_window() <= LIMIT + 1, figures
    return figures


@long_test(300)
def a_burst_over_four_servers_is_admitted_exactly_to_the_limit(folder: Path) -> Figures:
    """Of three times the limit at once, over four servers, exactly the limit is admitted.

    A Redis that a starved machine keeps waiting refuses here; it would let each process count its share.
    """
    with everywhere(folder, MAX_IN_FLIGHT="256", RATES_WHEN_REDIS_FAILS="closed") as servers:
        rounds = []
        for _ in range(BURSTS):
            config = {"requests": BURST, "per": "minute"}
            fields = {"organization": servers.organization, "name": f"burst {uuid4()}", "kind": "rate_limit"}
            policy = servers.change("POST", "/policies", {**fields, "config": config})
            urls = [server.url for server in servers.servers]
            rounds.append(asyncio.run(_burst(urls, servers.key["key"], 3 * BURST)))
            servers.change("DELETE", f"/policies/{policy['id']}")
    over = [counts for counts in rounds if counts[200] > BURST]
    clean = [counts for counts in rounds if not counts[503]]
    wrong = [counts for counts in clean if counts != Counter({200: BURST, 429: 2 * BURST})]
    assert not over, over
    assert not wrong, wrong
    return {"bursts": BURSTS, "of": 3 * BURST, "admitted": BURST, "undisturbed": len(clean)}


async def _burst(urls: list[str], key: str, count: int) -> Counter[int]:
    headers = {"Authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(headers=headers, timeout=60, limits=limits) as client:
        asked = [client.post(f"{urls[n % len(urls)]}/v1/chat/completions", json=BODY) for n in range(count)]
        return Counter(answer.status_code for answer in await asyncio.gather(*asked))
