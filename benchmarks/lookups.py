"""What an embedding program pays: finding a route, importing the package, starting the service."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from common import MODEL, Row, machine, median, model_server, process, rss_mb

from lemond_adapter import LemondAdapter
from lemond_adapter.testing.listing import Listed, ListingLemond

LOOKUPS = 200_000


async def measure(rounds: int = 7) -> list[Row]:
    async with model_server() as stub, ListingLemond((MODEL,)) as lemond:
        lemond.table[MODEL] = Listed(stub.port, stub.pid)
        async with LemondAdapter(lemond.url) as adapter:
            now, awaited = [], []
            for _ in range(rounds):
                began = time.perf_counter()
                for _ in range(LOOKUPS):
                    adapter.route_now(MODEL)
                now.append((time.perf_counter() - began) / LOOKUPS * 1e6)
                began = time.perf_counter()
                for _ in range(LOOKUPS):
                    await adapter.route_for(MODEL)
                awaited.append((time.perf_counter() - began) / LOOKUPS * 1e6)
        ready, memory = await starts(lemond.url, rounds)
    imports = [imported() - bare() for _ in range(rounds)]
    sync, waited = median(now), median(awaited)
    text = f"{waited:.2f} us awaited, {sync:.2f} us without"
    start, load = median(ready), median(imports)
    return [
        Row("route_for on a warm table", text, "<= 2 us", waited <= 2.0, {"us": awaited}),
        Row("import lemond_adapter", f"{load:.0f} ms", "<= 150 ms", load <= 150, {"ms": imports}),
        Row("service ready after start", f"{start:.2f} s", "<= 1 s", start <= 1.0, {"s": ready}),
        Row("service, resident memory", f"{median(memory):.0f} MB", "<= 80 MB", median(memory) <= 80),
    ]


async def starts(url: str, rounds: int) -> tuple[list[float], list[float]]:
    ready, memory = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        command = [sys.executable, "-m", "lemond_adapter", "serve", "--listen", "127.0.0.1:0"]
        async with process(*command, "--lemond", url) as running:
            assert running.stdout is not None
            await running.stdout.readline()
            ready.append(time.perf_counter() - began)
            memory.append(rss_mb(running.pid))
    return ready, memory


def timed(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return (time.perf_counter() - began) * 1000


def imported() -> float:
    return timed("import lemond_adapter")


def bare() -> float:
    return timed("pass")


if __name__ == "__main__":
    print(machine())
    for row in asyncio.run(measure()):
        print(f"{row.what:30} {row.value:40} {row.target}")
