"""A lemond that advertises native events: they are the watch then, and still make no route."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from lemond_adapter import EvictionStarted, LemondAdapter, ModelEvicted
from lemond_adapter.simulator import SimulatorProcess
from lemond_adapter.simulator.native import NativeEventServer


async def advertising(simulator: SimulatorProcess, server: NativeEventServer) -> dict[str, Any]:
    body = await simulator.health()
    port = int(server.base_url.rpartition(":")[2])
    return {**body, "native_events": {"protocol": 1, "path": "/v1/events", "port": port}}


async def seen(adapter: LemondAdapter, kind: str) -> Any:
    async with asyncio.timeout(10):
        async for event in adapter.events(since=0):
            if event.type == kind:
                return event
    raise AssertionError(f"no {kind}")


async def test_native_events_are_followed_instead_of_the_log(simulator: SimulatorProcess) -> None:
    await simulator.load("tiny-a")
    async with NativeEventServer() as server:
        body = await advertising(simulator, server)
        await simulator.fault("health_body", body=json.dumps(body))
        async with LemondAdapter(simulator.url) as adapter:
            await seen(adapter, "model_loaded")
            async with asyncio.timeout(10):
                while adapter.truth.native.status is None or not adapter.truth.native.status.connected:
                    await adapter.truth.relisted(5)
            assert server.connects == 1
            assert (await simulator.stats())["ws_connections_open"] == 0
            assert adapter.route_now("tiny-a") is not None
            # What lemond tells withdraws the route at once ...
            server.publish(EvictionStarted(model="tiny-a", reason="lru"))
            started = await seen(adapter, "eviction_started")
            assert (started.model, started.reason, started.lemond_seq) == ("tiny-a", "lru", 1)
            assert adapter.route_now("tiny-a") is None
            # ... and the listing has the last word.
            await simulator.fault("health_body", body=json.dumps({**body, "all_models_loaded": []}))
            server.publish(ModelEvicted(model="tiny-a", reason="lru"))
            evicted = await seen(adapter, "model_evicted")
            assert evicted.reason == "lru"


async def test_without_the_advertisement_the_native_driver_is_idle(simulator: SimulatorProcess) -> None:
    async with LemondAdapter(simulator.url) as adapter:
        assert "native-ws" in [driver.name for driver in adapter.installed.drivers]
        await adapter.truth.relisted(5)
        assert not adapter.truth.native.active
        assert adapter.driver is not None
        assert adapter.driver.name == "lemond-10.7"


async def test_an_advertisement_nobody_speaks_leaves_the_log(simulator: SimulatorProcess) -> None:
    body = await simulator.health()
    for advertised in ({"protocol": 99, "path": "/v1/events"}, {"protocol": "x"}, {}):
        await simulator.fault("health_body", body=json.dumps({**body, "native_events": advertised}))
        async with LemondAdapter(simulator.url) as adapter:
            async with asyncio.timeout(10):
                while not adapter.truth.stream.status.connected:
                    await adapter.truth.relisted(5)
            assert not adapter.truth.native.active
