"""lemond 10.8 to 10.10: a watchdog that drops dead children, pinning, deferred evictions.

Rules and traits hold for 10.8.0 to 10.10.0, from their source; 10.8.1 and 10.10.0 are recorded at log level
info (corpus/), 10.9 is not.
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

KEYS, ENTRY_KEYS = known_health_keys("10.10")


@hookimpl
def lemond_driver() -> DriverInfo:
    return DriverInfo(
        name="lemond-10.8",
        serves=SpecifierSet(">=10.8,<11"),
        summary="watchdog drops dead children, log stream on the main port, pinning, deferred evictions",
        recorded=("10.8.1", "10.10.0"),
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
        shares_port=True,
        loads_block_requests=False,
        options_reusable=False,
        http_threads=8,
    )


@hookimpl
def lemond_parse_health(body: object) -> HealthListing:
    return parse_health(body, known_keys=KEYS, known_entry_keys=ENTRY_KEYS)


@hookimpl
def lemond_log_rules() -> Sequence[LogRule]:
    return phrases_for("10.8", "10.10")
