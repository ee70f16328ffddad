"""lemond 10.5: base health fields, log stream on its own port, errors of children as status 200.

10.5.0 and 10.5.1 are the same for the adapter. Rules and traits hold for 10.5.1, from its source and from
recordings (corpus/10.5.1).
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
        name="lemond-10.5",
        serves=SpecifierSet(">=10.5,<10.6"),
        summary="base health fields, log stream on its own port, errors of children as status 200",
        recorded=("10.5.1",),
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
    return phrases_for("10.5")
