"""Two hundred mixed requests while something goes wrong every second: no 502, no wrong model."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from typing import Any

import openai
import pytest

from lemond_adapter.simulator import SimulatorError, SimulatorProcess

REQUESTS = 200
LLMS = ("tiny-a", "tiny-b", "tiny-c")
SEED = int(os.environ.get("MIXED_RUN_SEED", "20261124"))


async def one(client: openai.AsyncOpenAI, rng: random.Random, outcomes: Counter[str]) -> None:
    """One request at the SDK's defaults; what it answers must come from the model it asked."""
    model = rng.choice((*LLMS, "tiny-embed"))
    messages: Any = [{"role": "user", "content": "who are you?"}]
    try:
        if model == "tiny-embed":
            named = (await client.embeddings.create(model=model, input="x")).model
        elif rng.random() < 0.5:
            answer = await client.chat.completions.create(
                model=model, messages=messages, extra_body={"sim_delay_ms": rng.randrange(500)}
            )
            named = str(answer.choices[0].message.content).removeprefix("I am ").removesuffix(".")
        else:
            words = []
            async for chunk in await client.chat.completions.create(
                model=model,
                messages=messages,
                stream=True,
                extra_body={"sim_interval_ms": rng.randrange(150)},
            ):
                assert chunk.model == model
                words.append(chunk.choices[0].delta.content or "")
            named = "".join(words).split()[2]
    except openai.APIStatusError as error:
        outcomes[f"{error.status_code} {error.code}"] += 1
    except openai.APIError as error:
        outcomes[f"in stream: {error.code}"] += 1
    else:
        outcomes["right" if named == model else f"WRONG: {named} for {model}"] += 1


async def misbehave(simulator: SimulatorProcess, rng: random.Random, done: asyncio.Event) -> Counter[str]:
    faults: Counter[str] = Counter()
    while not done.is_set():
        loaded = [child["model"] for child in (await simulator.stats())["children"]]
        model = rng.choice([name for name in LLMS if name in loaded] or list(LLMS))
        other = rng.choice([name for name in LLMS if name != model])
        kind = rng.choice(("kill", "silent_evict", "evict", "move", "unload", "ws_drop"))
        try:
            if kind == "kill":
                os.kill((await simulator.child(model))["pid"], signal.SIGKILL)
            elif kind == "move":
                await simulator.fault("move", model=model, port_taken_by=other)
            elif kind == "unload":
                await simulator.unload(model)
            elif kind == "ws_drop":
                await simulator.fault("ws_drop")
            else:
                await simulator.fault(kind, model=model)
            faults[kind] += 1
        except SimulatorError:
            faults["nothing to break"] += 1
        try:
            await asyncio.wait_for(done.wait(), 1.0)
        except TimeoutError:
            continue
    return faults


@pytest.mark.slow
async def test_two_hundred_requests_with_a_fault_every_second(
    simulator: SimulatorProcess, service: Any
) -> None:
    rng = random.Random(SEED)
    outcomes: Counter[str] = Counter()
    done = asyncio.Event()
    breaker = asyncio.create_task(misbehave(simulator, random.Random(SEED + 1), done))
    async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
        gate = asyncio.Semaphore(4)

        async def paced() -> None:
            async with gate:
                await one(client, rng, outcomes)

        await asyncio.gather(*(paced() for _ in range(REQUESTS)))
    done.set()
    faults = await breaker
    report = f"seed {SEED}: {dict(outcomes)}; faults {dict(faults)}"
    assert outcomes.total() == REQUESTS
    assert not [name for name in outcomes if name.startswith(("WRONG", "502", "500", "404"))], report
    assert outcomes["right"] >= REQUESTS * 0.9, report
    assert faults.total() - faults["nothing to break"] >= 10, report
    status = await service.get("/api/v1/adapter/status")
    assert status["processes"]["pids_visible"] is True
