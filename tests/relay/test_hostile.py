"""Requests that two parsers could read differently, and clients that mean no good: refused or closed,
nothing reaches a model's server, and the next client is served."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lemond_adapter import LemondAdapter
from lemond_adapter.dispatch import connection as connections
from lemond_adapter.dispatch.connection import ClientConnection
from lemond_adapter.dispatch.dataplane import DataPlane
from lemond_adapter.testing.listing import ListingLemond

from .conftest import Relay, Seen, request

BODY = b'{"model": "scripted"}'
START = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n"
SMUGGLED = b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 21\r\n\r\n" + BODY
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"


def with_length(*lines: bytes) -> bytes:
    return START + b"".join(line + b"\r\n" for line in lines) + b"Content-Length: 21\r\n\r\n" + BODY


CORPUS: dict[str, bytes] = {
    "CL.TE": with_length(b"Transfer-Encoding: chunked").replace(BODY, b"0\r\n\r\n" + SMUGGLED),
    "TE.CL": START
    + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n15\r\n"
    + BODY
    + b"\r\n0\r\n\r\n",
    "TE twice": START + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE, another": START + b"Transfer-Encoding: identity\r\n\r\n" + SMUGGLED,
    "TE, a list": START + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE, hidden by a tab": START + b"Transfer-Encoding:\tchunked, x\r\n\r\n0\r\n\r\n",
    "TE, hidden by vertical tab": START + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "TE with a blank before the colon": START + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "TE in HTTP/1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"15\r\n" + BODY + b"\r\n0\r\n\r\n",
    "double CL": with_length(b"Content-Length: 0"),
    "double CL, the same": with_length(b"Content-Length: 21"),
    "CL list": START + b"Content-Length: 21, 21\r\n\r\n" + BODY,
    "CL plus": START + b"Content-Length: +21\r\n\r\n" + BODY,
    "CL minus": START + b"Content-Length: -1\r\n\r\n" + BODY,
    "CL hex": START + b"Content-Length: 0x15\r\n\r\n" + BODY,
    "CL underscore": START + b"Content-Length: 2_1\r\n\r\n" + BODY,
    "CL huge": START + b"Content-Length: 99999999999999999999\r\n\r\n" + BODY,
    "CL empty": START + b"Content-Length:\r\n\r\n" + BODY,
    "obs-fold": with_length(b"X-Fold: a\r\n b"),
    "obs-fold of CL": START + b"Content-Length:\r\n 21\r\n\r\n" + BODY,
    "first line a fold": START + b" Content-Length: 21\r\n\r\n" + BODY,
    "bare LF": with_length().replace(b"\r\nHost", b"\nHost"),
    "bare LF in a value": with_length(b"X: a\nContent-Length: 0"),
    "bare CR in a value": with_length(b"X: a\rContent-Length: 0"),
    "NUL in a value": with_length(b"X: a\x00b"),
    "NUL in a name": with_length(b"X\x00: a"),
    "NUL in the path": with_length().replace(b"/chat", b"/ch\x00at"),
    "no colon": with_length(b"nonsense"),
    "empty name": with_length(b": x"),
    "no host": with_length().replace(b"Host: h\r\n", b""),
    "two hosts": with_length(b"Host: other"),
    "blank in the path": with_length().replace(b"/v1/chat", b"/v1 /chat"),
    "HTTP/0.9": b"POST /v1/chat/completions\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": with_length().replace(b"HTTP/1.1", b"HTTP/1.2"),
    "lower-case version": with_length().replace(b"HTTP/1.1", b"http/1.1"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "chunk size 0x": CHUNKED + b"0x15\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size signed": CHUNKED + b"+15\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size blank first": CHUNKED + b" 15\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size empty": CHUNKED + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size huge": CHUNKED + b"fffffffffffffffff\r\n" + BODY,
    "chunk size line bare LF": CHUNKED + b"15\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size line endless": CHUNKED + b"15;" + b"x" * 10_000,
    "chunk extension with NUL": CHUNKED + b"15;a=\x00\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk longer than told": CHUNKED + b"14\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk without its CRLF": CHUNKED + b"15\r\n" + BODY + b"0\r\n\r\n",
    "trailer that is none": CHUNKED + b"15\r\n" + BODY + b"\r\n0\r\nnonsense\r\n\r\n",
    "trailer that is a length": CHUNKED + b"15\r\n" + BODY + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
    "trailer that is a coding": CHUNKED + b"15\r\n" + BODY + b"\r\n0\r\nTransfer-Encoding: x\r\n\r\n",
    "trailers endless": CHUNKED + b"15\r\n" + BODY + b"\r\n0\r\n" + b"X: y\r\n" * 5000,
    "head too long": START + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
    "head without end": START + b"X: " + b"x" * 70_000,
    "too many headers": with_length(*[b"X: y"] * 200),
    "expectation unknown": with_length(b"Expect: 200-ok"),
}
ALLOWED = {"head too long": b"431", "head without end": b"431", "too many headers": b"431"}
ALLOWED |= {"expectation unknown": b"417", "CL huge": b"400"}


@pytest.mark.parametrize("name", list(CORPUS))
def test_ambiguous_requests(relay: Relay, name: str) -> None:
    wire = relay.wire()
    data = CORPUS[name]
    wire.send(data)
    raw = wire.everything()
    wire.close()
    status = raw.split(b" ")[1] if raw else b"closed"
    assert status == ALLOWED.get(name, b"400"), raw[:200]
    assert raw.count(b"HTTP/1.1 ") == 1, "one answer, and then the connection ends"
    assert json.loads(raw.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert relay.server.seen == []
    assert relay.ask()[1] == b"{}"


@pytest.mark.parametrize("size", [1, 7])
def test_the_same_in_small_pieces(relay: Relay, size: int) -> None:
    for name in ("CL.TE", "double CL", "obs-fold", "chunk longer than told", "NUL in a value"):
        wire = relay.wire()
        for at in range(0, len(CORPUS[name]), size):
            try:
                wire.send(CORPUS[name][at : at + size])
            except OSError:
                break
        assert wire.everything().startswith(b"HTTP/1.1 400"), name
        wire.close()
    assert relay.server.seen == []


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/audio/../internal/shutdown",
        b"/v1/images/%2e%2e/x",
        b"/v1//chat/completions",
        b"/v1/audio/",
        b"//v1/chat/completions",
    ],
)
def test_paths_that_could_be_read_as_others(relay: Relay, path: bytes) -> None:
    wire = relay.wire()
    wire.send(request(BODY, path=path))
    head, body = wire.answer()
    wire.close()
    assert b" 404 " in head
    assert json.loads(body)["error"]["code"] == "path.not_found"
    assert relay.server.seen == []


def test_a_client_that_closes_its_side_is_gone(relay: Relay) -> None:
    ended = threading.Event()

    def answer(connection: socket.socket, seen: Seen) -> None:
        assert connection.recv(1) == b""
        ended.set()

    relay.server.answer = answer
    wire = relay.wire()
    wire.send(request(BODY))
    relay.until_seen(1)
    wire.socket.shutdown(socket.SHUT_WR)
    assert ended.wait(5), "the model's server goes on for nobody"
    assert wire.everything() == b""
    wire.close()
    relay.idle()


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000,
    ],
)
def test_answers_that_are_not_http(relay: Relay, said: bytes) -> None:
    """A server that speaks something else: refused as interrupted, since it may have done the work."""
    relay.server.answer = lambda connection, seen: connection.sendall(said)
    head, body = relay.ask()
    assert b" 503 " in head
    error = json.loads(body)["error"]
    assert (error["code"], error["details"]["interrupted"]) == ("slot.loading", True)
    assert len(relay.server.seen) == 1


def test_bad_chunks_in_the_middle_of_an_answer_end_it(relay: Relay) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    event = b"data: {}\n\n"
    good = b"%x\r\n%b\r\n" % (len(event), event)
    relay.server.answer = lambda connection, seen: connection.sendall(head + good)
    wire = relay.wire()
    wire.send(request(BODY))
    first = wire.until(b"data: {}\n\n\r\n")
    assert b"200 OK" in first
    wire.close()
    relay.server.answer = lambda connection, seen: connection.sendall(head + good + b"zz\r\n")
    wire = relay.wire()
    wire.send(request(BODY))
    raw = wire.everything()
    wire.close()
    assert b"slot.interrupted" in raw
    assert b"[DONE]" not in raw
    assert raw.endswith(b"\r\n0\r\n\r\n"), "the error event is framed, and the stream ends"


@pytest.mark.parametrize("cut_at", [3, 40, 70])
def test_a_stream_cut_inside_a_chunk_still_ends_with_a_readable_event(relay: Relay, cut_at: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    event = b'data: {"n": 1}\n\n'
    chunk = b"%x\r\n%b\r\n" % (len(event), event)

    def answer(connection: socket.socket, seen: Seen) -> None:
        connection.sendall(head + (chunk * 4)[:cut_at])
        connection.close()

    relay.server.answer = answer
    wire = relay.wire()
    wire.send(request(BODY))
    _, raw = wire.answer()
    assert wire.everything() == b"", "the connection is closed after it"
    wire.close()
    data = b""
    while raw:
        line, _, raw = raw.partition(b"\r\n")
        size = int(line, 16)
        data, raw = data + raw[:size], raw[size + 2 :]
    events = [e for e in data.split(b"\n\n") if e]
    assert json.loads(events[-1][6:])["error"]["code"] == "slot.interrupted"
    assert all(e == event.strip() for e in events[:-1])


@pytest.fixture
async def in_loop(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, int]]:
    """The data plane in the test's own loop, with short time limits."""
    for limit in ("HEAD_LIMIT_S", "BODY_IDLE_S", "KEEP_ALIVE_S", "LINGER_S"):
        monkeypatch.setattr(connections, limit, 0.3)
    monkeypatch.setattr("lemond_adapter.dispatch.dataplane.SWEEP_S", 0.05)

    def no_asgi(owner: ClientConnection, transport: asyncio.Transport) -> Any:
        raise AssertionError("nothing here is for the ASGI side")

    async with ListingLemond() as lemond, LemondAdapter(lemond.url) as adapter:
        plane = DataPlane(adapter)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: ClientConnection(plane, no_asgi, set()), "127.0.0.1", 0)
        yield server.sockets[0].getsockname()
        server.close()
        await plane.close()


