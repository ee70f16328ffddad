"""A service in front of a model server that answers exactly what a test tells it to, byte for byte.

Threads and blocking sockets: what is sent and received is in the test's own hands, and hypothesis can
drive it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from lemond_adapter.testing.listing import Listed, ListingLemond

MODEL = "scripted"
LIMIT_S = 20.0


@dataclass
class Seen:
    """One request as the model's server received it."""

    head: bytes
    body: bytes

    @property
    def lines(self) -> list[bytes]:
        return self.head.split(b"\r\n")[1:-2]

    @property
    def first(self) -> bytes:
        return self.head.split(b"\r\n")[0]


Answer = Callable[[socket.socket, Seen], None]


def plain(connection: socket.socket, seen: Seen) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


@dataclass
class ScriptedServer:
    """Reads whole requests, does what `answer` does, and keeps the connection."""

    answer: Answer = plain
    read_body: bool = True
    """Else the answer is begun with what came along with the head."""
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        rest = b""
        with connection:
            try:
                while True:
                    while b"\r\n\r\n" not in rest:
                        data = connection.recv(65536)
                        if not data:
                            return
                        rest += data
                    head, _, rest = rest.partition(b"\r\n\r\n")
                    seen = Seen(head + b"\r\n\r\n", b"")
                    if self.read_body:
                        seen.body, rest = _body(connection, head, rest)
                    else:
                        seen.body, rest = rest, b""
                    self.seen.append(seen)
                    self.answer(connection, seen)
            except (OSError, EOFError):
                return

    def close(self) -> None:
        self._listener.close()


def _body(connection: socket.socket, head: bytes, rest: bytes) -> tuple[bytes, bytes]:
    lower = head.lower()

    def need(count: int) -> None:
        nonlocal rest
        while len(rest) < count:
            data = connection.recv(65536)
            if not data:
                raise EOFError
            rest += data

    if b"transfer-encoding: chunked" in lower:
        body = b""
        while True:
            while b"\r\n" not in rest:
                need(len(rest) + 1)
            size = int(rest.partition(b"\r\n")[0], 16)
            rest = rest.partition(b"\r\n")[2]
            need(size + 2)
            body, rest = body + rest[:size], rest[size + 2 :]
            if not size:
                return body, rest
    at = lower.find(b"content-length:")
    length = int(lower[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0
    need(length)
    return rest[:length], rest[length:]


class Wire:
    """One connection of a client's."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=LIMIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def more(self) -> bytes:
        """What came next; empty at the end."""
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            return b""

    def until(self, mark: bytes) -> bytes:
        while mark not in self.rest:
            data = self.more()
            if not data:
                raise EOFError(self.rest)
            self.rest += data
        found, _, self.rest = self.rest.partition(mark)
        return found + mark

    def exactly(self, count: int) -> bytes:
        while len(self.rest) < count:
            data = self.more()
            if not data:
                raise EOFError(self.rest)
            self.rest += data
        found, self.rest = self.rest[:count], self.rest[count:]
        return found

    def everything(self) -> bytes:
        """Until the other side closes."""
        while data := self.more():
            self.rest += data
        return self.rest

    def answer(self) -> tuple[bytes, bytes]:
        """(head, raw body with its framing) of one answer, read by its framing."""
        head = self.until(b"\r\n\r\n")
        lower = head.lower()
        status = int(head.split()[1])
        if status in (204, 304):
            return head, b""
        if b"\r\ntransfer-encoding: chunked" in lower:
            body = b""
            while True:
                line = self.until(b"\r\n")
                body += line
                size = int(line.partition(b";")[0], 16)
                if size == 0:
                    while True:
                        line = self.until(b"\r\n")
                        body += line
                        if line == b"\r\n":
                            return head, body
                body += self.exactly(size + 2)
        at = lower.find(b"\r\ncontent-length:")
        if at < 0:
            body, self.rest = self.everything(), b""
            return head, body
        return head, self.exactly(int(lower[at + 17 :].split(b"\r\n")[0]))

    def close(self) -> None:
        self.socket.close()


class Relay:
    """The service, its lemond and the scripted server."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.server = ScriptedServer()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.lemond = ListingLemond((MODEL, "speech"))
        asyncio.run_coroutine_threadsafe(self.lemond.__aenter__(), self._loop).result(LIMIT_S)
        self.lemond.table[MODEL] = Listed(self.server.port, os.getpid())
        # One whose own server speaks the audio paths, and wants its checkpoint as model.
        self.lemond.table["speech"] = Listed(self.server.port, os.getpid(), recipe="flm")
        command = [sys.executable, "-m", "lemond_adapter", "serve", "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*command, "--lemond", self.lemond.url, *arguments],
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("ready: "), line
        host, _, port = line.split()[1].removeprefix("http://").partition(":")
        self.url = f"http://{host}:{port}"
        self.address = (host, int(port))

    def wire(self) -> Wire:
        return Wire(self.address)

    def ask(self, body: bytes = b'{"model": "scripted"}', headers: bytes = b"") -> tuple[bytes, bytes]:
        """One plain request on a connection of its own."""
        wire = self.wire()
        try:
            wire.send(request(body, headers))
            return wire.answer()
        finally:
            wire.close()

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(self.url + path, timeout=LIMIT_S) as answer:
            return json.load(answer)

    def until_seen(self, count: int) -> None:
        """Waits until the server has received so many requests."""
        ends = time.monotonic() + LIMIT_S
        while len(self.server.seen) < count:
            assert time.monotonic() < ends, f"{len(self.server.seen)} of {count} requests came"
            threading.Event().wait(0.005)

    def until_queued(self, slot: str, count: int) -> None:
        """Waits until so many requests wait for their turn in a slot."""
        ends = time.monotonic() + LIMIT_S
        while self.get("/api/v1/adapter/status")["data_plane"]["queued"].get(slot, 0) != count:
            assert time.monotonic() < ends, f"{count} requests do not wait"
            threading.Event().wait(0.005)

    def idle(self) -> None:
        """Waits until nothing is in flight."""
        ends = time.monotonic() + LIMIT_S
        while self.get("/api/v1/adapter/status")["counters"]["in_flight"]:
            assert time.monotonic() < ends, "a request is still in flight"
            threading.Event().wait(0.01)

    def close(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(LIMIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        asyncio.run_coroutine_threadsafe(self.lemond.__aexit__(None, None, None), self._loop).result(LIMIT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.server.close()
        return code


def request(body: bytes, headers: bytes = b"", path: bytes = b"/v1/chat/completions") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: h\r\n%bContent-Length: %d\r\n\r\n%b" % (path, headers, len(body), body)


@pytest.fixture(scope="module")
def shared_relay() -> Iterator[Relay]:
    running = Relay()
    yield running
    assert running.close() == 0


@pytest.fixture
def relay(shared_relay: Relay) -> Relay:
    """The module's relay, with a clean server."""
    shared_relay.server.answer = plain
    shared_relay.server.read_body = True
    shared_relay.server.seen.clear()
    return shared_relay
