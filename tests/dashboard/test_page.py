"""The dashboard in a real browser, over a real service and a simulated lemond."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lemond_adapter.simulator import SimulatorProcess

HOSTILE = [
    "<img src=x onerror=document.title='owned'>",
    '"><script>document.title=`owned`</script>',
    "${7*7}{{7*7}}",
    "mirror\u202egnp.exe",
    "../../etc/passwd?a=b&c#d%00",
]


async def test_the_first_paint_is_the_truth(
    page: Any, simulator: SimulatorProcess, start_service: Any, slots_file: Path
) -> None:
    service = await start_service("--lemond", simulator.url, "--config", str(slots_file))
    await service.loaded("tiny-a")
    child = await simulator.child("tiny-a")
    await page.open(service.url)
    await page.state("primary", "ready")
    first_ms = await page.js("return window.__first")
    sys.stdout.write(f"\nthe first dot after {first_ms:.0f} ms\n")
    assert first_ms <= 1000
    card = await page.text("[data-slot=primary]")
    for fact in ("tiny-a", str(child["port"]), str(child["pid"]), "ready"):
        assert fact in card
    await page.state("agent", "offline")
    await page.live()
    assert "lemond 10.7.0" in await page.text("#lemond-line")
    await page.until("document.querySelectorAll('#log li').length >= 3")
    assert page.errors() == []


async def test_a_killed_child_is_seen_within_100_ms(
    page: Any, simulator: SimulatorProcess, service: Any
) -> None:
    await _killed(page, simulator, service, times=5)


@pytest.mark.slow
async def test_forty_killed_children(page: Any, simulator: SimulatorProcess, service: Any) -> None:
    await _killed(page, simulator, service, times=40)


async def _killed(page: Any, simulator: SimulatorProcess, service: Any, *, times: int) -> None:
    await page.open(service.url)
    await page.live()
    late = []
    for _ in range(times):
        await service.loaded("tiny-a")
        await page.state("tiny-a", "ready")
        child = await simulator.child("tiny-a")
        seen = len(await page.changes())
        killed = time.time()
        os.kill(child["pid"], signal.SIGKILL)
        await page.state("tiny-a", "offline")
        at, model, state = (await page.changes())[seen]
        assert (model, state) == ("tiny-a", "offline")
        late.append((at - killed) * 1000)
        # lemond 10.7 goes on listing the dead child until it is told to unload it.
        await simulator.unload("tiny-a")
    late.sort()
    p99 = late[min(len(late) - 1, int(len(late) * 0.99))]
    figures = f"median {statistics.median(late):.1f} ms, p99 {p99:.1f} ms"
    sys.stdout.write(f"\nkill -9 to the dot, {times} times: {figures}\n")
    assert p99 <= 100
    assert page.errors() == []


async def test_hostile_names_are_text(page: Any, start_service: Any) -> None:
    async with SimulatorProcess(models=HOSTILE) as simulator:
        service = await start_service("--lemond", simulator.url)
        await page.open(service.url)
        await page.live()
        for name in HOSTILE:
            await simulator.load(name)
        await page.until("document.querySelectorAll('.card').length === arguments[0]", len(HOSTILE))
        await page.until("document.querySelectorAll('.dot[data-state=ready]').length >= 4")
        shown = await page.js(
            "return [...document.querySelectorAll('.card h3')].map((node) => node.textContent)"
        )
        assert sorted(shown) == sorted(name.replace("\u202e", "\ufffd") for name in HOSTILE)
        # Everywhere else, too: nothing but our own elements is there.
        await page.until("document.querySelectorAll('#log li').length > 10")
        await page.press(".unloads summary")
        assert await page.js("return document.title") == "lemond-adapter"
        assert await page.js("return document.querySelectorAll('img').length") == 1
        assert await page.js("return document.querySelectorAll('script').length") == 1
        assert page.errors() == []


async def test_what_is_shown_while_disconnected_does_not_claim_to_be_true(
    page: Any, simulator: SimulatorProcess, start_service: Any
) -> None:
    service = await start_service("--lemond", simulator.url)
    port = service.url.rpartition(":")[2]
    await service.loaded("tiny-a")
    await page.open(service.url)
    await page.state("tiny-a", "ready")
    assert await page.text("[data-slot=tiny-a] .state") == "ready"
    await service.stop()
    await page.until("document.documentElement.dataset.connection === 'lost'", limit_s=3)
    assert await page.text("[data-slot=tiny-a] .state") == "was ready"
    assert "Disconnected" in await page.text("#banners")
    assert "as of" in await page.text("#link")
    assert await page.js(
        "return [...document.querySelectorAll('.card button, #warm')].every((b) => b.disabled)"
    )
    assert (await page.js("return document.title")).startswith("Disconnected")
    # Meanwhile the model goes; the page has no way to know, and catches up when the service is back.
    await simulator.unload("tiny-a")
    again = await start_service("--lemond", simulator.url, "--listen", f"127.0.0.1:{port}")
    await again.loaded("tiny-b")
    await page.live()
    await page.state("tiny-b", "ready")
    assert await page.text("#banners") == ""
    assert "tiny-a" not in await page.text("#cards")
    refused = [error for error in page.errors() if "ERR_CONNECTION_REFUSED" not in error]
    assert [error for error in refused if "ERR_INCOMPLETE_CHUNKED_ENCODING" not in error] == []


async def test_a_lemond_that_is_missing_and_one_that_goes(page: Any, start_service: Any) -> None:
    async with SimulatorProcess() as simulator:
        url = simulator.url
        await simulator.kill()
        service = await start_service("--lemond", url)
        await page.open(service.url)
        await page.until("document.querySelector('#banners').innerText.includes('lemond is missing')")
        assert url in await page.text("#banners")
        assert "Nothing is known yet" in await page.text("#slots-empty")
        await simulator.start()
        await page.until("document.querySelector('#banners').innerText === ''")
        assert "no model is loaded" in await page.text("#slots-empty")
        await service.loaded("tiny-a")
        await page.state("tiny-a", "ready")
        await simulator.fault("health_hang")
        await simulator.kill()
        await page.until("document.querySelector('#banners').innerText.includes('lemond does not answer')")
        # Its child went with it, and that is known; lemond's silence makes the rest doubtful.
        await page.until("document.querySelector('[data-slot=tiny-a] .state').innerText === 'was offline'")
        assert await page.js(
            "return [...document.querySelectorAll('.card button, #warm')].every((b) => b.disabled)"
        )
        assert page.errors() == []


async def test_buttons_move_no_dot(
    page: Any, simulator: SimulatorProcess, start_service: Any, slots_file: Path
) -> None:
    service = await start_service("--lemond", simulator.url, "--config", str(slots_file))
    await page.open(service.url)
    await page.live()
    await page.press("[data-slot=primary] .buttons button:first-child")
    await page.state("primary", "ready")
    states = [state for _, model, state in await page.changes() if model == "tiny-a"]
    # Events that arrive together are seen together; the order is the truth's.
    assert [state for index, state in enumerate(states) if state not in states[:index]] in (
        ["offline", "starting", "warming", "ready"],
        ["offline", "warming", "ready"],
    )
    await page.press("[data-slot=primary] .buttons button:last-child")
    await page.state("primary", "offline")
    await page.until("document.querySelector('#log li').innerText.includes('somebody asked for it')")
    # lemond hears nothing for a while: the page says that it has asked, and the dot stays.
    await simulator.fault("hang", seconds=3)
    await page.press("[data-slot=agent] .buttons button:first-child")
    await page.until("document.querySelector('[data-slot=agent] .note').innerText.includes('was asked for')")
    assert await page.js("return document.querySelector('[data-slot=agent] .dot').dataset.state") == "offline"
    await page.state("agent", "ready")
    assert await page.text("[data-slot=agent] .note") == ""
    await page.press("#warm")
    await page.state("embed", "ready")
    await page.state("primary", "ready")
    assert await page.js("return document.querySelector('#warm').disabled")
    assert page.errors() == []


async def test_requests_are_seen(page: Any, service: Any) -> None:
    await service.loaded("tiny-a")
    await page.open(service.url)
    await page.state("tiny-a", "ready")
    slow = {"stream": True, "sim_chunks": 20, "sim_interval_ms": 60}
    chat = asyncio.create_task(service.chat("tiny-a", **slow))
    await page.state("tiny-a", "serving", limit_s=3)
    assert await page.text("[data-slot=tiny-a] .fact-inflight") == "1"
    assert await page.text("[data-slot=tiny-a] .fact-idle") == "busy"
    assert (await chat).status_code == 200
    await page.state("tiny-a", "ready", limit_s=3)
    await page.until("document.querySelector('.tile-tokens .spark-value').innerText !== '–'")
    rate = float(await page.text(".tile-tokens .spark-value"))
    assert 10 <= rate <= 22, "20 tokens at 60 ms, and the two events that end a stream"
    assert (await page.text(".tile-ttft .spark-value")).endswith("s")
    assert await page.js("return document.querySelector('.tile-rate path').getAttribute('d')")
    # Told to come back: no error, and it says when.
    await page.press("[data-slot=tiny-a] .buttons button:last-child")
    await page.state("tiny-a", "offline")
    told = await service.chat("tiny-a")
    assert told.status_code == 503
    await page.until("document.querySelector('.tile-retries .spark-value').innerText !== '0'")
    wait = told.headers["retry-after"]
    assert await page.text(".tile-retries .spark-value") == f"1 × ({wait} s)"
    assert await page.text(".tile-errors .spark-value") == "0"
    # What was asked for under no name that is known is told apart.
    assert (await service.chat("nobody")).status_code == 404
    await page.until("document.querySelector('#about').innerText.includes('1 model.not_found')")
    assert page.errors() == []


async def test_the_journal_filters_and_names_who_made_room(page: Any, start_service: Any) -> None:
    async with SimulatorProcess(max_loaded_models=1) as simulator:
        service = await start_service("--lemond", simulator.url)
        await simulator.load("tiny-a")
        await page.open(service.url)
        await page.state("tiny-a", "ready")
        await simulator.load("tiny-b")
        await page.state("tiny-b", "ready")
        await page.until("document.querySelector('#log').innerText.includes('to make room for tiny-b')")
        count = "document.querySelectorAll('#log li').length"
        everything = await page.js(f"return {count}")
        await page.press("[data-kind=loads]")
        fewer = await page.js(f"return {count}")
        assert 0 < fewer < everything
        assert "model loaded" not in await page.text("#log")
        await page.press("[data-kind=loads]")
        await page.js(
            "const box = arguments[0]; document.querySelector(box).value = 'make room';"
            "document.querySelector(box).dispatchEvent(new Event('input'))",
            "#journal-text",
        )
        assert await page.js(f"return {count}") == 2
        await page.press(".unloads summary")
        row = await page.text("#unloads tbody tr")
        assert "tiny-a" in row
        assert "tiny-b" in row
        await page.until("document.querySelectorAll('.lane-arrow').length === 1")
        assert await page.js("return document.querySelectorAll('.lane-bar[data-state=ready]').length") == 2
        assert page.errors() == []


async def test_a_key_is_asked_for_and_kept_in_the_tab(
    page: Any, simulator: SimulatorProcess, start_service: Any
) -> None:
    key = "open-sesame-1234"
    service = await start_service("--lemond", simulator.url, environment={"LEMOND_ADAPTER_API_KEY": key})
    await page.open(service.url)
    await page.until("document.querySelector('#key-dialog').open")
    for given, connection in (("wrong", "locked"), (key, "live")):
        await page.js(
            "document.querySelector('#key-input').value = arguments[0];"
            "document.querySelector('#key-form').requestSubmit()",
            given,
        )
        if connection == "locked":
            await page.until("document.querySelector('#key-why').innerText.includes('refused')")
        else:
            await page.live()
    assert not await page.js("return document.querySelector('#key-dialog').open")
    assert key not in await page.js("return document.documentElement.outerHTML")
    assert await page.js("return localStorage.length") == 1, "the theme alone outlives the tab"
    await page.js("location.reload()")
    await page.live()
    await simulator.load("tiny-a")
    await page.state("tiny-a", "ready")
    assert [error for error in page.errors() if "401" not in error] == []


async def test_an_idle_slot_counts_down_and_its_end_is_explained(
    page: Any, simulator: SimulatorProcess, start_service: Any, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[policy]\nidle_timeout_s = 3\n[slots.primary]\nmodel = "tiny-a"\n')
    service = await start_service("--lemond", simulator.url, "--config", str(config))
    await page.open(service.url)
    await page.live()
    await service.loaded("tiny-a")
    left = "document.querySelector('[data-slot=primary] .fact-idle').innerText"
    assert (await page.until(f"/^[123] s$/.test({left}) && {left}")) in ("3 s", "2 s", "1 s")
    await page.state("primary", "idle")
    await page.state("primary", "offline")
    assert await page.js(f"return {left}") == "–"
    await page.until(
        "document.querySelector('#log').innerText.includes('idle for too long (by the adapter)')"
    )
    await page.until("document.querySelector('#log [data-type=note]')?.innerText.includes('was unused for')")
    await page.press("[data-kind=notes]")
    assert await page.js("return document.querySelector('#log [data-type=note]')") is None
    assert page.errors() == []


@pytest.mark.slow
async def test_a_service_that_hangs_is_not_believed_for_ever(page: Any, service: Any) -> None:
    await service.loaded("tiny-a")
    await page.open(service.url)
    await page.state("tiny-a", "ready")
    service.process.send_signal(signal.SIGSTOP)
    try:
        await page.until("document.documentElement.dataset.connection === 'lost'", limit_s=14)
        assert "silent" in await page.text("#banners")
        assert await page.text("[data-slot=tiny-a] .state") == "was ready"
    finally:
        service.process.send_signal(signal.SIGCONT)
    await page.live()
    assert await page.text("[data-slot=tiny-a] .state") == "ready"


@pytest.mark.slow
async def test_a_tab_that_nobody_sees_holds_no_connection(
    page: Any, simulator: SimulatorProcess, service: Any
) -> None:
    async def subscribers() -> int:
        return int((await service.get("/api/v1/adapter/status"))["counters"]["event_subscribers"])

    await page.open(service.url)
    await page.live()
    assert await subscribers() == 1
    first = page.driver.current_window_handle
    await asyncio.to_thread(page.driver.switch_to.new_window, "tab")
    try:
        # Nothing tells one client that another has left, so it is asked.
        for _ in range(45):
            if await subscribers() == 0:
                break
            await asyncio.sleep(1)
        assert await subscribers() == 0
        await simulator.load("tiny-a")
        await service.until(lambda: service.routed("tiny-a"))
    finally:
        page.driver.close()
        page.driver.switch_to.window(first)
    await page.live()
    await page.state("tiny-a", "ready")
    # It went on from where it was: no event is missing.
    await page.until("document.querySelectorAll('#log [data-type=load_started]').length === 1")


async def test_the_journal_holds_still(page: Any, simulator: SimulatorProcess, service: Any) -> None:
    await service.loaded("tiny-a")
    await page.open(service.url)
    await page.until("document.querySelector('#log').innerText.includes('ready on port')")
    await page.press("#hold")
    held = await page.text("#log")
    await simulator.load("tiny-b")
    await page.until("/Go on \\(\\d new\\)/.test(document.querySelector('#hold').innerText)")
    assert await page.text("#log") == held
    await page.press("#hold")
    await page.until("document.querySelector('#log').innerText.includes('tiny-b')")
