"""The first examples of README and getting started, run as they stand against a service."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def example(page: str, language: str, word: str) -> str:
    """The first block of that language that has the word in it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return next(block for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if word in block)


def aimed_at(service: Any, text: str) -> str:
    assert "127.0.0.1:13306" in text
    return text.replace("http://127.0.0.1:13306", service.url)


async def output_of(*command: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
async def test_the_sdk_talks_through_it(service: Any, page: str) -> None:
    text = aimed_at(service, example(page, "python", "OpenAI("))
    assert (await output_of(sys.executable, "-c", text)).strip() == "I am tiny-a."


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_talks_through_it(service: Any) -> None:
    text = aimed_at(service, example("README.md", "sh", "curl"))
    assert "I am tiny-a." in await output_of("sh", "-c", text)


async def test_the_events_example_prints_the_snapshot(service: Any) -> None:
    await service.loaded("tiny-a")
    text = aimed_at(service, example("docs/integrating.md", "python", "iter_lines"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-c", text, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        line = (await process.stdout.readline()).decode()
    process.kill()
    await process.wait()
    assert "'slots'" in line
    assert "tiny-a" in line
