"""SIGTERM with requests under way: they are finished, within the time that is set for it."""

from __future__ import annotations

import json
import signal
import socket
import threading
from pathlib import Path

import pytest

from .conftest import LIMIT_S, Relay, Seen, request

STREAM = b'{"model": "scripted", "stream": true}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'f\r\ndata: {"a": 1}\n\n\r\n'.replace(b"f\r\n", b"10\r\n", 1)
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def test_a_stream_is_finished_and_idle_connections_are_closed() -> None:
    relay = Relay()
    go = threading.Event()

    def answer(connection: socket.socket, seen: Seen) -> None:
        connection.sendall(HEAD + EVENT)
        assert go.wait(LIMIT_S)
        connection.sendall(EVENT + DONE)

    relay.server.answer = answer
    idle, busy = relay.wire(), relay.wire()
    idle.send(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
    idle.answer()
    busy.send(request(STREAM))
    busy.until(EVENT)
    relay.process.send_signal(signal.SIGTERM)
    assert idle.everything() == b""
    # Nothing new is accepted.
    with pytest.raises(ConnectionRefusedError):
        relay.wire()
    go.set()
    assert busy.everything().endswith(DONE)
    assert relay.process.wait(LIMIT_S) == 0
    relay.close()


def test_what_takes_longer_ends_with_the_error_event(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[policy]\ndrain_timeout_s = 1\n")
    relay = Relay("--config", str(config))
    gone = threading.Event()

    def answer(connection: socket.socket, seen: Seen) -> None:
        connection.sendall(HEAD + EVENT)
        assert connection.recv(1) == b""
        gone.set()

    relay.server.answer = answer
    wire = relay.wire()
    wire.send(request(STREAM))
    wire.until(EVENT)
    relay.process.send_signal(signal.SIGTERM)
    raw = wire.everything()
    last = [line for line in raw.split(b"\n") if line.startswith(b"data: ")][-1]
    assert json.loads(last[6:])["error"]["code"] == "slot.interrupted"
    assert relay.process.wait(LIMIT_S) == 0
    assert gone.wait(LIMIT_S)
    relay.close()
