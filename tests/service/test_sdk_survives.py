"""What lemond and its children do, seen by the real `openai` SDK at its defaults: nothing.

The SDK makes three attempts and obeys `Retry-After`; within them it must get a right answer from
the right model.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest

from lemond_adapter.simulator import SimulatorProcess

SDKS = sorted((Path(__file__).parents[2] / ".sdks").glob("openai-*"))
"""Other SDK versions, each installed into a folder of its own (`make sdks`)."""


async def ask(service: Any, model: str) -> str:
    """One chat call at the SDK's defaults."""

    def call() -> str:
        with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
            answer = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "who are you?"}]
            )
        assert answer.model == model
        return str(answer.choices[0].message.content)

    return await asyncio.to_thread(call)


async def test_a_child_killed_between_two_calls(simulator: SimulatorProcess, service: Any) -> None:
    assert await ask(service, "tiny-a") == "I am tiny-a."
    os.kill((await simulator.child("tiny-a"))["pid"], signal.SIGKILL)
    assert await ask(service, "tiny-a") == "I am tiny-a."
    assert (await simulator.stats())["loads"]["tiny-a"] == 2


async def test_b_model_evicted_behind_our_back(simulator: SimulatorProcess, service: Any) -> None:
    assert await ask(service, "tiny-a") == "I am tiny-a."
    await simulator.fault("silent_evict", model="tiny-a")
    assert await ask(service, "tiny-a") == "I am tiny-a."


async def test_b_model_evicted_by_a_client_of_lemond(simulator: SimulatorProcess, service: Any) -> None:
    assert await ask(service, "tiny-a") == "I am tiny-a."
    await simulator.unload("tiny-a")
    assert await ask(service, "tiny-a") == "I am tiny-a."


async def test_c_model_moved_and_its_port_taken_by_another(simulator: SimulatorProcess, service: Any) -> None:
    assert await ask(service, "tiny-a") == "I am tiny-a."
    assert await ask(service, "tiny-b") == "I am tiny-b."
    old = (await simulator.child("tiny-a"))["port"]
    await simulator.fault("move", model="tiny-a", port_taken_by="tiny-b")
    assert (await simulator.child("tiny-b"))["port"] == old
    assert (await simulator.child("tiny-a"))["port"] != old
    assert await ask(service, "tiny-a") == "I am tiny-a."
    assert await ask(service, "tiny-b") == "I am tiny-b."


async def test_d_lemond_killed_and_restarted(simulator: SimulatorProcess, service: Any) -> None:
    assert await ask(service, "tiny-a") == "I am tiny-a."
    await simulator.kill()
    call = asyncio.create_task(ask(service, "tiny-a"))
    await service.until(lambda: _unreachable(service))
    await simulator.start()
    assert await call == "I am tiny-a."


async def _unreachable(service: Any) -> bool:
    return not (await service.get("/api/v1/adapter/status"))["lemond"]["reachable"]


async def test_streaming_with_the_sdk(simulator: SimulatorProcess, service: Any) -> None:
    def call() -> str:
        with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
            chunks = client.chat.completions.create(
                model="tiny-a", messages=[{"role": "user", "content": "hi"}], stream=True
            )
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    assert (await asyncio.to_thread(call)).split() == ["I", "am", "tiny-a", "."]


async def test_embeddings_and_models_with_the_sdk(simulator: SimulatorProcess, service: Any) -> None:
    def call() -> tuple[int, list[str]]:
        with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
            vector = client.embeddings.create(model="tiny-embed", input="hello").data[0].embedding
            return len(vector), [model.id for model in client.models.list()]

    size, models = await asyncio.to_thread(call)
    assert size == 4
    assert {"tiny-a", "tiny-embed"} <= set(models)


async def test_a_stream_whose_child_dies_raises_and_never_looks_whole(
    simulator: SimulatorProcess, service: Any
) -> None:
    await service.loaded("tiny-a")

    def call() -> None:
        with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
            for _ in client.chat.completions.create(
                model="tiny-a",
                messages=[{"role": "user", "content": "hi"}],
                stream=True,
                extra_body={"sim_chunks": 20, "sim_die": "mid"},
            ):
                continue

    with pytest.raises(openai.APIError, match="went away in the middle"):
        await asyncio.to_thread(call)


@pytest.mark.parametrize("sdk", SDKS, ids=lambda path: path.name)
async def test_a_child_killed_with_other_sdks(sdk: Path, simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    os.kill((await simulator.child("tiny-a"))["pid"], signal.SIGKILL)
    script = (
        "import openai, sys\n"
        "client = openai.OpenAI(base_url=sys.argv[1], api_key='none')\n"
        "answer = client.chat.completions.create(model='tiny-a', messages=[{'role':'user','content':'hi'}])\n"
        "print(openai.__version__, answer.choices[0].message.content)\n"
    )

    def call() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-S", "-c", script, f"{service.url}/v1"],
            env={"PYTHONPATH": str(sdk)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = await asyncio.to_thread(call)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{sdk.name.removeprefix('openai-')} I am tiny-a."
