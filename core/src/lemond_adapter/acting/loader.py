"""Loads models through lemond: one at a time, once each, by tasks that no caller's leaving cancels.

lemond itself serialises loads and serves waiters in no order (10.5.0-11.7.0), so the queue is ours:
first come, first served. A load is never repeated blindly: a failed one makes lemond evict every
model and try once more (measured 19 s on 10.7.0), so after a failure there is a growing pause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lemond_adapter.acting.history import LoadHistory
from lemond_adapter.truth.control import LemondClient
from lemond_adapter.truth.ledger import Ledger
from lemond_adapter.truth.record import Phase
from lemond_adapter.truth.truth import Truth
from lemond_adapter.types import LemondError, LemondHTTPError, LoadError, SlotFailed

log = logging.getLogger(__name__)

SETTLE_S = 20.0
"""How long after lemond's "success" the listing may take to show the model."""

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 300.0
TOLD_TWICE_S = 2.0


@dataclass(slots=True)
class Failure:
    """Why the last load failed, and until when another is not tried."""

    reason: str
    kind: str
    at: float
    until: float
    pause: float


@dataclass(slots=True)
class Load:
    """A load asked for: waiting, or running since `began`."""

    model: str
    options: Mapping[str, Any] | None
    asked: float
    began: float | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    error: LemondError | None = None


class Loader:
    """One per adapter. `load_options` gives what to send for a model when the caller names nothing."""

    def __init__(
        self,
        client: LemondClient,
        truth: Truth,
        history: LoadHistory,
        load_options: Callable[[str], Mapping[str, Any]],
    ) -> None:
        self._client = client
        self._truth = truth
        self._ledger: Ledger = truth.ledger
        self._history = history
        self._load_options = load_options
        self._queue: dict[str, Load] = {}
        self._worker: asyncio.Task[None] | None = None
        self._clock = asyncio.get_running_loop().time
        self.failures: dict[str, Failure] = {}

    def request(self, model: str, options: Mapping[str, Any] | None = None) -> Load:
        """The load of this model: the one under way, or a new one at the end of the queue."""
        load = self._queue.get(model)
        if load is None:
            load = self._queue[model] = Load(model, options, self._clock())
            if self._worker is None or self._worker.done():
                self._worker = asyncio.create_task(self._work(), name="loader")
        return load

    def pending(self, model: str) -> Load | None:
        """Its load, waiting or running."""
        return self._queue.get(model)

    def position(self, model: str) -> int | None:
        """0 when its load is running, 1 when it is next, ...; None when none is asked for."""
        for index, name in enumerate(self._queue):
            if name == model:
                return index
        return None

    def failure(self, model: str) -> SlotFailed | None:
        """The error to answer while the pause after a failed load lasts."""
        failed = self.failures.get(model)
        if failed is None:
            return None
        left = failed.until - self._clock()
        if left <= 0:
            return None
        return SlotFailed(failed.reason, model=model, retry_after_s=left, kind=failed.kind)

    def note_failure(self, model: str, reason: str, kind: str) -> None:
        """A load of it failed, whoever asked for it: pause, twice as long as the last time."""
        before = self.failures.get(model)
        now = self._clock()
        if before is not None and now - before.at < TOLD_TWICE_S:
            before.reason, before.kind = reason, kind
            return  # the same failure, told by the log and by the answer
        pause = FIRST_PAUSE_S if before is None else min(before.pause * 2, LONGEST_PAUSE_S)
        self.failures[model] = Failure(reason, kind, now, now + pause, pause)

    def note_loaded(self, model: str) -> None:
        """It is loaded: earlier failures are over."""
        self.failures.pop(model, None)

    def eta(self, model: str) -> float:
        """Seconds until the model can be expected to be routable, queue included."""
        now = self._clock()
        total = 0.0
        for load in self._queue.values():
            started = load.began if load.began is not None else now
            total += self._history.remaining(load.model, now - started)
            if load.model == model:
                return total
        record = self._ledger.records.get(model)
        if record is not None and record.phase in (Phase.STARTING, Phase.WARMING):
            return total + self._history.remaining(model, now - record.since)
        return total + self._history.guess(model)

    async def close(self) -> None:
        """Forgets the queue. A load that lemond is in the middle of goes on there."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    async def _work(self) -> None:
        while self._queue:
            load = next(iter(self._queue.values()))
            load.began = self._clock()
            try:
                await self._load(load)
            except LemondError as error:
                load.error = error
                log.warning("load of %s: %s", load.model, error)
            finally:
                self._queue.pop(load.model, None)
                load.done.set()

    def _lists_dead(self) -> bool:
        """Whether only an unload rids lemond of a dead child; where a watchdog does, a load is enough."""
        driver = self._truth.driver
        return driver is None or driver.traits.lists_dead_children

    async def _load(self, load: Load) -> None:
        # What the listing says now decides: the miss that asked for this load may be over.
        await self._truth.relisted(SETTLE_S)
        if load.options is None and load.model in self._ledger.routes:
            return
        record = self._ledger.record(load.model)
        if record.needs_unload and self._lists_dead():
            await self._client.unload(load.model)
        options = self._load_options(load.model) if load.options is None else load.options
        began = load.began if load.began is not None else self._clock()
        try:
            await self._client.load(load.model, options)
        except LoadError as error:
            self.note_failure(load.model, error.reason, error.kind)
            self._truth.relist()
            raise
        await self._truth.relisted(SETTLE_S)
        if load.model not in self._ledger.routes and record.needs_unload and self._lists_dead():
            # lemond took a dead child for loaded (<= 10.7): the listing showed it only now.
            await self._client.unload(load.model)
            await self._client.load(load.model, options)
            await self._truth.relisted(SETTLE_S)
        if load.model not in self._ledger.routes:
            raise LemondHTTPError(
                f"lemond said that {load.model} is loaded, but its listing does not show it",
                status_code=200,
            )
        self._history.add(load.model, self._clock() - began)
        self.note_loaded(load.model)
