"""Requests that wait: for a model that is loading, or for their turn."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lemond_adapter import LemondAdapter
from lemond_adapter.dispatch import exchange as exchanges
from lemond_adapter.dispatch.connection import ClientConnection
from lemond_adapter.dispatch.dataplane import DataPlane, Limits
from lemond_adapter.dispatch.gate import Gate
from lemond_adapter.testing.listing import Listed, ListingLemond

from .conftest import Relay, ScriptedServer, Seen, plain, request

CONFIG = """
[policy]
max_waiting = 5
[slots.one]
model = "scripted"
max_in_flight = 1
max_queue = 3
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    file = tmp_path_factory.mktemp("config") / "config.toml"
    file.write_text(CONFIG)
    running = Relay("--config", str(file))
    yield running
    assert running.close() == 0


class Turnstile:
    """A server that answers one request each time it is told to."""

    def __init__(self, relay: Relay) -> None:
        self._go = threading.Semaphore(0)
        relay.server.seen.clear()
        relay.server.answer = self._answer

    def _answer(self, connection: socket.socket, seen: Seen) -> None:
        assert self._go.acquire(timeout=20)
        plain(connection, seen)

    def turn(self, count: int = 1) -> None:
        for _ in range(count):
            self._go.release()


def body(number: int) -> bytes:
    return b'{"model": "one", "n": %d}' % number


def test_a_slot_runs_so_many_and_refuses_beyond_its_queue(limited: Relay) -> None:
    turnstile = Turnstile(limited)
    wires = [limited.wire() for _ in range(4)]
    for number, wire in enumerate(wires):
        wire.send(request(body(number)))
        if number == 0:
            limited.until_seen(1)
    limited.until_queued("one", 3)
    head, refused = limited.ask(body(9))
    assert b" 429 " in head
    assert b"retry-after: " in head
    error = json.loads(refused)["error"]
    assert (error["code"], error["details"]["limit"]) == ("slot.busy", 1)
    assert len(limited.server.seen) == 1, "the others wait here, not there"
    for number, wire in enumerate(wires):
        limited.until_seen(number + 1)
        assert len(limited.server.seen) == number + 1
        turnstile.turn()
        assert b" 200 " in wire.answer()[0]
        wire.close()
    assert [json.loads(seen.body)["n"] for seen in limited.server.seen] == [0, 1, 2, 3]
    limited.idle()


def test_who_leaves_the_queue_is_not_served(limited: Relay) -> None:
    turnstile = Turnstile(limited)
    first, second, third = (limited.wire() for _ in range(3))
    first.send(request(body(0)))
    limited.until_seen(1)
    second.send(request(body(1)))
    limited.until_queued("one", 1)
    third.send(request(body(2)))
    limited.until_queued("one", 2)
    second.close()
    limited.until_queued("one", 1)
    turnstile.turn(2)
    assert b" 200 " in first.answer()[0]
    assert b" 200 " in third.answer()[0]
    first.close()
    third.close()
    assert [json.loads(seen.body)["n"] for seen in limited.server.seen] == [0, 2]
    limited.idle()


def test_clients_take_turns() -> None:
    admitted: list[str] = []
    gate: Gate[str] = Gate(lambda: 0.0, admitted.append)
    gate.limit, gate.max_queue = 1, 10
    assert gate.enter("running", "x") is True
    for request_, client in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c")]:
        assert gate.enter(request_, client) is False
    gate.leave("a2")
    ended = "running"
    while gate.running:
        gate.leave(ended)
        ended = admitted[-1] if admitted else ended
        if len(admitted) == 4 and gate.queued == 0:
            gate.leave(ended)
    assert admitted == ["a1", "b1", "c1", "a3"]


