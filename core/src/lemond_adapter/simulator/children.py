"""Starts and stops children: real processes on real ports, the way lemond does it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from lemond_adapter.simulator import lines
from lemond_adapter.simulator.logs import LogHub
from lemond_adapter.simulator.models import SimModel
from lemond_adapter.simulator.profile import ReleaseProfile

CHILD = Path(__file__).with_name("child.py")


class ChildFailed(Exception):
    """The child did not become ready; the text is lemond's."""


class ChildAbandoned(Exception):
    """The lemond that was starting the child is gone."""


class SimChild:
    """One started child. Its zombie stays until it is reaped here, as with lemond."""

    def __init__(self, model: SimModel, options: dict[str, Any], port: int, process: subprocess.Popen[bytes]):
        self.model = model
        self.options = options
        self.port = port
        self.process = process
        self.last_use = 0
        self.requests = 0
        self.abandoned = False
        """Its lemond has gone; whoever waits for it must stop, in silence."""

    @property
    def pid(self) -> int:
        """Its process id, also after it died."""
        return self.process.pid

    def zombie(self) -> bool:
        """Whether it has died and nobody reaped it; does not reap."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        return state == "Z"


def free_port(base: int) -> int:
    """The lowest port from `base` that binds without SO_REUSEADDR, as lemond looks for it."""
    for port in range(base, min(base + 1000, 65535)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ChildFailed("no free port")


async def start_child(
    model: SimModel, options: dict[str, Any], port: int, warm_s: float, log: LogHub
) -> SimChild:
    """Starts the process and logs its lines under `Process`; not waited for."""
    command = [sys.executable, "-I", "-S", str(CHILD), "--model", model.public]
    command += ["--checkpoint", model.checkpoint, "--recipe", model.recipe, "--port", str(port)]
    command += ["--warm-s", str(warm_s), "--parent", str(os.getpid())]
    if model.broken or "no-such-flag" in str(options.get("llamacpp_args", "")):
        command.append("--broken")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    await _echo(process.stdout, log)
    return SimChild(model, options, port, process)


async def _echo(pipe: Any, log: LogHub) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)

    async def follow() -> None:
        while line := await reader.readline():
            text = line.decode(errors="replace").rstrip("\n")
            log.write("Error" if "error" in text.lower() else "Info", "Process", text)

    task = loop.create_task(follow())
    _TASKS.add(task)
    task.add_done_callback(_TASKS.discard)


_TASKS: set[asyncio.Task[None]] = set()


async def wait_ready(child: SimChild, profile: ReleaseProfile, scale: float, log: LogHub) -> None:
    """Polls its health until it answers 200; raises `ChildFailed` when it exits."""
    while True:
        if child.abandoned:
            child.process.wait()
            raise ChildAbandoned(child.model.public)
        if child.zombie():
            lines.died_at_start(log, child.model)
            child.process.wait()
            if profile.waits_for_the_dead:
                await asyncio.sleep(profile.term_wait_s / scale)
                log.write("Warn", "ProcessManager", "Process did not respond to SIGTERM, using SIGKILL")
            log.info("ProcessManager", "Process terminated, waiting for GPU driver cleanup...")
            await asyncio.sleep(profile.cleanup_s / scale)
            raise ChildFailed(f"{child.model.server} failed to start")
        if await healthy(child.port, "/api/tags" if child.model.recipe == "flm" else "/health"):
            return
        await asyncio.sleep(max(0.01, profile.ready_poll_s / scale))


async def healthy(port: int, path: str = "/health") -> bool:
    """Whether something on the port answers its probe with 200."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n\r\n".encode())
        return b" 200 " in await asyncio.wait_for(reader.readline(), 1.0)
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()


async def stop_child(child: SimChild, profile: ReleaseProfile, scale: float, log: LogHub) -> None:
    """SIGTERM, up to 5 s, SIGKILL, then the unconditional 2 s of driver clean-up."""
    child.process.send_signal(signal.SIGTERM)
    waited = 0.0
    while child.process.poll() is None:
        if waited > profile.term_wait_s / scale + 0.5:
            log.write("Warn", "ProcessManager", "Process did not respond to SIGTERM, using SIGKILL")
            child.process.kill()
        await asyncio.sleep(0.005)
        waited += 0.005
    log.info("ProcessManager", "Process terminated, waiting for GPU driver cleanup...")
    await asyncio.sleep(profile.cleanup_s / scale)
