"""A real Prometheus scrapes a real service through a run of faults: the right alerts fire, and resolve."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from lemond_adapter.simulator import SimulatorProcess

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("prometheus") is None,
        reason="prometheus is not installed (Debian: apt-get install prometheus)",
    ),
]

RULES = Path(__file__).parents[2] / "contrib" / "prometheus" / "lemond-adapter.rules.yml"

FASTER = 60
"""Minutes of the rules become seconds, hours become minutes; the rules are otherwise as shipped."""

LIMIT_S = 90.0


def in_seconds(text: str) -> str:
    """The rules with every duration divided by `FASTER`."""
    seconds = {"s": 1, "m": 60, "h": 3600}

    def scaled(found: re.Match[str]) -> str:
        return f"{int(found[1]) * seconds[found[2]] * 1000 // FASTER}ms"

    text = re.sub(r"(?<=\[)(\d+)([smh])(?=\])", scaled, text)
    return re.sub(r"(?<=for: )(\d+)([smh])\b", scaled, text)


class Prometheus:
    """A server of the test's own, on a port of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.known: frozenset[str] = frozenset()

    async def scrapes(self) -> None:
        """Waits until the target was scraped several times: it begins some seconds after the start."""
        query = {"query": "count_over_time(up[1m])"}
        async with asyncio.timeout(LIMIT_S), httpx.AsyncClient(trust_env=False, timeout=10) as client:
            while True:
                answer = (await client.get(f"{self._url}/api/v1/query", params=query)).json()
                if any(int(row["value"][1]) >= 4 for row in answer["data"]["result"]):
                    return
                await asyncio.sleep(0.25)

    async def firing(self) -> dict[str, set[str]]:
        """What fires now: the values of slot, model or kind by alert."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            answer = (await client.get(f"{self._url}/api/v1/alerts")).json()
        found: dict[str, set[str]] = {}
        for alert in answer["data"]["alerts"]:
            if alert["state"] == "firing":
                labels = alert["labels"]
                of = labels.get("slot") or labels.get("model") or labels.get("kind") or ""
                found.setdefault(labels["alertname"], set()).add(of)
        return found

    async def until(self, condition: Callable[[dict[str, set[str]]], bool], what: str) -> dict[str, set[str]]:
        """Asks again with each evaluation."""
        found: dict[str, set[str]] = {}
        try:
            async with asyncio.timeout(LIMIT_S):
                while not condition(found := await self.firing()):  # noqa: ASYNC110 - it has no way to tell
                    await asyncio.sleep(0.25)
        except TimeoutError:
            raise AssertionError(f"not within {LIMIT_S:g} s: {what}; firing: {found}") from None
        return found

    async def fires(self, alert: str, of: str = "") -> None:
        assert alert in self.known
        await self.until(lambda found: of in found.get(alert, set()), f"{alert} fires for {of!r}")

    async def resolves(self, alert: str) -> None:
        await self.until(lambda found: alert not in found, f"{alert} resolves")


@pytest.fixture
async def start_prometheus(tmp_path: Path) -> AsyncIterator[Callable[[str], Awaitable[Prometheus]]]:
    processes: list[subprocess.Popen[bytes]] = []

    async def start(target: str) -> Prometheus:
        rules = in_seconds(RULES.read_text())
        (tmp_path / "rules.yml").write_text(rules)
        (tmp_path / "prometheus.yml").write_text(
            "global: {scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}\n"
            "rule_files: [rules.yml]\n"
            "scrape_configs:\n"
            "  - job_name: lemond-adapter\n"
            f"    static_configs: [{{targets: ['{target.removeprefix('http://')}']}}]\n"
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        command = [
            "prometheus",
            f"--config.file={tmp_path}/prometheus.yml",
            f"--web.listen-address={address}",
        ]
        with (tmp_path / "prometheus.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    [*command, f"--storage.tsdb.path={tmp_path}/data"], stdout=log, stderr=log, cwd=tmp_path
                )
            )
        server = Prometheus(f"http://{address}")
        server.known = frozenset(
            rule["alert"] for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]
        )
        async with asyncio.timeout(30), httpx.AsyncClient(trust_env=False) as client:
            while processes[-1].poll() is None:
                try:
                    if (await client.get(f"http://{address}/-/ready")).status_code == 200:
                        return server
                except httpx.TransportError:
                    pass  # it is not up yet
                await asyncio.sleep(0.1)
        raise AssertionError((tmp_path / "prometheus.log").read_text()[-2000:])

    yield start
    for process in processes:
        process.terminate()
        process.wait(20)


async def test_the_right_alerts_fire_and_resolve(
    simulator: SimulatorProcess, start_service: Any, start_prometheus: Any, recovers: Any, tmp_path: Path
) -> None:
    config = tmp_path / "adapter.toml"
    config.write_text(
        '[policy]\nheartbeat_s = 2.5\n[slots.primary]\nmodel = "tiny-a"\n[slots.broken]\nmodel = "tiny-c"\n'
    )
    service = await start_service("--lemond", simulator.url, "--config", str(config))
    await service.loaded("tiny-a")
    prometheus = await start_prometheus(service.url)
    await prometheus.scrapes()

    # Traffic that is served raises nothing. Several evaluations must have seen it.
    for _ in range(20):
        assert (await service.chat("primary")).status_code == 200
        await asyncio.sleep(0.1)
    assert await prometheus.firing() == {}

    # A crash loop; each time the model comes back.
    for _ in range(4):
        await simulator.fault("crash", model="tiny-a")
        await recovers(service, "primary")
    await prometheus.fires("LemondCrashLoop", "tiny-a")
    await prometheus.resolves("LemondCrashLoop")

    # A load that fails takes the others with it; the slot stays in error.
    await simulator.fault("load_failure", model="tiny-c", times=2)
    assert (await service.chat("broken")).status_code == 503
    await prometheus.fires("LemondCascade")
    await prometheus.fires("LemondSlotInError", "broken")
    await prometheus.resolves("LemondCascade")
    await simulator.fault("clear")
    await service.post("/api/slots/broken/load")
    await prometheus.resolves("LemondSlotInError")

    # lemond answers, its log stream does not.
    await simulator.fault("ws_refuse")
    await simulator.fault("ws_drop")
    await prometheus.fires("LemondWatchDown")
    await simulator.fault("ws_refuse", on=False)
    await prometheus.resolves("LemondWatchDown")

    # A release that says things in new words.
    await simulator.fault("log", text="Evicting tensor cache of model: extra.tiny-a")
    await prometheus.fires("LemondDrift")

    # lemond is gone, and comes back.
    await simulator.kill()
    await prometheus.fires("LemondUnreachable")
    assert "LemondAdapterDown" not in await prometheus.firing()
    await simulator.start()
    await prometheus.resolves("LemondUnreachable")

    # Two lemonds.
    await simulator.fault("second_lemond")
    await prometheus.fires("LemondTwoOnOnePort")

    # Never, in all of this.
    assert "LemondAdapterUpstreamUnavailable" not in await prometheus.firing()

    # The service itself goes.
    assert await service.stop() == 0
    await prometheus.fires("LemondAdapterDown")
