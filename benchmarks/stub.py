"""A model server that costs next to nothing: short JSON answers, or events as fast or as slow as asked.

Usage: stub.py PORT. A body with `"stream"` is answered with `chunks` events, `interval_ms` apart.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop

ANSWER = json.dumps(
    {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.015625] * 40}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
).encode()
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(ANSWER),
    ANSWER,
)
DELTA = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1, "model": "bench-model"}
EVENT = (
    b"data: %b\n\n" % json.dumps({**DELTA, "choices": [{"index": 0, "delta": {"content": "word "}}]}).encode()
)
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Stub(asyncio.Protocol):
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.buffer = b""
        self.free = asyncio.Event()
        self.free.set()
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def pause_writing(self) -> None:
        self.free.clear()

    def resume_writing(self) -> None:
        self.free.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.free.set()
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        lower = self.buffer[:end].lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.buffer) < end + 4 + length:
            return
        body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
        if b'"stream"' in body:
            self.task = self.loop.create_task(self.stream(json.loads(body)))
        else:
            self.transport.write(PLAIN)

    async def stream(self, body: dict[str, float]) -> None:
        self.transport.write(HEAD)
        interval = float(body.get("interval_ms", 0)) / 1000
        due = self.loop.time()
        for _ in range(int(body.get("chunks", 100))):
            if interval:
                due += interval
                await asyncio.sleep(max(0.0, due - self.loop.time()))
            else:
                await self.free.wait()
                await asyncio.sleep(0)
            self.transport.write(CHUNK)
        self.transport.write(END)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    uvloop.run(main(int(sys.argv[1])))
