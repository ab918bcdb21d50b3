"""Processes to measure: started on free ports, their CPU time and memory read from /proc, ended by pid."""

import os
import signal
import subprocess
import time
from pathlib import Path

import httpx

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Measured:
    """A process and its descendants."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        with log.open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=env, start_new_session=True)
        self.log = log

    def wait_for(self, url: str, seconds: float = 60) -> "Measured":
        """Wait until the URL answers anything below 500."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise SystemExit(f"{self.log} ended:\n{self.log.read_text()[-2000:]}")
            try:
                if httpx.get(url, timeout=1).status_code < 500:
                    return self
            except httpx.HTTPError:
                time.sleep(0.05)
        raise SystemExit(f"{url} did not answer in {seconds} s")

    def cpu_seconds(self) -> float:
        """Return the CPU time of the whole tree, user and system."""
        return sum(cpu_seconds(pid) for pid in tree(self.process.pid))

    def memory_mib(self) -> float:
        """Return the resident memory of the whole tree."""
        return (
            sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in tree(self.process.pid)) * PAGE / 2**20
        )

    def stop(self) -> None:
        """End it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(20)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def tree(root: int) -> list[int]:
    found = [root]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found
