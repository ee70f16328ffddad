"""The right process or none: requests over three models while their servers are killed, change ports
and take each other's the moment these are free.

Each server signs its answers and writes down what it executes, so a wrong one, or a request that was
executed twice, cannot go unseen. `IDENTITY_RUN=<right answers>` and `IDENTITY_SEED=<n>` make longer runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from lemond_adapter.testing.listing import Listed, ListingLemond

CHILD = Path(__file__).with_name("child.py")
MODELS = ("model-a", "model-b", "model-c")
REQUESTS = int(os.environ.get("IDENTITY_RUN", "300"))
SEED = int(os.environ.get("IDENTITY_SEED", "20261125"))


class Rig:
    """Three models, a few ports, and spare processes that wait to take any of them."""

    def __init__(self, lemond: ListingLemond, ledger: Path, rng: random.Random, ports: list[int]) -> None:
        self._lemond = lemond
        self._ledger = ledger
        self._rng = rng
        self._ports = ports
        self._spares: asyncio.Queue[asyncio.subprocess.Process] = asyncio.Queue(6)
        self._all: list[asyncio.subprocess.Process] = []
        self.serving: dict[str, tuple[asyncio.subprocess.Process, int]] = {}
        self.deeds: Counter[str] = Counter()
        self._busy = asyncio.Lock()
        lemond.on_load = self.load
        lemond.on_unload = self.unload

    async def hatch(self) -> None:
        """Keeps spares ready."""
        while True:
            spare = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(CHILD), str(self._ledger)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            self._all.append(spare)
            await self._spares.put(spare)

    async def load(self, model: str) -> None:
        """What lemond does when it is asked to."""
        async with self._busy:
            if model not in self.serving:
                taken = {port for _, port in self.serving.values()}
                await self._take(model, self._rng.choice([p for p in self._ports if p not in taken]))

    async def unload(self, model: str) -> None:
        async with self._busy:
            self._lemond.table.pop(model, None)
            if model in self.serving:
                self.serving.pop(model)[0].kill()

    async def _take(self, model: str, port: int, after: Callable[[], None] | None = None) -> None:
        """A spare takes the port; `after` is done once it tries."""
        spare = await self._spares.get()
        assert spare.stdin is not None
        assert spare.stdout is not None
        spare.stdin.write(f"serve {model} {port}\n".encode())
        await spare.stdin.drain()
        if after is not None:
            await asyncio.sleep(0.002)
            after()
        assert await asyncio.wait_for(spare.stdout.readline(), 10) == b"up\n"
        self.serving[model] = (spare, port)
        self._lemond.table[model] = Listed(port, spare.pid)

    async def misbehave(self) -> None:
        """One thing goes wrong; the listing may learn of it later."""
        async with self._busy:
            if len(self.serving) < len(MODELS):
                return
            first, second = self._rng.sample(MODELS, 2)
            deed = self._rng.choice(("swap", "kill", "leave", "swap"))
            self.deeds[deed] += 1
            process, port = self.serving[first]
            if deed == "kill":
                process.kill()
                del self.serving[first]
                if self._rng.random() < 0.5:
                    self._lemond.table.pop(first)
            elif deed == "swap":
                # The second model's new server takes the first one's port as soon as that is free.
                other, other_port = self.serving.pop(second)
                old = self._lemond.table.pop(second)
                if self._rng.random() < 0.5:
                    self._lemond.table[second] = old
                await self._take(second, port, after=process.kill)
                other.kill()
                await self._take(first, other_port)
            else:
                # The first one stops listening and lives on; the second one's server gets its port.
                assert process.stdin is not None
                assert process.stdout is not None
                other, _ = self.serving[second]
                process.stdin.write(b"leave\n")
                await self._take(second, port)
                await process.stdout.readline()
                other.kill()
                await asyncio.sleep(self._rng.random() * 0.05)
                process.kill()
                del self.serving[first]

    async def end(self) -> None:
        for process in self._all:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await process.wait()


class Caller:
    """One keep-alive client that reads what it is sent to the byte."""

    def __init__(
        self, address: tuple[str, int], outcomes: Counter[str], answered: dict[str, str], wrong: list[str]
    ) -> None:
        self._wrong = wrong
        self._address = address
        self._outcomes = outcomes
        self._answered = answered
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def call(self, ident: str, model: str, body: dict[str, Any]) -> None:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(*self._address)
        assert self._reader is not None
        data = json.dumps({"model": model, **body}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Request-Id: {ident}\r\n"
        self._writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(data) + data)
        try:
            status, headers, answer = await asyncio.wait_for(self._read(self._reader), 20)
        except (OSError, asyncio.IncompleteReadError):
            self._outcomes["cut"] += 1
            self._close()
            return
        if headers.get("connection") == "close":
            self._close()
        self._note(ident, model, status, answer)

    async def _read(self, reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = head.split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:] if line)}
        if headers.get("transfer-encoding") != "chunked":
            return int(lines[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readexactly(2) == b"\r\n"
        return int(lines[0].split()[1]), headers, body

    def _note(self, ident: str, model: str, status: int, answer: bytes) -> None:
        if status != 200:
            error = json.loads(answer)["error"]
            self._outcomes[f"{status} {error['code']}"] += 1
            return
        events = [line[6:] for line in answer.split(b"\n") if line.startswith(b"data: ")] or [answer]
        for event in events:
            if event == b"[DONE]":
                continue
            told = json.loads(event)
            if "error" in told:
                assert told["error"]["code"] == "slot.interrupted"
                self._outcomes["interrupted"] += 1
                self._close()
                return
            if told["model"] != model:
                self._wrong.append(f"{ident}: {told} for {model}")
                return
        self._outcomes["right"] += 1
        self._answered[ident] = model

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


@pytest.fixture
async def lemond() -> AsyncIterator[ListingLemond]:
    async with ListingLemond(MODELS) as running:
        yield running


def free_ports(count: int) -> list[int]:
    import socket

    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


async def test_never_the_wrong_process_never_twice(
    lemond: ListingLemond, start_service: Any, tmp_path: Path
) -> None:
    sys.stdout.write(f"IDENTITY_SEED={SEED} IDENTITY_RUN={REQUESTS}\n")
    rng = random.Random(SEED)
    ledger = tmp_path / "ledger"
    ledger.touch()
    config = tmp_path / "config.toml"
    config.write_text("[policy]\nheartbeat_s = 0.25\nmax_restarts = 1000000\n")
    service = await start_service("--lemond", lemond.url, "--config", str(config))
    rig = Rig(lemond, ledger, rng, free_ports(5))
    hatching = asyncio.create_task(rig.hatch())
    outcomes: Counter[str] = Counter()
    answered: dict[str, str] = {}
    wrong: list[str] = []
    host, _, port = service.url.removeprefix("http://").partition(":")
    ids = itertools.count()
    ends = asyncio.get_running_loop().time() + max(30.0, REQUESTS / 20)
    done = asyncio.Event()

    async def call() -> None:
        caller = Caller((host, int(port)), outcomes, answered, wrong)
        while outcomes["right"] < REQUESTS and asyncio.get_running_loop().time() < ends:
            body: dict[str, Any] = {"delay_s": rng.choice((0, 0, 0.01, 0.03))}
            if rng.random() < 0.3:
                body = {"stream": True, "interval_s": rng.choice((0, 0.002, 0.01))}
            before = outcomes["right"]
            await caller.call(f"id-{next(ids)}", rng.choice(MODELS), body)
            if outcomes["right"] == before:
                await asyncio.sleep(0.02)

    async def disturb() -> None:
        while not done.is_set():
            await rig.misbehave()
            await asyncio.sleep(rng.random() * 0.05)

    disturbing = asyncio.create_task(disturb())
    try:
        for model in MODELS:
            await rig.load(model)
        await asyncio.gather(*(call() for _ in range(12)))
        done.set()
        await disturbing
    finally:
        hatching.cancel()
        await asyncio.gather(hatching, return_exceptions=True)
        await rig.end()
    sys.stdout.write(f"{dict(outcomes)} {dict(rig.deeds)}\n")
    executed: Counter[str] = Counter()
    by: dict[str, str] = {}
    for line in ledger.read_text().splitlines():
        ident, model, _ = line.split()
        executed[ident] += 1
        by[ident] = model
    assert {ident: n for ident, n in executed.items() if n > 1} == {}
    assert wrong == []
    assert not any(name.startswith("502") for name in outcomes)
    assert {i: m for i, m in answered.items() if by[i] != m} == {}
    assert set(outcomes) <= {"right", "interrupted", "cut", "503 slot.loading", "503 slot.error"}
    assert outcomes["right"] >= REQUESTS
    assert rig.deeds.total() >= 5
