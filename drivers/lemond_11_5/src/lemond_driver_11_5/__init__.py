"""lemond 11.5: residency pools; requests through lemond wait behind any load.

Rules and traits come from the source of 11.5.0 to 11.5.2 and from what was measured on a running 11.5.2; no
recording locks them yet.
"""

from __future__ import annotations

from collections.abc import Sequence

from packaging.specifiers import SpecifierSet

from lemond_adapter.drivers import (
    DriverInfo,
    HealthListing,
    LogRule,
    Traits,
    hookimpl,
    known_health_keys,
    parse_health,
    phrases_for,
)

KEYS, ENTRY_KEYS = known_health_keys("11.5")


@hookimpl
def lemond_driver() -> DriverInfo:
    return DriverInfo(
        name="lemond-11.5",
        serves=SpecifierSet(">=11.5,<11.6"),
        summary="residency pools; requests through lemond wait behind any load",
        recorded=(),
    )


@hookimpl
def lemond_traits() -> Traits:
    return Traits(
        lists_dead_children=False,
        load_touches=False,
        log_stream_on_main_port=True,
        pinning=True,
        own_idle_eviction=True,
        unload_all_may_defer=True,
        shares_port=False,
        loads_block_requests=True,
        options_reusable=False,
        http_threads=None,
    )


@hookimpl
def lemond_parse_health(body: object) -> HealthListing:
    return parse_health(body, known_keys=KEYS, known_entry_keys=ENTRY_KEYS)


@hookimpl
def lemond_log_rules() -> Sequence[LogRule]:
    return phrases_for("11.5")
