"""A listener on a simulated lemond's log stream, and simulators with settings of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import websockets

from lemond_adapter.simulator import SimulatorProcess

LIMIT_S = 10.0


class LogTail:
    """One subscribed connection; entries are collected in order of receipt."""

    def __init__(self, simulator: SimulatorProcess) -> None:
        self._simulator = simulator
        self._url = f"ws://127.0.0.1:{simulator.ws_port}/logs/stream"
        self.entries: list[dict[str, Any]] = []
        self.snapshots = 0
        self.closed: websockets.ConnectionClosed | None = None
        self._more = asyncio.Event()
        self._socket: websockets.ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self, after_seq: int | None = None) -> None:
        self._socket = await websockets.connect(self._url, max_size=None, proxy=None)
        await self.subscribe(after_seq)
        self._reader = asyncio.create_task(self._read(self._socket))
        await self.until(lambda: self.snapshots > 0)

    async def subscribe(self, after_seq: int | None = None) -> None:
        assert self._socket is not None
        await self._socket.send(json.dumps({"type": "logs.subscribe", "after_seq": after_seq}))

    async def _read(self, socket: websockets.ClientConnection) -> None:
        try:
            while True:
                frame = json.loads(await socket.recv())
                if frame["type"] == "logs.snapshot":
                    self.snapshots += 1
                    self.entries += frame["entries"]
                elif frame["type"] == "logs.entry":
                    self.entries.append(frame["entry"])
                self._more.set()
        except websockets.ConnectionClosed as closed:
            self.closed = closed
            self._more.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                self._more.clear()
                await self._more.wait()

    async def until_text(self, text: str, times: int = 1) -> None:
        await self.until(lambda: sum(text in line for line in self.texts()) >= times)

    async def quiet(self) -> None:
        """Everything said until now has arrived: a marker put into the log has."""
        await self._simulator.fault("log", text="marker of the test", tag="Server", severity="Info")
        await self.until_text("marker of the test")
        self.entries = [entry for entry in self.entries if "marker of the test" not in entry["line"]]

    def texts(self) -> list[str]:
        """What was said: severity, tag, message, without the children's own output."""
        return [entry["line"][24:] for entry in self.entries if entry["tag"] != "Process"]

    async def stop(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        if self._socket is not None:
            await self._socket.close()


@pytest.fixture
async def start_simulator() -> AsyncIterator[Callable[..., Awaitable[SimulatorProcess]]]:
    """Starts simulators with any settings and ends them after the test."""
    running: list[SimulatorProcess] = []

    async def start(**settings: Any) -> SimulatorProcess:
        simulator = SimulatorProcess(**settings)
        running.append(simulator)
        await simulator.start()
        return simulator

    yield start
    for simulator in running:
        await simulator.stop()


@pytest.fixture
async def tail() -> AsyncIterator[Callable[..., Awaitable[LogTail]]]:
    """Subscribes to a simulator's log."""
    running: list[LogTail] = []

    async def start(simulator: SimulatorProcess, after_seq: int | None = None) -> LogTail:
        listener = LogTail(simulator)
        running.append(listener)
        await listener.start(after_seq)
        return listener

    yield start
    for listener in running:
        await listener.stop()


@pytest.fixture
async def gone() -> Callable[[int], Awaitable[None]]:
    """Waits for the end of a process that need not be ours."""

    async def wait(pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), LIMIT_S)
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    return wait


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """A plain client."""
    async with httpx.AsyncClient(trust_env=False, timeout=LIMIT_S, verify=False) as client:
        yield client
