"""Loads models through lemond: one at a time, once each, by tasks that no caller's leaving cancels.

lemond itself serialises loads and serves waiters in no order (10.5.0-11.7.0), so the queue is ours.
Before a load is sent, there is room for it: what must go is evicted by us, never by lemond.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from lemond_adapter.acting.admission import Admission, MakeRoom, Refused, Room, Wait, admit
from lemond_adapter.acting.catalogue import Catalogue
from lemond_adapter.acting.census import Census
from lemond_adapter.acting.evictor import UNLOAD_S, Eviction, Evictor
from lemond_adapter.acting.failures import Failures
from lemond_adapter.acting.history import LoadHistory
from lemond_adapter.acting.leases import Leases
from lemond_adapter.acting.preflight import objection
from lemond_adapter.acting.waiting import Load, LoadQueue, Purpose
from lemond_adapter.truth.control import LemondClient
from lemond_adapter.truth.record import Phase
from lemond_adapter.truth.truth import Truth
from lemond_adapter.types import LemondError, LemondHTTPError, LemondUnavailable, LoadError

log = logging.getLogger(__name__)

SETTLE_S = 20.0
"""How long after lemond's "success" the listing may take to show the model."""

RETURN_S = 10.0
"""How long a model loaded on demand is left alone when nobody has used it yet: the client that was
told to come back does so after the predicted wait, which may be a quarter too long."""

LONGEST_STREAM_GUESS_S = 15.0
"""Doubling waits overshoot: a client that comes this often loses little."""

PATIENCE = 5
"""So often a load waits in vain for the requests of its victim to end, each time up to the drain limit."""

BUSY_PAUSE_S = 2.0
"""After a called-off eviction the model in place serves at least for so long."""


