"""One simulated lemond: its router, log, stream and the faults it has been told to have."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from lemond_adapter.simulator.children import CHILD
from lemond_adapter.simulator.logs import LogHub
from lemond_adapter.simulator.models import SimModel
from lemond_adapter.simulator.profile import ReleaseProfile
from lemond_adapter.simulator.router import Router
from lemond_adapter.simulator.stream import LogStreamServer


@dataclass(slots=True)
class Faults:
    """Standing faults of the HTTP side. Times are on the loop's clock, in seconds."""

    hang_until: float = 0.0
    health_hang_until: float = 0.0
    health_delay_s: float = 0.0
    health_body: dict[str, Any] | None = None
    second_lemond: bool = False


@dataclass(slots=True)
class Counters:
    """What clients asked."""

    requests: Counter[str] = field(default_factory=Counter)
    alternate: int = 0


class Daemon:
    """Everything behind the HTTP surface."""

    def __init__(
        self,
        profile: ReleaseProfile,
        models: tuple[SimModel, ...],
        *,
        version: str,
        scale: float,
        max_loaded: int,
        port_base: int,
        load_s: float,
        log_level: str,
        api_key: str | None,
    ) -> None:
        self.version = version
        self.api_key = api_key
        self.log = LogHub(log_level)
        self.stream = LogStreamServer(self.log, api_key)
        self.router = Router(
            profile,
            models,
            self.log,
            scale=scale,
            max_loaded=max_loaded,
            port_base=port_base,
            load_s=load_s,
        )
        self.faults = Faults()
        self.counters = Counters()
        self.squatters: dict[int, subprocess.Popen[bytes]] = {}

    async def start(self, host: str, ws_port: int) -> None:
        """Begins to log and to serve the stream."""
        self._boot_lines()
        await self.stream.start(host, ws_port)

    def _boot_lines(self) -> None:
        self.log.info("main", "Starting Lemonade Server...")
        self.log.info("main", f"  Version: {self.version}")
        self.log.info("Server", f"Max loaded models per type: {self.router.max_loaded}")

    async def stop(self) -> None:
        """SIGTERM: the stream goes first, what follows is never streamed."""
        self.log.info("main", "Shutdown requested, stopping server...")
        self.log.info("Server", "Stopping HTTP server...")
        await asyncio.sleep(0)
        await self.stream.stop()
        self.router.kill_all()
        for squatter in self.squatters.values():
            squatter.kill()
            squatter.wait()

    async def health(self) -> dict[str, Any]:
        """The body of `/v1/health`."""
        loaded = await self.router.listing()
        if self.faults.second_lemond:
            self.counters.alternate += 1
        other = self.faults.second_lemond and self.counters.alternate % 2 == 0
        recent = max(loaded, key=lambda entry: entry["last_use"], default=None)
        return {
            "all_models_loaded": [] if other else loaded,
            "max_models": dict.fromkeys(self.router.profile.types, self.router.max_loaded),
            "model_loaded": None if other or recent is None else recent["model_name"],
            "status": "ok",
            "version": self.version,
            "websocket_port": self.stream.port + (1 if other else 0),
        }

    def stats(self) -> dict[str, Any]:
        """For tests: what was asked of this lemond, and what it runs."""
        requests = self.counters.requests
        return {
            "pid": os.getpid(),
            "requests": dict(requests),
            "requests_total": sum(requests.values()),
            "ws_connections_open": self.stream.connections_open,
            "ws_connections_total": self.stream.connections_total,
            "subscribes": self.log.subscribes,
            "loads": dict(self.router.loads),
            "children": [
                {"model": c.model.public, "pid": c.pid, "port": c.port, "alive": not c.zombie()}
                for c in self.router.table
            ],
        }

    def squat(self, port: int) -> None:
        """Another program takes the port; it answers as the model `squatter`."""
        command = [sys.executable, "-I", "-S", str(CHILD), "--model", "squatter", "--port", str(port)]
        process = subprocess.Popen([*command, "--parent", str(os.getpid())], stdout=subprocess.DEVNULL)
        self.squatters[port] = process

    def die(self) -> None:
        """As kill -9."""
        os.kill(os.getpid(), signal.SIGKILL)
