"""SIGHUP: other slots and policies without dropping a stream; `--check`; what is refused."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from lemond_adapter.simulator import SimulatorProcess

BEFORE = '[policy]\nidle_timeout_s = 0\n[slots.primary]\nmodel = "tiny-a"\n'
AFTER = '[policy]\nidle_timeout_s = 0.2\n[slots.main]\nmodel = "tiny-a"\naliases = ["gpt"]\n'


async def test_a_reload_keeps_streams_and_takes_effect(
    simulator: SimulatorProcess, start_service: Any, tmp_path: Path
) -> None:
    file = tmp_path / "adapter.toml"
    file.write_text(BEFORE)
    service = await start_service("--lemond", simulator.url, "--config", str(file))
    await service.loaded("tiny-a")
    body = {"model": "primary", "stream": True, "messages": [], "sim_chunks": 40, "sim_interval_ms": 50}

    async def has(slot: str) -> bool:
        return slot in [row["name"] for row in await service.get("/api/slots")]

    async with (
        httpx.AsyncClient(trust_env=False, timeout=30) as client,
        client.stream("POST", f"{service.url}/v1/chat/completions", json=body) as answer,
    ):
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith("data: ")
        file.write_text("[slots.broken]\nmodle = 5\n")
        service.process.send_signal(signal.SIGHUP)

        async def told() -> bool:
            return b"not reloaded" in service.stderr

        await service.until(told)
        assert await has("primary")
        file.write_text(AFTER)
        service.process.send_signal(signal.SIGHUP)
        await service.until(lambda: has("main"))
        assert not await has("primary")
        rest = [line async for line in lines if line.startswith("data: ")]
    assert rest[-1] == "data: [DONE]"
    (route,) = (await service.get("/api/v1/adapter/routes"))["routes"]
    assert route["slot"] == "main"

    async def evicted() -> bool:
        return not await service.routed("tiny-a")

    await service.until(evicted)  # by the new idle limit
    answer = await service.post("/v1/chat/completions", {"model": "gpt", "messages": []}, Prefer="wait=20")
    assert answer.json()["model"] == "tiny-a"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[policy]\nidle_timeout_s = -1\n", ["policy.idle_timeout_s", "greater than or equal to 0"]),
        ("[policy]\nidle_timeout = 5\n", ["policy.idle_timeout", "unknown key", "idle_timeout_s"]),
        ("[state]\njournal_rows = 'many'\n", ["state.journal_rows", "integer"]),
        ("[slots.a]\nmodel = 5\n", ["slots.a.model"]),
        ("[slots.a]\nmodel = 'x'\n[slots.b]\nmodel = 'y'\naliases = ['a']\n", ["'a'", "already taken"]),
        ("slots_dir = 'nowhere'\n", ["slots_dir", "not a folder"]),
        ("[policy\n", ["not TOML"]),
        ("[policy]\nwarm = ['ghost', 5]\n", ["policy.warm.1"]),
    ],
)
def test_check_refuses_with_file_key_and_what_was_expected(
    tmp_path: Path, text: str, named: list[str]
) -> None:
    file = tmp_path / "adapter.toml"
    file.write_text(text)
    command = [sys.executable, "-m", "lemond_adapter", "serve", "--check", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    for part in (str(file), *named):
        assert part in done.stderr


def test_check_says_ok(tmp_path: Path) -> None:
    file = tmp_path / "adapter.toml"
    file.write_text(BEFORE + "\n[lemond]\nload_timeout_s = 5\n")
    command = [sys.executable, "-m", "lemond_adapter", "serve", "--check", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert "ok" in done.stdout
