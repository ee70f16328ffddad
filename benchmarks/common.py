"""What the benchmarks share: rows of the table, a fast model server, the proxies to compare with.

Everything that is compared runs in one session, interleaved, against one and the same model server, so
that a noisy machine is noisy for all. The figures to look at are the ratios.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import signal
import socket
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lemond_adapter.testing.listing import Listed, ListingLemond

HERE = Path(__file__).parent
MODEL = "bench-model"


@dataclass(frozen=True)
class Row:
    """One line of the table. `met` is None where there is no target, or nothing could be measured."""

    what: str
    value: str
    target: str = ""
    met: bool | None = None
    detail: dict[str, Any] | None = None

    def json(self) -> dict[str, Any]:
        return asdict(self)


def machine() -> str:
    """The line that says where the figures come from."""
    model = "unknown CPU"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, {system}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def listening(port: int) -> None:
    """Waits until something accepts on the port."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


@contextlib.asynccontextmanager
async def process(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that ends with the context."""
    running = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        yield running
    finally:
        if running.returncode is None:
            running.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(running.wait(), 10)
            except TimeoutError:
                running.kill()
                await running.wait()


@dataclass(frozen=True)
class Target:
    """Something to send requests to."""

    name: str
    port: int
    pid: int


@contextlib.asynccontextmanager
async def model_server() -> AsyncIterator[Target]:
    """The stub behind everything."""
    port = free_port()
    async with process(sys.executable, str(HERE / "stub.py"), str(port)) as running:
        await listening(port)
        yield Target("direct", port, running.pid)


@contextlib.asynccontextmanager
async def service(stub: Target) -> AsyncIterator[Target]:
    """Ours, over a lemond that lists the stub."""
    async with ListingLemond((MODEL,)) as lemond:
        lemond.table[MODEL] = Listed(stub.port, stub.pid)
        command = [sys.executable, "-m", "lemond_adapter", "serve", "--listen", "127.0.0.1:0"]
        async with process(*command, "--lemond", lemond.url) as running:
            assert running.stdout is not None
            line = (await running.stdout.readline()).decode()
            if not line.startswith("ready:"):
                raise RuntimeError(f"the service did not start: {line}")
            yield Target("lemond-adapter", int(line.split()[1].rpartition(":")[2]), running.pid)


NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 100000000; client_max_body_size 100m;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""

HAPROXY = """
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  http-reuse always
frontend front
  bind 127.0.0.1:{port}
  default_backend model
backend model
  server stub 127.0.0.1:{upstream}
"""


@contextlib.asynccontextmanager
async def peers(stub: Target, wanted: Sequence[str]) -> AsyncIterator[dict[str, Target | None]]:
    """The proxies to compare with; None for those that are not installed."""
    found: dict[str, Target | None] = {}
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for name in wanted:
            found[name] = await stack.enter_async_context(_peer(name, stub, Path(folder)))
        yield found


@contextlib.asynccontextmanager
async def _peer(name: str, stub: Target, folder: Path) -> AsyncIterator[Target | None]:
    port = free_port()
    if name == "uvicorn + httpx":
        command = [sys.executable, str(HERE / "httpx_proxy.py"), str(port), str(stub.port)]
    else:
        tool = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
        if tool is None:
            yield None
            return
        config = folder / f"{name}.conf"
        text = NGINX if name == "nginx" else HAPROXY
        config.write_text(text.format(folder=folder, port=port, upstream=stub.port))
        command = [tool, "-c", str(config)] if name == "nginx" else [tool, "-db", "-f", str(config)]
    async with process(*command) as running:
        await listening(port)
        worker = _child_of(running.pid) if name == "nginx" else running.pid
        yield Target(name, port, worker)


def _child_of(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return pid


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * len(ordered)))]