class Loader:
    """One per adapter. `load_options` gives what to send for a model when the caller names nothing."""

    def __init__(
        self,
        client: LemondClient,
        truth: Truth,
        history: LoadHistory,
        *,
        census: Census,
        evictor: Evictor,
        leases: Leases,
        catalogue: Catalogue,
        load_options: Callable[[str], Mapping[str, Any]],
    ) -> None:
        self._client = client
        self._truth = truth
        self._history = history
        self._census = census
        self._evictor = evictor
        self._leases = leases
        self._catalogue = catalogue
        self._load_options = load_options
        self._clock = asyncio.get_running_loop().time
        self._queue = LoadQueue(history)
        self._not_before: dict[str, float] = {}
        self._worker: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._drains: set[asyncio.Task[None]] = set()
        self.failures = Failures(self._clock)
        self.on_wasted: list[Callable[[str, tuple[str, ...]], None]] = []
        """Told of a load that failed after others had gone for it, and of those."""
        leases.on_idle.append(lambda model: self.look_again())

    # Asking.

    def request(
        self,
        model: str,
        options: Mapping[str, Any] | None = None,
        *,
        purpose: Purpose = Purpose.DEMAND,
        protected: frozenset[str] = frozenset(),
    ) -> Load:
        """The load of this model: the one under way, or a new one in the queue."""
        load = self._queue.add(
            Load(
                model,
                options,
                self._clock(),
                purpose,
                protected,
                not_before=self._not_before.get(model, 0.0),
            )
        )
        self._changed.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="loader")
        return load

    def hold_off(self, model: str, until: float) -> None:
        """Whoever asks: it is not loaded before `until`."""
        self._not_before[model] = until
        if (load := self._queue.get(model)) is not None:
            load.not_before = until

    def forgive(self, model: str) -> None:
        """Somebody acts: pauses no longer count."""
        self.failures.forgive(model)
        self._not_before.pop(model, None)
        if (load := self._queue.get(model)) is not None:
            load.not_before = 0.0

    def look_again(self) -> None:
        """Something changed that a waiting load may have waited for. Called after every request."""
        if not len(self._queue):
            return
        for load in self._queue:
            if load.began is None and load.not_before and load.model not in self._not_before:
                load.not_before = 0.0
        self._changed.set()

    def pending(self, model: str) -> Load | None:
        """Its load, waiting or running."""
        return self._queue.get(model)

    def running(self, model: str) -> bool:
        """Whether lemond is loading it for us."""
        load = self._queue.get(model)
        return load is not None and load.began is not None

    def position(self, model: str) -> int | None:
        """0 when its load is running or next, 1 behind that, ...; None when none is asked for."""
        return self._queue.position(model)

    def eta(self, model: str) -> float:
        """Seconds until the model can be expected to be routable, queue included."""
        now = self._clock()
        queued = self._queue.eta(model, now, self._room_s)
        if queued is not None:
            return max(0.0, queued)
        before = sum(self._history.remaining(load.model, 0.0) for load in self._queue)
        record = self._truth.ledger.records.get(model)
        if record is not None and self._census.resident(model).loading:
            return before + self._history.remaining(model, now - record.since)
        return before + self._history.guess(model)

    def _room_s(self, load: Load, now: float) -> float:
        """Until its place is free. Nobody knows how long a stream still runs: as long again as it was
        waited for."""
        if load.began is not None:
            return 0.0
        victims = load.victims if load.draining else ()
        if self._evictor.leaving(load.model) or self._ending(load.model):
            victims = (load.model,)
        elif not load.draining:
            match self._verdict(load):
                case MakeRoom(victims=chosen):
                    victims = chosen
                case Wait(until=until):
                    return max(0.0, until - max(now, load.earliest)) + UNLOAD_S
        streaming = load.draining and any(self._leases.held(victim) for victim in victims)
        waited = min(now - load.asked, LONGEST_STREAM_GUESS_S) if streaming else 0.0
        return sum(map(self._evictor.remaining, victims)) + waited

    def _ending(self, model: str) -> bool:
        """Whether lemond has an earlier child of it to end, or a dead one to tidy up."""
        record = self._truth.ledger.records.get(model)
        return record is not None and (record.needs_unload or record.phase in _ENDING)

    def _must_unload(self, model: str) -> bool:
        record = self._truth.ledger.records.get(model)
        return record is not None and record.needs_unload and self._lists_dead()

    async def close(self) -> None:
        """Forgets the queue. A load that lemond is in the middle of goes on there."""
        tasks = [*self._drains, *([self._worker] if self._worker else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Working.

    async def _work(self) -> None:
        while len(self._queue):
            self._changed.clear()
            load = self._queue.next(self._clock())
            if load is None:
                await self._until_changed()
                continue
            try:
                if not await self._admitted(load):
                    continue
                await self._load(load)
            except LemondError as error:
                load.error = error
                log.warning("load of %s: %s", load.model, error)
                if load.victims:
                    for tell in self.on_wasted:
                        tell(load.model, load.victims)
            except BaseException as error:
                # Whoever waits for it must not wait for ever; the next request starts another worker.
                load.error = LemondError(f"the load of {load.model} was broken off: {error!r:.200}")
                self._end(load)
                raise
            self._end(load)

    def _end(self, load: Load) -> None:
        self._queue.remove(load)
        load.done.set()

    async def _until_changed(self) -> None:
        moment = self._queue.next_moment()
        try:
            async with asyncio.timeout_at(moment):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _admitted(self, load: Load) -> bool:
        """Whether it can be sent now. Raises `LoadError` when nothing may go for it."""
        if self._evictor.leaving(load.model):
            # Whom it goes for was first; its own turn comes after that, and other loads go on meanwhile.
            self._draining(load, (load.model,), self._settle(load))
            return False
        if self._admission(load, waits_only=True):
            return False
        # What the listing says now decides: the miss that asked for this load may be over.
        await self._truth.relisted(SETTLE_S)
        if not self._truth.reachable:
            # Nothing is evicted for a load that cannot be sent.
            raise LemondUnavailable(f"{load.model} was not loaded: {self._truth.unknown_why}")
        if self._routed(load):
            return True
        self._check(load)
        if not self._census.knows_type(load.model):
            await self._catalogue.refresh()
        return not self._admission(load)

    def _check(self, load: Load) -> None:
        """Raises `LoadError` for what lemond would refuse: nothing is evicted for that."""
        why = objection(self._options(load))
        if why is not None:
            self.failures.note(load.model, why, "rejected")
            raise LoadError(why, status_code=400, kind="rejected")

    def _options(self, load: Load) -> Mapping[str, Any]:
        return self._load_options(load.model) if load.options is None else load.options

    def _routed(self, load: Load) -> bool:
        return load.options is None and load.model in self._truth.ledger.routes

    def _admission(self, load: Load, *, waits_only: bool = False) -> bool:
        """Whether it has to wait; starts what it waits for."""
        match self._verdict(load):
            case Room():
                return False
            case Wait(until=until):
                load.not_before = until
                return True
            case Refused(why=why) if not waits_only:
                self.failures.note(load.model, why, "rejected")
                raise LoadError(why, status_code=409, kind="rejected")
            case MakeRoom(victims=victims) if not waits_only:
                self._draining(load, victims, self._make_room(load, victims))
                return True
        return False

    def _verdict(self, load: Load) -> Admission:
        return admit(
            self._census.newcomer(load.model),
            self._census.residents(),
            self._census.limits(),
            self._clock(),
            may_evict=load.purpose is not Purpose.RESTORE,
            protected=load.protected,
        )

    def _draining(self, load: Load, victims: tuple[str, ...], going: Coroutine[Any, Any, None]) -> None:
        load.draining, load.victims = True, victims
        task = asyncio.create_task(going, name=f"room for {load.model}")
        self._drains.add(task)
        task.add_done_callback(self._drains.discard)

    async def _settle(self, load: Load) -> None:
        await self._evictor.settled(load.model)
        load.draining = False
        self._changed.set()

    async def _make_room(self, load: Load, victims: tuple[str, ...]) -> None:
        """The other loads go on meanwhile. Victims that are in use go last: they may stay after all."""
        try:
            for victim in sorted(victims, key=self._leases.held):
                if await self._evictor.begin(victim, "lru", room_for=load.model) is Eviction.BUSY:
                    self._called_off(load, victim)
                    return
            load.not_before = 0.0
        except LemondError as error:
            load.error = error
            self._end(load)
        finally:
            load.draining = False
            self._changed.set()

    def _called_off(self, load: Load, victim: str) -> None:
        load.called_off += 1
        load.resting_until = self._clock() + BUSY_PAUSE_S
        if load.called_off >= PATIENCE:
            text = f"{victim} is in its place and its requests do not end; {load.model} was not loaded"
            load.error = LoadError(text, status_code=409, kind="rejected")
            self._end(load)

    def _lists_dead(self) -> bool:
        """Whether only an unload rids lemond of a dead child; where a watchdog does, a load is enough."""
        driver = self._truth.driver
        return driver is None or driver.traits.lists_dead_children

    async def _load(self, load: Load) -> None:
        model, ledger = load.model, self._truth.ledger
        if self._routed(load):
            return
        record = ledger.record(model)
        if self._must_unload(model):
            await self._evictor.unload(model)
        load.began = self._clock()
        if load.options is not None and model in ledger.routes:
            if _has_options(record.entry.options if record.entry else {}, load.options):
                return
            # lemond would reload it, and cut what is in flight.
            if await self._evictor.begin(model, "reload") is Eviction.BUSY:
                text = f"{model} is in use; its options cannot be changed now"
                raise LoadError(text, status_code=409, kind="rejected")
        options = self._options(load)
        try:
            await self._client.load(model, options)
        except LoadError as error:
            self.failures.note(model, error.reason, error.kind)
            self._truth.relist()
            raise
        await self._truth.relisted(SETTLE_S)
        if model not in ledger.routes and record.needs_unload and self._lists_dead():
            # lemond took a dead child for loaded (<= 10.7): the listing showed it only now.
            await self._client.unload(model)
            await self._client.load(model, options)
            await self._truth.relisted(SETTLE_S)
        if model not in ledger.routes:
            raise LemondHTTPError(
                f"lemond said that {model} is loaded, but its listing does not show it", status_code=200
            )
        self._loaded(load)

    def _loaded(self, load: Load) -> None:
        now = self._clock()
        took = now - (load.began or now)
        self._history.add(load.model, took)
        self.failures.over(load.model)
        self._not_before.pop(load.model, None)
        if load.purpose is Purpose.DEMAND:
            self._census.untried[load.model] = now + max(RETURN_S, took / 4)


_ENDING = frozenset({Phase.UNLOADING, Phase.DYING, Phase.CRASHED})


def _has_options(shown: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(key in shown and shown[key] == value for key, value in wanted.items())
