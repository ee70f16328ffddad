"""The ledger: merges listings, hints and process ends into events and routes. Sans-IO.

Three witnesses, in order of trust:
- the listing (`/v1/health`) says what lemond believes; only it can make a route;
- processes say what is alive; a dead process never has a route;
- hints (log lines) say what is about to change; they withdraw routes and ask for a listing.

A listing is as old as the moment it was asked for: what a hint withdrew after that, it cannot
restore, and what finished loading after that, it cannot evict. Every method returns the events of
the change, in order, unstamped.
"""

from __future__ import annotations

from lemond_adapter.drivers import HealthListing
from lemond_adapter.truth.book import Book, Events
from lemond_adapter.truth.hints import Hint, HintKind
from lemond_adapter.truth.record import Ending, Phase, Record
from lemond_adapter.types import (
    EvictionReason,
    LoadedModel,
    LoadStarted,
    ModelLoaded,
    PortChanged,
    ProcessSpawned,
    Source,
)

CONFIRMATIONS = 2
"""Listings that must show the same live process before a withdrawn route comes back, when nothing
said that the eviction was called off: the first may have been answered just before the kill."""

STORY_GRACE_S = 0.25
"""How long the end of a process that looks like an eviction waits for the log to explain it."""

BLIND_GRACE_S = 3.0
"""The same without a log stream: an eviction blocks the listing for 2.1 s (10.5.1-11.7.0)."""

LOAD_LIMIT_S = 1800.0
"""A load whose end was never seen is given up after this; lemond's own limit is shorter."""


