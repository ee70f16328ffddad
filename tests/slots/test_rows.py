"""`/api/slots` against rows captured from a running hal0, key by key."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lemond_adapter.simulator import SimulatorProcess

CAPTURED = json.loads(Path(__file__).with_name("captured_rows.json").read_text())
NUMBER = (int, float)

# hal0's own slot files, with keys that mean nothing here.
FILES = {
    "primary.toml": """
name = "primary"
port = 8081
backend = "vulkan"
device = "gpu-vulkan"
provider = "lemonade"
enabled = true
workers = 1
idle_timeout_s = 0
type = "llm"
[model]
default = "tiny-a"
context_size = 8192
n_gpu_layers = -1
labels = ["chat"]
[server]
extra_args = "--parallel 2"
""",
    "embed.toml": 'port = 8082\nbackend = "vulkan"\ntype = "embedding"\n[model]\ndefault = "tiny-embed"\n',
    "off.toml": 'enabled = false\n[model]\ndefault = "tiny-b"\n',
}


def kind_of(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, NUMBER):
        return type(value).__name__
    return "number"


@pytest.fixture
async def hal0(simulator: SimulatorProcess, start_service: Any, tmp_path: Path) -> Any:
    (tmp_path / "slots").mkdir()
    for name, text in FILES.items():
        tomllib.loads(text)
        (tmp_path / "slots" / name).write_text(text)
    config = tmp_path / "adapter.toml"
    config.write_text('slots_dir = "slots"\n')
    service = await start_service("--lemond", simulator.url, "--config", str(config))
    await service.loaded("tiny-a")
    assert (await service.chat("primary")).status_code == 200
    return service


async def test_rows_have_hal0s_keys_and_kinds(hal0: Any, simulator: SimulatorProcess) -> None:
    rows = {row["name"]: row for row in await hal0.get("/api/slots")}
    assert list(rows) == ["embed", "off", "primary"]
    for captured in CAPTURED:
        row = rows[captured["name"]]
        assert set(row) == set(captured)
        for key, value in captured.items():
            assert kind_of(row[key]) == kind_of(value), key
        for key, value in captured["metadata"].items():
            assert kind_of(row["metadata"][key]) == kind_of(value), key
    ready, cold = rows["primary"], rows["embed"]
    assert ready["state"] == ready["status"] == "ready"
    assert ready["lemonade_state"] == "loaded"
    assert ready["backend"] == "vulkan"
    assert ready["models"] == ["tiny-a.gguf"]
    assert ready["backend_url"] == f"http://127.0.0.1:{ready['port']}/v1"
    assert ready["metadata"]["adopted"] is False
    assert (cold["state"], cold["port"], cold["lemonade_state"], cold["type"]) == (
        "offline",
        0,
        "idle",
        "embedding",
    )
    assert rows["off"]["lemonade_state"] == "disabled"


async def test_nothing_optional_is_null(hal0: Any) -> None:
    for row in await hal0.get("/api/slots"):
        assert [key for key, value in row.items() if value is None] in ([], ["last_used_at"])
        assert None not in row["metadata"].values()


async def test_hal0s_options_reach_lemond(hal0: Any, simulator: SimulatorProcess) -> None:
    health = await simulator.health()
    (entry,) = health["all_models_loaded"]
    assert entry["recipe_options"]["ctx_size"] == 8192
    assert entry["recipe_options"]["llamacpp_args"] == "--parallel 2"


async def test_models_that_nobody_configured_are_slots_of_their_own(hal0: Any) -> None:
    await hal0.loaded("tiny-c")
    row = await hal0.get("/api/slots/tiny-c")
    assert (row["name"], row["model_id"], row["state"]) == ("tiny-c", "tiny-c", "ready")


async def test_what_cannot_be_is_409_and_what_is_not_is_404(hal0: Any, simulator: SimulatorProcess) -> None:
    async def code(path: str) -> tuple[int, str]:
        answer = await hal0.post(path)
        error = answer.json().get("error", {})
        return answer.status_code, error.get("code", "")

    assert await code("/api/slots/nobody/load") == (404, "slot.not_found")
    assert await code("/api/slots/off/load") == (409, "slot.conflict")
    answer = await hal0.chat("off")
    assert answer.status_code == 404
    assert "disabled" in answer.json()["error"]["message"]
    answer = await hal0.post("/api/slots/primary/restart")
    assert answer.status_code == 202
    assert answer.json()["state"] == "unloading"
    await hal0.until(lambda: hal0.routed("tiny-a"))
    assert (await simulator.stats())["loads"]["tiny-a"] == 2
    assert await code("/api/slots/embed/unload") == (202, "")  # it is not there already
    await simulator.kill()

    async def unreachable() -> bool:
        return await code("/api/slots/embed/load") == (409, "lemonade.unavailable")

    await hal0.until(unreachable)
