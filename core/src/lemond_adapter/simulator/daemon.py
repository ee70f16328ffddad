"""One simulated lemond: its router, log, stream and the faults it has been told to have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from lemond_adapter.simulator import lines
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
    health_body_times: float = float("inf")
    second_lemond: bool = False
    health_keys: dict[str, Any] = field(default_factory=dict)
    config_hidden: bool = False


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
        http_threads: int = 0,
    ) -> None:
        self.http_threads = http_threads
        self._level = log_level
        self._host, self._port = "127.0.0.1", 0
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
        self.settings: dict[str, Any] = {"auto_evict": False, "log_level": log_level}
        """What `/internal/config` shows beside what it takes from the rest."""
        self.faults = Faults()
        self.counters = Counters()
        self.squatters: dict[int, subprocess.Popen[bytes]] = {}

    async def start(self, host: str, port: int, ws_port: int) -> None:
        """Begins to serve the stream, and to log."""
        self._host, self._port = host, port
        await self.stream.start(host, ws_port)
        self.boot_lines()

    def boot_lines(self) -> None:
        """The first lines of a process."""
        lines.boot(
            self.log,
            version=self.version,
            host=self._host,
            port=self._port,
            ws_port=self.stream.port,
            level=self._level,
            limit=self.router.max_loaded,
        )

    def restart(self, version: str | None) -> None:
        """All of lemond's state is gone, and its children; HTTP and stream keep their ports."""
        self.stream.drop()
        self.router.kill_all()
        self.log.restart()
        self.version = version or self.version
        self.boot_lines()

    def begin_shutdown(self) -> None:
        """SIGTERM: the stream goes first, without a close frame; what follows is never streamed."""
        self.log.info("Server", "Shutdown requested, stopping server...")
        self.log.info("Server", "Stopping HTTP server...")
        self.stream.end_soon()

    async def stop(self) -> None:
        """Ends what `start` and the faults have started."""
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
            **self.faults.health_keys,
        }

    def config(self) -> dict[str, Any]:
        """The body of `/internal/config`, and of `/v1/params` from 10.9 on: the keys that matter here."""
        return {
            "config_version": 1,
            "host": self._host,
            "max_loaded_models": self.router.max_loaded,
            "port": self._port,
            "websocket_port": "auto",
            **self.settings,
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