class Stage:
    """The data plane in the test's own loop, over a model that loads when it is told to."""

    def __init__(self, address: tuple[str, int], plane: DataPlane, lemond: ListingLemond) -> None:
        self.address = address
        self.plane = plane
        self.server = ScriptedServer()
        self.load = asyncio.Event()
        self.fail = False
        self._lemond = lemond
        lemond.on_load = self._load

    async def _load(self, model: str) -> None:
        await self.load.wait()
        if self.fail:
            raise RuntimeError("llama-server failed to start")
        self._lemond.table[model] = Listed(self.server.port, os.getpid())

    async def send(self, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(data)
        return reader, writer

    async def until_waiting(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.plane.waiting.total() != count:
                await asyncio.sleep(0.005)


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(exchanges, "HEARTBEAT_S", 0.05)

    def no_asgi(owner: ClientConnection, transport: asyncio.Transport) -> Any:
        raise AssertionError("nothing here is for the ASGI side")

    async with ListingLemond(("late",)) as lemond, LemondAdapter(lemond.url, heartbeat_s=0.2) as adapter:
        plane = DataPlane(adapter, Limits(max_waiting=3))
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: ClientConnection(plane, no_asgi, set()), "127.0.0.1", 0)
        found = Stage(server.sockets[0].getsockname(), plane, lemond)
        yield found
        found.load.set()
        server.close()
        await plane.close()
        found.server.close()


WAIT = b"Prefer: wait=30\r\n"
LATE = b'{"model": "late"}'
STREAM = b'{"model": "late", "stream": true}'


async def test_held_until_the_model_is_there(stage: Stage) -> None:
    reader, writer = await stage.send(request(LATE, WAIT))
    await stage.until_waiting(1)
    stage.load.set()
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    writer.close()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"Preference-Applied: wait=30\r\n" in head


async def test_without_the_preference_it_is_refused_at_once(stage: Stage) -> None:
    reader, writer = await stage.send(request(LATE))
    assert b" 503 " in await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    # Nor is anybody held for whom the wait is too short.
    reader, writer = await stage.send(request(LATE, b"Prefer: wait=1\r\n"))
    assert b" 503 " in await asyncio.wait_for(reader.readline(), 10)
    writer.close()


async def test_the_waiting_room_is_bounded_and_the_first_come_are_the_first_served(stage: Stage) -> None:
    waiting = []
    for number in range(3):
        waiting.append(await stage.send(request(b'{"model": "late", "n": %d}' % number, WAIT)))
        await stage.until_waiting(number + 1)
    reader, writer = await stage.send(request(LATE, WAIT))
    assert b" 503 " in await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    # One leaves: there is room again.
    waiting[1][1].close()
    await stage.until_waiting(2)
    waiting.append(await stage.send(request(b'{"model": "late", "n": 3}', WAIT)))
    await stage.until_waiting(3)
    stage.load.set()
    for reader, writer in (waiting[0], waiting[2], waiting[3]):
        assert b" 200 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()
    assert sorted(json.loads(seen.body)["n"] for seen in stage.server.seen) == [0, 2, 3]


async def test_a_held_stream_gets_signs_of_life_and_then_its_events(stage: Stage) -> None:
    event = b'data: {"model": "late"}\n\n'

    def answer(connection: socket.socket, seen: Seen) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))

    stage.server.answer = answer
    reader, writer = await stage.send(request(STREAM, WAIT))
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
    for _ in range(3):
        assert await asyncio.wait_for(reader.readuntil(b": waiting\n\r\n"), 10)
    stage.load.set()
    rest = await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 10)
    writer.close()
    assert event in rest
    assert b"HTTP/1.1" not in rest


@pytest.mark.parametrize("kind", ["failed load", "error status", "server lost"])
async def test_after_a_sign_of_life_a_failure_is_told_in_the_stream(stage: Stage, kind: str) -> None:
    stage.fail = kind == "failed load"

    def answer(connection: socket.socket, seen: Seen) -> None:
        if kind == "error status":
            told = b'{"error": {"code": 400, "message": "too long",\n "type": "x"}}'
            connection.sendall(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n%b" % (len(told), told))
        else:
            connection.close()

    stage.server.answer = answer
    wait = b"Prefer: wait=3\r\n" if kind == "failed load" else WAIT
    reader, writer = await stage.send(request(STREAM, wait))
    await asyncio.wait_for(reader.readuntil(b": waiting\n\r\n"), 10)
    stage.load.set()
    raw = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    last = [line for line in raw.split(b"\n") if line.startswith(b"data: ")][-1]
    error = json.loads(last[6:])["error"]
    expected = {"failed load": "slot.error", "error status": 400, "server lost": "slot.loading"}
    assert error["code"] == expected[kind]
    assert b"[DONE]" not in raw
    assert raw.endswith(b"0\r\n\r\n")


async def test_who_leaves_the_waiting_room_is_not_served(stage: Stage) -> None:
    _, writer = await stage.send(request(LATE, WAIT))
    await stage.until_waiting(1)
    writer.close()
    await stage.until_waiting(0)
    stage.load.set()
    async with asyncio.timeout(10):
        while stage.plane.route_now("late") is None:
            await asyncio.sleep(0.01)
    assert stage.server.seen == []
