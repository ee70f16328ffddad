"""The simulated lemond's manners, the bad ones included, are the recorded real one's."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from lemond_adapter.captures import read_capture
from lemond_adapter.simulator import SimulatorProcess

CORPUS = Path(__file__).parents[2] / "corpus" / "10.7.0"


async def test_health_has_the_recorded_shape(simulator: SimulatorProcess) -> None:
    await simulator.load("tiny-a")
    ours = await simulator.health()
    capture = read_capture(CORPUS / "crash.info.jsonl")
    theirs = next(line.data["body"] for line in capture.lines if line.kind == "health")
    assert set(ours) == set(theirs)
    assert set(ours["all_models_loaded"][0]) == set(theirs["all_models_loaded"][0])
    for key, value in theirs["all_models_loaded"][0].items():
        assert isinstance(ours["all_models_loaded"][0][key], type(value)), key


async def test_a_dead_child_stays_listed_and_a_load_of_it_does_nothing(simulator: SimulatorProcess) -> None:
    await simulator.load("tiny-a")
    pid = (await simulator.fault("crash", model="tiny-a"))["pid"]
    assert (await simulator.load("tiny-a"))["status"] == "success"
    assert [entry["pid"] for entry in (await simulator.health())["all_models_loaded"]] == [pid]
    assert (await simulator.unload("tiny-a"))["status"] == "success"
    await simulator.load("tiny-a")
    assert (await simulator.child("tiny-a"))["alive"]
    assert (await simulator.child("tiny-a"))["pid"] != pid


@pytest.mark.parametrize(
    "message", ["[1,2]", '"x"', "null", '{"type":5}', '{"type":"logs.subscribe","after_seq":"5"}']
)
async def test_a_malformed_message_kills_it_and_its_children(
    message: str, simulator: SimulatorProcess
) -> None:
    await simulator.load("tiny-a")
    pid = (await simulator.child("tiny-a"))["pid"]
    descriptor = os.pidfd_open(pid)
    async with connect(f"ws://127.0.0.1:{simulator.ws_port}/logs/stream", proxy=None) as socket:
        await socket.send(message)
        await socket.wait_closed()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    await asyncio.wait_for(ended.wait(), 10)
    asyncio.get_running_loop().remove_reader(descriptor)
    os.close(descriptor)


async def test_health_blocks_while_a_model_is_evicted() -> None:
    async with SimulatorProcess(time_scale=4, extra_args=["--load-seconds", "0.1"]) as simulator:
        await simulator.load("tiny-a")
        descriptor = os.pidfd_open((await simulator.child("tiny-a"))["pid"])
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, ended.set)
        unload = asyncio.create_task(simulator.unload("tiny-a"))
        await ended.wait()
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        # The child is gone, the clean-up lasts another half second: health answers only after it.
        assert (await simulator.health())["all_models_loaded"] == []
        assert (await unload)["status"] == "success"
