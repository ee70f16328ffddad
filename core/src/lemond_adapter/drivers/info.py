"""What a driver says about itself, and about the releases it serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from packaging.specifiers import SpecifierSet

Channel = Literal["log", "native"]


@dataclass(frozen=True, slots=True)
class DriverInfo:
    """`name` as in the entry point (`lemond-10.7`), `serves` the releases, `recorded` those of them
    for which a corpus of a real lemond locks the rules."""

    name: str
    serves: SpecifierSet
    summary: str = ""
    channel: Channel = "log"
    recorded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Traits:
    """What a release line does, as far as it changes what the core may do.

    The defaults are the cautious side: what is true of a release that nobody has read.

    lists_dead_children: health keeps listing a child that died, and `/v1/load` of it answers success
        and does nothing; only unload, then load, brings it back (10.5-10.7, measured).
    load_touches: `/v1/load` of a loaded model with the options that health shows only refreshes its
        last use (10.5-10.7, 11.7; on 10.8-11.6 it reloads models with automatic context size).
    log_stream_on_main_port: the WebSocket is also served on the HTTP port (10.8 and later).
    pinning: `/internal/pin` and `pinned` exist (10.8 and later).
    own_idle_eviction: lemond may evict idle models itself when configured to (10.8 and later).
    unload_all_may_defer: unload-all answers success although busy models stay (10.8 and later).
    shares_port: a second lemond can share the port silently (10.8.1 and earlier).
    loads_block_requests: requests to loaded models wait behind any load, through lemond (11.5+).
    options_reusable: the options that health shows are what was asked for, not tuned values, so a
        reload may send them again (10.5-10.7).
    http_threads: how many connections lemond serves at once; None where it is many (11.0+).
    """

    lists_dead_children: bool = True
    load_touches: bool = False
    log_stream_on_main_port: bool = False
    pinning: bool = False
    own_idle_eviction: bool = False
    unload_all_may_defer: bool = True
    shares_port: bool = True
    loads_block_requests: bool = True
    options_reusable: bool = False
    http_threads: int | None = 8
