"""Does what the steward decides: the one task behind idle evictions, restarts and restoring."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from lemond_adapter.acting.census import Census
from lemond_adapter.acting.evictor import Evictor
from lemond_adapter.acting.loader import Loader
from lemond_adapter.acting.notes import Notebook
from lemond_adapter.acting.policy import Policy
from lemond_adapter.acting.steward import Abandon, Action, Bring, EvictIdle, NotBefore, Steward, Tell
from lemond_adapter.acting.touch import touch_due
from lemond_adapter.acting.waiting import Purpose
from lemond_adapter.truth.control import LemondClient
from lemond_adapter.truth.truth import Truth
from lemond_adapter.types import LemondError, SlotEvent

log = logging.getLogger(__name__)

TOUCH_EVERY_S = 60.0
"""At most one touch in so long: lemond's budget of requests is for truth."""

TOUCH_LOOK_S = 2.0
"""How often it is looked whether one is due; costs lemond nothing."""

FRESH_S = 5.0


class Keeper:
    """One per adapter, and only where there is a policy."""

    def __init__(
        self,
        client: LemondClient,
        truth: Truth,
        *,
        census: Census,
        evictor: Evictor,
        loader: Loader,
        notes: Notebook,
        policy: Policy,
        models_of: Callable[[Sequence[str]], tuple[str, ...]],
    ) -> None:
        self._client = client
        self._truth = truth
        self._census = census
        self._evictor = evictor
        self._loader = loader
        self._notes = notes
        self._models_of = models_of
        self._clock = asyncio.get_running_loop().time
        self.steward = Steward(policy, census.resident, lambda model: loader.pending(model) is not None)
        self.steward.warm = models_of(policy.warm)
        loader.on_wasted.append(self._wasted)
        self._todo: list[Action] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._checked: dict[str, float] = {}
        self._snoozed: dict[str, float] = {}
        self._touched_at = float("-inf")

    def start(self) -> None:
        """Begins with what has been observed so far."""
        self._task = asyncio.create_task(self._keep(), name="keeper")

    async def close(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def adopt(self, policy: Policy) -> None:
        """Another policy, from now on."""
        self.steward.adopt(policy)
        self.steward.warm = self._models_of(policy.warm)
        self._wake.set()

    def observe(self, event: SlotEvent) -> None:
        """Every event, before any subscriber sees it."""
        self._todo += self.steward.event(event, self._clock())
        self._wake.set()

    def _wasted(self, model: str, victims: tuple[str, ...]) -> None:
        self._todo += self.steward.wasted(model, victims, self._clock())
        self._wake.set()

    def served(self, model: str) -> None:
        """It answered a request as it should."""
        self.steward.budget.whole(model)

    async def _keep(self) -> None:
        while True:
            self._wake.clear()
            now = self._clock()
            todo, self._todo = self._todo, []
            residents = self._census.residents()
            todo += self.steward.due(now, residents, self._census.limits())
            for action in todo:
                await self._do(action)
            await self._touch()
            await self._pause()

    async def _pause(self) -> None:
        now = self._clock()
        self._snoozed = {model: until for model, until in self._snoozed.items() if until > now}
        residents = self._census.residents()
        moments = [self.steward.next_at(now, residents, self._snoozed), *self._snoozed.values()]
        if len(residents) > 1 and self._may_touch():
            moments.append(max(self._touched_at + TOUCH_EVERY_S, now + TOUCH_LOOK_S))
        moment = min((at for at in moments if at is not None), default=None)
        try:
            async with asyncio.timeout_at(moment):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _do(self, action: Action) -> None:
        match action:
            case Tell(kind=kind, text=text, model=model, details=details):
                self._notes.add(kind, text, model, **details)
            case NotBefore(model=model, at=at):
                self._loader.hold_off(model, at)
            case Bring(model=model, at=at):
                if at > self._clock():
                    self._loader.hold_off(model, at)
                warm = model in self.steward.warm
                self._loader.request(model, purpose=Purpose.WARM if warm else Purpose.RESTORE)
            case Abandon(model=model, reason=reason, until=until):
                self._loader.failures.abandon(model, reason, until)
                self._truth.publish(self._truth.ledger.abandon(model, reason))
            case EvictIdle():
                await self._evict_idle(action)

    async def _evict_idle(self, action: EvictIdle) -> None:
        """Looks once more first: somebody may have used it through lemond."""
        model, now = action.model, self._clock()
        if self._snoozed.get(model, now) > now:
            return
        if not self._truth.reachable or self._loader.pending(model) is not None:
            self._snoozed[model] = now + FRESH_S
            return
        if self._checked.get(model, float("-inf")) < now - action.idle_s + action.limit_s:
            self._checked[model] = now
            await self._truth.relisted(FRESH_S)
            self._wake.set()
            return
        text = f"{model} was unused for {action.idle_s:.0f} s (limit {action.limit_s:g} s)"
        self._notes.add(
            "slot.evicted_by_idle_policy",
            text,
            model,
            reason="idle",
            idle_s=round(action.idle_s, 3),
            idle_timeout_s=action.limit_s,
        )
        self._checked.pop(model, None)
        try:
            await self._evictor.begin(model, "idle")
        except LemondError as error:
            self._snoozed[model] = self._clock() + FRESH_S
            self._notes.add("slot.eviction_failed", f"{model} could not be unloaded: {error}", model)

    def _may_touch(self) -> bool:
        driver = self._truth.driver
        return driver is not None and driver.traits.load_touches

    async def _touch(self) -> None:
        now = self._clock()
        if not self._may_touch() or now - self._touched_at < TOUCH_EVERY_S:
            return
        residents = self._census.residents()
        entries = {entry.model: entry for entry in self._truth.ledger.loaded()}
        last_use = {name: entry.last_use for name, entry in entries.items() if entry.last_use is not None}
        used = {r.model: r.used_at for r in residents if r.leases}
        model = touch_due(residents, self._census.limits(), last_use, used)
        if model is None or model not in entries or self._loader.pending(model) is not None:
            return
        self._touched_at = now
        try:
            await self._client.load(model, entries[model].options)
        except LemondError as error:
            log.info("touch of %s: %s", model, error)
        self._truth.relist()
