"""1 to 1000 parallel streams of 10 events a second each: CPU an event, memory a stream, lag of the loop.

The lag is measured from outside: how late the service answers a tiny request (`/healthz`) on a connection
of its own, every 20 ms, compared with how late it does that when idle.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import uvloop
from common import Row, Target, cpu_s, machine, model_server, percentile, rss_mb, service
from streams import Reader, request

PER_SECOND = 10
SIZES = (1, 10, 100, 1000)


async def lag(port: int, until: asyncio.Event) -> list[float]:
    """Milliseconds that each answer to a tiny request took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken = []
    while not until.is_set():
        began = time.perf_counter()
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
        taken.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.02)
    writer.close()
    return taken


async def run(target: Target, streams: int, seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    chunks = int(seconds * PER_SECOND)
    data = request(chunks=chunks, interval_ms=1000 / PER_SECOND)
    memory, cpu = rss_mb(target.pid), cpu_s(target.pid)
    stop = asyncio.Event()
    lagging = asyncio.create_task(lag(target.port, stop))
    readers, ends = [], []
    for index in range(streams):
        done = loop.create_future()
        _, reader = await loop.create_connection(
            lambda done=done: Reader(data, done), "127.0.0.1", target.port
        )
        readers.append(reader)
        ends.append(done)
        if index % 20 == 19:
            await asyncio.sleep(0.01)  # they do not all begin in the same instant
    await asyncio.sleep(seconds / 2)
    during = rss_mb(target.pid)
    await asyncio.gather(*ends)
    stop.set()
    taken = await lagging
    events = sum(reader.events for reader in readers)
    cut = sum(1 for reader in readers if reader.events != chunks + 1)
    return {
        "streams": streams,
        "events": events,
        "cut": cut,
        "cpu_us_per_event": (cpu_s(target.pid) - cpu) / events * 1e6,
        "rss_mb": during,
        "rss_kb_per_stream": max(0.0, during - memory) * 1024 / streams,
        "lag_p50_ms": percentile(taken, 0.5),
        "lag_p99_ms": percentile(taken, 0.99),
    }


async def measure(seconds: float = 10.0, long_s: float = 60.0) -> list[Row]:
    rows = []
    async with model_server() as stub, service(stub) as ours:
        await run(ours, 10, 1)
        for streams in SIZES:
            long = streams == SIZES[-1]
            got = await run(ours, streams, long_s if long else seconds)
            text = (
                f"{got['cut']:.0f} cut, lag p99 {got['lag_p99_ms']:.1f} ms, RSS {got['rss_mb']:.0f} MB, "
                f"{got['cpu_us_per_event']:.0f} us CPU/event, {got['rss_kb_per_stream']:.0f} KB/stream"
            )
            target = "0 cut, p99 <= 20 ms, RSS <= 250 MB" if long else ""
            met = not got["cut"] and got["lag_p99_ms"] <= 20 and got["rss_mb"] <= 250 if long else None
            spent = long_s if long else seconds
            rows.append(Row(f"{streams} slow streams, {spent:.0f} s", text, target, met, got))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--long", type=float, default=60.0)
    args = parser.parse_args()
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    print(machine())
    for row in uvloop.run(measure(args.seconds, args.long)):
        print(f"{row.what:30} {row.value:80} {row.target}")
