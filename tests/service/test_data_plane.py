"""The data plane's answers, as the contract has them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from lemond_adapter.simulator import SimulatorProcess


async def test_a_miss_is_503_with_a_wait_that_sdks_obey(simulator: SimulatorProcess, service: Any) -> None:
    answer = await service.chat("tiny-a")
    assert answer.status_code == 503
    error = answer.json()["error"]
    assert error["code"] == "slot.loading"
    assert 1 <= int(answer.headers["retry-after"]) <= 59
    assert 0 < int(answer.headers["retry-after-ms"]) <= 59_000
    assert set(error) == {"code", "message", "type", "details"}
    assert set(error["details"]["progress"]) == {
        "phase",
        "requested_model",
        "upstream",
        "eta_s",
        "queue_position",
    }
    assert error["details"]["progress"]["eta_s"] is None
    await service.until(lambda: service.routed("tiny-a"))
    answer = await service.chat("tiny-a")
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "I am tiny-a."


async def test_many_misses_start_one_load(simulator: SimulatorProcess, service: Any) -> None:
    async with httpx.AsyncClient(trust_env=False, base_url=service.url, timeout=30) as client:
        for _ in range(20):
            await client.post("/v1/chat/completions", json={"model": "tiny-a", "messages": []})
    await service.until(lambda: service.routed("tiny-a"))
    assert (await simulator.stats())["loads"] == {"tiny-a": 1}


async def test_prefer_wait_holds_the_request(simulator: SimulatorProcess, service: Any) -> None:
    answer = await service.post(
        "/v1/chat/completions", {"model": "tiny-a", "messages": []}, Prefer="respond-async, wait=20"
    )
    assert answer.status_code == 200
    assert answer.json()["model"] == "tiny-a"


async def test_unknown_model_is_404(service: Any) -> None:
    answer = await service.chat("nobody")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model.not_found"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"model": 5}', b'{"model": ""}', b"\xff\xfe"])
async def test_bodies_that_cannot_be_routed_are_400(service: Any, body: bytes) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{service.url}/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


async def test_a_failed_load_is_told_with_lemonds_reason(simulator: SimulatorProcess, service: Any) -> None:
    assert (await service.chat("broken")).json()["error"]["code"] == "slot.loading"

    async def failed() -> bool:
        return (await service.get("/api/slots/broken"))["state"] == "error"

    await service.until(failed)
    answer = await service.chat("broken")
    assert answer.status_code == 503
    error = answer.json()["error"]
    assert error["code"] == "slot.error"
    assert "llama-server failed to start" in error["message"]
    assert 1 <= int(answer.headers["retry-after"]) <= 59
    # It is not tried again while the pause lasts.
    attempts = (await simulator.stats())["requests"]["POST /v1/load"]
    await service.chat("broken")
    assert (await simulator.stats())["requests"]["POST /v1/load"] == attempts


async def test_lemond_gone_and_nothing_alive_is_unavailable(
    simulator: SimulatorProcess, service: Any
) -> None:
    await simulator.kill()

    async def unavailable() -> bool:
        return (await service.chat("tiny-a")).json()["error"]["code"] == "lemonade.unavailable"

    await service.until(unavailable)
    answer = await service.chat("tiny-a")
    assert answer.status_code == 503
    assert 1 <= int(answer.headers["retry-after"]) <= 59


async def test_child_dead_before_it_answered_is_interrupted_and_not_sent_twice(
    simulator: SimulatorProcess, service: Any
) -> None:
    await service.loaded("tiny-a")
    answer = await service.chat("tiny-a", sim_die="before")
    assert answer.status_code == 503
    error = answer.json()["error"]
    assert error["code"] == "slot.loading"
    assert error["details"]["interrupted"] is True


async def test_cut_stream_ends_with_the_error_event_and_a_closed_connection(
    simulator: SimulatorProcess, service: Any
) -> None:
    await service.loaded("tiny-a")
    body = {"model": "tiny-a", "stream": True, "messages": [], "sim_chunks": 10, "sim_die": "mid"}
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("POST", f"{service.url}/v1/chat/completions", json=body) as answer,
    ):
        assert answer.status_code == 200
        lines = [line async for line in answer.aiter_lines() if line.startswith("data: ")]
    assert json.loads(lines[-1][6:])["error"]["code"] == "slot.interrupted"
    assert "data: [DONE]" not in lines
    assert len(lines) >= 6


async def test_cut_plain_answer_never_looks_whole(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    body = {"model": "tiny-a", "messages": [], "sim_delay_ms": 500, "sim_die": "before"}
    answer = await service.post("/v1/chat/completions", body)
    assert answer.status_code == 503


async def test_a_client_that_leaves_closes_the_upstream(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    body = {"model": "tiny-a", "stream": True, "messages": [], "sim_chunks": 1000, "sim_interval_ms": 20}
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("POST", f"{service.url}/v1/chat/completions", json=body) as answer,
    ):
        async for _ in answer.aiter_lines():
            break
        assert (await service.get("/api/v1/adapter/status"))["counters"]["in_flight"] == 1

    async def idle() -> bool:
        return bool((await service.get("/api/v1/adapter/status"))["counters"]["in_flight"] == 0)

    await service.until(idle)


async def test_in_flight_shows_as_serving(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    body = {"model": "tiny-a", "stream": True, "messages": [], "sim_chunks": 100, "sim_interval_ms": 20}
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("POST", f"{service.url}/v1/chat/completions", json=body) as answer,
    ):
        async for _ in answer.aiter_lines():
            break
        assert (await service.get("/api/slots/tiny-a"))["state"] == "serving"


async def test_flm_children_see_their_checkpoint_as_model(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("Llama-3.2-1B-FLM")
    answer = await service.chat("Llama-3.2-1B-FLM")
    assert answer.status_code == 200
    assert answer.json()["model"] == "Llama-3.2-1B-FLM"


async def test_paths_only_lemond_speaks_go_through_lemond(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("Whisper-Tiny")
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(
            f"{service.url}/v1/audio/transcriptions",
            files={"file": ("a.wav", b"RIFF", "audio/wav")},
            data={"model": "Whisper-Tiny"},
        )
    assert answer.status_code == 200
    assert answer.json()["text"] == "I am Whisper-Tiny."
    assert "POST /v1/audio/transcriptions" in (await simulator.stats())["requests"]


async def test_chat_goes_to_the_child_not_through_lemond(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    assert (await service.chat("tiny-a")).status_code == 200
    assert "POST /v1/chat/completions" not in (await simulator.stats())["requests"]


async def test_credentials_stay_here(simulator: SimulatorProcess, start_service: Any) -> None:
    service = await start_service("--lemond", simulator.url, environment={"LEMOND_ADAPTER_API_KEY": "s3cret"})
    assert (await service.chat("tiny-a")).status_code == 401
    key = {"Authorization": "Bearer s3cret"}
    body = {"model": "tiny-a", "messages": []}
    answer = await service.post("/v1/chat/completions", body, Prefer="wait=20", **key)
    assert answer.status_code == 200
    wrong = await service.post("/v1/chat/completions", body, Authorization="Bearer other")
    assert wrong.status_code == 401
    assert wrong.json()["error"]["code"] == "auth.invalid"


async def test_lemonds_key_is_used_and_never_shown(start_service: Any) -> None:
    async with SimulatorProcess(api_key="lemonade-key") as simulator:
        service = await start_service(
            "--lemond", simulator.url, environment={"LEMONADE_API_KEY": "lemonade-key"}
        )
        await service.loaded("tiny-a")
        assert (await service.chat("tiny-a")).status_code == 200
        status = await service.get("/api/v1/adapter/status")
        assert status["log_stream"]["connected"] is True
        assert "lemonade-key" not in json.dumps(status)


async def test_a_body_beyond_the_limit_is_413(service: Any) -> None:
    async def endless() -> Any:
        for _ in range(101):
            yield b" " * (1024 * 1024)

    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        answer = await client.post(f"{service.url}/v1/chat/completions", content=endless())
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request.too_large"
