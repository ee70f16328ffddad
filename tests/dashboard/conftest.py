"""A real headless Chromium for the dashboard's tests, one for each module."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lemond_adapter.service.dashboard import ASSETS, HEADERS

# Runs before the page's own scripts: when a dot first showed, and each change of one since.
WATCH_DOTS = """
window.__changes = [];
window.__first = null;
new MutationObserver((records) => {
  const at = performance.timeOrigin + performance.now();
  for (const { target, attributeName } of records) {
    if (attributeName !== "data-state" || !target.classList.contains("dot")) continue;
    const card = target.closest("[data-slot]");
    window.__changes.push([at, card?.dataset.model ?? null, target.dataset.state]);
  }
}).observe(document, { attributes: true, subtree: true, attributeFilter: ["data-state"] });
new MutationObserver((records, observer) => {
  if (!document.querySelector(".dot[data-state]")) return;
  window.__first = performance.now();
  observer.disconnect();
}).observe(document, { childList: true, subtree: true });
"""


def chromium() -> str | None:
    """Where it is, under the names that distributions give it."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((found for name in names if (found := shutil.which(name))), None)


class Page:
    """The browser's page. Whatever waits does so in a thread: services of the test live on the loop."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    async def open(self, url: str) -> None:
        """Goes there, with a log of errors and of the dots' changes that begin anew."""
        await asyncio.to_thread(self.driver.get, "about:blank")
        self.errors()
        await asyncio.to_thread(self.driver.get, url)

    async def js(self, script: str, *arguments: Any) -> Any:
        """The result of a function's body."""
        return await asyncio.to_thread(self.driver.execute_script, script, *arguments)

    async def until(self, script: str, *arguments: Any, limit_s: float = 15.0) -> Any:
        """Waits, in the page, until an expression is true; its value then."""
        body = """
        const [expression, args, limit, done] = arguments;
        const test = new Function("arguments", `return ${expression}`);
        const end = performance.now() + limit;
        const look = () => {
          const found = test(args);
          if (found || performance.now() > end) done(found);
          else setTimeout(look, 10);
        };
        look();
        """
        self.driver.set_script_timeout(limit_s + 10)
        found = await asyncio.to_thread(
            self.driver.execute_async_script, body, script, list(arguments), limit_s * 1000
        )
        if not found:
            text = await self.js("return document.body.innerText")
            raise AssertionError(f"not within {limit_s:g} s: {script}\nthe page shows:\n{text}")
        return found

    async def live(self) -> None:
        """Waits until the page follows the service."""
        await self.until("document.documentElement.dataset.connection === 'live'")

    async def state(self, slot: str, state: str, limit_s: float = 15.0) -> None:
        """Waits until the slot's dot is in this state."""
        dot = "document.querySelector(`[data-slot=${CSS.escape(arguments[0])}] .dot`)"
        await self.until(f"{dot}?.dataset.state === arguments[1]", slot, state, limit_s=limit_s)

    async def press(self, selector: str) -> None:
        """Clicks what the selector finds first."""
        await self.until("document.querySelector(arguments[0])", selector)
        await self.js("document.querySelector(arguments[0]).click()", selector)

    async def text(self, selector: str) -> str:
        """What it says, as rendered."""
        return str(await self.js("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    async def changes(self) -> list[tuple[float, str, str]]:
        """Each change of a dot: Unix time of the page's clock in seconds, model, state."""
        found = await self.js("return window.__changes")
        return [(at / 1000, model, state) for at, model, state in found]

    def media(
        self, *, dark: bool = False, width: int = 1440, height: int = 1000, reduced: bool = True
    ) -> None:
        """What the device is like."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        features.append({"name": "prefers-reduced-motion", "value": "reduce" if reduced else "no-preference"})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def errors(self) -> list[str]:
        """What the page complained of since this was last asked."""
        entries = self.driver.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


@contextlib.contextmanager
def launched(binary: str, driver: str) -> Iterator[Any]:
    """A WebDriver over a new, empty profile."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1440,1000",
            f"--user-data-dir={profile}",
        ):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            running.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH_DOTS})
            yield running
        finally:
            running.quit()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser, or a skip where there is none."""
    binary, driver = chromium(), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its driver here: apt-get install chromium chromium-driver")
    pytest.importorskip("selenium", reason="selenium is not installed: make .venv/.checks")
    with launched(binary, driver) as running:
        yield running


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    """The browser's one page, light and wide; its connections to the service end with the test."""
    found = Page(browser)
    found.media()
    yield found
    browser.get("about:blank")
    browser.get_log("browser")


class _Files(BaseHTTPRequestHandler):
    """The dashboard's files without a service behind them."""

    def do_GET(self) -> None:
        asset = ASSETS.get(self.path)
        self.send_response(200 if asset else 404)
        self.send_header("Content-Type", asset.media_type if asset else "text/plain")
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(asset.content if asset else b"")

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def files() -> Iterator[str]:
    """Where the dashboard's files are served, for tests of its scripts alone."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
async def scripts(page: Page, files: str) -> Callable[..., Awaitable[Any]]:
    """Runs an asynchronous script where the page's scripts can be imported."""
    await page.open(f"{files}/dashboard/icon.svg")

    async def run(script: str, *arguments: Any) -> Any:
        return await asyncio.to_thread(page.driver.execute_async_script, script, *arguments)

    return run


@pytest.fixture
def slots_file(tmp_path: Path) -> Path:
    """A configuration with three slots."""
    file = tmp_path / "slots.toml"
    file.write_text(
        '[slots.primary]\nmodel = "tiny-a"\n[slots.agent]\nmodel = "tiny-b"\n'
        '[slots.embed]\nmodel = "tiny-embed"\ntype = "embedding"\n'
    )
    return file
