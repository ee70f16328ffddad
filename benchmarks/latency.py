"""How soon an event is out: a child's death, and a lifecycle line of lemond's log.

Real processes throughout: a simulated lemond, the service, a client of its SSE stream. For a death the
clock starts right before kill(2); for a line it starts when a second subscriber of lemond's log has it.
It stops when the event's bytes have arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import websockets
from common import Row, machine, median, percentile, process

from lemond_adapter.simulator import SimulatorProcess


@asynccontextmanager
async def rig() -> AsyncIterator[tuple[SimulatorProcess, asyncio.StreamReader]]:
    """A simulated lemond, and the event stream of a service in front of it."""
    async with SimulatorProcess() as simulator:
        command = [sys.executable, "-m", "lemond_adapter", "serve", "--listen", "127.0.0.1:0"]
        async with process(*command, "--lemond", simulator.url) as running:
            assert running.stdout is not None
            url = urlsplit((await running.stdout.readline()).decode().split()[1])
            reader, writer = await asyncio.open_connection(url.hostname, url.port)
            writer.write(f"GET /api/v1/adapter/events HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
            yield simulator, reader
            writer.close()


async def until(reader: asyncio.StreamReader, kind: str) -> float:
    """When the next event of this kind had arrived."""
    wanted = f"event: {kind}".encode()
    while wanted not in await reader.readline():
        continue
    return time.perf_counter()


async def loaded_pid(reader: asyncio.StreamReader) -> int:
    while True:
        line = (await reader.readline()).decode()
        if re.match(r'data: .*"type":"model_loaded"', line):
            return int(json.loads(line[6:])["pid"])


async def deaths(rounds: int) -> list[float]:
    taken = []
    async with rig() as (simulator, reader):
        for _ in range(rounds):
            await simulator.unload("tiny-a")
            await simulator.load("tiny-a")
            pid = await loaded_pid(reader)
            began = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            taken.append((await until(reader, "process_crashed") - began) * 1000)
    return taken


async def lines(rounds: int) -> list[float]:
    taken = []
    async with rig() as (simulator, reader):
        address = f"ws://127.0.0.1:{simulator.ws_port}/logs/stream"
        async with websockets.connect(address, max_size=None) as log:
            await log.send(json.dumps({"type": "logs.subscribe", "after_seq": None}))

            async def line() -> float:
                while "Unload model called: tiny-a" not in str(await log.recv()):
                    continue
                return time.perf_counter()

            await log.recv()
            for _ in range(rounds):
                await simulator.load("tiny-a")
                await loaded_pid(reader)
                waiting = asyncio.gather(line(), until(reader, "eviction_started"))
                await simulator.unload("tiny-a")
                came, out = await waiting
                taken.append(max(0.0, (out - came) * 1000))
    return taken


def row(what: str, taken: list[float]) -> Row:
    p99 = percentile(taken, 0.99)
    text = f"p50 {median(taken):.2f} ms, p99 {p99:.2f} ms ({len(taken)} rounds)"
    return Row(what, text, "p99 <= 5 ms", p99 <= 5.0, {"ms": taken})


async def measure(rounds: int = 50) -> list[Row]:
    return [
        row("child's death -> event out", await deaths(rounds)),
        row("lifecycle line -> event out", await lines(rounds)),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    print(machine())
    for found in asyncio.run(measure(parser.parse_args().rounds)):
        print(f"{found.what:30} {found.value:50} {found.target}")
