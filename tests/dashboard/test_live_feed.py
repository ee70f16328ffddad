"""What becomes `traffic` frames: made once, coalesced, never behind (no browser)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import httpx
import pytest

from lemond_adapter.dispatch.traffic import Flight
from lemond_adapter.service import sse
from lemond_adapter.service.live import KEPT, LiveFeed
from lemond_adapter.service.tally import BUCKET_S, BUCKETS, OTHER, Tally
from lemond_adapter.simulator import SimulatorProcess
from lemond_adapter.truth.hub import EventHub
from lemond_adapter.types import LoadStarted


class World:
    """A service as the feed sees it, with hands on everything."""

    def __init__(self) -> None:
        self.time = 1_000_000.0
        self.looks = 0
        self.active: dict[str, tuple[str, int]] = {"a": ("ready", 0), "b": ("offline", 0)}
        self.status: dict[str, Any] = {"log_stream": {"last_seq": 1}, "drift": {"examples": []}}
        self.deadline: float | None = 1_000_300.0
        self.tally = Tally(lambda: self.time)
        self.feed = LiveFeed(
            self.rows, lambda model: self.active[model], self._status, self.tally, lambda: self.time
        )

    def rows(self) -> list[dict[str, Any]]:
        self.looks += 1
        return [self.row(model) for model in self.active]

    def row(self, model: str) -> dict[str, Any]:
        state, in_flight = self.active[model]
        metadata: dict[str, Any] = {"in_flight": in_flight}
        if self.deadline is not None and not in_flight:
            metadata["idle_deadline"] = self.deadline
        return {
            "name": f"slot-{model}",
            "model_id": model,
            "type": "llm",
            "backend": "",
            "enabled": True,
            "state": state,
            "last_used_at": None,
            "metadata": metadata,
        }

    def _status(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.status))  # type: ignore[no-any-return]

    def flight(self, outcome: str = "served", status: int = 200, **more: Any) -> None:
        flight = Flight("/v1/chat/completions", 0.0, model="a", slot="slot-a", **more)
        flight.ended, flight.outcome, flight.status = 2.0, outcome, status
        self.tally.observe(flight)


def frames(data: bytes) -> list[dict[str, Any]]:
    blocks = data.decode().split("\n\n")
    assert all(block.startswith("event: traffic\ndata: ") for block in blocks if block)
    assert "\nid:" not in data.decode()
    return [json.loads(block.partition("\ndata: ")[2]) for block in blocks if block]


async def test_the_first_frame_is_everything_then_only_what_changed() -> None:
    world = World()
    subscription = world.feed.subscribe()
    (first,) = frames(await subscription.next_frames())
    assert first["full"]
    assert [row["name"] for row in first["catalogue"]] == ["slot-a", "slot-b"]
    assert first["slots"]["slot-a"] == {"state": "ready", "in_flight": 0, "idle_deadline": 1_000_300.0}
    world.active["a"] = ("serving", 2)
    world.feed.glance()
    (news,) = frames(await subscription.next_frames())
    assert news["slots"] == {"slot-a": {"state": "serving", "in_flight": 2}}
    assert set(news) == {"now", "slots"}
    world.status["log_stream"]["last_seq"] = 7
    world.feed.look()
    (news,) = frames(await subscription.next_frames())
    assert news["status"] == {"log_stream": {"last_seq": 7}}
    assert "slots" not in news
    subscription.close()


async def test_nothing_new_is_no_frame() -> None:
    world = World()
    subscription = world.feed.subscribe()
    await subscription.next_frames()
    for _ in range(50):
        world.feed.glance()
        world.feed.look()
    assert world.feed.version == 1
    subscription.close()


async def test_a_deadline_that_trembles_is_no_news_and_one_that_moves_is() -> None:
    world = World()
    subscription = world.feed.subscribe()
    await subscription.next_frames()
    for trembling in (0.001, -0.002, 0.4):
        world.deadline = 1_000_300.0 + trembling
        world.feed.look()
    assert world.feed.version == 1
    world.deadline = 1_000_302.0
    world.feed.look()
    (news,) = frames(await subscription.next_frames())
    assert news["slots"]["slot-a"]["idle_deadline"] == 1_000_302.0
    subscription.close()


async def test_a_decision_is_told_once() -> None:
    world = World()
    subscription = world.feed.subscribe()
    await subscription.next_frames()
    world.feed.notes.append({"kind": "slot.evicted_by_idle_policy", "text": "a was unused"})
    world.feed.look()
    world.feed.look()
    (news,) = frames(await subscription.next_frames())
    assert [note["text"] for note in news["notes"]] == ["a was unused"]
    subscription.close()


async def test_one_look_serves_all_and_nobody_is_looked_for_in_vain() -> None:
    world = World()
    subscriptions = [world.feed.subscribe() for _ in range(20)]
    assert world.looks == 1
    world.active["a"] = ("serving", 1)
    world.feed.glance()
    world.feed.glance()
    world.flight()
    world.feed.look()
    assert world.looks == 3, "once at first, once for what moved, once for the rest"
    for subscription in subscriptions:
        await subscription.next_frames()
        subscription.close()
    assert world.feed.subscribers == 0
    looks = world.looks
    await asyncio.sleep(1.3)
    assert world.looks == looks, "it goes on looking though everybody has left"


async def test_a_slow_client_misses_nothing() -> None:
    world = World()
    quick, slow = world.feed.subscribe(), world.feed.subscribe()
    await quick.next_frames()
    await slow.next_frames()
    for count in range(1, 4):
        world.active["a"] = ("serving", count)
        world.feed.glance()
    assert [frame["slots"]["slot-a"]["in_flight"] for frame in frames(await slow.next_frames())] == [1, 2, 3]
    for count in range(KEPT + 5):
        world.active["a"] = ("serving", 10 + count)
        world.feed.glance()
    (everything,) = frames(await slow.next_frames())
    assert everything["full"]
    assert everything["slots"]["slot-a"]["in_flight"] == 10 + KEPT + 4
    quick.close()
    slow.close()


async def test_another_slot_is_told_with_all_the_names() -> None:
    world = World()
    subscription = world.feed.subscribe()
    await subscription.next_frames()
    world.active["c"] = ("starting", 0)
    world.feed.look()
    (news,) = frames(await subscription.next_frames())
    assert [row["model_id"] for row in news["catalogue"]] == ["a", "b", "c"]
    subscription.close()


async def test_events_come_before_traffic() -> None:
    world, hub = World(), EventHub()
    stream = sse.stream(hub, lambda: {"seq": hub.seq}, None, world.feed)
    assert b"event: snapshot" in await anext(stream)
    hub.publish(LoadStarted(model="a"))
    assert b"event: load_started" in await anext(stream)
    assert b"event: traffic" in await anext(stream)
    await stream.aclose()
    assert world.feed.subscribers == 0
    assert hub.subscribers == 0


def test_the_tally_counts_by_outcome_and_measures_what_was_served() -> None:
    world = World()
    world.flight(first_byte=0.25, events=11)
    world.flight(first_byte=0.75, events=71)
    world.flight("slot.loading", 503, retry_after_s=4.0)
    world.flight("interrupted", 200, first_byte=0.1, events=3)
    world.flight("served", 400)
    world.flight("client_gone", 0)
    report = world.tally.changes()["slot-a"]
    assert report["outcomes"] == {"served": 3, "slot.loading": 1, "interrupted": 1, "client_gone": 1}
    assert report["retry_after_s"] == 4.0
    (bucket,) = report["buckets"]
    assert (bucket["requests"], bucket["errors"], bucket["retries"]) == (6, 2, 1)
    assert bucket["ttft_ms"] == pytest.approx(500.0)
    assert bucket["tokens_per_s"] == pytest.approx((10 / 1.75 + 70 / 1.25) / 2, abs=0.1)
    assert world.tally.changes() == {}


def test_buckets_are_bounded_in_number_and_in_age() -> None:
    world = World()
    for _ in range(BUCKETS * 2):
        world.flight()
        world.time += BUCKET_S
    assert len(world.tally.slots["slot-a"].buckets) == BUCKETS
    world.time += BUCKET_S * (BUCKETS - 3)
    assert len(world.tally.everything()["slot-a"]["buckets"]) <= 3
    world.time += BUCKET_S * BUCKETS
    assert world.tally.everything()["slot-a"]["buckets"] == []


def test_names_that_clients_make_up_are_one() -> None:
    tally = Tally()
    for _ in range(1000):
        tally.observe(Flight("/v1/chat/completions", 0.0, ended=0.1, outcome="model.not_found", status=404))
    assert set(tally.slots) == {OTHER}


async def follow(url: str, seconds: float, path: str = "/api/v1/adapter/events?traffic=1") -> str:
    """What a stream says in so many seconds."""
    found = b""
    async with (
        httpx.AsyncClient(trust_env=False, timeout=None, base_url=url) as client,
        client.stream("GET", path) as answer,
    ):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                async for chunk in answer.aiter_raw():
                    found += chunk
    return found.decode()


async def test_frames_are_only_for_those_who_ask(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    plain = asyncio.create_task(follow(service.url, 1.6, "/api/v1/adapter/events"))
    asked = asyncio.create_task(follow(service.url, 1.6))
    chats = [service.chat("tiny-a", stream=True, sim_chunks=8, sim_interval_ms=60) for _ in range(3)]
    await asyncio.gather(*chats)
    assert "event: traffic" not in await plain
    blocks = [block for block in (await asked).split("\n\n") if block.startswith("event: traffic")]
    data = [json.loads(block.partition("\ndata: ")[2]) for block in blocks]
    assert data[0]["full"]
    assert (
        max(frame["slots"]["tiny-a"]["in_flight"] for frame in data if "tiny-a" in frame.get("slots", {}))
        == 3
    )
    assert data[0]["status"]["control_requests"]["budget_per_minute"] == 4
    counted = [frame["traffic"]["tiny-a"] for frame in data if "tiny-a" in frame.get("traffic", {})]
    assert counted[-1]["outcomes"] == {"served": 3}
    assert counted[-1]["buckets"][-1]["tokens_per_s"] > 5
    # The requests in flight change at most ten times a second, the rest once.
    assert len(data) <= 20
