"""What is known of one model."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from lemond_adapter.types import EvictionReason, FailureKind, LoadedModel, RouteInfo


class Phase(StrEnum):
    """Where a model is between two listings. Only `LOADED` has a route."""

    ABSENT = "absent"
    STARTING = "starting"
    WARMING = "warming"
    LOADED = "loaded"
    DYING = "dying"
    """Its process ended as an eviction would end it; why is not known yet."""
    UNLOADING = "unloading"
    CRASHED = "crashed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended: `graceful` when it could be somebody's SIGTERM (exit 0 or SIGTERM)."""

    text: str | None
    graceful: bool


@dataclass(slots=True)
class Record:
    """One model's line in the ledger. Times are of the injected monotonic clock, in seconds."""

    model: str
    phase: Phase = Phase.ABSENT
    entry: LoadedModel | None = None
    """The listing's entry of the process that serves or served last."""
    route: RouteInfo | None = None
    generation: int = 0
    since: float = 0.0
    """When the phase began."""
    why: EvictionReason = "unknown"
    ours: bool = False
    """The eviction under way was asked for by us."""
    withdrawn_at: int = -1
    """Tick of the last withdrawal: a listing asked for before it cannot restore the route."""
    doubts: int = 0
    """Listings since the withdrawal that still show the same live process."""
    kept: bool = False
    done_at: int = -1
    """Tick of the hint that its load ended well."""
    done_seq: int | None = None
    spawned_pid: int | None = None
    dead_pids: set[int] = field(default_factory=set)
    ending: Ending | None = None
    decide_by: float | None = None
    """When a `DYING` process is declared crashed, if nothing explained its end."""
    needs_unload: bool = False
    """lemond still lists the dead process: a load alone would do nothing."""
    failure: str | None = None
    failure_kind: FailureKind = "unknown"
    last_entry: LoadedModel | None = None
    verified_at: datetime | None = None

    @property
    def busy_phase(self) -> bool:
        """lemond is doing something with it right now, as far as the log says."""
        return self.phase in (Phase.STARTING, Phase.WARMING, Phase.UNLOADING, Phase.DYING)
