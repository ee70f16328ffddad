"""What to answer for a name without a route, and the load that will give it one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from lemond_adapter.acting.catalogue import Catalogue
from lemond_adapter.acting.decision import Situation, Verdict, decide
from lemond_adapter.acting.evictor import Evictor
from lemond_adapter.acting.history import LoadHistory
from lemond_adapter.acting.loader import Loader
from lemond_adapter.acting.promises import Promises
from lemond_adapter.acting.waiting import Load
from lemond_adapter.truth.hub import HubClosed, Subscription
from lemond_adapter.truth.record import Phase
from lemond_adapter.truth.truth import Truth
from lemond_adapter.types import (
    LemondError,
    LemondUnavailable,
    ModelNotFound,
    RouteInfo,
    SlotLoading,
    SlotSpec,
)

_STATE_OF = {
    Phase.STARTING: "starting",
    Phase.WARMING: "warming",
    Phase.UNLOADING: "unloading",
    Phase.DYING: "unloading",
    Phase.LOADED: "ready",
    Phase.ABSENT: "offline",
    Phase.CRASHED: "offline",
    Phase.FAILED: "error",
}


class Answers:
    """One per adapter."""

    def __init__(
        self,
        truth: Truth,
        loader: Loader,
        evictor: Evictor,
        catalogue: Catalogue,
        history: LoadHistory,
        promises: Promises,
        lemond_url: Callable[[], str],
    ) -> None:
        self._truth = truth
        self._loader = loader
        self._evictor = evictor
        self._catalogue = catalogue
        self._history = history
        self._promises = promises
        self._url = lemond_url

    async def refusal(self, name: str, slot: SlotSpec | None, model: str) -> LemondError:
        """Why a name has no route now; starts the load that will give it one."""
        if slot is not None and not slot.enabled:
            return ModelNotFound(f"slot {slot.name!r} is disabled; set enabled = true to use it")
        reachable = self._truth.reachable
        failed = self._loader.failures.standing(model)
        known: bool | None = True
        if reachable and failed is None and slot is None and not self._met(model):
            known = await self._catalogue.knows(model)
        verdict = decide(
            Situation(
                reachable=reachable,
                known=known,
                failed=failed is not None,
                lemond_busy=self._lemond_loads(model),
            )
        )
        match verdict:
            case Verdict.UNAVAILABLE:
                why = self._truth.unknown_why or f"it cannot be asked about {model!r}"
                return LemondUnavailable(f"lemond at {self._url()}: {why}")
            case Verdict.FAILED if failed is not None:
                failed.slot = slot.name if slot else None
                return failed
            case Verdict.NOT_FOUND:
                return ModelNotFound(f"no slot, alias or model of lemond is called {name!r}")
            case Verdict.LOAD:
                self._loader.request(model)
        return self.loading(slot, model)

    async def wait_for_route(self, model: str, timeout_s: float) -> RouteInfo | None:
        """The model's route as soon as it has one; None when `timeout_s` passed without, or when its load
        ended in failure before."""
        routes, subscription = self._truth.ledger.routes, self._truth.hub.subscribe()
        try:
            async with asyncio.timeout(timeout_s):
                while model not in routes and self._loader.failures.standing(model) is None:
                    await self._news(subscription, self._loader.pending(model))
        except (TimeoutError, HubClosed):
            return None
        finally:
            subscription.close()
        return routes.get(model)

    @staticmethod
    async def _news(subscription: Subscription, load: Load | None) -> None:
        """An event, or the end of the load."""
        waits: set[asyncio.Task[Any]] = {asyncio.create_task(subscription.next_batch())}
        if load is not None:
            waits.add(asyncio.create_task(load.done.wait()))
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def loading(self, slot: SlotSpec | None, model: str) -> SlotLoading:
        """The error that says how long to wait for a model."""
        record = self._truth.ledger.record(model)
        eta = self._loader.eta(model)
        self._promises.made(model, eta)
        state = _STATE_OF[record.phase]
        if state in ("offline", "error") and self._loader.pending(model) is not None:
            state = "starting"
        if self._evictor.leaving(model):
            state = "unloading"
        name = slot.name if slot else model
        return SlotLoading(
            f"{name} is {state}; try again in about {max(1.0, eta):.0f} s",
            model=model,
            slot=slot.name if slot else None,
            state=state,
            retry_after_s=eta,
            eta_s=eta if self._history.measured(model) is not None else None,
            queue_position=self._loader.position(model),
        )

    def _met(self, model: str) -> bool:
        record = self._truth.ledger.records.get(model)
        return record is not None and record.last_entry is not None

    def _lemond_loads(self, model: str) -> bool:
        """Whether lemond is in the middle of loading it for somebody else, and not for too long."""
        record = self._truth.ledger.records.get(model)
        if record is None or record.phase not in (Phase.STARTING, Phase.WARMING):
            return False
        if self._loader.pending(model) is not None:
            return False
        age = asyncio.get_running_loop().time() - record.since
        return age < max(60.0, 3 * self._history.guess(model))