@pytest.mark.parametrize(
    ("begun", "status"),
    [(b"", None), (START, b"408"), (request(BODY)[:-5], b"408"), (CHUNKED + b"15\r\n", b"408")],
    ids=["nothing", "head", "body", "chunk"],
)
async def test_slow_clients_are_let_go(in_loop: tuple[str, int], begun: bytes, status: bytes | None) -> None:
    reader, writer = await asyncio.open_connection(*in_loop)
    writer.write(begun)
    raw = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert (raw.split(b" ")[1] if raw else None) == status


async def test_a_head_that_drips_in_has_one_time_limit(in_loop: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*in_loop)
    began = time.monotonic()

    async def drip() -> None:
        writer.write(START)
        for byte in b"X" * 10_000:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)

    dripping = asyncio.create_task(drip())
    assert b" 408 " in await asyncio.wait_for(reader.readline(), 5)
    dripping.cancel()
    writer.close()
    assert time.monotonic() - began < 4


def test_a_slow_reader_of_a_gigabyte_costs_no_memory(relay: Relay) -> None:
    """Back-pressure goes all the way to the model's server."""
    sent = 0
    size = 1 << 30

    def answer(connection: socket.socket, seen: Seen) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        block = b"x" * 65536
        while sent < size:
            connection.sendall(block)
            sent += len(block)

    relay.server.answer = answer
    before = rss_kb(relay.process.pid)
    wire = relay.wire()
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.send(request(BODY))
    for _ in range(5):
        assert wire.socket.recv(1024)
        threading.Event().wait(0.2)
    stuck = sent
    assert rss_kb(relay.process.pid) - before < 8 * 1024
    assert stuck < 32 << 20
    # Another client is served meanwhile, and this one's leaving frees the server.
    relay.server.answer = lambda connection, seen: connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert relay.ask()[1] == b"{}"
    wire.close()
    relay.idle()