class Ledger(Book):
    """One per LemondAdapter."""

    # Listings.

    def begin_listing(self) -> int:
        """To be called right before health is asked; the token goes to `apply_listing`."""
        self._tick += 1
        self.wants_listing = False
        return self._tick

    def apply_listing(self, listing: HealthListing, token: int, *, partial: bool = False) -> Events:
        """Takes lemond's answer to the question asked at `token`. A `partial` one says nothing of the
        models it lacks: those with a living process stay."""
        events: Events = []
        listed = {entry.model: entry for entry in listing.models}
        for record in list(self.records.values()):
            if record.model not in listed and not (partial and self._lives(record)):
                events += self._unlisted(record, token)
        for entry in sorted(listed.values(), key=self._load_order):
            events += self._listed(self.record(entry.model), entry, token)
        self.restarting = False
        return events

    def _lives(self, record: Record) -> bool:
        return record.route is not None and record.entry is not None and self._alive(record.entry) is True

    def _load_order(self, entry: LoadedModel) -> tuple[int, int]:
        record = self.records.get(entry.model)
        return (0, record.done_at) if record and record.done_at >= 0 else (1, 0)

    def _unlisted(self, record: Record, token: int) -> Events:
        record.needs_unload = False
        record.dead_pids.clear()
        match record.phase:
            case Phase.LOADED:
                return self._gone(record, "health", self._default_reason(record))
            case Phase.DYING | Phase.UNLOADING if record.withdrawn_at < token:
                return self._gone(record, "health", self._default_reason(record))
            case Phase.STARTING | Phase.WARMING:
                if self.restarting or (0 <= record.done_at < token):
                    return self._gone(record, "health", self._default_reason(record))
                if self._clock() - record.since > LOAD_LIMIT_S:
                    text = f"no end of the load was seen for {LOAD_LIMIT_S:.0f} s"
                    return self._fail(record, Hint(HintKind.FAILED, record.model, text=text), "health")
        return []

    def _default_reason(self, record: Record) -> EvictionReason:
        if record.why == "unknown" and self.restarting:
            return "shutdown"
        return record.why

    def _listed(self, record: Record, entry: LoadedModel, token: int) -> Events:
        if record.withdrawn_at >= token:
            self.wants_listing = True
            return []
        if (entry.pid is not None and entry.pid in record.dead_pids) or self._alive(entry) is False:
            return self._listed_dead(record, entry)
        same = record.entry is not None and _same_process(record.entry, entry)
        if record.phase is Phase.LOADED and same:
            record.entry = record.last_entry = entry
            record.done_at, record.done_seq = -1, None
            return []
        if record.phase is Phase.LOADED:
            return self._moved(record, entry)
        if same and record.ours and record.phase is Phase.UNLOADING:
            return []  # we took the route and unload it, or give it back
        if same and record.withdrawn_at >= 0 and not record.kept and record.phase is not Phase.CRASHED:
            record.doubts += 1
            if record.doubts < CONFIRMATIONS:
                self.wants_listing = True
                return []
        route = self._route(record, entry, same=same)
        if route is None:
            return []
        events: Events = []
        if record.phase in (Phase.UNLOADING, Phase.DYING) and not same:
            events += self._gone(record, "health", record.why)
        hinted = record.done_at >= 0
        self._settle(record, entry, route)
        loaded = ModelLoaded(
            model=record.model,
            port=entry.port,
            pid=entry.pid,
            source="log" if hinted else "health",
            lemond_seq=record.done_seq if hinted else None,
        )
        record.done_at, record.done_seq = -1, None
        return [*events, loaded]

    def _listed_dead(self, record: Record, entry: LoadedModel) -> Events:
        """lemond <= 10.7 lists a dead child for ever: it needs an unload before a load."""
        record.last_entry = entry
        record.needs_unload = True
        if entry.pid is None or record.phase is Phase.CRASHED:
            return []
        if record.phase is Phase.DYING:
            return self._crash(record, entry.pid, "process")
        if entry.pid in record.dead_pids or record.phase in (Phase.STARTING, Phase.WARMING):
            return []
        if record.phase is Phase.UNLOADING:
            return []  # being evicted, and its process has ended already
        record.dead_pids.add(entry.pid)
        return self._crash(record, entry.pid, "probe")

    def _moved(self, record: Record, entry: LoadedModel) -> Events:
        """Another process or port behind a model that we held for loaded, without a story."""
        old = record.entry
        route = self._route(record, entry, same=False)
        if route is None:
            return self._gone(record, "health", "unknown")
        old_port = old.port if old else None
        events: Events
        if old_port == entry.port:
            events = self._gone(record, "health", "reload")
            events.append(ModelLoaded(model=record.model, port=entry.port, pid=entry.pid, source="health"))
        else:
            events = [
                PortChanged(
                    model=record.model, old_port=old_port, new_port=entry.port, pid=entry.pid, source="health"
                )
            ]
        self._settle(record, entry, route)
        record.done_at, record.done_seq = -1, None
        return events

    # Hints.

    def hint(self, hint: Hint, source: Source = "log") -> Events:
        """Takes one suggestion of the log."""
        self._tick += 1
        match hint.kind:
            case HintKind.RELIST:
                self.wants_listing = True
                return []
            case HintKind.DEAD:
                return self.process_ended(hint.pid, Ending(hint.text, False)) if hint.pid else []
            case HintKind.SHUTTING_DOWN:
                return self._all_evicting("shutdown")
        if hint.model is None:
            return []
        record = self.record(hint.model)
        match hint.kind:
            case HintKind.STARTING:
                return self._starting(record, hint)
            case HintKind.SPAWNED if record.phase in (Phase.STARTING, Phase.ABSENT) and hint.pid:
                self._enter(record, Phase.WARMING)
                record.spawned_pid = hint.pid
                return [
                    ProcessSpawned(model=record.model, pid=hint.pid, source="log", lemond_seq=hint.lemond_seq)
                ]
            case HintKind.LOADED:
                record.done_at, record.done_seq = self._tick, hint.lemond_seq
                self.wants_listing = True
            case HintKind.FAILED:
                return self._failed(record, hint)
            case HintKind.EVICTING:
                return self._evicting(record, hint)
            case HintKind.EVICTED:
                return self._evicted(record, hint)
            case HintKind.KEPT:
                record.kept = True
                self.wants_listing = True
        return []

    def _starting(self, record: Record, hint: Hint) -> Events:
        events: Events = []
        if record.phase is Phase.LOADED:
            events += self._withdraw(record, "reload", hint.lemond_seq)
        if record.phase is Phase.DYING or (record.phase is Phase.UNLOADING and not events):
            # lemond loads it anew, so the old process is gone though no line said so.
            events += self._gone(record, "log", record.why)
        self._enter(record, Phase.STARTING)
        record.done_at = -1
        record.spawned_pid = None
        return [*events, LoadStarted(model=record.model, source="log", lemond_seq=hint.lemond_seq)]

    def _failed(self, record: Record, hint: Hint) -> Events:
        if record.phase is Phase.LOADED:
            self.wants_listing = True
            return []
        return self._fail(record, hint, "log")

    def _evicting(self, record: Record, hint: Hint) -> Events:
        if record.phase in (Phase.LOADED, Phase.DYING):
            return self._withdraw(record, hint.reason, hint.lemond_seq)
        if record.phase is Phase.UNLOADING and record.why == "unknown":
            record.why = hint.reason
        if record.phase is Phase.CRASHED and hint.reason != "unknown":
            record.why = hint.reason
        return []

    def _evicted(self, record: Record, hint: Hint) -> Events:
        self.wants_listing = True
        reason = hint.reason if record.why == "unknown" else record.why
        if record.phase in (Phase.LOADED, Phase.DYING, Phase.UNLOADING):
            return self._gone(record, "log", reason, hint.lemond_seq)
        if record.phase in (Phase.STARTING, Phase.WARMING) and record.done_at >= 0:
            return self._gone(record, "log", reason, hint.lemond_seq)
        if record.phase is Phase.CRASHED:
            # The crash was told already; this ends lemond's listing of the dead process.
            record.needs_unload = False
        return []

    def _all_evicting(self, reason: EvictionReason) -> Events:
        events: Events = []
        for record in self.records.values():
            if record.phase in (Phase.LOADED, Phase.DYING):
                events += self._withdraw(record, reason, None)
        return events

    # Processes.

    def process_ended(self, pid: int, ending: Ending, *, lemond_alive: bool | None = None) -> Events:
        """A watched process is gone. Its route is withdrawn before this returns."""
        self._tick += 1
        for record in self.records.values():
            if record.entry is not None and record.entry.pid == pid:
                return self._process_ended(record, pid, ending, lemond_alive)
        return []

    def _process_ended(self, record: Record, pid: int, ending: Ending, lemond_alive: bool | None) -> Events:
        record.dead_pids.add(pid)
        record.ending = ending
        self.wants_listing = True
        if record.phase is Phase.UNLOADING and (record.why == "shutdown" or lemond_alive is False):
            return self._gone(record, "process", record.why)  # no line and no listing will say it
        if record.phase is not Phase.LOADED:
            return []
        if lemond_alive is False:
            return self._gone(record, "process", "shutdown")
        if not ending.graceful:
            return self._crash(record, pid, "process")
        self._unroute(record)
        self._enter(record, Phase.DYING)
        record.withdrawn_at = self._tick
        grace = STORY_GRACE_S if self.log_attached else BLIND_GRACE_S
        record.decide_by = self._clock() + grace
        return []

    def expire(self) -> Events:
        """Declares crashed what ended like an eviction and was never explained."""
        events: Events = []
        now = self._clock()
        for record in self.records.values():
            if record.decide_by is not None and record.decide_by <= now:
                record.decide_by = None
                if record.phase is Phase.DYING and record.entry is not None and record.entry.pid is not None:
                    events += self._crash(record, record.entry.pid, "process")
        return events

    # lemond as a whole.

    def lemond_restarted(self) -> Events:
        """A new lemond: it knows none of the old one's models. What was ending when the old one ended
        went with it: its children get their signal a moment before it is seen to be gone."""
        self._tick += 1
        self.restarting = True
        self.wants_listing = True
        events: Events = []
        for record in self.records.values():
            if record.phase is Phase.DYING:
                events += self._gone(record, "process", "shutdown")
        return events

    def evicting_by_us(self, model: str, reason: EvictionReason) -> Events:
        """We are about to unload it: the route goes first."""
        self._tick += 1
        record = self.record(model)
        if record.phase is not Phase.LOADED:
            return []
        record.ours = True
        return self._withdraw(record, reason, None, source="self")

    def eviction_called_off(self, model: str) -> None:
        """It stays, or lemond refused our unload: the next listing may restore the route."""
        record = self.record(model)
        record.kept, record.ours = True, False
        self.wants_listing = True

    def abandon(self, model: str, reason: str) -> Events:
        """It died too often: in error until somebody acts."""
        self._tick += 1
        record = self.record(model)
        if record.phase is not Phase.CRASHED:
            return []
        withdrawn = record.withdrawn_at
        events = self._fail(record, Hint(HintKind.FAILED, model, text=reason, failure="backend_exit"), "self")
        record.withdrawn_at = withdrawn
        return [event.model_copy(update={"initiator": "adapter"}) for event in events]


def _same_process(old: LoadedModel, new: LoadedModel) -> bool:
    return old.pid == new.pid and old.port == new.port and old.base_url == new.base_url
