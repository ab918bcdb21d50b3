"""A Lambda function on this machine: a fresh interpreter that starts cold, and is frozen between two events."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA_DIR = "/tmp/llm-control-plane"
_SAVE_SETTINGS = """
import sys
from zappa.cli import ZappaCLI
cli = ZappaCLI()
cli.load_credentials = False
cli.api_stage, path = sys.argv[1:]
cli.load_settings("zappa_settings.json")
cli.save_python_settings_file(path)
"""


class FunctionError(Exception):
    """The handler raised: the function's caller learns the error's type and message."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message


def save_stage(stage: str, folder: Path) -> Path:
    """Write a stage's zappa_settings.py as Zappa packages it; return its folder.

    A function has its ``/tmp`` for itself and this machine's is shared, so its data goes below the folder instead.
    """
    settings = folder / "zappa_settings.py"
    command = [sys.executable, "-c", _SAVE_SETTINGS, stage, str(settings)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    packaged = settings.read_text()
    assert DATA_DIR in packaged
    settings.write_text(packaged.replace(DATA_DIR, str(folder / "data")))
    return folder


class LambdaFunction:
    """One instance of the function. Its configuration is ``environment``, which ``None`` removes variables from."""

    def __init__(self, package: Path, environment: dict[str, str | None]) -> None:
        merged = {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{ROOT}", **environment}
        self.environment = {name: value for name, value in merged.items() if value is not None}
        self._process: subprocess.Popen[str] | None = None
        self.log = package / f"function-{id(self)}.log"

    def invoke(self, event: Any) -> Any:
        """Send an event, wait for the answer, and leave the process frozen. Raises `FunctionError`."""
        process = self.send(event)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise FunctionError("Runtime.ExitError", self.log.read_text()[-2000:])
        os.waitpid(process.pid, os.WUNTRACED)
        answer = json.loads(line)
        if "answer" not in answer:
            raise FunctionError(answer["errorType"], answer["errorMessage"])
        return answer["answer"]

    def send(self, event: Any) -> "subprocess.Popen[str]":
        """Send an event and wait for nothing; return the process."""
        process = self._thaw()
        assert process.stdin is not None
        process.stdin.write(json.dumps(event) + "\n")
        process.stdin.flush()
        return process

    def stop(self) -> None:
        """End the process at once, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def _thaw(self) -> "subprocess.Popen[str]":
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            return self._process
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.aws.bootstrap"],
                env=self.environment,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        return self._process
