"""What happens unasked: idle evictions, the warm set, restarts, and bringing back what lemond took."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import httpx
import openai

from lemond_adapter.simulator import SimulatorProcess

CHAIN = """
[policy]
idle_timeout_s = 0.3
[slots.embed]
model = "tiny-embed"
type = "embedding"
[slots.chat]
model = "tiny-a"
[slots.rerank]
model = "tiny-rerank"
type = "reranking"
"""


async def journal(service: Any, **query: str) -> dict[str, Any]:
    rows: dict[str, Any] = await service.get(f"/api/v1/adapter/journal?{httpx.QueryParams(query)}")
    return rows


async def noted(service: Any, kind: str) -> bool:
    return any(note["kind"] == kind for note in (await journal(service))["notes"])


async def pid_of(service: Any, model: str) -> int:
    table = await service.get("/api/v1/adapter/routes")
    return next(int(route["pid"]) for route in table["routes"] if route["model"] == model)


async def all_evicted(service: Any) -> bool:
    table = await service.get("/api/v1/adapter/routes")
    return not table["routes"]


async def test_a_chain_works_with_every_slot_evicted_in_between(
    simulator: SimulatorProcess, configured: Any
) -> None:
    service = await configured(simulator.url, CHAIN)
    client = openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none")
    for _ in range(2):
        vectors = await client.embeddings.create(model="embed", input=["one", "two"])
        assert len(vectors.data) == 2
        await service.until(lambda: all_evicted(service))
        answer = await client.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": "?"}]
        )
        assert answer.choices[0].message.content == "I am tiny-a."
        await service.until(lambda: all_evicted(service))
        async with httpx.AsyncClient(trust_env=False, timeout=30) as plain:
            body = {"model": "rerank", "query": "q", "documents": ["a", "b"]}
            wait = {"Prefer": "wait=20"}
            ranked = await plain.post(f"{service.url}/v1/rerank", json=body, headers=wait)
        assert ranked.status_code == 200
        await service.until(lambda: all_evicted(service))
    rows = await journal(service, limit="500")
    notes = [note for note in rows["notes"] if note["kind"] == "slot.evicted_by_idle_policy"]
    assert {note["slot"] for note in notes} == {"embed", "chat", "rerank"}
    assert all(note["details"]["idle_s"] >= note["details"]["idle_timeout_s"] == 0.3 for note in notes)
    evicted = [event for event in rows["events"] if event["type"] == "model_evicted"]
    assert {(event["reason"], event["initiator"]) for event in evicted} == {("idle", "adapter")}


async def test_a_stream_is_not_idle(simulator: SimulatorProcess, configured: Any) -> None:
    service = await configured(simulator.url, CHAIN)
    await service.loaded("tiny-a")
    body = {"model": "chat", "stream": True, "messages": [], "sim_chunks": 30, "sim_interval_ms": 50}
    async with (
        httpx.AsyncClient(trust_env=False, timeout=30) as client,
        client.stream("POST", f"{service.url}/v1/chat/completions", json=body) as answer,
    ):
        lines = [line async for line in answer.aiter_lines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    await service.until(lambda: all_evicted(service))


async def test_use_through_lemond_is_use(simulator: SimulatorProcess, configured: Any) -> None:
    service = await configured(simulator.url, CHAIN.replace("0.3", "1.0"))
    await service.loaded("tiny-a")
    loop = asyncio.get_running_loop()
    ends = loop.time() + 2.5
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        while loop.time() < ends:  # somebody else's requests, through lemond's own port
            body = {"model": "tiny-a", "messages": [], "sim_delay_ms": 200}
            assert (await client.post(f"{simulator.url}/v1/chat/completions", json=body)).status_code == 200
    assert (await simulator.stats())["loads"] == {"tiny-a": 1}
    assert await service.routed("tiny-a")
    await service.until(lambda: all_evicted(service))


async def test_the_warm_set_is_loaded_by_priority_and_outlives_a_failure(
    simulator: SimulatorProcess, configured: Any
) -> None:
    service = await configured(
        simulator.url,
        """
        [policy]
        warm = ["small", "bad", "big", "embed"]
        [slots.small]
        model = "tiny-a"
        [slots.bad]
        model = "broken"
        priority = 1
        [slots.big]
        model = "tiny-b"
        priority = 9
        [slots.embed]
        model = "tiny-embed"
        priority = 5
        """,
    )

    async def warm() -> bool:
        return all([await service.routed(m) for m in ("tiny-a", "tiny-b", "tiny-embed")])

    await service.until(warm)
    events = (await journal(service, limit="500"))["events"]
    began = [event["slot"] for event in events if event["type"] == "load_started"]
    assert list(dict.fromkeys(began))[:3] == ["big", "embed", "bad"]
    assert (await service.get("/api/slots/bad"))["state"] == "error"
    answer = await service.chat("big")
    assert answer.status_code == 200


THREE = """
[slots.first]
model = "tiny-a"
[slots.second]
model = "tiny-b"
[slots.keep]
model = "tiny-embed"
pinned = true
[slots.bad]
model = "broken"
"""


async def test_a_cascade_is_undone(simulator: SimulatorProcess, configured: Any) -> None:
    service = await configured(simulator.url, THREE)
    for slot in ("first", "second", "keep"):
        await service.post(f"/api/slots/{slot}/load")
    three = ("tiny-a", "tiny-b", "tiny-embed")

    async def all_there() -> bool:
        return all([await service.routed(model) for model in three])

    await service.until(all_there)
    for slot in ("second", "first"):
        assert (await service.chat(slot)).status_code == 200
    assert (await service.chat("bad")).status_code == 503
    await service.until(lambda: noted(service, "slot.restored"))
    assert await all_there()
    rows = await journal(service, limit="500")
    loads = [event for event in rows["events"] if event["type"] == "load_started"]
    failed_at = next(event["seq"] for event in rows["events"] if event["type"] == "load_failed")
    again = [event["slot"] for event in loads if event["seq"] > failed_at]
    assert again == ["keep", "first", "second"]  # pinned, then the last used
    stories = [note for note in rows["notes"] if note["kind"] == "slot.cascade"]
    assert len(stories) == 1
    assert "broken" in stories[0]["text"]
    assert "llama-server failed to start" in stories[0]["text"]
    assert stories[0]["details"]["order"] == ["tiny-embed", "tiny-a", "tiny-b"]
    assert (await service.get("/api/slots/bad"))["state"] == "error"
    answer = await service.chat("bad")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "slot.error")
    assert "llama-server failed to start" in error["message"]
    assert 5 < error["details"]["retry_after_s"] <= 20
    await service.post("/api/slots/bad/load")  # by hand: it is tried at once
    await service.until(lambda: noted_twice(service))
    answer = await service.chat("bad")
    assert 20 < answer.json()["error"]["details"]["retry_after_s"] <= 40
    assert int(answer.headers["retry-after"]) > 20
    await service.until(all_there)


async def noted_twice(service: Any) -> bool:
    events = (await journal(service, type="load_failed"))["events"]
    return len(events) >= 2


async def test_a_dead_child_comes_back_unasked_until_the_budget_is_used_up(
    simulator: SimulatorProcess, configured: Any
) -> None:
    service = await configured(
        simulator.url,
        """
        [policy]
        max_restarts = 2
        restart_backoff_s = 0.1
        [slots.chat]
        model = "tiny-a"
        pinned = true
        """,
    )
    await service.loaded("tiny-a")
    for _ in range(3):
        os.kill(pid := await pid_of(service, "tiny-a"), signal.SIGKILL)

        async def next_one(gone: int = pid) -> bool:
            row = await service.get("/api/slots/chat")
            return row["state"] == "error" or (
                await service.routed("tiny-a") and row["metadata"]["pid"] != gone
            )

        await service.until(next_one)
    row = await service.get("/api/slots/chat")
    assert row["state"] == "error"
    assert "died 3 times in a row" in row["metadata"]["message"]
    answer = await service.chat("chat")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "slot.error")
    assert "signal 9" in answer.json()["error"]["message"]
    assert 1 <= int(answer.headers["retry-after"]) <= 59
    loads = (await simulator.stats())["loads"]["tiny-a"]
    assert loads == 3
    # Somebody acts: the budget is whole again.
    await service.loaded("tiny-a")
    assert (await service.chat("chat")).status_code == 200
    os.kill(pid := await pid_of(service, "tiny-a"), signal.SIGKILL)

    async def returned() -> bool:
        return await service.routed("tiny-a") and await pid_of(service, "tiny-a") != pid

    await service.until(returned)


async def test_a_served_request_proves_that_it_is_no_crash_loop(
    simulator: SimulatorProcess, configured: Any
) -> None:
    service = await configured(
        simulator.url, '[policy]\nmax_restarts = 1\n[slots.chat]\nmodel = "tiny-a"\npinned = true\n'
    )
    await service.loaded("tiny-a")
    for _ in range(4):
        assert (await service.chat("chat")).status_code == 200
        os.kill(pid := await pid_of(service, "tiny-a"), signal.SIGKILL)

        async def returned(gone: int = pid) -> bool:
            return await service.routed("tiny-a") and await pid_of(service, "tiny-a") != gone

        await service.until(returned)


async def test_a_restart_of_lemond_brings_back_what_was_in_use(
    simulator: SimulatorProcess, configured: Any
) -> None:
    service = await configured(simulator.url, '[policy]\nwarm = ["tiny-embed"]\n' + THREE)
    for slot in ("first", "second"):
        await service.loaded("tiny-a" if slot == "first" else "tiny-b")
        assert (await service.chat(slot)).status_code == 200
    await service.until(lambda: service.routed("tiny-embed"))
    await simulator.kill()
    await simulator.start()

    async def back() -> bool:
        return all([await service.routed(model) for model in ("tiny-a", "tiny-b", "tiny-embed")])

    await service.until(back)
    assert (await service.chat("first")).json()["model"] == "tiny-a"


async def test_lemonds_own_lru_is_kept_honest(start_service: Any, configured: Any) -> None:
    async with SimulatorProcess(max_loaded_models=2) as simulator:
        service = await configured(simulator.url, "")
        await service.loaded("tiny-a")
        await service.loaded("tiny-b")
        before = (await simulator.stats())["requests"]["POST /v1/load"]
        body = {"model": "tiny-a", "stream": True, "messages": [], "sim_chunks": 200, "sim_interval_ms": 50}
        async with (
            httpx.AsyncClient(trust_env=False, timeout=30) as client,
            client.stream("POST", f"{service.url}/v1/chat/completions", json=body) as answer,
        ):
            lines = answer.aiter_lines()
            await anext(lines)

            async def touched() -> bool:
                return bool((await simulator.stats())["requests"]["POST /v1/load"] > before)

            await service.until(touched)
            # Somebody else's load: lemond would have taken the busy one, which it had loaded first.
            await simulator.load("tiny-c")
            assert await service.routed("tiny-a")
            assert not await service.routed("tiny-b")


async def test_a_hanging_control_plane_is_told_from_an_absent_one(
    simulator: SimulatorProcess, configured: Any
) -> None:
    service = await configured(simulator.url, "[policy]\nsilence_s = 0.3\nheartbeat_s = 0.5\n")
    await service.loaded("tiny-a")
    await simulator.fault("health_hang", seconds=30)

    async def hanging() -> bool:
        return bool((await service.get("/api/v1/adapter/status"))["lemond"]["hanging"])

    await service.until(hanging)
    why = (await service.get("/api/v1/adapter/status"))["lemond"]["why"]
    assert "/live answers" in why
    row = await service.get("/api/slots/tiny-a")
    assert (row["state"], row["metadata"]["stale"]) == ("ready", True)
    assert (await service.chat("tiny-a")).status_code == 200  # its child is alive, and proven
    await simulator.fault("clear")

    async def over() -> bool:
        return not await hanging()

    await service.until(over)
    assert (await service.get("/api/slots/tiny-a"))["metadata"]["stale"] is False
    lost = (await journal(service, type="lemond_lost"))["events"]
    assert len(lost) == 1


async def test_flags_of_lemonds_own_are_refused_here(simulator: SimulatorProcess, configured: Any) -> None:
    slots = '[slots.a]\nmodel = "tiny-a"\nserver = { extra_args = "--port 9000" }\n'
    service = await configured(simulator.url, slots)
    answer = await service.post("/v1/chat/completions", {"model": "a", "messages": []}, Prefer="wait=20")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "slot.error")
    assert "--port is set by lemond itself" in answer.json()["error"]["message"]
    assert "POST /v1/load" not in (await simulator.stats())["requests"]