def rss_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def test_a_server_that_stalls_holds_only_its_own_request(relay: Relay) -> None:
    stalled = threading.Event()
    relay.server.answer = lambda connection, seen: (
        stalled.wait(20) if b"stall" in seen.body else plain_answer(connection)
    )
    wires = [relay.wire() for _ in range(10)]
    for wire in wires:
        wire.send(request(b'{"model": "scripted", "stall": 1}'))
    relay.until_seen(10)
    for _ in range(20):
        assert relay.ask()[1] == b"{}"
    for wire in wires:
        wire.close()
    stalled.set()
    relay.idle()


def plain_answer(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


def test_a_connection_the_server_closed_meanwhile_is_not_used(relay: Relay) -> None:
    """An idle connection that its server has closed: seen before use, so the request is served."""
    closed = threading.Semaphore(0)

    def once(connection: socket.socket, seen: Seen) -> None:
        plain_answer(connection)
        connection.shutdown(socket.SHUT_RDWR)
        closed.release()

    relay.server.answer = once
    for _ in range(30):
        head, body = relay.ask()
        assert closed.acquire(timeout=10)
        assert (head.split()[1], body) == (b"200", b"{}")
    assert len(relay.server.seen) == 30


def test_connections_are_used_again(relay: Relay) -> None:
    before = relay.server.connections
    for _ in range(20):
        relay.ask()
    assert relay.server.connections - before <= 1
