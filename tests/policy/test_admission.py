"""Room is made by us: drained, unloaded, then loaded; lemond never has to choose a victim."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from lemond_adapter.simulator import SimulatorProcess

SLOTS = """
[slots.a]
model = "tiny-a"
[slots.b]
model = "tiny-b"
"""


class Stream:
    """A chat stream of about `seconds` that is read to its end in the background."""

    def __init__(self, url: str, model: str, seconds: float) -> None:
        self._url, self._model, self._chunks = url, model, int(seconds / 0.05)
        self.lines: list[str] = []
        self.begun = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Stream:
        self.task = asyncio.create_task(self._read())
        await asyncio.wait_for(self.begun.wait(), 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _read(self) -> None:
        body = {"model": self._model, "stream": True, "messages": []}
        body |= {"sim_chunks": self._chunks, "sim_interval_ms": 50}
        async with (
            httpx.AsyncClient(trust_env=False, timeout=60) as client,
            client.stream("POST", f"{self._url}/v1/chat/completions", json=body) as answer,
        ):
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    self.lines.append(line[6:])
                    self.begun.set()

    async def whole(self) -> bool:
        """Waits for its end; whether it was a good one."""
        assert self.task is not None
        await asyncio.wait_for(self.task, 60)
        return self.lines[-1] == "[DONE]" and not any('"error"' in line for line in self.lines)


@pytest.fixture
async def lemond() -> Any:
    """One model a type."""
    async with SimulatorProcess(max_loaded_models=1) as running:
        yield running


async def journal(service: Any, **query: str) -> dict[str, Any]:
    rows: dict[str, Any] = await service.get(f"/api/v1/adapter/journal?{httpx.QueryParams(query)}")
    return rows


async def test_a_stream_is_never_cut_for_another_model(lemond: SimulatorProcess, configured: Any) -> None:
    service = await configured(lemond.url, SLOTS)
    await service.loaded("tiny-a")
    async with Stream(service.url, "a", seconds=3) as stream:
        answer = await service.chat("b")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "slot.loading"
        assert 1 <= int(answer.headers["retry-after"]) <= 59
        waited = await service.post("/v1/chat/completions", {"model": "b", "messages": []}, Prefer="wait=30")
        # Waiting for b ended after a's stream did.
        assert await stream.whole()
    assert waited.status_code == 200
    assert waited.json()["model"] == "tiny-b"
    events = (await journal(service, limit="100"))["events"]
    story = [(e["type"], e["slot"], e.get("initiator")) for e in events if e["slot"] in ("a", "b")]
    gone = story.index(("model_evicted", "a", "adapter"))
    assert story.index(("eviction_started", "a", "adapter")) < gone
    assert gone < story.index(("load_started", "b", "adapter"))
    notes = (await journal(service))["notes"]
    (note,) = [note for note in notes if note["kind"] == "slot.makes_room"]
    assert (note["slot"], note["details"]) == ("a", {"room_for": "tiny-b"})
    asked = (await lemond.stats())["requests"]
    assert asked["POST /v1/unload"] == 1
    assert (await lemond.stats())["loads"] == {"tiny-a": 1, "tiny-b": 1}


async def test_what_lemond_does_for_others_is_told(lemond: SimulatorProcess, configured: Any) -> None:
    service = await configured(lemond.url, SLOTS)
    await service.loaded("tiny-a")
    async with Stream(service.url, "a", seconds=20) as stream:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            # Somebody else, straight to lemond: it picks its victim itself.
            loaded = await client.post(f"{lemond.url}/v1/load", json={"model_name": "tiny-b"})
        assert loaded.status_code == 200
        assert stream.task is not None
        await asyncio.wait_for(stream.task, 20)
    assert json.loads(stream.lines[-1])["error"]["code"] == "slot.interrupted"

    async def told() -> bool:
        notes = (await journal(service))["notes"]
        return any(note["kind"] == "slot.evicted_by_lemond" for note in notes)

    await service.until(told)
    rows = await journal(service)
    note = next(n for n in rows["notes"] if n["kind"] == "slot.evicted_by_lemond")
    assert note["slot"] == "a"
    assert "tiny-b" in note["text"]
    assert "not asked for here" in note["text"]
    evicted = next(e for e in rows["events"] if e["type"] == "model_evicted")
    assert (evicted["reason"], evicted.get("initiator")) == ("lru", None)


async def test_a_load_is_not_evicted_before_its_client_came_back(
    lemond: SimulatorProcess, configured: Any
) -> None:
    service = await configured(lemond.url, SLOTS)
    assert (await service.chat("a")).status_code == 503
    await service.until(lambda: service.routed("tiny-a"))
    assert (await service.chat("b")).status_code == 503
    # b waits: whoever asked for a has not used it yet.
    assert (await service.chat("a")).status_code == 200
    await service.until(lambda: service.routed("tiny-b"))
    assert (await lemond.stats())["loads"] == {"tiny-a": 1, "tiny-b": 1}


async def test_pinned_slots_are_no_victims(lemond: SimulatorProcess, configured: Any) -> None:
    service = await configured(lemond.url, SLOTS.replace('"tiny-a"', '"tiny-a"\npinned = true'))
    await service.loaded("tiny-a")
    assert (await service.chat("a")).status_code == 200
    answer = await service.post("/v1/chat/completions", {"model": "b", "messages": []}, Prefer="wait=5")
    assert answer.status_code == 503
    answer = await service.chat("b")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "slot.error")
    assert "pinned: tiny-a" in answer.json()["error"]["message"]
    assert (await service.get("/api/slots/a"))["state"] == "ready"
    assert (await lemond.stats())["loads"] == {"tiny-a": 1}


async def test_a_drain_that_takes_too_long_is_called_off(lemond: SimulatorProcess, configured: Any) -> None:
    service = await configured(lemond.url, "[policy]\ndrain_timeout_s = 0.5\n" + SLOTS)
    await service.loaded("tiny-a")
    async with Stream(service.url, "a", seconds=4) as stream:
        answer = await service.post("/api/slots/a/unload")
        assert answer.status_code == 202

        async def back() -> bool:
            notes = (await journal(service))["notes"]
            return any(note["kind"] == "slot.eviction_called_off" for note in notes)

        await service.until(back)
        await service.until(lambda: service.routed("tiny-a"))
        assert (await service.chat("a")).status_code == 200
        assert await stream.whole()
    assert "POST /v1/unload" not in (await lemond.stats())["requests"]
