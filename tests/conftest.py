"""Real processes for the tests: simulated lemonds and services, started and ended by fixtures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from lemond_adapter.simulator import SimulatorProcess

LIMIT_S = 30.0


class ServiceProcess:
    """`lemond-adapter serve` as a process of its own."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self._arguments = arguments
        self._environment = {**os.environ, **(environment or {})}
        self.process: asyncio.subprocess.Process | None = None
        self.url = ""
        self.ready_line = ""
        self.stderr = bytearray()
        self._drain: asyncio.Task[None] | None = None

    async def start(self) -> None:
        command = [sys.executable, "-m", "lemond_adapter", "serve", "--listen", "127.0.0.1:0"]
        self.process = await asyncio.create_subprocess_exec(
            *command,
            *self._arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        assert self.process.stdout is not None
        self._drain = asyncio.create_task(self._read_errors())
        line = await asyncio.wait_for(self.process.stdout.readline(), LIMIT_S)
        self.ready_line = line.decode().strip()
        if not self.ready_line.startswith("ready: "):
            await self.process.wait()
            raise AssertionError(f"the service did not start: {self.stderr.decode()}")
        self.url = self.ready_line.split()[1]

    async def _read_errors(self) -> None:
        assert self.process is not None
        assert self.process.stderr is not None
        while chunk := await self.process.stderr.read(4096):
            self.stderr += chunk

    async def stop(self) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(self.process.wait(), LIMIT_S)
        if self._drain is not None:
            await self._drain
        return code

    async def get(self, path: str) -> Any:
        async with httpx.AsyncClient(trust_env=False, timeout=LIMIT_S) as client:
            answer = await client.get(self.url + path)
        answer.raise_for_status()
        return answer.json()

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=LIMIT_S) as client:
            return await client.post(self.url + path, json=body, headers=headers)

    async def chat(self, model: str, **more: Any) -> httpx.Response:
        messages = [{"role": "user", "content": "who are you?"}]
        return await self.post("/v1/chat/completions", {"model": model, "messages": messages, **more})

    async def loaded(self, model: str) -> None:
        """Loads a model through the service and waits until it is routed."""
        await self.post(f"/api/slots/{model}/load")
        await self.until(lambda: self.routed(model))

    async def routed(self, model: str) -> bool:
        table = await self.get("/api/v1/adapter/routes")
        return any(route["model"] == model for route in table["routes"])

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Waits for a condition, asked again after each event of the service."""
        async with asyncio.timeout(LIMIT_S):
            while not await condition():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        async for _ in self.events(live_only=True):
                            break

    async def events(
        self, *, since: int | None = None, live_only: bool = False
    ) -> AsyncIterator[dict[str, Any]]:
        path = "/api/v1/adapter/events" + (f"?since={since}" if since is not None else "")
        async with (
            httpx.AsyncClient(trust_env=False, timeout=None) as client,
            client.stream("GET", self.url + path) as answer,
        ):
            kind = ident = ""
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    ident = line[4:]
                elif line.startswith("event: "):
                    kind = line[7:]
                elif line.startswith("data: ") and not (live_only and kind == "snapshot"):
                    yield {"id": ident, "event": kind, "data": json.loads(line[6:])}


Starter = Callable[..., Awaitable[Any]]


@pytest.fixture
async def simulator() -> AsyncIterator[SimulatorProcess]:
    """A simulated lemond 10.7.0, a hundred times as fast, four models a type."""
    async with SimulatorProcess() as running:
        yield running


@pytest.fixture
async def start_service() -> AsyncIterator[Callable[..., Awaitable[ServiceProcess]]]:
    """Starts services; ends them, which must succeed, after the test."""
    running: list[ServiceProcess] = []

    async def start(*arguments: str, environment: dict[str, str] | None = None) -> ServiceProcess:
        service = ServiceProcess(*arguments, environment=environment)
        running.append(service)
        await service.start()
        return service

    yield start
    for service in running:
        if service.process is not None and service.process.returncode is None:
            assert await service.stop() == 0, service.stderr.decode()


@pytest.fixture
async def service(simulator: SimulatorProcess, start_service: Any) -> ServiceProcess:
    """A service in front of the simulated lemond."""
    started: ServiceProcess = await start_service("--lemond", simulator.url)
    return started
