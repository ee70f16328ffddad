"""Reads an exposition as Prometheus would."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from lemond_adapter.simulator import SimulatorProcess


@dataclass(frozen=True)
class Exposition:
    """`labels` has the label names of each series name."""

    families: dict[str, Metric]
    labels: dict[str, frozenset[str]]

    def value(self, name: str, **labels: str) -> float | None:
        """The sample of exactly these labels; None where there is none."""
        for family in self.families.values():
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return None

    def total(self, name: str, **labels: str) -> float:
        """The sum over samples that have at least these labels."""
        samples = [sample for family in self.families.values() for sample in family.samples]
        wanted = labels.items()
        return sum(
            sample.value for sample in samples if sample.name == name and wanted <= sample.labels.items()
        )


def read(text: str) -> Exposition:
    """Fails on a sample told twice: Prometheus refuses the whole scrape then."""
    families = {family.name: family for family in text_string_to_metric_families(text)}
    labels: dict[str, frozenset[str]] = {}
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    for family in families.values():
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in seen, f"told twice: {key}"
            seen.add(key)
            names = frozenset(sample.labels)
            assert labels.setdefault(sample.name, names) == names, f"{sample.name}: differing labels"
    return Exposition(families, labels)


@pytest.fixture
def scrape() -> Callable[..., Awaitable[Exposition]]:
    """The exposition of a running service."""

    async def get(url: str, query: str = "") -> Exposition:
        async with httpx.AsyncClient(trust_env=False, timeout=10.0) as client:
            answer = await client.get(f"{url}/metrics{query}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        return read(answer.text)

    return get


async def held(service: Any, model: str) -> httpx.Response:
    """A request that waits for its model."""
    body = {"model": model, "messages": [{"role": "user", "content": "who are you?"}]}
    answer: httpx.Response = await service.post("/v1/chat/completions", body, Prefer="wait=30")
    return answer


async def comes_back(service: Any, model: str) -> None:
    """As a client does that obeys: a request that meets the dying process is refused once."""
    async with asyncio.timeout(20):
        while (answer := await held(service, model)).status_code != 200:
            assert answer.status_code == 503, answer.text
            await asyncio.sleep(int(answer.headers["retry-after-ms"]) / 1000)


@pytest.fixture
def recovers() -> Callable[[Any, str], Awaitable[None]]:
    """Waits until a lost model serves again."""
    return comes_back


@pytest.fixture
async def busy(simulator: SimulatorProcess, start_service: Any, tmp_path: Path) -> Any:
    """A service that has seen traffic, a crash, an eviction, a failed load and nonsense."""
    config = tmp_path / "adapter.toml"
    config.write_text('[slots.primary]\nmodel = "tiny-a"\naliases = ["gpt-4o"]\n')
    service = await start_service("--lemond", simulator.url, "--config", str(config))
    assert (await service.chat("gpt-4o", stream=True)).status_code == 503
    await service.until(lambda: service.routed("tiny-a"))
    for _ in range(3):
        assert (await service.chat("primary", stream=True)).status_code == 200
    assert (await held(service, "tiny-b")).status_code == 200
    await simulator.fault("crash", model="tiny-a")
    await comes_back(service, "primary")
    await simulator.unload("tiny-b")
    await simulator.fault("load_failure", model="tiny-c")
    assert (await service.chat("tiny-c")).status_code == 503

    async def failed() -> bool:
        return bool((await service.chat("tiny-c")).json()["error"]["code"] == "slot.error")

    await service.until(failed)
    assert (await service.chat("nobody\u2028 knows\x1b[31m this")).status_code == 404
    return service
