"""lemond 10.6: as 10.5, with real error statuses from children.

Rules and traits hold for 10.6.0, from its source and from recordings (corpus/10.6.0).
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
    parse_health,
    phrases_for,
)


@hookimpl
def lemond_driver() -> DriverInfo:
    return DriverInfo(
        name="lemond-10.6",
        serves=SpecifierSet(">=10.6,<10.7"),
        summary="as 10.5, with real error statuses from children",
        recorded=("10.6.0",),
    )


@hookimpl
def lemond_traits() -> Traits:
    return Traits(
        lists_dead_children=True,
        load_touches=True,
        log_stream_on_main_port=False,
        pinning=False,
        own_idle_eviction=False,
        unload_all_may_defer=False,
        shares_port=True,
        loads_block_requests=False,
        options_reusable=True,
        http_threads=8,
    )


@hookimpl
def lemond_parse_health(body: object) -> HealthListing:
    return parse_health(body)


@hookimpl
def lemond_log_rules() -> Sequence[LogRule]:
    return phrases_for("10.6")
