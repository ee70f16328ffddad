"""A simulated lemond as a process of its own: started, told to misbehave, killed, started again."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any

import httpx

START_LIMIT_S = 20.0

# Simulators on one machine keep out of each other's child ports.
_bases = itertools.cycle(range(20_000 + (os.getpid() % 97) * 100, 32_000, 100))


class SimulatorError(Exception):
    """The simulated lemond did not start, or refused a request of the test's."""


class SimulatorProcess:
    """Async context manager: a running simulated lemond.

    `time_scale` divides every wait of lemond's. `start` after `kill` or `stop` uses the same port.
    """

    def __init__(
        self,
        release: str = "10.7.0",
        *,
        time_scale: float = 100.0,
        max_loaded_models: int = 4,
        models: Sequence[str] | None = None,
        port: int = 0,
        api_key: str | None = None,
        child_port_base: int | None = None,
        extra_args: Sequence[str] = (),
    ) -> None:
        self._arguments = ["--release", release, "--time-scale", str(time_scale)]
        self._arguments += ["--max-loaded-models", str(max_loaded_models), "--die-with-parent"]
        base = next(_bases) if child_port_base is None else child_port_base
        self._arguments += ["--child-port-base", str(base)]
        if models:
            self._arguments += ["--models", ",".join(models)]
        if api_key:
            self._arguments += ["--api-key", api_key]
        self._arguments += list(extra_args)
        # A file, not a pipe: nobody has to drain it, and it outlives the process.
        self._errors: IO[bytes] | None = None
        self._said = ""
        self._api_key = api_key
        self._port = port
        self._process: asyncio.subprocess.Process | None = None
        self.ws_port = 0

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self._port}"

    def stderr(self) -> str:
        """What it has written to stderr so far."""
        if self._errors is not None:
            # By pread: the offset is shared with the process that writes.
            self._said = os.pread(self._errors.fileno(), 1 << 20, 0).decode(errors="replace").strip()
        return self._said

    def _ended(self) -> None:
        self.stderr()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    @property
    def pid(self) -> int:
        """Its process id."""
        if self._process is None:
            raise SimulatorError("the simulator is not running")
        return self._process.pid

    async def __aenter__(self) -> SimulatorProcess:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Its children go with it; there is nothing to be saved by a slow farewell.
        await self.kill()

    async def start(self) -> None:
        """Starts it and waits until it listens."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `_ended`
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "lemond_adapter.simulator",
            "--listen",
            f"127.0.0.1:{self._port}",
            *self._arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._errors,
        )
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), START_LIMIT_S)
        except TimeoutError:
            await self.kill()
            problem = f"the simulator did not listen within {START_LIMIT_S:g} s"
            raise SimulatorError(f"{problem}; it said: {self.stderr()}") from None
        text = line.decode()
        if not text.startswith("listening: "):
            await self._process.wait()
            self._ended()
            problem = f"the simulator did not start (exit code {self._process.returncode})"
            raise SimulatorError(f"{problem}; it said: {self.stderr()}")
        _, url, ws = text.split()
        self._port = int(url.rpartition(":")[2])
        self.ws_port = int(ws.removeprefix("ws="))

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        process = self._process
        if process is None or process.returncode is not None:
            self._ended()
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 5.0)
            self._ended()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL; its children go with it."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._ended()

    async def fault(self, name: str, **parameters: Any) -> dict[str, Any]:
        """Tells it to misbehave."""
        return await self._post("/simulator/fault", {"name": name, **parameters})

    async def stats(self) -> dict[str, Any]:
        """What was asked of it, and what it runs."""
        return await self._request("GET", "/simulator/stats")

    async def reset_stats(self) -> None:
        """Counts from zero."""
        await self._post("/simulator/reset-stats", {})

    async def load(self, model: str, **options: Any) -> dict[str, Any]:
        """As a client that talks to lemond directly."""
        return await self._post("/v1/load", {"model_name": model, **options})

    async def unload(self, model: str | None = None) -> dict[str, Any]:
        """Unloads one model, or all."""
        return await self._post("/v1/unload", {"model_name": model} if model else {})

    async def health(self) -> dict[str, Any]:
        """Its listing."""
        return await self._request("GET", "/v1/health")

    async def child(self, model: str) -> dict[str, Any]:
        """The child of a loaded model: pid, port, alive."""
        for child in (await self.stats())["children"]:
            if child["model"] == model:
                return dict(child)
        raise SimulatorError(f"{model} is not loaded")

    async def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._request("POST", path, dict(body))

    async def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        # Plain HTTP on loopback: not loading certificates saves most of the call's time.
        async with httpx.AsyncClient(
            trust_env=False, timeout=60.0, base_url=self.url, verify=False
        ) as client:
            answer = await client.request(method, path, json=body, headers=headers)
        data: dict[str, Any] = answer.json()
        if answer.status_code >= 400 and path.startswith("/simulator/"):
            raise SimulatorError(f"{method} {path}: {data}")
        return data
