"""The ledger's book: the records, and the few steps that change one. Sans-IO.

Every step returns the events it makes; nothing else in the package constructs them from truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

from lemond_adapter.truth.hints import Hint
from lemond_adapter.truth.record import Phase, Record
from lemond_adapter.types import (
    EvictionReason,
    EvictionStarted,
    LoadedModel,
    LoadFailed,
    ModelEvicted,
    ProcessCrashed,
    RouteInfo,
    SlotEvent,
    Source,
)

Events = list[SlotEvent]

MAX_RECORDS = 4096
"""Names come from log lines, which may hold anything: idle records beyond this are forgotten."""


class Book:
    """Records and routes.

    `alive(model)` answers for a listed process: True, False, or None when it cannot be seen from
    here. `make_route` builds the route for a listed model; None when nothing may be sent to it.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        alive: Callable[[LoadedModel], bool | None],
        make_route: Callable[[LoadedModel, int], RouteInfo | None],
    ) -> None:
        self._clock = clock
        self._alive = alive
        self._make_route = make_route
        self._tick = 0
        self._asked_at = -1
        self.records: dict[str, Record] = {}
        self.routes: dict[str, RouteInfo] = {}
        self.wants_listing = False
        self.log_attached = False
        self.restarting = False
        """lemond restarted: what the next listing lacks went with it."""

    # Questions.

    def record(self, model: str) -> Record:
        """The model's line; made when it is new."""
        found = self.records.get(model)
        if found is None:
            if len(self.records) >= MAX_RECORDS:
                self._forget_idle()
            found = self.records[model] = Record(model, since=self._clock())
        return found

    def _forget_idle(self) -> None:
        idle = (Phase.ABSENT, Phase.FAILED)
        self.records = {name: r for name, r in self.records.items() if r.phase not in idle}

    def loaded(self) -> tuple[LoadedModel, ...]:
        """What has a route, in lemond's order of listing."""
        return tuple(r.entry for r in self.records.values() if r.route is not None and r.entry is not None)

    def names(self) -> Iterable[str]:
        """Every public name met so far."""
        return self.records.keys()

    def next_deadline(self) -> float | None:
        """When `expire` has something to do."""
        return min((r.decide_by for r in self.records.values() if r.decide_by is not None), default=None)

    def rename(self, slot_name: Callable[[str], str | None]) -> None:
        """Slots were configured anew: the routes carry their new names."""
        for model, route in self.routes.items():
            self.routes[model] = self.records[model].route = replace(route, slot=slot_name(model))

    # Steps.

    def _enter(self, record: Record, phase: Phase) -> None:
        record.phase = phase
        record.since = self._clock()
        record.decide_by = None

    def _unroute(self, record: Record) -> None:
        record.route = None
        self.routes.pop(record.model, None)

    def _withdraw(
        self, record: Record, reason: EvictionReason, seq: int | None, source: Source = "log"
    ) -> Events:
        self._unroute(record)
        self._enter(record, Phase.UNLOADING)
        record.why = reason
        record.withdrawn_at = self._tick
        record.doubts, record.kept = 0, False
        self.wants_listing = True
        return [
            EvictionStarted(
                model=record.model,
                reason=reason,
                source=source,
                lemond_seq=seq,
                initiator="adapter" if record.ours else None,
            )
        ]

    def _gone(self, record: Record, source: Source, reason: EvictionReason, seq: int | None = None) -> Events:
        self._unroute(record)
        self._enter(record, Phase.ABSENT)
        event = ModelEvicted(
            model=record.model,
            reason=reason,
            source=source,
            lemond_seq=seq,
            initiator="adapter" if record.ours else None,
        )
        record.withdrawn_at = self._tick
        record.doubts, record.kept = 0, False
        record.why, record.ours = "unknown", False
        record.done_at, record.done_seq = -1, None
        return [event]

    def _crash(self, record: Record, pid: int, source: Source) -> Events:
        self._unroute(record)
        self._enter(record, Phase.CRASHED)
        record.withdrawn_at = self._tick
        text = record.ending.text if record.ending else None
        return [ProcessCrashed(model=record.model, pid=pid, exit=text, source=source)]

    def _route(self, record: Record, entry: LoadedModel, *, same: bool) -> RouteInfo | None:
        generation = record.generation if same else record.generation + 1
        route = self._make_route(entry, generation)
        if route is not None:
            record.generation = generation
        return route

    def _settle(self, record: Record, entry: LoadedModel, route: RouteInfo) -> None:
        self._enter(record, Phase.LOADED)
        record.entry = record.last_entry = entry
        record.route = self.routes[record.model] = route
        record.verified_at = datetime.now(UTC)
        record.why, record.ours, record.kept, record.doubts = "unknown", False, False, 0
        record.withdrawn_at = -1
        record.needs_unload = False
        record.failure = record.ending = record.spawned_pid = None

    def _fail(self, record: Record, hint: Hint, source: Source) -> Events:
        self._enter(record, Phase.FAILED)
        record.failure, record.failure_kind = hint.text or "no reason given", hint.failure
        record.done_at = -1
        self.wants_listing = True
        return [
            LoadFailed(
                model=record.model,
                reason=record.failure,
                kind=hint.failure,
                source=source,
                lemond_seq=hint.lemond_seq,
            )
        ]
