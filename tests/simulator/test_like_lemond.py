"""The simulator against recordings of the real lemond: the same calls, the same lines in the same order."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

CORPUS = Path(__file__).parents[2] / "corpus" / "10.7.0"

# What depends on the machine, or on what the model happened to say.
_VARIES = [
    (re.compile(r"PID: \d+"), "PID: N"),
    (re.compile(r"(--port |port:? |127\.0\.0\.1:)\d+"), r"\1N"),
    (re.compile(r"Thread: \d+"), "Thread: N"),
    (re.compile(r"\(id: \d+\)"), "(id: N)"),
]
# Chatter of requests and of the boot, which nobody reads as a sign of what is loaded.
_CHATTER = re.compile(
    r"\[Debug\] \((Server|OllamaApi)\)|\(Telemetry\)|\((main|WebSocket)\)"
    r"|\(ModelManager\) (?!Loading)|Web app|status page|HTTP server|Host resolution|Broadcasting"
    r"|WebSocket server|resolution failed|Max loaded models"
)


def _normal(text: str) -> str:
    for pattern, instead in _VARIES:
        text = pattern.sub(instead, text)
    return text


def _lifecycle(texts: list[str]) -> list[str]:
    return [_normal(text) for text in texts if not _CHATTER.search(text)]


def _capture(name: str, level: str) -> tuple[list[dict[str, Any]], list[str]]:
    rows = [json.loads(line) for line in (CORPUS / f"{name}.{level}.jsonl").read_text().splitlines()]
    texts = []
    for row in rows:
        if row["kind"] == "ws":
            frame = row["frame"]
            for entry in frame["entries"] if "entries" in frame else [frame["entry"]]:
                if entry["tag"] != "Process":
                    texts.append(entry["line"][24:])
    return rows, texts


@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.parametrize("scenario", ["load_chat_unload", "lru_eviction", "load_failure_cascade", "crash"])
async def test_the_same_calls_give_the_same_lines(
    scenario: str, level: str, start_simulator: Any, tail: Any, http: httpx.AsyncClient
) -> None:
    rows, wanted = _capture(scenario, level)
    limit = rows[0]["config"].get("max_loaded_models", 4)
    simulator = await start_simulator(
        time_scale=200.0, max_loaded_models=limit, extra_args=["--log-level", level]
    )
    listener = await tail(simulator)
    answers = iter([row for row in rows if row["kind"] == "response"])
    for row in rows:
        if row["kind"] == "request":
            answer = await http.request(row["method"], simulator.url + row["path"], json=row["body"])
            expected = next(answers)
            assert answer.status_code == expected["status"], (row, answer.text)
            if row["path"] in ("/v1/load", "/v1/unload") and answer.status_code != 404:
                assert answer.json() == json.loads(expected["body"])
        elif row["kind"] == "truth" and row["what"] == "kill":
            child = await simulator.child(row["model"])
            os.kill(child["pid"], signal.SIGKILL)
        elif row["kind"] == "health":
            _same_health((await http.get(simulator.url + "/v1/health")).json(), row["body"])
    await listener.quiet()
    assert _lifecycle(listener.texts()) == _lifecycle(wanted)


def _same_health(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert list(ours) == sorted(theirs)
    assert ours["model_loaded"] == theirs["model_loaded"]
    assert ours["max_models"] == theirs["max_models"]
    assert ours["version"] == theirs["version"]
    varies = {"backend_url", "pid", "last_use"}
    for mine, real in zip(ours["all_models_loaded"], theirs["all_models_loaded"], strict=True):
        assert set(mine) == set(real)
        assert {k: v for k, v in mine.items() if k not in varies} == {
            k: v for k, v in real.items() if k not in varies
        }


async def test_concurrent_loads_are_serialised(start_simulator: Any, tail: Any) -> None:
    simulator = await start_simulator(max_loaded_models=4)
    listener = await tail(simulator)
    models = ("tiny-a", "tiny-b", "tiny-embed", "tiny-c")
    await asyncio.gather(*(simulator.load(model) for model in models))
    await listener.until_text("Total loaded: 4")
    milestones = [
        text.partition("(")[2].partition(":")[0]
        for text in listener.texts()
        if text.startswith(("[Info] (LlamaCpp) Loading model", "[Info] (Router) Model loaded successfully"))
    ]
    assert milestones == ["LlamaCpp) Loading model", "Router) Model loaded successfully. Total loaded"] * 4
    assert sum("Another load is in progress" in text for text in listener.texts()) >= 3


async def test_a_retry_that_succeeds_says_so_only_by_an_unloading_line(
    start_simulator: Any, tail: Any
) -> None:
    simulator = await start_simulator()
    listener = await tail(simulator)
    await simulator.fault("load_failure", model="tiny-a", reason="llama-server failed to start", times=1)
    await simulator.load("tiny-a")
    ready = "[Info] (WrappedServer) llama-server is ready!"
    await listener.until(lambda: ready in listener.texts()[:-1])
    assert listener.texts()[-2:] == [ready, "[Info] (LlamaCpp) Unloading model..."]
    assert not any("Model loaded successfully" in text for text in listener.texts())
    assert (await simulator.health())["model_loaded"] == "tiny-a"


async def test_a_missing_file_evicts_nobody(start_simulator: Any) -> None:
    simulator = await start_simulator()
    await simulator.load("tiny-a")
    await simulator.fault("load_failure", model="tiny-b", reason="GGUF file not found for checkpoint: x")
    answer = await simulator.load("tiny-b")
    assert answer["error"]["code"] == "model_load_error"
    assert [row["model_name"] for row in (await simulator.health())["all_models_loaded"]] == ["tiny-a"]
