"""``python -m bench.path``: what it costs a request that its record keeps the path it went.

Notes nine stages, puts the column together twice (for the intent and for the record) and writes it as JSON twice, as
the path does. Each figure is the least of its rounds: what the machine was busy with adds, and never takes away.
"""

import os
import time
from collections.abc import Callable

import django

ROUNDS, REQUESTS = 60, 2000


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    django.setup()
    from apps.audit.rows import encode_rows
    from apps.gateway.exchange import Exchange
    from apps.gateway.why import STAGES

    exchange = Exchange("chat.completions")

    def note() -> None:
        exchange.stages = {}
        for stage in STAGES:
            exchange.begin(stage)

    def columns() -> None:
        exchange.path()
        exchange.path()

    def write() -> None:
        encode_rows(path)
        encode_rows(path)

    note()
    path = {"path": exchange.path()}
    for name, work in (("nine stages noted", note), ("the column, twice", columns), ("as JSON, twice", write)):
        print(f"{name:<20} {_microseconds(work):6.2f} µs a request")
    print(f"{len(encode_rows(path))} bytes")


def _microseconds(work: Callable[[], None]) -> float:
    least = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(REQUESTS):
            work()
        least = min(least, (time.process_time() - began) / REQUESTS * 1e6)
    return least


if __name__ == "__main__":
    main()
