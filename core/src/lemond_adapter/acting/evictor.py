"""Evictions of ours: the route goes first, then the requests in flight end, then the model is unloaded.

A model with a request in flight is never unloaded, unless whoever asks says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum

from lemond_adapter.acting.leases import Leases
from lemond_adapter.acting.notes import Notebook
from lemond_adapter.truth.control import LemondClient
from lemond_adapter.truth.truth import Truth
from lemond_adapter.types import EvictionReason, LemondError

log = logging.getLogger(__name__)

SETTLE_S = 5.0

UNLOAD_S = 2.2
"""What an unload takes: lemond sleeps for 2 s after each child it ends (10.5.0-11.7.0; 2.1 s measured)."""


class Eviction(Enum):
    """What came of one."""

    DONE = "it is unloaded"
    ABSENT = "lemond had not loaded it"
    BUSY = "its requests did not end in time; it stays"


class Evictor:
    """One eviction at a time for each model; who asks for the same joins it."""

    def __init__(
        self,
        client: LemondClient,
        truth: Truth,
        leases: Leases,
        notes: Notebook,
        drain_s: Callable[[], float],
    ) -> None:
        self._client = client
        self._truth = truth
        self._leases = leases
        self._notes = notes
        self._drain_s = drain_s
        self._going: dict[str, asyncio.Task[Eviction]] = {}
        self._unloading: dict[str, float] = {}
        self._clock = asyncio.get_running_loop().time

    async def unload(self, model: str) -> bool:
        """Tells lemond; False when it had not loaded it."""
        self._unloading[model] = self._clock()
        try:
            return await self._client.unload(model)
        finally:
            del self._unloading[model]

    def remaining(self, model: str) -> float:
        """Seconds that its unload will still take, once its requests have ended."""
        since = self._unloading.get(model)
        return UNLOAD_S if since is None else max(0.2, UNLOAD_S - (self._clock() - since))

    def leaving(self, model: str) -> bool:
        """Whether an eviction of ours is under way."""
        return model in self._going

    async def settled(self, model: str) -> None:
        """Returns once no eviction of it is under way."""
        task = self._going.get(model)
        if task is not None:
            await asyncio.wait({task})

    def begin(
        self, model: str, reason: EvictionReason, *, force: bool = False, room_for: str | None = None
    ) -> asyncio.Task[Eviction]:
        """Starts it, or joins the one under way. Its error is for whoever awaits the task."""
        task = self._going.get(model)
        if task is None:
            if room_for is not None:
                self._notes.add(
                    "slot.makes_room", f"{model} makes room for {room_for}", model, room_for=room_for
                )
            # The route goes now, not when the task first runs: nobody takes a lease in between.
            self._truth.publish(self._truth.ledger.evicting_by_us(model, reason))
            task = asyncio.create_task(self._evict(model, force=force), name=f"evict {model}")
            self._going[model] = task
            task.add_done_callback(lambda ended: self._ended(model, ended))
        return task

    async def close(self) -> None:
        """Ends all of them; what lemond is in the middle of goes on there."""
        for task in list(self._going.values()):
            task.cancel()
        await asyncio.gather(*self._going.values(), return_exceptions=True)

    def _ended(self, model: str, task: asyncio.Task[Eviction]) -> None:
        self._going.pop(model, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("eviction of %s: %s", model, error)

    async def _evict(self, model: str, *, force: bool) -> Eviction:
        limit = self._drain_s()
        if not force and not await self._leases.idle(model, limit):
            self._truth.ledger.eviction_called_off(model)
            self._truth.relist()
            held = self._leases.held(model)
            text = f"{model} stays: {held} of its requests had not ended after {limit:g} s"
            self._notes.add("slot.eviction_called_off", text, model, drain_timeout_s=limit, in_flight=held)
            return Eviction.BUSY
        try:
            done = await self.unload(model)
        except LemondError:
            self._truth.ledger.eviction_called_off(model)
            self._truth.relist()
            raise
        await self._truth.relisted(SETTLE_S)
        return Eviction.DONE if done else Eviction.ABSENT
