"""Twenty open dashboards cost lemond nothing and the service next to nothing."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from lemond_adapter.simulator import SimulatorProcess

DASHBOARDS = 20
PAGES = 3
"""How many of them are real pages; the others do the same without drawing."""

WATCHED_S = float(os.environ.get("DASHBOARDS_WATCHED_S", "20"))


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def asked(simulator: SimulatorProcess) -> int:
    """How many requests lemond has had."""
    return int(sum((await simulator.stats())["requests"].values()))


@asynccontextmanager
async def followers(url: str, count: int) -> AsyncIterator[list[int]]:
    """So many clients that do what the page does: the journal once, then the stream. Yields how many
    bytes each has had."""
    got = [0] * count
    begun = [asyncio.Event() for _ in range(count)]

    async def follow(index: int, client: httpx.AsyncClient) -> None:
        await client.get("/api/v1/adapter/journal?limit=1000")
        async with client.stream("GET", "/api/v1/adapter/events?traffic=1") as answer:
            async for chunk in answer.aiter_raw():
                got[index] += len(chunk)
                begun[index].set()

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(trust_env=False, timeout=None, base_url=url, limits=limits) as client:
        tasks = [asyncio.create_task(follow(index, client)) for index in range(count)]
        try:
            async with asyncio.timeout(20):
                await asyncio.gather(*(event.wait() for event in begun))
            yield got
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def windows(page: Any, url: str, count: int) -> AsyncIterator[None]:
    """The page and so many more of it, each in a window of its own, all of them live."""
    first = page.driver.current_window_handle
    await page.open(url)
    await page.live()
    for _ in range(count):
        await asyncio.to_thread(page.driver.switch_to.new_window, "window")
        await page.open(url)
        await page.live()
    page.driver.switch_to.window(first)
    try:
        yield
    finally:
        for handle in page.driver.window_handles:
            if handle != first:
                page.driver.switch_to.window(handle)
                page.driver.close()
        page.driver.switch_to.window(first)


async def spent(service: Any, simulator: SimulatorProcess, seconds: float) -> tuple[int, float]:
    """Requests to lemond, and the service's share of one processor in percent, over some seconds."""
    requests, cpu = await asked(simulator), cpu_s(service.process.pid)
    await asyncio.sleep(seconds)
    used = (cpu_s(service.process.pid) - cpu) / seconds * 100
    return await asked(simulator) - requests, used


@pytest.mark.slow
async def test_twenty_dashboards_ask_lemond_nothing(
    page: Any, simulator: SimulatorProcess, start_service: Any, slots_file: Path
) -> None:
    service = await start_service("--lemond", simulator.url, "--config", str(slots_file))
    await service.loaded("tiny-a")
    alone, cpu_alone = await spent(service, simulator, WATCHED_S)
    async with followers(service.url, DASHBOARDS - PAGES) as got, windows(page, service.url, PAGES - 1):
        counters = (await service.get("/api/v1/adapter/status"))["counters"]
        assert counters["event_subscribers"] == DASHBOARDS
        together, cpu_together = await spent(service, simulator, WATCHED_S)
        figures = (
            f"lemond was asked {alone} and {together} times, CPU {cpu_alone:.2f} % and {cpu_together:.2f} %"
        )
        sys.stdout.write(f"\n{WATCHED_S:g} s with no dashboard and with {DASHBOARDS}: {figures}\n")
        # One heartbeat may fall into the one span and not into the other.
        assert together <= alone + 1
        assert cpu_together <= cpu_alone + 10, "percent of one processor"
        # And all of them see what happens.
        had = list(got)
        await simulator.load("tiny-b")
        await page.state("agent", "ready")
        assert all(now > then for now, then in zip(got, had, strict=True))
    assert page.errors() == []
