"""A static OpenAI-compatible upstream, cheap enough not to be what is measured: ``python -m bench.upstream PORT``.

Whole answers come at once; streamed ones as 50 chunks, 20 ms apart, with usage if asked for.
"""

import asyncio
import json
import sys

import uvloop

CHUNKS, PAUSE_SECONDS = 50, 0.02
ANSWER_TEXT = (
    "Lisbon lies on the Tagus, a few kilometres before the river meets the Atlantic. "
    "It has been the country's capital since the thirteenth century. Shall I list three museums?"
)
ENVELOPE = {"id": "chatcmpl-bench", "created": 1_790_000_000, "model": "gpt-4o-mini-2024-07-18"}
USAGE = {"prompt_tokens": 40, "completion_tokens": 50, "total_tokens": 90}


def whole() -> bytes:
    message = {"role": "assistant", "content": ANSWER_TEXT, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = json.dumps({**ENVELOPE, "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def event(**fields: object) -> bytes:
    data = b"data: " + json.dumps({**ENVELOPE, "object": "chat.completion.chunk", **fields}).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def delta(content: dict, finish: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": content, "finish_reason": finish}])


WHOLE = whole()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
FIRST, MIDDLE, LAST = delta({"role": "assistant", "content": ""}), delta({"content": " word"}), delta({}, "stop")
END = event(choices=[], usage=USAGE) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Upstream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            self.answer(b'"stream":true' in body.replace(b" ", b""))

    def answer(self, streamed: bool) -> None:
        if streamed:
            self.task = asyncio.ensure_future(self.stream())
        else:
            self.transport.write(WHOLE)

    async def stream(self) -> None:
        self.transport.write(HEAD + FIRST)
        for _ in range(CHUNKS - 2):
            await asyncio.sleep(PAUSE_SECONDS)
            self.transport.write(MIDDLE)
        self.transport.write(LAST + END)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
