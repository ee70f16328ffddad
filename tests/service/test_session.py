"""Warming slots for a session, and asking why one went."""

from __future__ import annotations

from typing import Any

import pytest

from lemond_adapter.simulator import SimulatorProcess


async def test_warm_loads_each_and_one_failure_stops_nobody(
    simulator: SimulatorProcess, start_service: Any, tmp_path: Any
) -> None:
    config = tmp_path / "adapter.toml"
    config.write_text('[slots.primary]\nmodel = "tiny-a"\n[slots.embed]\nmodel = "tiny-embed"\n')
    service = await start_service("--lemond", simulator.url, "--config", str(config))
    answer = await service.post("/api/v1/adapter/warm", {"slots": ["primary", "nobody", "embed"]})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert results["primary"] == results["embed"] == {"ok": True}
    assert results["nobody"]["ok"] is False
    assert await service.routed("tiny-a")
    assert await service.routed("tiny-embed")
    rows = {row["name"]: row for row in await service.get("/api/slots")}
    assert rows["primary"]["state"] == "ready"
    assert rows["primary"]["model_id"] == "tiny-a"
    assert (await service.chat("primary")).json()["model"] == "tiny-a"


async def test_warm_can_be_left_alone(simulator: SimulatorProcess, service: Any) -> None:
    answer = await service.post("/api/v1/adapter/warm?wait=0", {"slots": ["tiny-a"]})
    assert answer.status_code == 202
    await service.until(lambda: service.routed("tiny-a"))


@pytest.mark.parametrize("body", [None, [], {}, {"slots": []}, {"slots": "x"}, {"slots": ["a"], "x": 1}])
async def test_bad_warm_bodies(service: Any, body: Any) -> None:
    answer = await service.post("/api/v1/adapter/warm", body)
    assert answer.status_code == 400
    assert "expected" in answer.json()["error"]["message"]


async def test_the_journal_says_why_a_slot_went(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    await simulator.unload("tiny-a")

    async def told() -> bool:
        found = await service.get("/api/v1/adapter/journal?slot=tiny-a&type=model_evicted")
        return [event["reason"] for event in found["events"]] == ["manual"]

    await service.until(told)
    everything = (await service.get("/api/v1/adapter/journal"))["events"]
    assert [event["seq"] for event in everything] == list(range(1, len(everything) + 1))
    last = (await service.get("/api/v1/adapter/journal?limit=1"))["events"]
    assert last == everything[-1:]
