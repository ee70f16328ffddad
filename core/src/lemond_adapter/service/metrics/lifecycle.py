"""How long models take to come, and to come back: measured between slot events. Sans-IO."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import get_args

from prometheus_client import CollectorRegistry

from lemond_adapter.dispatch.traffic import Flight
from lemond_adapter.service.metrics import families
from lemond_adapter.service.metrics.labels import Bounded
from lemond_adapter.types import (
    EvictionReason,
    EvictionStarted,
    FailureKind,
    LemondLost,
    LemondStarted,
    LoadFailed,
    LoadStarted,
    ModelEvicted,
    ModelLoaded,
    PortChanged,
    ProcessCrashed,
    Resynced,
    ResyncReason,
    SlotEvent,
)

_WANTS = frozenset({"slot.loading", "interrupted"})
"""Outcomes that leave somebody waiting for the model."""


class LifecycleMetrics:
    """An observer of events and of traffic. `routed` says whether a model has a route; `load_began`
    gives the start of a load of our own that is running, on the same clock, in seconds."""

    def __init__(
        self,
        registry: CollectorRegistry,
        models: Bounded,
        *,
        routed: Callable[[str], bool],
        load_began: Callable[[str], float | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models = models
        self._routed = routed
        self._load_began = load_began
        self._clock = clock
        self._started: dict[str, float] = {}
        self._wanted: dict[str, float] = {}
        self._lost: dict[str, tuple[float, str]] = {}
        self._stable = families.TIME_TO_ROUTE_STABLE.histogram(registry)
        self._recovery = families.EVICTION_RECOVERY.histogram(registry)
        self._duration = families.LOAD_DURATION.histogram(registry)
        self._failures = families.LOAD_FAILURES.counter(registry)
        self._evictions = families.EVICTIONS.counter(registry)
        self._crashes = families.CRASHES.counter(registry)
        self._moves = families.PORT_CHANGES.counter(registry)
        self._starts = families.LEMOND_STARTS.counter(registry)
        self._losses = families.LEMOND_LOSSES.counter(registry)
        self._resyncs = families.RESYNCS.counter(registry)
        self._changes = families.RESYNC_CHANGES.counter(registry)
        self._decisions = families.DECISIONS.counter(registry)
        self._kinds = Bounded()
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """A series that begins with 1 never rises: `increase()` would miss the first one."""
        for reason in get_args(EvictionReason):
            for by in ("lemond", "adapter"):
                self._evictions.labels(reason, by)
        for kind in get_args(FailureKind):
            self._failures.labels(kind)
        for reason in get_args(ResyncReason):
            self._resyncs.labels(reason)
            self._changes.labels(reason)

    def flight(self, flight: Flight) -> None:
        """A request ended; when its model was not there, it is wanted from when the request came."""
        model = flight.model
        if model is not None and flight.outcome in _WANTS and not self._routed(model):
            self._wanted.setdefault(model, flight.began)

    def decided(self, kind: str) -> None:
        """Something was done unasked."""
        self._decisions.labels(self._kinds(kind)).inc()

    def take(self, event: SlotEvent, at: float | None = None) -> None:
        """Something changed, now or at `at`."""
        match event:
            case LemondStarted():
                self._starts.inc()
            case LemondLost():
                self._losses.inc()
            case Resynced():
                self._resyncs.labels(event.reason).inc()
                self._changes.labels(event.reason).inc(event.changes)
            case _ if event.model is not None:
                self._of_model(event, event.model, self._clock() if at is None else at)

    def _of_model(self, event: SlotEvent, model: str, now: float) -> None:
        match event:
            case LoadStarted():
                self._started[model] = now
                self._wanted.setdefault(model, now)
            case ModelLoaded():
                self._loaded(model, now)
            case LoadFailed():
                self._failures.labels(event.kind).inc()
                self._started.pop(model, None)
                self._wanted.pop(model, None)
            case EvictionStarted():
                self._lost.setdefault(model, (now, event.reason))
            case ModelEvicted():
                since = self._lost.get(model, (now, ""))[0]
                self._lost[model] = (since, event.reason)
                self._evictions.labels(event.reason, event.initiator or "lemond").inc()
            case ProcessCrashed():
                self._lost[model] = (now, "crash")
                self._crashes.labels(self._models(model)).inc()
            case PortChanged():
                self._moves.inc()

    def _loaded(self, model: str, now: float) -> None:
        self._crashes.labels(self._models(model))
        starts = (self._started.pop(model, None), self._load_began(model))
        began = min((start for start in starts if start is not None), default=None)
        if began is not None:
            self._duration.labels(self._models(model)).observe(now - began)
        wanted, lost = self._wanted.pop(model, None), self._lost.pop(model, None)
        if wanted is None:
            wanted = began
        if wanted is None:
            return
        self._stable.observe(now - wanted)
        if lost is not None:
            since, reason = lost
            self._recovery.labels(reason).observe(now - max(since, wanted))
