"""A lemond that lists what it is told: for tests and benchmarks that run their own model servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the listing."""

    port: int
    pid: int
    recipe: str = "llamacpp"
    checkpoint: str = "checkpoint"


class ListingLemond:
    """Async context manager. `table` is what `/v1/health` shows, `catalogue` what `/v1/models` does.
    `on_load` is awaited by `/v1/load`; what it raises is the load's failure."""

    def __init__(self, catalogue: tuple[str, ...] = (), *, version: str = "9.0.0") -> None:
        self.table: dict[str, Listed] = {}
        self.catalogue = catalogue
        self.on_load: Callable[[str], Awaitable[None]] | None = None
        self.on_unload: Callable[[str], Awaitable[None]] | None = None
        self.url = ""
        self._version = version
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> ListingLemond:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def health(self) -> dict[str, Any]:
        """The listing's body."""
        entries = [
            {
                "model_name": model,
                "backend_url": f"http://127.0.0.1:{listed.port}/v1",
                "pid": listed.pid,
                "type": "llm",
                "device": "cpu",
                "recipe": listed.recipe,
                "checkpoint": listed.checkpoint,
                "recipe_options": {},
                "last_use": 1,
            }
            for model, listed in self.table.items()
        ]
        return {"status": "ok", "version": self._version, "all_models_loaded": entries}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, path, _ = head.split(" ", 2)
            length = 0
            for line in head.split("\r\n"):
                if line.lower().startswith("content-length:"):
                    length = int(line.partition(":")[2])
            body = await reader.readexactly(length)
            status, answer = await self._answer(method, path, body)
            data = json.dumps(answer).encode()
            writer.write(b"HTTP/1.1 %d -\r\nContent-Type: application/json\r\n" % status)
            writer.write(b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(data) + data)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if path == "/v1/health":
            return 200, self.health()
        if path.startswith("/v1/models"):
            rows = [{"id": model, "object": "model"} for model in self.catalogue]
            return 200, {"object": "list", "data": rows}
        if path in ("/v1/load", "/v1/unload") and method == "POST":
            model = str(json.loads(body)["model_name"])
            act = self.on_load if path == "/v1/load" else self.on_unload
            if act is not None:
                try:
                    await act(model)
                except RuntimeError as error:
                    return 500, {"error": {"message": str(error), "type": "model_load_error"}}
            elif path == "/v1/unload":
                self.table.pop(model, None)
            return 200, {"status": "success", "model_name": model}
        return 404, {"error": {"message": "not found"}}


__all__ = ["Listed", "ListingLemond"]
