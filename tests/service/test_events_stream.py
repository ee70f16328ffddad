"""The event stream: snapshot first, ordered, resumable, never a silent gap (G1, G2, G3)."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from lemond_adapter.service import sse
from lemond_adapter.simulator import SimulatorProcess
from lemond_adapter.truth.hub import EventHub, Gap
from lemond_adapter.types import LoadStarted


async def take(service: Any, count: int, **how: Any) -> list[dict[str, Any]]:
    found = []
    async with asyncio.timeout(20):
        async for event in service.events(**how):
            found.append(event)
            if len(found) == count:
                return found
    raise AssertionError("the stream ended")


async def test_a_new_client_gets_a_snapshot_then_events(simulator: SimulatorProcess, service: Any) -> None:
    following = asyncio.create_task(take(service, 4))
    await service.until(lambda: _followed(service))
    await service.loaded("tiny-a")
    snapshot, *events = await following
    assert snapshot["event"] == "snapshot"
    assert set(snapshot["data"]) == {"epoch", "seq", "slots", "lemond"}
    seqs = [event["data"]["seq"] for event in events]
    assert seqs == list(range(snapshot["data"]["seq"] + 1, snapshot["data"]["seq"] + 4))
    assert [event["event"] for event in events] == ["load_started", "process_spawned", "model_loaded"]
    assert events[0]["id"] == f"{snapshot['data']['epoch']}:{seqs[0]}"


async def _followed(service: Any) -> bool:
    return bool((await service.get("/api/v1/adapter/status"))["counters"]["event_subscribers"] >= 1)


async def test_resuming_gives_the_rest(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    everything = await take(service, 5, since=0)
    assert [event["data"]["seq"] for event in everything] == [1, 2, 3, 4, 5]
    rest = await take(service, 2, since=3)
    assert rest == everything[3:]


@pytest.mark.parametrize("given", ["other:3", "x", ":", "999999", "-1", "1.5"])
async def test_what_cannot_be_resumed_gets_a_snapshot(service: Any, given: str) -> None:
    async with (
        httpx.AsyncClient(trust_env=False, timeout=10) as client,
        client.stream(
            "GET", f"{service.url}/api/v1/adapter/events", headers={"Last-Event-ID": given}
        ) as answer,
    ):
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith("id: ")
        assert await anext(lines) == "event: snapshot"


async def test_a_slow_client_gets_a_snapshot_not_a_hole() -> None:
    hub = EventHub(ring=10)
    stream = sse.stream(hub, lambda: {"seq": hub.seq}, None)
    assert b"event: snapshot" in await anext(stream)
    for _ in range(50):
        hub.publish(LoadStarted(model="a"))
    assert b"event: snapshot" in await anext(stream)
    hub.publish(LoadStarted(model="a"))
    assert b"id: %s:51\nevent: load_started" % hub.epoch.encode() in await anext(stream)


def test_the_ring_tells_what_it_lost() -> None:
    hub = EventHub(ring=3)
    for _ in range(5):
        hub.publish(LoadStarted(model="a"))
    assert hub.after(1) == Gap(1, 5)
    kept = hub.after(2)
    assert isinstance(kept, list)
    assert [event.seq for event in kept] == [3, 4, 5]
    assert hub.after(5) == []
    assert hub.after(6) == Gap(6, 5)


async def test_sigterm_ends_it_cleanly_with_followers_connected(
    simulator: SimulatorProcess, start_service: Any
) -> None:
    service = await start_service("--lemond", simulator.url)

    async def follow() -> None:
        async for _ in service.events():
            continue

    follower = asyncio.create_task(follow())
    await service.until(lambda: _followed(service))
    assert await service.stop() == 0
    await asyncio.gather(follower, return_exceptions=True)
