"""A receiver of webhooks over real HTTP, which answers as it is told and remembers what came."""

import json
import threading
import time
from collections import deque
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from uuid import uuid4


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """Answers 204, or what ``script`` says next: a status, or ``"hang"`` for silence."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.script: deque[int | str] = deque()
        self.headers: dict[str, str] = {}
        self.path = f"/{uuid4().hex}"  # what comes for another one, which had the port before, is not counted
        self._ended = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if not self.path.startswith(receiver.path):
                    self.send_error(404)
                    return
                answer = receiver.script.popleft() if receiver.script else 204
                headers = {name.lower(): value for name, value in self.headers.items()}
                path = self.path.removeprefix(receiver.path)
                receiver.received.append(Received(path, headers, body))
                if answer == "hang":
                    receiver._ended.wait(30)
                    return
                self.send_response(int(answer))
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}{self.path}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def wait_for(self, count: int, seconds: float = 20) -> list[Received]:
        """Return what came once there are so many."""
        deadline = time.monotonic() + seconds
        while len(self.received) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(self.received) >= count, f"{len(self.received)} of {count} came"
        return list(self.received)
