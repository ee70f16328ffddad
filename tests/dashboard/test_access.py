"""The dashboard for those who do not see it, or have no mouse, or a small screen."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lemond_adapter.simulator import SimulatorProcess

AXE = Path(__file__).parent / "vendor" / "axe-core-4.14.1.min.js"

RUN_AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, { resultTypes: ["violations"] }).then(
  ({ violations, passes }) => done({
    passes: passes.length,
    violations: violations.map(({ id, impact, nodes }) =>
      [id, impact, nodes.map((node) => `${node.target.join(" ")}: ${node.failureSummary}`)]),
  }),
  (problem) => done({ error: String(problem) }));
"""

TAB_STOPS = """
const stops = [];
const focusable = "a[href], button:not(:disabled), input, select, summary, [tabindex='0']";
for (const node of document.querySelectorAll(focusable)) if (node.offsetParent !== null) stops.push(node);
return stops.length;
"""


async def violations(page: Any) -> list[Any]:
    await page.js(AXE.read_text())
    page.driver.set_script_timeout(60)
    found = await asyncio.to_thread(page.driver.execute_async_script, RUN_AXE)
    assert "error" not in found, found
    assert found["passes"] > 20, "axe looked at nothing"
    return [entry for entry in found["violations"] if entry[1] in ("serious", "critical")]


async def busy(page: Any, simulator: SimulatorProcess, start_service: Any, slots_file: Path) -> Any:
    """A page with something of each kind on it: slots in several states, traffic, unloads, drift."""
    service = await start_service("--lemond", simulator.url, "--config", str(slots_file))
    await page.open(service.url)
    await page.live()
    await simulator.load("broken")
    await service.loaded("tiny-a")
    assert (await service.chat("primary")).status_code == 200
    assert (await service.chat("nobody")).status_code == 404
    await simulator.load("tiny-b")
    await simulator.unload("tiny-b")
    await simulator.fault(
        "log", tag="Router", text="Model teleported: tiny-a to the moon, unloading model server"
    )
    await page.until("document.querySelector('.tile-rate .spark-value')?.innerText !== undefined")
    await page.state("broken", "error")
    await page.state("primary", "ready")
    await page.press(".unloads summary")
    return service


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_axe_finds_nothing_serious(
    page: Any, simulator: SimulatorProcess, start_service: Any, slots_file: Path, dark: bool
) -> None:
    page.media(dark=dark)
    await busy(page, simulator, start_service, slots_file)
    assert await violations(page) == []
    page.media(dark=dark, width=390, height=844)
    assert await violations(page) == []
    # And when nothing of it can be relied on.
    await simulator.kill()
    await page.until("document.querySelector('#banners').innerText.includes('does not answer')")
    assert await violations(page) == []


@pytest.mark.slow
async def test_axe_finds_nothing_serious_when_empty_or_locked(
    page: Any, simulator: SimulatorProcess, start_service: Any
) -> None:
    service = await start_service("--lemond", simulator.url)
    await page.open(service.url)
    await page.until("document.querySelector('#slots-empty').innerText.includes('no model is loaded')")
    assert await violations(page) == []
    locked = await start_service("--lemond", simulator.url, environment={"LEMOND_ADAPTER_API_KEY": "k" * 20})
    await page.open(locked.url)
    await page.until("document.querySelector('#key-dialog').open")
    assert await violations(page) == []


async def test_everything_can_be_reached_and_used_by_key(
    page: Any, simulator: SimulatorProcess, start_service: Any, slots_file: Path
) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    service = await busy(page, simulator, start_service, slots_file)

    async def key(name: str) -> None:
        await asyncio.to_thread(ActionChains(page.driver).send_keys(name).perform)

    focused = (
        "return [document.activeElement.tagName, document.activeElement.id, document.activeElement.ariaLabel]"
    )
    expected = await page.js(TAB_STOPS)
    reached = []
    for _ in range(expected + 5):
        await key(Keys.TAB)
        reached.append(tuple(await page.js(focused)))
        outline = await page.js("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or reached[-1][0] == "BODY", f"no focus to be seen on {reached[-1]}"
    names = set(reached)
    assert len([stop for stop in reached if stop[0] != "BODY"]) >= expected
    assert ("BUTTON", "", "Load agent") in names
    assert ("BUTTON", "", "Unload primary") in names
    assert ("OL", "log", None) in names
    # The skip link is the first stop.
    assert reached[0][0] == "A"
    # A slot is loaded with the keyboard alone.
    await page.js("document.querySelector('[data-slot=agent] button').focus()")
    await key(Keys.ENTER)
    await page.state("agent", "ready")
    assert await page.text("#said") == "agent is ready"
    # The timeline tells with arrow keys what it shows.
    await page.js("document.querySelector('.lane-frame').focus()")
    await key(Keys.ARROW_LEFT)
    assert " was " in await page.text("#readout")
    before = await page.text("#readout")
    await key(Keys.ARROW_LEFT)
    assert await page.text("#readout") != before
    assert await service.routed("tiny-b")


@pytest.mark.parametrize(
    "width", [pytest.param(320, marks=pytest.mark.slow), 390, pytest.param(820, marks=pytest.mark.slow)]
)
async def test_nothing_is_cut_off_on_small_screens(
    page: Any, simulator: SimulatorProcess, start_service: Any, slots_file: Path, width: int
) -> None:
    page.media(width=width, height=800)
    await busy(page, simulator, start_service, slots_file)
    wide = """
    return [...document.querySelectorAll('body *')].filter((node) => {
      const box = node.getBoundingClientRect();
      return box.width > 0 && box.right > window.innerWidth + 1 && !node.closest('.hidden, .lane-frame, pre');
    }).map((node) => `${node.tagName}.${node.className}#${node.id}`)
    """
    assert await page.js(wide) == []
    assert await page.js("return document.documentElement.scrollWidth") <= width
    over = """
    const texts = ".facts dd, .facts dt, .tiles dt, .spark-value, .state";
    return [...document.querySelectorAll(texts)]
      .filter((node) => node.clientWidth > 0 && node.scrollWidth > node.clientWidth + 1)
      .map((node) => node.textContent);
    """
    assert await page.js(over) == []
