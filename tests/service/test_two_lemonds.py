"""Two lemonds on one port: named, and no living model is lost to the other one's listing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

from lemond_adapter.simulator import SimulatorProcess


async def test_they_are_detected_and_named(
    simulator: SimulatorProcess, start_service: Any, tmp_path: Any
) -> None:
    config = tmp_path / "adapter.toml"
    config.write_text("[policy]\nheartbeat_s = 0.1\n")
    service = await start_service("--lemond", simulator.url, "--config", str(config))
    await service.loaded("tiny-a")
    before = (await service.get("/api/v1/adapter/routes"))["routes"]
    await simulator.fault("second_lemond", on=True)

    async def named() -> bool:
        status = await service.get("/api/v1/adapter/status")
        return bool(status["lemond"]["shared_port"]) and any("two lemonds" in p for p in status["problems"])

    await service.until(named)
    listings = (await service.get("/api/v1/adapter/status"))["counters"]["listings"]

    async def several_more() -> bool:
        status = await service.get("/api/v1/adapter/status")
        assert (await service.chat("tiny-a")).status_code == 200
        return bool(status["counters"]["listings"] > listings + 6)

    await service.until(several_more)
    assert (await service.get("/api/v1/adapter/routes"))["routes"] == before
    assert "two lemonds" in service.stderr.decode()
    # The process is the only witness left, and it is believed.
    await simulator.fault("crash", model="tiny-a")

    async def gone() -> bool:
        return not await service.routed("tiny-a")

    await service.until(gone)
    doctor = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "lemond_adapter", "doctor", "--lemond", simulator.url, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert doctor.returncode == 1
    [finding] = [f for f in json.loads(doctor.stdout) if f["check"] == "one lemond"]
    assert finding["grade"] == "problem"
    assert "two lemonds" in finding["what"]
