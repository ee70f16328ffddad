"""What the log suggests. A hint can withdraw a route or ask for a listing; it never makes a route."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lemond_adapter.types import EvictionReason, FailureKind


class HintKind(StrEnum):
    """What happened, as far as the log can be believed."""

    STARTING = "starting"
    SPAWNED = "spawned"
    LOADED = "loaded"
    FAILED = "failed"
    EVICTING = "evicting"
    EVICTED = "evicted"
    KEPT = "kept"
    DEAD = "dead"
    SHUTTING_DOWN = "shutting_down"
    RELIST = "relist"


@dataclass(frozen=True, slots=True)
class Hint:
    """One suggestion. `model` is the public name; `lemond_seq` the log entry it rests on."""

    kind: HintKind
    model: str | None = None
    pid: int | None = None
    reason: EvictionReason = "unknown"
    text: str | None = None
    failure: FailureKind = "unknown"
    lemond_seq: int | None = None
