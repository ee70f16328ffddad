"""What is kept: the journal and hal0's state files, through SIGTERM, kill -9 and restarts."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from lemond_adapter.journal import Journal, Query
from lemond_adapter.simulator import SimulatorProcess
from lemond_adapter.slots.snapshot import read_states


def config(folder: Path, more: str = "") -> Path:
    file = folder / "adapter.toml"
    file.write_text(
        f'{more}\n[state]\ndir = "{folder}/state"\nhal0_dir = "{folder}/hal0"\n'
        '[slots.primary]\nmodel = "tiny-a"\nbackend = "vulkan"\n'
    )
    return file


async def test_sigterm_loses_nothing_and_seqs_go_on(
    simulator: SimulatorProcess, start_service: Any, tmp_path: Path
) -> None:
    arguments = ("--lemond", simulator.url, "--config", str(config(tmp_path)))
    first = await start_service(*arguments)
    await first.loaded("tiny-a")
    assert (await first.chat("primary")).status_code == 200
    seen = (await first.get("/api/v1/adapter/journal?limit=1000"))["events"]
    last = (await first.get("/api/v1/adapter/status"))["counters"]["events"]
    assert await first.stop() == 0
    second = await start_service(*arguments)
    rows = await second.get("/api/v1/adapter/journal?limit=1000")
    before = [row for row in rows["events"] if row["seq"] <= last]
    assert before == seen
    assert [row["seq"] for row in rows["events"]] == sorted({row["seq"] for row in rows["events"]})
    loaded = await second.get("/api/v1/adapter/journal?slot=primary&type=model_loaded&limit=1")
    assert len(loaded["events"]) == 1
    # Learned load times too: the first wait of this run is a measured one.
    await second.post("/api/slots/primary/unload")

    async def away() -> bool:
        return not await second.routed("tiny-a")

    await second.until(away)
    answer = await second.chat("primary")
    assert answer.json()["error"]["details"]["progress"]["eta_s"] is not None


async def test_state_files_are_hal0s_and_paint_first(
    simulator: SimulatorProcess, start_service: Any, tmp_path: Path
) -> None:
    arguments = ("--lemond", simulator.url, "--config", str(config(tmp_path)))
    service = await start_service(*arguments)
    await service.loaded("tiny-a")
    file = tmp_path / "hal0" / "primary" / "state.json"

    async def written() -> bool:
        return file.exists() and json.loads(file.read_text())["state"] == "ready"

    await service.until(written)
    saved = json.loads(file.read_text())
    assert set(saved) == {"extra", "message", "model_id", "name", "port", "state", "updated_at"}
    assert set(saved["extra"]) == {"adopted", "backend", "provider"}
    assert (saved["name"], saved["model_id"]) == ("primary", "tiny-a")
    assert abs(saved["updated_at"] - time.time()) < 60
    assert await service.stop() == 0
    await simulator.kill()
    # An older file without all keys, a torn one and a foreign one beside it.
    for name, text in {"torn": saved["name"] + '{"state": "re', "foreign": '{"state": "flying"}'}.items():
        (tmp_path / "hal0" / name).mkdir()
        (tmp_path / "hal0" / name / "state.json").write_text(text)
    again = await start_service(*arguments)
    row = await again.get("/api/slots/primary")
    assert (row["state"], row["metadata"]["stale"], row["port"]) == ("ready", True, saved["port"])
    answer = await again.chat("primary")  # never authoritative: nothing is sent anywhere
    assert answer.json()["error"]["code"] == "lemonade.unavailable"
    await simulator.start()

    async def true() -> bool:
        row = await again.get("/api/slots/primary")
        return row["state"] == "offline" and row["metadata"]["stale"] is False

    await again.until(true)
    assert b"torn" in again.stderr
    assert b"foreign" in again.stderr


def test_files_of_other_ages(tmp_path: Path) -> None:
    old = {"state": "ready", "updated_at": 1000.0}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "state.json").write_text(json.dumps(old))
    assert list(read_states(tmp_path, now=1500.0)) == ["a"]
    assert list(read_states(tmp_path, now=1000.0 + 3601)) == []
    assert list(read_states(tmp_path, now=500.0)) == []  # from the future
    assert read_states(tmp_path / "nowhere") == {}


async def test_a_disk_that_refuses_costs_only_the_journal(
    simulator: SimulatorProcess, start_service: Any, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    file = tmp_path / "adapter.toml"
    file.write_text(f'[state]\ndir = "{blocked}/state"\nhal0_dir = "{blocked}/hal0"\n')
    service = await start_service("--lemond", simulator.url, "--config", str(file))
    await service.loaded("tiny-a")
    assert (await service.chat("tiny-a")).status_code == 200
    status = (await service.get("/api/v1/adapter/status"))["journal"]
    assert "in memory" in status["problem"]
    assert (await service.get("/api/v1/adapter/journal?type=model_loaded"))["events"]


@pytest.mark.slow
async def test_killed_fifty_times_while_it_writes(
    simulator: SimulatorProcess, start_service: Any, tmp_path: Path
) -> None:
    chance = random.Random(20)
    arguments = ("--lemond", simulator.url, "--config", str(config(tmp_path)))
    for _ in range(50):
        service = await start_service(*arguments)
        seen: list[dict[str, Any]] = []
        reading = asyncio.create_task(read(service, seen))
        driving = asyncio.create_task(drive(simulator))
        await asyncio.sleep(chance.uniform(0.05, 1.0))
        os.kill(service.process.pid, signal.SIGKILL)
        killed_at = time.time()
        await service.process.wait()
        for task in (reading, driving):
            task.cancel()
        await asyncio.gather(reading, driving, return_exceptions=True)
        journal = Journal(tmp_path / "state" / "journal.sqlite", most_rows=100_000, oldest_s=86_400)
        assert journal.status().problem is None
        kept = {row["seq"] for row in await journal.events(Query(limit=1000))}
        journal.close()
        due = [e["seq"] for e in seen if when(e["at"]) < killed_at - 1.0]
        assert set(due[-500:]) <= kept
        for saved in (tmp_path / "hal0").glob("*/state.json"):
            assert json.loads(saved.read_text())["name"] == saved.parent.name
    assert not [file for file in (tmp_path / "state").iterdir() if "unusable" in file.name]


def when(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


async def read(service: Any, seen: list[dict[str, Any]]) -> None:
    async for event in service.events(live_only=True):
        if event["event"] != "snapshot":
            seen.append(event["data"])


async def drive(simulator: SimulatorProcess) -> None:
    while True:
        await simulator.load("tiny-a")
        await simulator.unload("tiny-a")
