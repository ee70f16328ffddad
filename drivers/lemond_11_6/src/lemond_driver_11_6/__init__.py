"""lemond 11.6 to 11.7: as 11.5, with routing helpers and correct error statuses.

Rules and traits hold for 11.6.0 and 11.7.0, from their source; 11.7.0 is recorded (corpus/11.7.0),
11.6.0 is not.
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

# 11.8 is not served, but its `launch_command` was seen on builds between the releases.
KEYS, ENTRY_KEYS = known_health_keys("11.8")


@hookimpl
def lemond_driver() -> DriverInfo:
    return DriverInfo(
        name="lemond-11.6",
        serves=SpecifierSet(">=11.6,<11.8"),
        summary="as 11.5, with routing helpers and correct error statuses",
        recorded=("11.7.0",),
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
    return phrases_for("11.6", "11.7")
