"""What a release does changes what the adapter does."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from typing import Any

import pytest

from lemond_adapter import LemondAdapter, SlotSpec
from lemond_adapter.drivers import Installed, Traits, build_driver, hookimpl, installed_drivers
from lemond_adapter.drivers.info import DriverInfo
from lemond_adapter.simulator import SimulatorProcess

DRIVER = next(driver for driver in installed_drivers().drivers if driver.name == "lemond-10.7")


def with_traits(**changes: Any) -> Installed:
    """The 10.7 driver with other traits, for the simulated 10.7."""

    class Plugin:
        @hookimpl
        def lemond_driver(self) -> DriverInfo:
            return DRIVER.info

        @hookimpl
        def lemond_traits(self) -> Traits:
            return replace(DRIVER.traits, **changes)

        @hookimpl
        def lemond_log_rules(self) -> Any:
            return DRIVER.matcher.rules

    return Installed((build_driver(Plugin(), name="lemond-10.7"),))


@pytest.mark.parametrize("allowed", [True, False])
async def test_touch_only_where_it_does_no_harm(simulator: SimulatorProcess, allowed: bool) -> None:
    async with LemondAdapter(simulator.url, installed=with_traits(load_touches=allowed)) as adapter:
        route = await adapter.ensure_loaded("tiny-a")
        await simulator.reset_stats()
        before = (await simulator.health())["all_models_loaded"][0]["last_use"]
        assert await adapter.touch("tiny-a") is allowed
        after = (await simulator.health())["all_models_loaded"][0]
        assert (after["last_use"] > before) is allowed
        assert after["pid"] == route.pid
        assert ("POST /v1/load" in (await simulator.stats())["requests"]) is allowed


@pytest.mark.parametrize("listed", [True, False])
async def test_unload_before_load_only_where_the_dead_stay_listed(
    simulator: SimulatorProcess, listed: bool
) -> None:
    async with LemondAdapter(simulator.url, installed=with_traits(lists_dead_children=listed)) as adapter:
        await adapter.ensure_loaded("tiny-a")
        os.kill((await simulator.child("tiny-a"))["pid"], signal.SIGKILL)
        async for event in adapter.events(since=0):
            if event.type == "process_crashed":
                break
        await simulator.reset_stats()
        adapter.loader.request("tiny-a")
        load = adapter.loader.pending("tiny-a")
        assert load is not None
        await load.done.wait()
        assert ("POST /v1/unload" in (await simulator.stats())["requests"]) is listed
        assert (adapter.route_now("tiny-a") is not None) is listed


@pytest.mark.parametrize("pinning", [True, False])
async def test_pins_where_there_is_pinning(simulator: SimulatorProcess, pinning: bool) -> None:
    slots = [SlotSpec("primary", "tiny-a", pinned=True, options={"ctx_size": 2048})]
    installed = with_traits(pinning=pinning)
    async with LemondAdapter(simulator.url, installed=installed, slots=slots) as adapter:
        asked: list[str] = []
        with adapter.truth.log_tap(lambda entry: asked.append(entry.line)):
            await adapter.ensure_loaded("primary")
            async for event in adapter.events(since=0):
                if event.type == "model_loaded":
                    break
        [line] = [line for line in asked if "Ensuring model loaded: tiny-a" in line]
        assert "ctx_size=2048" in line
        assert ("pinned=True" in line) is pinning


async def test_the_dedicated_port_is_used_when_the_main_one_has_no_stream(
    simulator: SimulatorProcess,
) -> None:
    async with LemondAdapter(simulator.url, installed=with_traits(log_stream_on_main_port=True)) as adapter:
        await adapter.ensure_loaded("tiny-a")
        for _ in range(100):
            if adapter.truth.stream.status.connected:
                break
            await adapter.truth.relisted(5)
            await asyncio.sleep(0.05)
        assert adapter.truth.stream.status.url == f"ws://127.0.0.1:{simulator.ws_port}/logs/stream"


async def test_every_driver_states_its_traits() -> None:
    found = [driver for driver in installed_drivers().drivers if driver.info.channel == "log"]
    traits = {driver.name: driver.traits for driver in found}
    assert [name for name, t in traits.items() if t.lists_dead_children] == [
        "lemond-10.5",
        "lemond-10.6",
        "lemond-10.7",
    ]
    assert [name for name, t in traits.items() if t.load_touches and not t.lists_dead_children] == []
    assert all(t.pinning for name, t in traits.items() if name >= "lemond-10.8" and name.startswith("lemond"))
