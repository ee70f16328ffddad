"""What a log line can mean, and the rule that finds it.

A signal is a hint, never a fact: lines can be lost, mixed with children's output and carry any text
a model name holds. The correlator turns signals into hints; only health and process evidence make a
route.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class SignalKind(StrEnum):
    """The vocabulary of lifecycle lines over all releases."""

    LOAD_REQUESTED = "load_requested"
    LOAD_BEGAN = "load_began"
    SPAWNED = "spawned"
    PORT_KNOWN = "port_known"
    CHILD_READY = "child_ready"
    LOADED = "loaded"
    LOADED_BY_NAME = "loaded_by_name"
    ALREADY_LOADED = "already_loaded"
    RELOADING = "reloading"
    ATTEMPT_FAILED = "attempt_failed"
    LOAD_FAILED = "load_failed"
    FILE_MISSING = "file_missing"
    CASCADE = "cascade"
    EVICTING_LRU = "evicting_lru"
    EVICTING_NPU = "evicting_npu"
    EVICTING = "evicting"
    EVICTED = "evicted"
    EVICTION_DEFERRED = "eviction_deferred"
    EVICTION_CANCELLED = "eviction_cancelled"
    EVICTING_ALL = "evicting_all"
    UNLOADING_ONE_OF_ALL = "unloading_one_of_all"
    EVICTED_ALL = "evicted_all"
    UNLOAD_CALLED = "unload_called"
    UNLOAD_ALL_CALLED = "unload_all_called"
    IDLE_REACHED = "idle_reached"
    IDLE_UNLOAD = "idle_unload"
    PRESSURE = "pressure"
    CHILD_DEAD = "child_dead"
    PRUNED = "pruned"
    RELOADING_AFTER_RESET = "reloading_after_reset"
    SHUTDOWN = "shutdown"
    BOOT = "boot"
    VERSION = "version"
    NOTED = "noted"
    """Known, and without meaning for the state: it only must not count as unknown."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One recognised line. Names are as the line gave them (canonical or typed by a client)."""

    kind: SignalKind
    model: str | None = None
    pid: int | None = None
    port: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class LogRule:
    """An anchored pattern over a line's message text.

    Named groups `model`, `pid`, `port`, `reason` fill the signal. `words` are the possible first
    words of a matching message: rules are looked up by them, so that chatter costs one dictionary
    miss. `since` and `until` name the release lines that print it, inclusive.
    """

    kind: SignalKind
    pattern: re.Pattern[str]
    words: tuple[str, ...]
    since: str | None = None
    until: str | None = None

    @property
    def name(self) -> str:
        """For reports: kind and pattern."""
        return f"{self.kind.value}: {self.pattern.pattern}"
