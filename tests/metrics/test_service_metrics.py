"""What a scrape of a running service says after traffic and faults."""

from __future__ import annotations

import asyncio
from typing import Any

from lemond_adapter.service.metrics.families import FAMILIES

HAL0 = {
    "hal0_lemonade_ttft_seconds",
    "hal0_lemonade_decode_tokens_per_second",
    "hal0_lemonade_models_loaded",
    "hal0_lemonade_max_models",
    "hal0_lemonade_metrics_last_scrape_seconds",
}
"""As hal0 spells them."""


async def test_everything_that_is_exposed_is_in_the_table_and_the_reverse(busy: Any, scrape: Any) -> None:
    found = await scrape(busy.url)
    own = {family.name: family for family in FAMILIES}
    exposed = {
        name.removeprefix("lemond_adapter_"): family
        for name, family in found.families.items()
        if name.startswith("lemond_adapter_")
    }
    assert exposed.keys() == own.keys()
    for name, metric in exposed.items():
        assert metric.type == own[name].kind, name
        assert metric.documentation == own[name].text
        for sample in metric.samples:
            assert sample.labels.keys() - {"le"} == set(own[name].labels), sample
    foreign = {name for name in found.families if not name.startswith(("lemond_adapter_", "process_"))}
    assert not foreign


async def test_the_slos_are_measured(busy: Any, scrape: Any) -> None:
    found = await scrape(busy.url)
    value, total = found.value, found.total
    assert total("lemond_adapter_requests_total", slot="primary", outcome="served") == 4
    assert total("lemond_adapter_requests_total", slot="primary", outcome="slot.loading") >= 1
    assert total("lemond_adapter_requests_total", slot="unresolved", outcome="model.not_found") == 1
    assert total("lemond_adapter_retry_after_seconds_count", code="slot.loading") >= 2
    assert total("lemond_adapter_retry_after_seconds_count", code="slot.error") >= 1
    assert value("lemond_adapter_retry_after_seconds_bucket", code="slot.loading", le="59.0") == total(
        "lemond_adapter_retry_after_seconds_count", code="slot.loading"
    )
    assert value("lemond_adapter_upstream_unavailable_total") == 0
    assert value("lemond_adapter_ttft_seconds_count", slot="primary") == 3
    assert total("lemond_adapter_output_tokens_per_second_count", slot="primary") >= 1
    assert value("lemond_adapter_hold_seconds_count", outcome="served") >= 1
    # Asked for, and after its crash; once more where the cascade of the broken one took it.
    assert value("lemond_adapter_load_duration_seconds_count", model="tiny-a") >= 2
    assert total("lemond_adapter_time_to_route_stable_seconds_count") >= 3
    assert value("lemond_adapter_eviction_recovery_seconds_count", reason="crash") == 1
    assert value("lemond_adapter_process_crashes_total", model="tiny-a") == 1
    assert total("lemond_adapter_load_failures_total") >= 1
    assert total("lemond_adapter_evictions_total") >= 1
    assert value("lemond_adapter_decisions_total", kind="slot.cascade") == 1
    assert value("lemond_adapter_slot_in_flight", slot="primary") == 0
    states = total("lemond_adapter_slot_state", slot="primary")
    assert states == 1, "a slot is in one state"
    assert value("lemond_adapter_pids_visible") == 1
    assert value("lemond_adapter_log_stream_connected") == 1


async def test_what_a_client_typed_is_no_label(busy: Any, scrape: Any) -> None:
    found = await scrape(busy.url)
    values = {
        value
        for family in found.families.values()
        for sample in family.samples
        for value in sample.labels.values()
    }
    assert not [value for value in values if "nobody" in value or "gpt-4o" in value]


async def test_a_request_in_flight_shows(service: Any, scrape: Any) -> None:
    await service.loaded("tiny-a")
    asked = asyncio.create_task(service.chat("tiny-a", stream=True, sim_delay_ms=20000))

    async def counted() -> bool:
        found = await scrape(service.url)
        return bool(found.value("lemond_adapter_slot_in_flight", slot="tiny-a") == 1)

    async with asyncio.timeout(20):
        while not await counted():
            assert not asked.done()
            await asyncio.sleep(0.01)
    asked.cancel()


async def test_those_who_wait_show(simulator: Any, start_service: Any, scrape: Any, tmp_path: Any) -> None:
    """One is held for a model that hangs on its way, two wait for a slot that runs one at a time."""
    config = tmp_path / "adapter.toml"
    config.write_text('[slots.narrow]\nmodel = "tiny-a"\nmax_in_flight = 1\n[slots.late]\nmodel = "tiny-b"\n')
    service = await start_service("--lemond", simulator.url, "--config", str(config))
    await service.loaded("tiny-a")
    asked = [asyncio.create_task(service.chat("narrow", sim_delay_ms=30_000)) for _ in range(3)]
    await simulator.fault("hang", seconds=30)
    body = {"model": "late", "messages": []}
    asked.append(asyncio.create_task(service.post("/v1/chat/completions", body, Prefer="wait=30")))
    async with asyncio.timeout(20):
        while True:
            found = await scrape(service.url)
            held = found.value("lemond_adapter_slot_held", slot="late")
            queued = found.value("lemond_adapter_slot_queued", slot="narrow")
            if (held, queued) == (1, 2):
                break
            assert not any(task.done() for task in asked)
            await asyncio.sleep(0.02)
    assert found.value("lemond_adapter_slot_in_flight", slot="narrow") == 1
    assert found.value("lemond_adapter_client_connections") >= 4
    for task in asked:
        task.cancel()
    await simulator.fault("clear")


async def test_hal0_reads_its_own_names(busy: Any, scrape: Any) -> None:
    plain = await scrape(busy.url)
    assert not [name for name in plain.families if name.startswith("hal0_")]
    await busy.loaded("tiny-a")
    found = await scrape(busy.url, "?hal0=1")
    shown = {name for name in found.families if name.startswith("hal0_")}
    assert shown == HAL0
    assert all(family.type == "gauge" for name, family in found.families.items() if name in HAL0)
    assert found.value("hal0_lemonade_models_loaded", model_name="tiny-a") == 1
    assert found.value("hal0_lemonade_max_models", type="llm") == 4
    assert found.value("hal0_lemonade_ttft_seconds", source="last_request") is not None
    assert found.value("hal0_lemonade_metrics_last_scrape_seconds") is not None
