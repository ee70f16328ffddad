"""The dashboard's files: small, from here alone, under a policy that lets nothing else in."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from lemond_adapter.service.dashboard import ASSETS
from lemond_adapter.simulator import SimulatorProcess

CORE = Path(__file__).parents[2] / "core"
LARGEST = 150 * 1024


def test_the_whole_dashboard_is_small() -> None:
    assert sum(len(asset.content) for asset in ASSETS.values()) <= LARGEST


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    page = ASSETS["/"].content.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)", page), "an inline script"
    assert not re.search(r"<style|\bstyle=|\bon[a-z]+=", page), "an inline style or handler"
    for asset in ASSETS.values():
        text = asset.content.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", text), f"{asset.path} names another host"
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), (
            asset.path
        )


def test_the_page_names_its_files_and_no_others() -> None:
    page = ASSETS["/"].content.decode()
    named = set(re.findall(r'(?:src|href)="(/dashboard/[^"]+)"', page))
    imported = {
        f"/dashboard/{name}"
        for asset in ASSETS.values()
        for name in re.findall(r'from "\./([a-z]+\.js)"', asset.content.decode())
    }
    assert imported <= named, "not fetched ahead: a round trip more before the first dot"
    assert named | {"/"} == set(ASSETS)


async def test_every_file_comes_with_the_policy_and_is_asked_for_again(service: Any) -> None:
    async with httpx.AsyncClient(trust_env=False, base_url=service.url) as client:
        for path in ASSETS:
            answer = await client.get(path)
            assert answer.status_code == 200
            policy = answer.headers["content-security-policy"]
            for rule in (
                "default-src 'none'",
                "script-src 'self'",
                "connect-src 'self'",
                "frame-ancestors 'none'",
            ):
                assert rule in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            again = await client.get(path, headers={"If-None-Match": answer.headers["etag"]})
            assert again.status_code == 304
            assert again.content == b""
        assert (await client.get("/dashboard/__init__.py")).status_code == 404
        assert (await client.get("/dashboard/..%2f__init__.py")).status_code == 404


async def test_the_files_need_no_key_and_the_facts_do(
    simulator: SimulatorProcess, start_service: Any
) -> None:
    key = "a-key-of-the-tests"
    service = await start_service("--lemond", simulator.url, environment={"LEMOND_ADAPTER_API_KEY": key})
    async with httpx.AsyncClient(trust_env=False, base_url=service.url) as client:
        for path in ASSETS:
            answer = await client.get(path)
            assert answer.status_code == 200
            assert key not in answer.text
        for path in ("/api/slots", "/api/v1/adapter/events?traffic=1", "/api/v1/adapter/journal"):
            assert (await client.get(path)).status_code == 401


@pytest.mark.slow
def test_the_wheel_has_them_all(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(CORE),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in ASSETS:
        name = "index.html" if path == "/" else path.rpartition("/")[2]
        assert f"lemond_adapter/service/dashboard/{name}" in names
