"""The children: signed answers, streams, and what a request can provoke."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from typing import Any

import httpx
import pytest

from lemond_adapter.simulator import SimulatorProcess

ASK: dict[str, Any] = {"model": "whatever", "messages": [{"role": "user", "content": "who?"}]}


@pytest.fixture
async def child(simulator: SimulatorProcess) -> dict[str, Any]:
    """tiny-a's, loaded."""
    await simulator.load("tiny-a")
    return await simulator.child("tiny-a")


def _url(child: dict[str, Any], path: str) -> str:
    return f"http://127.0.0.1:{child['port']}{path}"


async def test_answers_are_signed(child: dict[str, Any], http: httpx.AsyncClient) -> None:
    answer = (await http.post(_url(child, "/v1/chat/completions"), json=ASK)).json()
    assert answer["model"] == "tiny-a"
    assert answer["choices"][0]["message"]["content"] == "I am tiny-a."
    assert answer["system_fingerprint"] == f"sim-tiny-a-{child['pid']}"


async def test_a_stream_has_role_words_finish_usage_and_done(
    child: dict[str, Any], http: httpx.AsyncClient
) -> None:
    ask = {**ASK, "stream": True, "sim_chunks": 5, "stream_options": {"include_usage": True}}
    text = (await http.post(_url(child, "/v1/chat/completions"), json=ask)).text
    data = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert data[-1] == "[DONE]"
    chunks = [json.loads(one) for one in data[:-1]]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert len([c for c in chunks if c["choices"] and c["choices"][0]["delta"].get("content")]) == 5
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] == 5
    assert {chunk["model"] for chunk in chunks} == {"tiny-a"}


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
async def test_streams_with_named_events(path: str, child: dict[str, Any], http: httpx.AsyncClient) -> None:
    text = (await http.post(_url(child, path), json={"model": "x", "stream": True})).text
    last = text.strip().split("\n\n")[-1]
    assert last.startswith(
        ("event: message_stop\ndata: {", "event: response.completed\ndata: {"),
    )
    assert "tiny-a" in text


async def test_embeddings_in_both_encodings(simulator: SimulatorProcess, http: httpx.AsyncClient) -> None:
    await simulator.load("tiny-embed")
    url = _url(await simulator.child("tiny-embed"), "/v1/embeddings")
    plain = (await http.post(url, json={"model": "x", "input": ["a", "b"]})).json()
    packed = (await http.post(url, json={"model": "x", "input": "a", "encoding_format": "base64"})).json()
    vector = plain["data"][1]["embedding"]
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert [row["index"] for row in plain["data"]] == [0, 1]
    assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == vector


async def test_requests_are_counted_by_id(child: dict[str, Any], http: httpx.AsyncClient) -> None:
    for ident in ("one", "two", "one"):
        await http.post(_url(child, "/v1/completions"), json={"prompt": "x"}, headers={"X-Request-Id": ident})
    seen = (await http.get(_url(child, "/sim/requests"))).json()
    assert seen["counts"] == {"one": 2, "two": 1}
    assert seen["executed"] == 3


@pytest.mark.parametrize("when", ["before", "mid"])
@pytest.mark.parametrize("stream", [True, False])
async def test_it_dies_when_asked_to(
    when: str,
    stream: bool,
    child: dict[str, Any],
    simulator: SimulatorProcess,
    http: httpx.AsyncClient,
    gone: Any,
) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post(_url(child, "/v1/chat/completions"), json={**ASK, "sim_die": when, "stream": stream})
    await gone(child["pid"])
    assert (await simulator.child("tiny-a"))["alive"] is False
    assert (await simulator.health())["all_models_loaded"][0]["pid"] == child["pid"]


async def test_it_stalls_and_fails_when_asked_to(child: dict[str, Any], http: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await http.post(_url(child, "/v1/chat/completions"), json={**ASK, "sim_stall": True}, timeout=0.3)
    answer = await http.post(_url(child, "/v1/chat/completions"), json={**ASK, "sim_status": 418})
    assert answer.status_code == 418


async def test_flm_wants_its_checkpoint(simulator: SimulatorProcess, http: httpx.AsyncClient) -> None:
    await simulator.load("Llama-3.2-1B-FLM")
    child = await simulator.child("Llama-3.2-1B-FLM")
    url = _url(child, "/v1/chat/completions")
    assert (await http.post(url, json=ASK)).status_code == 400
    assert (await http.post(url, json={**ASK, "model": "llama3.2:1b"})).status_code == 200
    through = await http.post(
        simulator.url + "/v1/chat/completions", json={**ASK, "model": "Llama-3.2-1B-FLM"}
    )
    assert through.status_code == 200
    assert (await simulator.health())["all_models_loaded"][0]["device"] == "npu"


async def test_whisper_speaks_inference_alone(simulator: SimulatorProcess, http: httpx.AsyncClient) -> None:
    form: dict[str, Any] = {"data": {"model": "Whisper-Tiny"}, "files": {"file": ("a.wav", b"RIFF")}}
    answer = await http.post(simulator.url + "/v1/audio/transcriptions", **form)
    assert answer.json()["text"] == "I am Whisper-Tiny."
    child = await simulator.child("Whisper-Tiny")
    assert (await http.post(_url(child, "/v1/audio/transcriptions"), **form)).status_code == 404
    assert (await http.post(_url(child, "/inference"), **form)).status_code == 200


async def test_a_warming_child_says_so(start_simulator: Any, http: httpx.AsyncClient, tail: Any) -> None:
    simulator = await start_simulator(time_scale=1.0, child_port_base=0, extra_args=["--load-seconds", "0.6"])
    listener = await tail(simulator)
    loading = asyncio.create_task(simulator.load("tiny-a"))
    await listener.until(lambda: any("server is listening on" in entry["line"] for entry in listener.entries))
    line = next(e["line"] for e in listener.entries if "server is listening on" in e["line"])
    answer = await http.post(line.rpartition(" ")[2] + "/v1/chat/completions", json=ASK)
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "Loading model"
    assert (await simulator.health())["all_models_loaded"] == []
    assert (await loading)["status"] == "success"
