"""Faults by name do what they say, and `clear` ends those that stand."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import httpx
import pytest
import websockets

from lemond_adapter.simulator import SimulatorError, SimulatorProcess


async def test_crash_tells_nobody(simulator: SimulatorProcess, tail: Any, gone: Any) -> None:
    await simulator.load("tiny-a")
    listener = await tail(simulator)
    before = listener.texts()
    pid = (await simulator.fault("crash", model="tiny-a"))["pid"]
    await gone(pid)
    await listener.quiet()
    assert listener.texts() == before
    assert (await simulator.health())["model_loaded"] == "tiny-a"


async def test_silent_evict_and_evict(simulator: SimulatorProcess, tail: Any) -> None:
    await simulator.load("tiny-a")
    await simulator.load("tiny-b")
    listener = await tail(simulator)
    before = len(listener.texts())
    await simulator.fault("silent_evict", model="tiny-a")
    await listener.quiet()
    assert len(listener.texts()) == before
    assert [row["model_name"] for row in (await simulator.health())["all_models_loaded"]] == ["tiny-b"]
    await simulator.fault("evict", model="tiny-b")
    await listener.until_text("Evicted model: extra.tiny-b")
    said = listener.texts()[before:]
    assert said[0] == "[Info] (Router) Slot limit reached for type llm, evicting LRU: extra.tiny-b"
    assert (await simulator.health())["all_models_loaded"] == []


async def test_hang_accepts_and_never_answers(simulator: SimulatorProcess, http: httpx.AsyncClient) -> None:
    await simulator.load("tiny-a")
    await simulator.fault("hang", seconds=None)
    with pytest.raises(httpx.ReadTimeout):
        await http.get(simulator.url + "/live", timeout=0.2)
    assert (await simulator.child("tiny-a"))["alive"]
    await simulator.fault("clear")
    assert (await http.get(simulator.url + "/live")).json() == {"status": "ok"}


async def test_health_may_hang_while_live_answers(
    simulator: SimulatorProcess, http: httpx.AsyncClient
) -> None:
    await simulator.fault("health_hang", seconds=0.3)
    with pytest.raises(httpx.ReadTimeout):
        await http.get(simulator.url + "/v1/health", timeout=0.1)
    assert (await http.get(simulator.url + "/live")).status_code == 200
    assert (await simulator.health())["status"] == "ok"


async def test_a_health_body_of_the_tests_own(simulator: SimulatorProcess, http: httpx.AsyncClient) -> None:
    await simulator.fault("health_body", body="<html>", content_type="text/html", status=200, times=1)
    assert (await http.get(simulator.url + "/v1/health")).text == "<html>"
    assert (await simulator.health())["status"] == "ok"


async def test_a_squatter_has_the_port(
    simulator: SimulatorProcess, http: httpx.AsyncClient, gone: Any
) -> None:
    await simulator.load("tiny-a")
    child = await simulator.child("tiny-a")
    await simulator.fault("silent_evict", model="tiny-a")
    await gone(child["pid"])
    await simulator.fault("port_squat", port=child["port"])
    answer = await http.post(f"http://127.0.0.1:{child['port']}/v1/chat/completions", json={})
    assert answer.json()["model"] == "squatter"
    await simulator.load("tiny-a")
    assert (await simulator.child("tiny-a"))["port"] != child["port"]


async def test_a_move_lets_another_model_take_the_port(simulator: SimulatorProcess) -> None:
    await simulator.load("tiny-a")
    old = await simulator.child("tiny-a")
    await simulator.fault("move", model="tiny-a", port_taken_by="tiny-b")
    new, other = await simulator.child("tiny-a"), await simulator.child("tiny-b")
    assert other["port"] == old["port"]
    assert new["port"] != old["port"]
    assert new["pid"] != old["pid"]


async def test_a_restart_loses_everything(simulator: SimulatorProcess, tail: Any, gone: Any) -> None:
    await simulator.load("tiny-a")
    pid = (await simulator.child("tiny-a"))["pid"]
    first = await tail(simulator)
    await simulator.fault("restart", version="10.8.1")
    await gone(pid)
    await first.until(lambda: first.closed is not None)
    assert first.closed.rcvd is None
    again = await tail(simulator)
    assert again.entries[0]["seq"] == 1
    assert again.texts()[:2] == [
        "[Info] (main) Starting Lemonade Server...",
        "[Info] (main)   Version: 10.8.1",
    ]
    health = await simulator.health()
    assert (health["version"], health["all_models_loaded"]) == ("10.8.1", [])


async def test_a_restart_in_the_middle_of_a_load(start_simulator: Any, http: httpx.AsyncClient) -> None:
    simulator = await start_simulator(extra_args=["--load-seconds", "1000"])
    ask = {"json": {"model_name": "tiny-a"}}
    loading = asyncio.create_task(http.post(simulator.url + "/v1/load", **ask))
    waiting = asyncio.create_task(http.post(simulator.url + "/v1/load", json={"model_name": "tiny-b"}))
    while (await simulator.stats())["requests"].get("POST /v1/load", 0) < 2:
        await simulator.health()
    await simulator.fault("restart")
    for call in (loading, waiting):
        with pytest.raises(httpx.RemoteProtocolError):
            await call
    assert (await simulator.health())["all_models_loaded"] == []


async def test_two_lemonds_answer_by_turns(simulator: SimulatorProcess) -> None:
    await simulator.load("tiny-a")
    await simulator.fault("second_lemond", on=True)
    answers = [await simulator.health() for _ in range(4)]
    assert len({answer["websocket_port"] for answer in answers}) == 2
    assert sorted(len(answer["all_models_loaded"]) for answer in answers) == [0, 0, 1, 1]


async def test_faults_of_the_stream(simulator: SimulatorProcess, tail: Any) -> None:
    listener = await tail(simulator)
    await simulator.fault("ws_gap", count=3)
    await simulator.load("tiny-a")
    await listener.quiet()
    seqs = [entry["seq"] for entry in listener.entries]
    assert max(b - a for a, b in itertools.pairwise(seqs)) == 4
    await simulator.fault("ws_silence", seconds=None)
    silent = len(listener.entries)
    await simulator.load("tiny-b")
    await simulator.fault("clear")
    await listener.quiet()
    assert len(listener.entries) - silent <= 1
    await simulator.fault("ws_drop")
    await listener.until(lambda: listener.closed is not None)
    await simulator.fault("ws_refuse", on=True)
    with pytest.raises((websockets.InvalidMessage, ConnectionError, EOFError)):
        await tail(simulator)
    await simulator.fault("clear")
    assert any("tiny-b" in text for text in (await tail(simulator)).texts())


async def test_faults_on_the_command_line(start_simulator: Any, http: httpx.AsyncClient) -> None:
    simulator = await start_simulator(
        extra_args=["--fault", "health_body=nonsense", "--fault", 'slow_health={"ms": 1}']
    )
    assert (await http.get(simulator.url + "/v1/health")).text == "nonsense"


async def test_an_unknown_fault_is_refused(simulator: SimulatorProcess) -> None:
    with pytest.raises(SimulatorError, match="no fault 'nonsense'"):
        await simulator.fault("nonsense")
