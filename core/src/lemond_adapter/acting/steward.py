"""The steward: from events and use to what is to be done unasked. Sans-IO.

It evicts what is idle, restarts what died, brings back what a cascade or a restart of lemond took, and
says in words why. It decides; `Keeper` does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from lemond_adapter.acting.idle import idle_deadline, overdue
from lemond_adapter.acting.policy import Policy
from lemond_adapter.acting.residents import Limits, Resident, Residents
from lemond_adapter.acting.restarts import GiveUp, Restart, RestartBudget
from lemond_adapter.acting.restore import Lost, restore_order
from lemond_adapter.types import (
    EvictionStarted,
    LoadFailed,
    LoadStarted,
    ModelEvicted,
    ModelLoaded,
    ProcessCrashed,
    Resynced,
    SlotEvent,
)

CASCADE_LIMIT_S = 60.0
"""A cascade whose end was not seen is taken to be over after this (measured: 19 s on 10.7.0)."""

CASCADE_MEMORY_S = 600.0
LONGEST_CASCADE_PAUSE_S = 60.0
EXPLANATION_S = 3.0
"""How long an eviction by lemond waits for the load that explains it."""


@dataclass(frozen=True, slots=True)
class EvictIdle:
    """It was unused for `idle_s`, and its limit is `limit_s`."""

    model: str
    idle_s: float
    limit_s: float


@dataclass(frozen=True, slots=True)
class Bring:
    """Load it, not before `at`, without evicting anything for it."""

    model: str
    at: float
    why: str


@dataclass(frozen=True, slots=True)
class NotBefore:
    """Whoever asks for it: it is not loaded before `at`."""

    model: str
    at: float


@dataclass(frozen=True, slots=True)
class Abandon:
    """Its restart budget is used up until `until`."""

    model: str
    reason: str
    until: float


@dataclass(frozen=True, slots=True)
class Tell:
    """A note for the journal."""

    kind: str
    text: str
    model: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


Action = EvictIdle | Bring | NotBefore | Abandon | Tell


class Steward:
    """`look` gives what is known of a model's use and place, also of one that has just gone; `asked`
    whether a load of it was asked for here."""

    def __init__(self, policy: Policy, look: Callable[[str], Resident], asked: Callable[[str], bool]) -> None:
        self._look = look
        self._asked = asked
        self.policy = policy
        self.budget = RestartBudget(policy.max_restarts, policy.restart_backoff_s, policy.restart_refill_s)
        self.warm: tuple[str, ...] = ()
        """Models, not slots."""
        self._lost: dict[str, Lost] = {}
        self._restore_at: float | None = None
        self._culprit: tuple[str, str] | None = None
        self._cascades: list[float] = []
        self._cascade_open = False
        """Models went in a cascade whose end was not seen yet; each counts once, however often it is told."""
        self._returning: set[str] = set()
        self._returning_since = 0.0
        self._taken: list[tuple[ModelEvicted, float, int]] = []
        self._in_flight: dict[str, int] = {}

    def adopt(self, policy: Policy) -> None:
        """Another policy from now on; deaths counted so far stay."""
        self.policy = policy
        self.budget.max_restarts = policy.max_restarts
        self.budget.backoff_s = policy.restart_backoff_s
        self.budget.refill_s = policy.restart_refill_s

    # Events.

    def event(self, event: SlotEvent, now: float) -> list[Action]:
        """Takes one event."""
        match event:
            case ProcessCrashed(model=str(model)):
                return self._crashed(model, event, now)
            case EvictionStarted(model=str(model)):
                self._in_flight[model] = self._look(model).leases
                if event.reason in ("load_failure_cascade", "shutdown"):
                    self._note_lost(model, event, now)
            case ModelEvicted(model=str(model)):
                return self._evicted(model, event, now)
            case LoadStarted(model=str(model)):
                return self._explain(model)
            case LoadFailed(model=str(model)):
                self._culprit = (model, event.reason)
                self._returning.discard(model)
                self._cascade_over(now)
            case ModelLoaded(model=str(model)):
                self._lost.pop(model, None)
                self._in_flight.pop(model, None)
                self._cascade_over(now)
                return self._returned(model, now)
            case Resynced(reason="startup"):
                return [Bring(model, now, "it is in the warm set") for model in self.warm]
            case Resynced(reason="restart"):
                return self._lemond_restarted(now)
        return []

    def _crashed(self, model: str, event: ProcessCrashed, now: float) -> list[Action]:
        how = event.exit or "no exit status"
        match self.budget.died(model, now):
            case Restart(at=at, deaths=deaths):
                if not self._wanted(self._look(model), now):
                    return [NotBefore(model, at)]
                text = f"{model} died ({how}); it is started again"
                if at > now:
                    text += f" in {at - now:.0f} s, after {deaths} deaths in a row"
                tell = Tell("slot.restart", text, model, {"deaths": deaths, "exit": event.exit})
                return [tell, Bring(model, at, "its process died")]
            case GiveUp(until=until, deaths=deaths):
                reason = (
                    f"its server died {deaths} times in a row without serving a request (last: {how}); "
                    f"it is not started again by itself for {until - now:.0f} s. Load it by hand when the "
                    "cause is mended"
                )
                tell = Tell("slot.restarts_used_up", f"{model}: {reason}", model, {"deaths": deaths})
                return [tell, Abandon(model, reason, until)]

    def _wanted(self, resident: Resident, now: float) -> bool:
        """Whether a model that is gone should come back without a request."""
        if resident.pinned or resident.model in self.warm or resident.leases:
            return True
        if self._in_flight.get(resident.model):
            return True
        if resident.used_at <= 0:
            return False
        limit = resident.idle_limit_s
        return limit <= 0 or now - resident.used_at < limit

    def _note_lost(self, model: str, event: EvictionStarted | ModelEvicted, now: float) -> None:
        seen = self._look(model)
        if model not in self._lost and event.reason == "load_failure_cascade":
            self._cascade_open = True
        self._lost.setdefault(
            model,
            Lost(
                model=model,
                type=seen.type,
                reason=event.reason,
                at=now,
                used_at=seen.used_at,
                in_use=bool(seen.leases or self._in_flight.get(model)),
                pinned=seen.pinned,
                priority=seen.priority,
            ),
        )

    def _evicted(self, model: str, event: ModelEvicted, now: float) -> list[Action]:
        cut = max(self._in_flight.pop(model, 0), self._look(model).leases)
        if event.initiator == "adapter":
            return []
        if event.reason == "load_failure_cascade":
            self._note_lost(model, event, now)
            if self._restore_at is None:
                self._restore_at = now + CASCADE_LIMIT_S
            return []
        if event.reason == "shutdown":
            if self._wanted(self._look(model), now):
                self._note_lost(model, event, now)
            return []
        if event.reason in ("lru", "npu_exclusivity", "unknown", "reload"):
            self._taken.append((event, now, cut))
            return []
        return [self._by_other(event, cut, None)]

    def _explain(self, loading: str) -> list[Action]:
        """lemond began a load: what it evicted just before was evicted for that."""
        taken, self._taken = self._taken, []
        return [self._by_other(event, cut, loading) for event, _, cut in taken]

    def _by_other(self, event: ModelEvicted, cut: int, loading: str | None) -> Tell:
        text = f"lemond evicted {event.model} ({event.reason})"
        if loading is not None and loading != event.model:
            text += f" to load {loading}"
            text += ", as was asked here" if self._asked(loading) else ", which was not asked for here"
        elif event.reason == "manual":
            text += ": another client of lemond told it to"
        if cut:
            text += (
                f"; {cut} request{'s' if cut > 1 else ''} of ours {'were' if cut > 1 else 'was'} in flight"
            )
        details = {"reason": event.reason, "loading": loading, "in_flight": cut}
        return Tell("slot.evicted_by_lemond", text, event.model, details)

    # Bringing back.

    def _cascade_over(self, now: float) -> None:
        if not self._cascade_open:
            return
        self._cascade_open = False
        self._cascades = [at for at in self._cascades if now - at < CASCADE_MEMORY_S] + [now]
        repeated = len(self._cascades) - 1
        pause = 0.0 if not repeated else min(2.0**repeated, LONGEST_CASCADE_PAUSE_S)
        self._restore_at = now + pause

    def _lemond_restarted(self, now: float) -> list[Action]:
        self._restore_at = now
        return [Bring(model, now, "it is in the warm set, and lemond restarted") for model in self.warm]

    def _restore(self, now: float, residents: Residents, limits: Limits) -> list[Action]:
        lost, self._lost = self._lost, {}
        self._cascade_open = False
        culprit, self._culprit = self._culprit, None
        self._restore_at = None
        without = {culprit[0]} if culprit else set()
        order = restore_order(lost.values(), residents, limits, without=without)
        order.sort(key=lambda model: model not in self.warm)  # as the queue will have it
        gone = sorted(lost)
        if not gone:
            return []
        cascade = any(one.reason == "load_failure_cascade" for one in lost.values())
        self._returning, self._returning_since = set(order), now
        text = _story(gone, order, culprit if cascade else None, cascade=cascade)
        details = {"lost": gone, "order": order, "culprit": culprit[0] if culprit and cascade else None}
        tell = Tell("slot.cascade" if cascade else "slot.lemond_restarted", text, None, details)
        return [tell, *(Bring(model, now, "lemond took it away") for model in order)]

    def wasted(self, model: str, victims: Collection[str], now: float) -> list[Action]:
        """These were evicted to load a model, and its load failed."""
        back = [one for one in victims if one != model and self._wanted(self._look(one), now)]
        if not back:
            return []
        text = f"{', '.join(back)} had made room for {model}, whose load failed, and is brought back"
        tell = Tell("slot.room_wasted", text, model, {"order": back})
        return [tell, *(Bring(one, now, f"the load of {model} failed") for one in back)]

    def _returned(self, model: str, now: float) -> list[Action]:
        if model not in self._returning:
            return []
        self._returning.discard(model)
        if self._returning:
            return []
        took = now - self._returning_since
        return [Tell("slot.restored", f"{model} is back, the last of those lost, after {took:.1f} s", model)]

    # Time.

    def due(self, now: float, residents: Residents, limits: Limits) -> list[Action]:
        """What is to be done now."""
        actions: list[Action] = [
            EvictIdle(r.model, now - r.used_at, r.idle_limit_s) for r in overdue(residents, now)
        ]
        if self._restore_at is not None and self._restore_at <= now:
            actions += self._restore(now, residents, limits)
        stale = [one for one in self._taken if now - one[1] >= EXPLANATION_S]
        if stale:
            self._taken = [one for one in self._taken if one not in stale]
            actions += [self._by_other(event, cut, None) for event, _, cut in stale]
        return actions

    def next_at(self, now: float, residents: Residents, leave_out: Collection[str] = ()) -> float | None:
        """When `due` may have something to say, if nothing happens before. Use only moves deadlines back,
        so nobody has to tell of each request."""
        moments = [_earliest(r, now) for r in residents if r.model not in leave_out]
        moments.append(self._restore_at)
        moments += [at + EXPLANATION_S for _, at, _ in self._taken]
        return min((at for at in moments if at is not None), default=None)


def _earliest(resident: Resident, now: float) -> float | None:
    """What is in use now can be idle no sooner than its limit from now."""
    if resident.idle_limit_s > 0 and (resident.leases or resident.busy):
        return now + resident.idle_limit_s
    return idle_deadline(resident)


def _story(gone: list[str], order: list[str], culprit: tuple[str, str] | None, *, cascade: bool) -> str:
    went = ", ".join(gone)
    if culprit:
        text = f"the load of {culprit[0]} failed ({culprit[1]}); lemond evicted all to try once more: {went}"
    elif cascade:
        text = f"a load failed and lemond evicted all to try once more: {went}"
    else:
        text = f"lemond restarted and lost {went}"
    left = [model for model in gone if model not in order and not (culprit and model == culprit[0])]
    text += f". Brought back in this order: {', '.join(order)}" if order else ". Nothing is brought back"
    return text + (f"; left out: {', '.join(left)}" if left and order else "")
