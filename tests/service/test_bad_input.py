"""Nonsense from lemond's place: a clear line in `status` and the log, and the service stays up."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from lemond_adapter.simulator import SimulatorProcess

HTML = "<!doctype html><title>Lemonade</title>"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"body": "{not json"}, "not JSON"),
        ({"body": "[]"}, "list where an object was expected"),
        ({"body": '{"status": "ok"}'}, "all_models_loaded"),
        ({"body": '{"all_models_loaded": "none", "version": "10.7.0"}'}, "all_models_loaded"),
        ({"body": '{"all_models_loaded": [{"pid": 1}], "version": "10.7.0"}'}, "model_name"),
        (
            {"body": '{"all_models_loaded":[{"model_name":"x","backend_url":"ftp://h"}],"version":"10.7.0"}'},
            "backend_url",
        ),
        ({"body": HTML, "content_type": "text/html"}, "where JSON was expected"),
        ({"body": '{"ok":1}', "content_type": "application/octet-stream"}, "where JSON was expected"),
        ({"body": '{"error": "boom"}', "status": 500}, "status 500"),
    ],
)
async def test_bad_health(
    simulator: SimulatorProcess, start_service: Any, fault: dict[str, Any], expected: str
) -> None:
    await simulator.fault("health_body", **fault)
    service = await start_service("--lemond", simulator.url)
    assert "lemond=unreachable" in service.ready_line or "lemond=10.7.0" in service.ready_line
    status = await service.get("/api/v1/adapter/status")
    assert status["knowledge"]["value"] == "unknown"
    assert expected in status["knowledge"]["why"]
    assert (await service.chat("tiny-a")).json()["error"]["code"] == "lemonade.unavailable"
    assert expected in service.stderr.decode()
    await simulator.fault("clear")

    async def known() -> bool:
        return bool((await service.get("/api/v1/adapter/status"))["knowledge"]["value"] == "known")

    await service.until(known)


async def test_bad_frames_are_counted_and_skipped(simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    garbage = ["garbage", "[1,2]", "null", "{}", '{"type":"logs.entry"}']
    garbage.append('{"type":"logs.entry","entry":{"seq":"x"}}')
    for text in garbage:
        await simulator.fault("ws_garbage", text=text)
    await simulator.fault("ws_garbage", base64=base64.b64encode(b"\x00\xff\x00").decode())

    async def counted() -> bool:
        status = await service.get("/api/v1/adapter/status")
        return bool(status["log_stream"]["malformed_frames"] >= len(garbage) + 1)

    await service.until(counted)
    await simulator.unload("tiny-a")

    async def evicted() -> bool:
        return bool((await service.get("/api/slots/tiny-a"))["state"] == "offline")

    await service.until(evicted)
    assert "log stream" in service.stderr.decode()
    assert (await simulator.stats())["ws_connections_open"] == 1


@pytest.mark.parametrize(
    ("version", "driver", "match"),
    [
        ("10.7.1", "lemond-10.7", "exact"),
        ("10.7.0-rc1", "lemond-10.7", "exact"),
        ("11.7.0", "lemond-11.6", "exact"),
        ("11.9.0", "lemond-11.6", "nearest"),
        ("2026.47.1", "lemond-11.6", "nearest"),
        ("9.3.0", "generic", "generic"),
        ("banana", "generic", "generic"),
        ("0.16.1", "generic", "generic"),
    ],
)
async def test_versions(start_service: Any, version: str, driver: str, match: str) -> None:
    async with SimulatorProcess(extra_args=["--version-string", version]) as simulator:
        service = await start_service("--lemond", simulator.url)
        assert service.ready_line.endswith(f"lemond={version} driver={driver}")
        status = await service.get("/api/v1/adapter/status")
        assert status["driver"]["match"] == match
        if match != "exact":
            assert status["driver"]["notes"]
            assert status["driver"]["notes"][0] in service.stderr.decode()
        await service.loaded("tiny-a")
        assert (await service.chat("tiny-a")).json()["model"] == "tiny-a"


async def test_a_driver_that_raises_on_import_is_reported_and_skipped(
    simulator: SimulatorProcess, start_service: Any, tmp_path: Any
) -> None:
    (tmp_path / "bad_driver.py").write_text("raise RuntimeError('a wheel gone bad')\n")
    info = tmp_path / "lemond_driver_bad-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lemond-driver-bad\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lemond_adapter.drivers]\nlemond-10.7b = bad_driver\n")
    service = await start_service("--lemond", simulator.url, environment={"PYTHONPATH": str(tmp_path)})
    status = await service.get("/api/v1/adapter/status")
    assert status["driver"]["name"] == "lemond-10.7"
    [broken] = status["driver"]["broken"]
    assert broken["origin"] == "lemond-driver-bad 1.0"
    assert "a wheel gone bad" in broken["error"]
    assert "a wheel gone bad" in service.stderr.decode()


async def test_no_driver_installed_is_generic(simulator: SimulatorProcess) -> None:
    from lemond_adapter import LemondAdapter
    from lemond_adapter.drivers import Installed

    async with LemondAdapter(simulator.url, installed=Installed(())) as adapter:
        assert adapter.driver is not None
        assert adapter.driver.name == "generic"
        assert "no driver is installed" in " ".join(adapter.selection.notes if adapter.selection else ())
        route = await adapter.ensure_loaded("tiny-a")
        assert route.model == "tiny-a"
