"""HTTP, the log stream's protocol, and the process that runs them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

import httpx
import pytest
import websockets

from lemond_adapter.simulator import SimulatorError, SimulatorProcess


async def test_auth(start_simulator: Any, http: httpx.AsyncClient) -> None:
    simulator = await start_simulator(api_key="K-of-the-test")
    url = simulator.url + "/v1/health"
    right = {"Authorization": "Bearer K-of-the-test"}
    assert (await http.get(simulator.url + "/live")).status_code == 200
    refused = await http.get(url)
    assert (refused.status_code, refused.json()) == (401, {"error": "Invalid or missing API key"})
    assert (await http.get(url, headers={"Authorization": "Bearer wrong"})).status_code == 401
    assert (await http.get(url, headers={"Authorization": "short"})).status_code == 500
    assert (await http.get(url, headers=right)).status_code == 200
    address = f"ws://127.0.0.1:{simulator.ws_port}/logs/stream"
    with pytest.raises((websockets.InvalidMessage, ConnectionError, EOFError)):
        await websockets.connect(address, proxy=None)
    async with websockets.connect(address, additional_headers=right, proxy=None) as socket:
        await socket.send(json.dumps({"type": "logs.subscribe", "after_seq": None}))
        assert json.loads(await socket.recv())["type"] == "logs.snapshot"


async def test_paths_and_their_shapes(simulator: SimulatorProcess, http: httpx.AsyncClient) -> None:
    for prefix in ("/v1", "/api/v1", "/v0", "/api/v0"):
        assert (await http.get(f"{simulator.url}{prefix}/health")).json()["version"] == "10.7.0"
    assert (await http.get(simulator.url + "/api/version")).json() == {"version": "0.16.1"}
    missing = await http.get(simulator.url + "/v1/nonsense")
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found")
    assert (await http.get(simulator.url + "/v1/load")).status_code == 405
    models = (await http.get(simulator.url + "/v1/models")).json()["data"]
    rows = {row["id"]: row for row in models}
    assert rows["tiny-embed"]["labels"] == ["embeddings"]
    assert all(row["downloaded"] for row in models)
    one = (await http.get(simulator.url + "/v1/models/Llama-3.2-1B-FLM")).json()
    assert (one["recipe"], one["checkpoint"]) == ("flm", "llama3.2:1b")
    for path in ("/v1/load", "/v1/chat/completions"):
        answer = await http.post(simulator.url + path, json={"model_name": "nobody", "model": "nobody"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("body", [b"", b"{}", b"not json", b'{"model_name": 5}'])
async def test_an_unreadable_unload_unloads_everything(
    body: bytes, simulator: SimulatorProcess, http: httpx.AsyncClient
) -> None:
    await simulator.load("tiny-a")
    await simulator.load("tiny-embed")
    answer = await http.post(simulator.url + "/v1/unload", content=body)
    assert answer.json() == {"message": "All models unloaded successfully", "status": "success"}
    assert (await simulator.health())["all_models_loaded"] == []


async def test_lru_goes_by_the_last_request_through_lemond(
    start_simulator: Any, http: httpx.AsyncClient
) -> None:
    simulator = await start_simulator(max_loaded_models=2)
    await simulator.load("tiny-a")
    await simulator.load("tiny-b")
    await http.post(simulator.url + "/v1/chat/completions", json={"model": "tiny-a", "messages": []})
    await simulator.load("tiny-c")
    names = {row["model_name"] for row in (await simulator.health())["all_models_loaded"]}
    assert names == {"tiny-a", "tiny-c"}


async def test_a_stream_through_lemond_that_its_child_cuts_looks_whole(
    simulator: SimulatorProcess, http: httpx.AsyncClient
) -> None:
    ask = {"model": "tiny-a", "messages": [], "stream": True, "sim_chunks": 8, "sim_die": "mid"}
    text = (await http.post(simulator.url + "/v1/chat/completions", json=ask)).text
    assert text.endswith("data: [DONE]\n\n")
    assert '"finish_reason": "stop"' not in text


async def test_eviction_waits_for_requests_through_lemond(
    start_simulator: Any, http: httpx.AsyncClient
) -> None:
    simulator = await start_simulator(max_loaded_models=1)
    await simulator.load("tiny-a")
    ask = {"model": "tiny-a", "messages": [], "stream": True, "sim_chunks": 20, "sim_interval_ms": 20}
    async with http.stream("POST", simulator.url + "/v1/chat/completions", json=ask) as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        other = asyncio.create_task(simulator.load("tiny-b"))
        assert [line async for line in lines if line][-1] == "data: [DONE]"
    assert (await other)["status"] == "success"


async def test_frames_are_as_lemond_writes_them(simulator: SimulatorProcess) -> None:
    address = f"ws://127.0.0.1:{simulator.ws_port}/logs/stream"
    async with websockets.connect(address, proxy=None) as socket:
        assert not socket.protocol.extensions
        await socket.send('{"type":"nonsense"}')
        complaint = "Expected logs.subscribe message"
        error = {"error": {"message": complaint, "type": "invalid_request_error"}, "type": "error"}
        assert json.loads(await socket.recv()) == error
        await socket.send("{")
        assert json.loads(await socket.recv())["error"]["message"].startswith("Invalid JSON: ")
        await socket.send('{"type":"logs.subscribe","after_seq":-1}')
        assert json.loads(await socket.recv()) == {"entries": [], "type": "logs.snapshot"}
        await simulator.fault("log", text="hello", tag="Router")
        raw = str(await socket.recv())
        assert raw.startswith('{"entry":{"line":"')
        entry = json.loads(raw)["entry"]
        assert list(entry) == ["line", "seq", "severity", "tag", "timestamp"]
        assert entry["line"] == f"{entry['timestamp']} [Info] (Router) hello"


async def test_after_seq_and_a_second_subscribe(simulator: SimulatorProcess, tail: Any) -> None:
    first = await tail(simulator)
    last = first.entries[-1]["seq"]
    second = await tail(simulator, after_seq=last - 1)
    assert second.entries[0]["seq"] == last
    await second.subscribe(last)
    await second.until(lambda: second.snapshots == 2)
    await simulator.fault("log", text="twice", tag="Router")
    await second.until_text("twice", times=2)


async def test_shutdown_drops_the_stream_without_a_close_frame(
    simulator: SimulatorProcess, tail: Any, gone: Any
) -> None:
    await simulator.load("tiny-a")
    pid = (await simulator.child("tiny-a"))["pid"]
    listener = await tail(simulator)
    await simulator.stop()
    await gone(pid)
    await listener.until(lambda: listener.closed is not None)
    assert listener.closed.rcvd is None
    assert listener.texts()[-1] == "[Info] (Server) Stopping HTTP server..."


async def test_children_die_with_it_and_it_comes_back_on_its_port(gone: Any) -> None:
    async with SimulatorProcess() as simulator:
        await simulator.load("tiny-a")
        pid, url, own = (await simulator.child("tiny-a"))["pid"], simulator.url, simulator.pid
        await simulator.kill()
        await gone(pid)
        await simulator.start()
        assert simulator.url == url
        assert simulator.pid != own
        assert (await simulator.health())["all_models_loaded"] == []


async def test_stats_count_what_was_asked(simulator: SimulatorProcess, tail: Any) -> None:
    await simulator.load("tiny-a")
    await simulator.health()
    await tail(simulator)
    stats = await simulator.stats()
    assert stats["requests"] == {"POST /v1/load": 1, "GET /v1/health": 1}
    assert stats["requests_total"] == 2
    assert (stats["ws_connections_open"], stats["subscribes"], stats["loads"]) == (1, 1, {"tiny-a": 1})
    assert stats["pid"] == simulator.pid
    await simulator.reset_stats()
    assert (await simulator.stats())["requests_total"] == 0


async def test_a_simulator_that_cannot_start_says_why() -> None:
    broken = SimulatorProcess(extra_args=["--no-such-option"])
    with pytest.raises(SimulatorError, match="no-such-option"):
        await broken.start()


async def test_sigint_ends_it_too(simulator: SimulatorProcess, gone: Any) -> None:
    pid = simulator.pid
    os.kill(pid, signal.SIGINT)
    await gone(pid)
