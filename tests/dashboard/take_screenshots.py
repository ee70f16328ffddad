"""Makes docs/screenshots/*.png again: a simulated lemond, a service, traffic for some minutes, a browser.

Wants Pillow, which makes the files small:
.venv/bin/pip install -c constraints.txt pillow
.venv/bin/python tests/dashboard/take_screenshots.py [MINUTES]
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
import io
import random
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
from PIL import Image

from lemond_adapter.simulator import SimulatorError, SimulatorProcess

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "docs" / "screenshots"

MODELS = (
    "Qwen3-8B-GGUF",
    "Qwen3-Coder-30B-A3B-GGUF",
    "gemma-3-12b-it-GGUF",
    "Qwen3-Embedding-0.6B-GGUF",
    "bge-reranker-v2-m3-GGUF",
    "Whisper-Tiny",
)
SLOTS = """
[policy]
idle_timeout_s = 180
[slots.primary]
model = "Qwen3-8B-GGUF"
[slots.coder]
model = "Qwen3-Coder-30B-A3B-GGUF"
[slots.agent]
model = "gemma-3-12b-it-GGUF"
[slots.embed]
model = "Qwen3-Embedding-0.6B-GGUF"
type = "embedding"
[slots.rerank]
model = "bge-reranker-v2-m3-GGUF"
type = "reranking"
[slots.stt]
model = "Whisper-Tiny"
type = "transcription"
"""


def module(path: Path) -> ModuleType:
    """A conftest as a module: the browser and the service's process are the tests' own."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


conftest, processes = module(HERE / "conftest.py"), module(HERE.parent / "conftest.py")


@contextlib.asynccontextmanager
async def served(*arguments: str) -> AsyncIterator[Any]:
    """A service, ended in good order."""
    service = processes.ServiceProcess(*arguments)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


class Clients:
    """People at work: some chat, some code, an indexer embeds and reranks."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(trust_env=False, timeout=60, base_url=url)
        self._dice = random.Random(7)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, slot: str, pause_s: float, tokens: int = 60) -> None:
        """One more client of this slot."""
        self._tasks.append(asyncio.create_task(self._work(slot, pause_s, tokens)))

    async def stop(self) -> None:
        """All leave."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _work(self, slot: str, pause_s: float, tokens: int) -> None:
        while True:
            await asyncio.sleep(self._dice.expovariate(1 / pause_s))
            if slot == "embed":
                path, body = "/v1/embeddings", {"input": "a text"}
            elif slot == "rerank":
                path, body = "/v1/rerank", {"query": "a", "documents": ["b", "c"]}
            else:
                path, body = "/v1/chat/completions", self._chat(tokens)
            with contextlib.suppress(httpx.HTTPError):
                answer = await self._client.post(path, json={"model": slot, **body})
                if answer.status_code == 503:
                    await asyncio.sleep(float(answer.headers.get("retry-after", 1)))

    def _chat(self, tokens: int) -> dict[str, Any]:
        return {
            "messages": [{"role": "user", "content": "hello"}],
            "stream": True,
            "sim_chunks": self._dice.randint(tokens // 3, tokens),
            "sim_interval_ms": self._dice.choice([15, 20, 30]),
            "sim_delay_ms": self._dice.randint(60, 350),
        }


def vivid(colour: tuple[int, int, int]) -> int:
    """How far from grey: a rare red is missed more than a rare grey."""
    return (max(colour) - min(colour)) // 4


def shoot(page: Any, name: str, longest: int = 2600) -> None:
    """The whole page, as far as it is worth looking at."""
    size = page.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], longest), "scale": 1}
    answer = page.driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip, "optimizeForSpeed": False}
    )
    file = OUT / f"{name}.png"
    picture = Image.open(io.BytesIO(base64.b64decode(answer["data"]))).convert("RGB")
    # A page has few colours and many shades of their edges: the most frequent stay what they are.
    counted = picture.getcolors(1 << 24)
    common = sorted(counted, key=lambda entry: entry[0] * (1 + vivid(entry[1])), reverse=True)[:256]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in common for part in colour])
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(file, optimize=True)
    sys.stdout.write(f"{file.relative_to(OUT.parents[1])}: {file.stat().st_size // 1024} KB\n")


async def quiet(page: Any) -> None:
    """The page alone: no live service, nothing known."""
    async with SimulatorProcess() as simulator:
        async with served("--lemond", simulator.url) as service:
            await page.open(service.url)
            await page.live()
            await page.until(
                "document.querySelector('#slots-empty').innerText.includes('no model is loaded')"
            )
            shoot(page, "empty")
        url = simulator.url
    async with served("--lemond", url) as service:
        await page.open(service.url)
        await page.until("document.querySelector('#banners').innerText.includes('missing')")
        shoot(page, "lemond-missing")


async def at_work(page: Any, minutes: float, slots: Path) -> None:
    """A service after some minutes of work, then busy."""
    simulator = SimulatorProcess(time_scale=1.5, max_loaded_models=2, models=MODELS)
    async with simulator, served("--lemond", simulator.url, "--config", str(slots)) as service:
        clients = Clients(service.url)
        for slot, pause_s in (("primary", 3), ("primary", 5), ("embed", 0.7), ("rerank", 3)):
            clients.start(slot, pause_s)
        for slot, after in (("coder", 0.15), ("agent", 0.25), (None, 0.3), (None, 0.3)):
            if slot is not None:
                clients.start(slot, 60)
            await asyncio.sleep(minutes * 60 * after)
            with contextlib.suppress(SimulatorError):  # it may be away just then
                await simulator.fault("crash", model="bge-reranker-v2-m3-GGUF")
        await page.open(service.url)
        await page.live()
        await page.until("document.querySelectorAll('.lane-bar').length > 5")
        await page.js("document.querySelector('.unloads').open = true")
        await asyncio.sleep(1)
        for name, dark in (("light", False), ("dark", True)):
            page.media(dark=dark)
            await asyncio.sleep(1)
            shoot(page, name)
        page.media(width=390, height=844)
        await asyncio.sleep(1)
        shoot(page, "phone", longest=1900)
        page.media()
        for slot in ("primary", "primary", "primary", "primary", "coder", "agent"):
            clients.start(slot, 0.3, tokens=150)
        dot = "document.querySelector('.dot[data-state={}]')"
        await page.until(f"{dot.format('warming')} && {dot.format('serving')}", limit_s=60)
        await asyncio.sleep(0.7)
        shoot(page, "busy")
        await clients.stop()


async def main(minutes: float) -> None:
    """All of them."""
    binary, driver = conftest.chromium(), shutil.which("chromedriver")
    if binary is None or driver is None:
        sys.exit("no Chromium with its driver here: apt-get install chromium chromium-driver")
    OUT.mkdir(parents=True, exist_ok=True)
    with conftest.launched(binary, driver) as running, tempfile.TemporaryDirectory() as folder:
        page = conftest.Page(running)
        page.media()
        running.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        await quiet(page)
        slots = Path(folder) / "slots.toml"
        slots.write_text(SLOTS)
        await at_work(page, minutes, slots)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 9.0))
