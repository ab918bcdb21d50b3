"""The README's examples and its account of the path."""

import ast
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from apps.gateway import pipeline
from tests.docs.documents import document, quoted, table_rows
from tests.services.server import ServerProcess

README = document("README.md")
EXAMPLES = README.section("One allowed and one denied request")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    running = ServerProcess(tmp_path_factory.mktemp("readme"), {"DATABASE_URL": None, "REDIS_URL": None}).start()
    yield running
    running.stop()


def fences(beginning: str) -> list[str]:
    found = re.findall(r"^```\n(.*?)^```$", EXAMPLES, re.MULTILINE | re.DOTALL)
    return [fence for fence in found if fence.startswith(beginning)]


def run(command: str, server: ServerProcess) -> str:
    keys = {"KEY": server.demo["api_key"], "ADMIN_KEY": server.demo["admin_api_key"]}
    command = command.replace("http://127.0.0.1:8000", server.url)
    done = subprocess.run(command, shell=True, env={**os.environ, **keys}, capture_output=True, timeout=30, check=True)
    return done.stdout.decode().replace("\r\n", "\n")


def record(server: ServerProcess, answer: str) -> dict[str, Any]:
    found = re.search(r"^x-request-id: (\S+)$", answer, re.MULTILINE)
    assert found
    headers = {"Authorization": f"Bearer {server.demo['admin_api_key']}"}
    return dict(httpx.get(f"{server.url}/v1/admin/audit-logs/{found[1]}", headers=headers).json())


def parsed(shortened: str) -> Any:
    """JSON that was shortened with dots."""
    return json.loads(re.sub(r",\s*\.\.\.|\.\.\.,\s*", "", shortened))


def holds(whole: Any, part: Any) -> bool:
    """Whether a whole value has everything that a shortened one shows, but for what differs from run to run."""
    if isinstance(part, dict):
        return all(name in _OF_ITS_RUN or holds(whole[name], value) for name, value in part.items())
    if isinstance(part, list):
        return len(whole) >= len(part) and all(any(holds(one, value) for one in whole) for value in part)
    return bool(whole == part)


_OF_ITS_RUN = ("id", "created", "started_ms")
both = pytest.mark.parametrize("number", [0, 1], ids=["allowed", "denied"])


@both
def test_an_example_gives_the_answer_that_is_printed(server: ServerProcess, number: int) -> None:
    answer, printed = run(fences("curl -i")[number], server), fences("HTTP/1.1")[number]
    head, _, body = answer.partition("\n\n")
    printed_head, _, printed_body = printed.partition("...\n")
    assert head.splitlines()[0] == printed_head.splitlines()[0]
    for name, value in re.findall(r"^([\w-]+): (.+)$", printed_head, re.MULTILINE):
        found = re.search(rf"^{name}: (.+)$", head, re.MULTILINE)
        assert found, name
        assert name in ("x-request-id", "x-ratelimit-remaining") or found[1] == value
    assert holds(json.loads(body), parsed(printed_body))


@both
def test_an_example_leaves_the_record_that_is_printed(server: ServerProcess, number: int) -> None:
    left = record(server, run(fences("curl -i")[number], server))
    printed = parsed("{" + fences('"id": ')[number] + "}")
    assert printed["status"] == ("success", "blocked")[number]
    assert holds(left, printed)
    assert printed["attempts"] or not left["attempts"]


def test_the_records_of_the_examples_are_redacted(server: ServerProcess) -> None:
    for command in fences("curl -i"):
        run(command, server)
    trail = run(fences("curl -s")[0], server)
    assert "[EMAIL]" in trail
    assert "[SECRET]" in trail
    assert "jane.doe" not in trail
    assert "AKIAZQ3DRSTUVWXY2345" not in trail


def test_the_stages_are_those_of_the_pipeline_in_their_order() -> None:
    named = [quoted(row[0])[0] for row in table_rows(README.section("The path of a request"))[1:]]
    assert pipeline.__file__
    tree = ast.parse(Path(pipeline.__file__).read_text())
    through = next(n for n in ast.walk(tree) if isinstance(n, ast.AsyncFunctionDef) and n.name == "_through")
    called = [c.func for c in ast.walk(through) if isinstance(c, ast.Call) and isinstance(c.func, ast.Attribute)]
    assert named == [f.attr for f in sorted(called, key=lambda f: f.lineno) if ast.unparse(f.value) == "self"]
