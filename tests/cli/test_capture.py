"""`capture`: what it records replays to what happened."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from lemond_adapter.captures import read_capture, replay
from lemond_adapter.drivers import installed_drivers, select_driver
from lemond_adapter.simulator import SimulatorProcess


async def record(simulator: SimulatorProcess, output: Path, *more: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lemond_adapter", "capture", "--lemond", simulator.url),
        *("--output", str(output), "--scenario", "load_unload", *more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def written(path: Path, text: str) -> bool:
    return path.exists() and text in path.read_text()


async def appears(path: Path, text: str) -> None:
    """Waits until another process has written this."""
    for _ in range(1000):
        if await asyncio.to_thread(written, path, text):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{text!r} was not written to {path}")


async def test_a_recording_replays_to_what_happened(simulator: SimulatorProcess, tmp_path: Path) -> None:
    output = tmp_path / "load_unload.info.jsonl"
    recorder = await record(simulator, output, "--duration", "4")
    await appears(output, '"health"')
    await simulator.load("tiny-a")
    pid = (await simulator.child("tiny-a"))["pid"]
    await appears(output, f'"pid": {pid}, "recipe"')
    await simulator.unload("tiny-a")
    assert await recorder.wait() == 0
    capture = read_capture(output)
    assert capture.release == "10.7.0"
    assert capture.lines[0].data["scenario"] == "load_unload"
    assert not capture.warnings
    facts = [(line.data["what"], line.data["pid"]) for line in capture.lines if line.kind == "truth"]
    assert ("spawn", pid) in facts
    assert {("zombie", pid), ("gone", pid)} & set(facts)
    result = replay(capture, select_driver(capture.release, installed_drivers().drivers).driver)
    kinds = [event.type for event in result.events]
    assert kinds == ["load_started", "process_spawned", "model_loaded", "eviction_started", "model_evicted"]
    assert not result.unknown_lines


async def test_scrub_takes_out_homes_and_keys(tmp_path: Path) -> None:
    from lemond_adapter.captures.recorder import Scrubber

    scrub = Scrubber(["s3cret", None])
    text = json.dumps({"a": "/home/ann/x.gguf", "b": "/home/bo/y", "c": "key s3cret", "d": "/Users/bob/z"})
    clean = scrub(text)
    assert json.loads(clean) == {
        "a": "/home/user/x.gguf",
        "b": "/home/user/y",
        "c": "key REDACTED",
        "d": "/home/user/z",
    }


async def test_nothing_is_overwritten(simulator: SimulatorProcess, tmp_path: Path) -> None:
    output = tmp_path / "there.jsonl"
    output.write_text("mine")
    recorder = await record(simulator, output, "--duration", "1")
    _, errors = await recorder.communicate()
    assert recorder.returncode == 1
    assert b"name a new file" in errors
    assert output.read_text() == "mine"


async def test_no_lemond_is_said(simulator: SimulatorProcess, tmp_path: Path) -> None:
    await simulator.stop()
    recorder = await record(simulator, tmp_path / "x.jsonl", "--duration", "1")
    _, errors = await recorder.communicate()
    assert recorder.returncode == 1
    assert b"nothing to record" in errors
