"""Newer and unknown releases: the log stream's place, evictions that are called off, no driver at all."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import httpx
import pytest

from lemond_adapter import LemondAdapter
from lemond_adapter.drivers import Driver, installed_drivers
from lemond_adapter.simulator import SimulatorProcess
from lemond_adapter.truth.correlator import Correlator
from lemond_adapter.truth.hints import Hint, HintKind


def driver(name: str) -> Driver:
    return next(found for found in installed_drivers().drivers if found.name == name)


class FrontDoor:
    """HTTP and WebSocket on one port, as lemond has it since 10.8: the request's head decides."""

    def __init__(self, simulator: SimulatorProcess) -> None:
        self._http = int(simulator.url.rpartition(":")[2])
        self._ws = simulator.ws_port
        self.upgrades: list[str] = []
        self.url = ""

    async def __aenter__(self) -> FrontDoor:
        self._server = await asyncio.start_server(self._enter, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        upgrade = b"upgrade: websocket" in head.lower()
        if upgrade:
            self.upgrades.append(head.split(b" ")[1].decode())
        there, back = await asyncio.open_connection("127.0.0.1", self._ws if upgrade else self._http)
        back.write(head)
        await asyncio.gather(_pump(reader, back), _pump(there, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        return
    finally:
        writer.close()


@pytest.mark.parametrize(("version", "main"), [("10.7.0", False), ("10.8.1", True), ("11.7.0", True)])
async def test_the_log_stream_is_taken_where_the_release_has_it(version: str, main: bool) -> None:
    async with (
        SimulatorProcess(extra_args=["--version-string", version]) as simulator,
        FrontDoor(simulator) as door,
        LemondAdapter(door.url) as adapter,
    ):
        await adapter.ensure_loaded("tiny-a")
        for _ in range(100):
            if adapter.truth.stream.status.connected:
                break
            await adapter.truth.relisted(5)
        assert adapter.truth.stream.status.connected
        assert door.upgrades == (["/logs/stream"] if main else [])
        assert (await simulator.stats())["ws_connections_open"] == 1


def test_a_deferred_eviction_is_understood_where_there_are_some() -> None:
    rules = driver("lemond-10.8")
    correlator = Correlator(rules.public_name)
    hints: list[Hint] = []
    for line in (
        "Unload all models called",
        "Evicting all models (2 total)",
        "Evicting model: extra.tiny-a",
        "Deferring eviction for model extra.tiny-a because requests are still unwinding after 5s "
        "(state=busy)",
        "Evicting model: user.tiny-embed",
        "Evicted model: user.tiny-embed",
        "Evict all completed. Remaining tombstoned models: 1",
    ):
        signal_ = rules.matcher.match(line)
        assert signal_ is not None, line
        hints += correlator.feed(signal_)
    told = [(hint.kind, hint.model, hint.reason) for hint in hints if hint.model]
    assert told == [
        (HintKind.EVICTING, "tiny-a", "manual"),
        (HintKind.KEPT, "tiny-a", "unknown"),
        (HintKind.EVICTING, "tiny-embed", "manual"),
        (HintKind.EVICTED, "tiny-embed", "manual"),
    ]


@pytest.mark.parametrize("fault", ["kill", "silent_evict", "unload", "move"])
async def test_a_release_nobody_knows_is_served_on_health_and_processes(
    start_service: Any, fault: str
) -> None:
    async with SimulatorProcess(extra_args=["--version-string", "9.0.0"]) as simulator:
        service = await start_service("--lemond", simulator.url)
        assert service.ready_line.endswith("driver=generic")
        await service.loaded("tiny-a")
        if fault == "kill":
            os.kill((await simulator.child("tiny-a"))["pid"], signal.SIGKILL)
        elif fault == "unload":
            await simulator.unload("tiny-a")
        elif fault == "move":
            await simulator.fault("move", model="tiny-a", port_taken_by="tiny-b")
        else:
            await simulator.fault("silent_evict", model="tiny-a")
        body = {"model": "tiny-a", "messages": []}
        async with asyncio.timeout(30):
            while True:
                answer = await service.post("/v1/chat/completions", body, Prefer="wait=20")
                assert answer.status_code in (200, 503), answer.text
                if answer.status_code == 200:
                    break
                await asyncio.sleep(int(answer.headers["retry-after-ms"]) / 1000)
        assert answer.json()["model"] == "tiny-a"


async def test_drift_is_counted_and_shown(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    await simulator.fault("log", text="Evicting tensor cache of model: extra.tiny-a")

    async def counted() -> bool:
        return bool((await service.get("/api/v1/adapter/status"))["drift"]["unknown_lifecycle_lines"] == 1)

    await service.until(counted)
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"{service.url}/metrics")).text
    assert "lemond_adapter_unknown_lifecycle_lines_total 1.0" in text
    assert "lemond_adapter_lemond_reachable 1.0" in text
    assert await service.routed("tiny-a")
