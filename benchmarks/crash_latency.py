"""Child killed -> `process_crashed` on the event stream and the route gone: median and p99.

Real processes throughout: a simulated lemond, the service, a client of its SSE stream. The clock
starts right before kill(2) and stops when the event's bytes have arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import signal
import statistics
import sys
import time
from urllib.parse import urlsplit

from lemond_adapter.simulator import SimulatorProcess


async def main(rounds: int) -> None:
    async with SimulatorProcess() as simulator:
        service = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lemond_adapter", "serve"),
            *("--lemond", simulator.url, "--listen", "127.0.0.1:0"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert service.stdout is not None
        url = (await service.stdout.readline()).decode().split()[1]
        try:
            taken = await measure(simulator, url, rounds)
        finally:
            service.send_signal(signal.SIGTERM)
            await service.wait()
    taken.sort()
    p99 = taken[min(len(taken) - 1, round(0.99 * len(taken)))]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(
        f"child killed -> event received, {rounds} rounds: "
        f"median {statistics.median(taken):.2f} ms, p99 {p99:.2f} ms, max {taken[-1]:.2f} ms"
    )


async def measure(simulator: SimulatorProcess, url: str, rounds: int) -> list[float]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(f"GET /api/v1/adapter/events HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
    taken = []
    for _ in range(rounds):
        await simulator.unload("tiny-a")
        await simulator.load("tiny-a")
        pid = await loaded_pid(reader)
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        while b"event: process_crashed" not in await reader.readline():
            continue
        taken.append((time.perf_counter() - began) * 1000)
    writer.close()
    return taken


async def loaded_pid(reader: asyncio.StreamReader) -> int:
    while True:
        line = (await reader.readline()).decode()
        if re.match(r'data: .*"type":"model_loaded"', line):
            return int(json.loads(line[6:])["pid"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    asyncio.run(main(parser.parse_args().rounds))
