"""Twenty open dashboards cost lemond nothing and the service next to nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from lemond_adapter.simulator import SimulatorProcess

FOLLOWERS = 20


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

    async def follow(index: int, client: httpx.AsyncClient) -> None:
        await client.get("/api/v1/adapter/journal?limit=1000")
        async with client.stream("GET", "/api/v1/adapter/events?traffic=1") as answer:
            async for chunk in answer.aiter_raw():
                got[index] += len(chunk)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(trust_env=False, timeout=None, base_url=url, limits=limits) as client:
        tasks = [asyncio.create_task(follow(index, client)) for index in range(count)]
        try:
            async with asyncio.timeout(20):
                while not all(got):
                    await asyncio.sleep(0.05)
            yield got
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


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
    # What a load sets off is over when lemond has been quiet for a while.
    before = -1
    while before != (before := await asked(simulator)):
        await asyncio.sleep(2)
    watched_s = 20.0
    alone, cpu_alone = await spent(service, simulator, watched_s)
    async with followers(service.url, FOLLOWERS - 1) as got:
        await page.open(service.url)
        await page.live()
        together, cpu_together = await spent(service, simulator, watched_s)
        # One heartbeat may fall into the one span and not into the other.
        assert together <= alone + 1
        assert cpu_together <= cpu_alone + 10, "percent of one processor"
        # And all of them see what happens.
        had = list(got)
        await simulator.load("tiny-b")
        await page.state("agent", "ready")
        assert all(now > then for now, then in zip(got, had, strict=True))
    figures = f"lemond was asked {alone} and {together} times, CPU {cpu_alone:.1f} % and {cpu_together:.1f} %"
    sys.stdout.write(f"\nwith no dashboard and with {FOLLOWERS}: {figures}\n")
    assert page.errors() == []
