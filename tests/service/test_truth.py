"""What the service knows of a lemond that misbehaves."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import httpx
import pytest

from lemond_adapter.simulator import SimulatorProcess


async def events_until(service: Any, since: int, kind: str) -> list[dict[str, Any]]:
    found = []
    async with asyncio.timeout(20):
        async for event in service.events(since=since):
            found.append(event)
            if event["event"] == kind:
                return found
    raise AssertionError(f"no {kind}")


async def seq(service: Any) -> int:
    return int((await service.get("/api/v1/adapter/status"))["counters"]["events"])


async def test_a_killed_child_is_an_event_and_no_route(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    before = await seq(service)
    pid = (await simulator.child("tiny-a"))["pid"]
    os.kill(pid, signal.SIGKILL)
    events = await events_until(service, before, "process_crashed")
    assert events[-1]["data"]["pid"] == pid
    assert events[-1]["data"]["model"] == "tiny-a"
    assert "SIGKILL" in events[-1]["data"]["exit"]
    assert not await service.routed("tiny-a")


async def test_hanging_lemond_is_unknown_not_evicted(
    simulator: SimulatorProcess, start_service: Any, tmp_path: Any
) -> None:
    config = tmp_path / "adapter.toml"
    config.write_text("[policy]\nsilence_s = 0.5\nheartbeat_s = 0.3\n")
    service = await start_service("--lemond", simulator.url, "--config", str(config))
    await service.loaded("tiny-a")
    before = await seq(service)
    await simulator.fault("hang", seconds=None)
    events = await events_until(service, before, "lemond_lost")
    row = await service.get("/api/slots/tiny-a")
    assert row["state"] == "ready"
    assert row["metadata"]["stale"] is True
    answer = await service.chat("tiny-a")
    assert answer.status_code == 200
    assert answer.json()["model"] == "tiny-a"
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{service.url}/readyz")).status_code == 503
        assert (await client.get(f"{service.url}/healthz")).status_code == 200
    await simulator.fault("clear")
    events += await events_until(service, before, "resynced")
    assert "model_evicted" not in [event["event"] for event in events]
    row = await service.get("/api/slots/tiny-a")
    assert row["metadata"]["stale"] is False
    assert row["metadata"]["generation"] == 1


async def test_health_that_never_answers_does_not_pile_up_requests(
    simulator: SimulatorProcess, start_service: Any, tmp_path: Any
) -> None:
    config = tmp_path / "adapter.toml"
    config.write_text("[policy]\nsilence_s = 0.2\nheartbeat_s = 0.2\n")
    service = await start_service("--lemond", simulator.url, "--config", str(config))
    await simulator.fault("health_hang", seconds=None)
    await events_until(service, 0, "lemond_lost")
    await simulator.reset_stats()
    for _ in range(20):
        await service.chat("tiny-a")
    assert (await simulator.stats())["requests"].get("GET /v1/health", 0) == 0


async def test_a_restart_is_noticed_and_what_was_loaded_is_gone(
    simulator: SimulatorProcess, service: Any
) -> None:
    await service.loaded("tiny-a")
    before = await seq(service)
    await simulator.kill()
    await simulator.start()
    events = await events_until(service, before, "lemond_started")
    kinds = [event["event"] for event in events]
    assert "lemond_lost" in kinds
    evicted = [event["data"] for event in events if event["event"] == "model_evicted"]
    assert [(event["model"], event["reason"]) for event in evicted] == [("tiny-a", "shutdown")]
    assert "process_crashed" not in kinds


async def test_a_restart_as_another_release_selects_anew(simulator: SimulatorProcess, service: Any) -> None:
    before = await seq(service)
    await simulator.fault("restart", version="2026.47.1")
    events = await events_until(service, before, "lemond_started")
    assert events[-1]["data"]["version"] == "2026.47.1"
    assert events[-1]["data"]["driver_match"] == "nearest"


async def test_log_stream_lost_and_found(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    for _ in range(3):
        before = await seq(service)
        await simulator.fault("ws_drop")
        await events_until(service, before, "resynced")
    assert await service.routed("tiny-a")
    stats = await simulator.stats()
    assert stats["ws_connections_open"] == 1
    assert stats["subscribes"] == stats["ws_connections_total"] == 4


async def test_without_any_log_line_the_listing_is_enough(
    simulator: SimulatorProcess, start_service: Any, tmp_path: Any
) -> None:
    config = tmp_path / "adapter.toml"
    config.write_text("[policy]\nheartbeat_s = 0.5\n")
    await simulator.fault("ws_silence", on=True)
    service = await start_service("--lemond", simulator.url, "--config", str(config))
    await simulator.load("tiny-a")
    await service.until(lambda: service.routed("tiny-a"))
    await simulator.unload("tiny-a")

    async def gone() -> bool:
        return not await service.routed("tiny-a")

    await service.until(gone)


@pytest.mark.parametrize(
    "line",
    [
        "Evicting model: extra.tiny-a",
        "Evicted model: extra.tiny-a",
        "Loading model: extra.tiny-a",
        "Shutdown requested, stopping server...",
    ],
)
async def test_a_lying_log_costs_a_moment_and_never_the_truth(
    simulator: SimulatorProcess, service: Any, line: str
) -> None:
    await service.loaded("tiny-a")
    before = await seq(service)
    await simulator.fault("log", text=line)
    await events_until(service, before, "model_loaded")
    assert await service.routed("tiny-a")
    assert (await service.chat("tiny-a")).json()["model"] == "tiny-a"


async def answers_as(port: int, model: str) -> None:
    """Waits until a program answers on the port under this model's name."""
    async with asyncio.timeout(10), httpx.AsyncClient(trust_env=False) as client:
        while True:
            try:
                if (await client.get(f"http://127.0.0.1:{port}/health")).json()["model"] == model:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.01)


async def test_a_squatted_port_never_gets_a_request(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    child = await simulator.child("tiny-a")
    os.kill(child["pid"], signal.SIGKILL)
    await simulator.fault("port_squat", port=child["port"])
    await answers_as(child["port"], "squatter")
    for _ in range(10):
        answer = await service.chat("tiny-a")
        assert answer.status_code in (200, 503)
        if answer.status_code == 200:
            assert answer.json()["model"] == "tiny-a"
    await service.until(lambda: service.routed("tiny-a"))
    assert (await service.chat("tiny-a")).json()["model"] == "tiny-a"


@pytest.mark.slow
async def test_steady_state_asks_lemond_four_times_a_minute_at_most(
    simulator: SimulatorProcess, start_service: Any, tmp_path: Any
) -> None:
    models = ["tiny-a", "tiny-b", "tiny-c", "tiny-d", "tiny-embed"]
    config = tmp_path / "adapter.toml"
    config.write_text("".join(f'[slots.s{i}]\nmodel = "{name}"\n' for i, name in enumerate(models)))
    service = await start_service("--lemond", simulator.url, "--config", str(config))
    for name in models:
        await service.loaded(name)

    async def follow() -> None:
        async for _ in service.events():
            continue

    followers = [asyncio.create_task(follow()) for _ in range(10)]

    async def ten() -> bool:
        status = await service.get("/api/v1/adapter/status")
        return bool(status["counters"]["event_subscribers"] >= 10)

    await service.until(ten)
    await simulator.reset_stats()
    await asyncio.sleep(60)
    stats = await simulator.stats()
    for follower in followers:
        follower.cancel()
    await asyncio.gather(*followers, return_exceptions=True)
    assert 1 <= stats["requests_total"] <= 4, stats["requests"]
    assert stats["ws_connections_open"] == 1
