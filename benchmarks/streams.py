"""64 parallel event streams, as fast as they go: events a second through us and through nginx, unbuffered."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

import uvloop
from common import HERE, MODEL, Row, cpu_s, machine, median, model_server, peers, service

STREAMS = 64
CHUNKS = 1000


class Reader(asyncio.Protocol):
    """Counts the events of one stream."""

    def __init__(self, request: bytes, done: asyncio.Future[None]) -> None:
        self.request = request
        self.done = done
        self.events = 0
        self.tail = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.events += (self.tail[-5:] + data).count(b"data: ")
        self.tail = (self.tail + data)[-8:]
        if self.tail.endswith(b"\r\n0\r\n\r\n"):
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def request(**more: object) -> bytes:
    body = json.dumps({"model": MODEL, "messages": [], "stream": True, **more}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def pull(port: int, streams: int, chunks: int) -> float:
    """Events a second. Raises `RuntimeError` when any is missing."""
    loop = asyncio.get_running_loop()
    data = request(chunks=chunks)
    began = time.perf_counter()
    readers, ends = [], []
    for _ in range(streams):
        done = loop.create_future()
        _, reader = await loop.create_connection(lambda done=done: Reader(data, done), "127.0.0.1", port)
        readers.append(reader)
        ends.append(done)
    await asyncio.gather(*ends)
    took = time.perf_counter() - began
    got = sum(reader.events for reader in readers)
    if got != streams * (chunks + 1):
        raise RuntimeError(f"port {port}: {got} events of {streams * (chunks + 1)}")
    return got / took


async def measure(rounds: int = 5) -> list[Row]:
    rates: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    async with model_server() as stub, service(stub) as ours, peers(stub, ["nginx"]) as others:
        targets = [stub, ours, *(t for t in others.values() if t is not None)]
        for index in range(rounds + 1):
            for target in targets:
                # The client in a process of its own, as wrk is: it must not share our loop's time.
                before = cpu_s(target.pid)
                got = await client(target.port, CHUNKS)
                if index:
                    rates.setdefault(target.name, []).append(got)
                    spent = (cpu_s(target.pid) - before) / (STREAMS * (CHUNKS + 1)) * 1e6
                    cpu.setdefault(target.name, []).append(spent)
    rows = []
    for name, values in rates.items():
        mine = name == "lemond-adapter"
        text, met = f"{median(values):,.0f} events/s, {median(cpu[name]):.1f} us CPU each", None
        if "nginx" in rates and name != "nginx":
            share = median(values) / median(rates["nginx"])
            text += f"; {share:.2f}x nginx"
            met = share >= 0.6 if mine else None
        rows.append(
            Row(
                f"{STREAMS} streams: {name}", text, ">= 0.6x nginx" if mine else "", met, {"events_s": values}
            )
        )
    if "nginx" not in rates:
        rows.append(Row(f"{STREAMS} streams: nginx", "not installed"))
    return rows


async def client(port: int, chunks: int) -> float:
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HERE / "streams.py"), "--pull", str(port), "--chunks", str(chunks)),
        stdout=asyncio.subprocess.PIPE,
    )
    out = (await running.communicate())[0]
    if running.returncode:
        raise RuntimeError(f"the client of port {port} failed")
    return float(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pull", type=int, help="only pull from this port, and print the rate")
    parser.add_argument("--chunks", type=int, default=CHUNKS)
    args = parser.parse_args()
    if args.pull:
        print(uvloop.run(pull(args.pull, STREAMS, args.chunks)))
    else:
        print(machine())
        for row in asyncio.run(measure(args.rounds)):
            print(f"{row.what:50} {row.value:40} {row.target}")
