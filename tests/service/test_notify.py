"""What systemd is told, on a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lemond_adapter.service.notify import notify, watchdog_period_s
from lemond_adapter.simulator import SimulatorProcess


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The receiving end, and its name as in $NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@lemond-adapter-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        receiver.setblocking(False)
        yield receiver, name


async def told(receiver: socket.socket) -> list[str]:
    async with asyncio.timeout(20):
        data = await asyncio.get_running_loop().sock_recv(receiver, 4096)
    return data.decode().split("\n")


async def test_ready_signs_of_life_stopping(
    listener: tuple[socket.socket, str], simulator: SimulatorProcess, start_service: Any
) -> None:
    receiver, name = listener
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}
    service = await start_service("--lemond", simulator.url, environment=environment)
    ready, status = await told(receiver)
    assert ready == "READY=1"
    assert status == f"STATUS=serving at {service.url}"
    assert await told(receiver) == ["WATCHDOG=1"]
    assert await told(receiver) == ["WATCHDOG=1"], "again, for as long as the loop turns"
    service.process.send_signal(signal.SIGTERM)
    while (last := await told(receiver)) == ["WATCHDOG=1"]:
        continue
    assert last == ["STOPPING=1"]
    assert await service.stop() == 0


async def test_a_service_that_hangs_gives_no_sign(
    simulator: SimulatorProcess, start_service: Any, tmp_path: Path
) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name)
        receiver.setblocking(False)
        environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "40000"}
        service = await start_service("--lemond", simulator.url, environment=environment)
        await told(receiver)
        await told(receiver)
        service.process.send_signal(signal.SIGSTOP)
        while True:  # what was on its way when it stopped
            try:
                await asyncio.wait_for(asyncio.get_running_loop().sock_recv(receiver, 4096), 0.5)
            except TimeoutError:
                break
        service.process.send_signal(signal.SIGCONT)
        assert await told(receiver) == ["WATCHDOG=1"]


def test_without_systemd_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "relative")
    assert not notify("READY=1")


def test_a_socket_that_is_gone_is_not_fatal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not notify("READY=1\nSTATUS=x")
    assert "READY=1" in caplog.text


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("30000000", "", 15.0),
        ("30000000", "ours", 15.0),
        ("30000000", "1", None),
        ("", "", None),
        ("x", "", None),
        ("0", "", None),
    ],
)
def test_the_period_is_half_of_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, expected: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "ours" else pid)
    assert watchdog_period_s() == expected
