"""LemondAdapter: the one facade over everything that is known of a lemond, and done to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

from lemond_adapter.acting.catalogue import Catalogue
from lemond_adapter.acting.decision import Situation, Verdict, decide
from lemond_adapter.acting.history import LoadHistory
from lemond_adapter.acting.leases import Leases
from lemond_adapter.acting.loader import Loader
from lemond_adapter.drivers import Driver, Installed, Selection, installed_drivers, public_name
from lemond_adapter.truth.address import lemond_address
from lemond_adapter.truth.control import CatalogueEntry, LemondClient
from lemond_adapter.truth.hub import EventHub, Gap, HubClosed
from lemond_adapter.truth.logentry import LogEntry
from lemond_adapter.truth.record import Phase
from lemond_adapter.truth.truth import Timing, Truth
from lemond_adapter.types import (
    Knowledge,
    LemondError,
    LemondUnavailable,
    LoadedModel,
    LoadFailed,
    LoadStarted,
    ModelLoaded,
    ModelNotFound,
    Resynced,
    RouteInfo,
    SlotEvent,
    SlotLoading,
    SlotMap,
    SlotSpec,
)

log = logging.getLogger(__name__)

LOG_QUEUE = 10_000


class LemondAdapter:
    """Async context manager over one lemond.

    Entering waits until lemond was asked once, and does not fail when it is not there: what is known
    then is `Unknown`, and the adapter goes on trying. Raises `ConfigError` for a URL that is none.

    `slots` gives names to models; without them every model is addressed by its own name.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:13305",
        *,
        api_key: str | None = None,
        slots: Sequence[SlotSpec] = (),
        connect_timeout_s: float = 3.0,
        load_timeout_s: float = 600.0,
        heartbeat_s: float = 30.0,
        silence_s: float = 10.0,
        driver: str | None = None,
        installed: Installed | None = None,
    ) -> None:
        self.address = lemond_address(url)
        self.slots = SlotMap(slots)
        self.hub = EventHub()
        self.leases = Leases()
        self.history = LoadHistory()
        self.client = LemondClient(
            self.address,
            api_key=api_key,
            connect_timeout_s=connect_timeout_s,
            load_timeout_s=load_timeout_s,
        )
        self.api_key = api_key
        self.installed = installed_drivers() if installed is None else installed
        self._forced = driver
        self._timing = Timing(heartbeat_s=heartbeat_s, silence_s=silence_s)
        self._truth: Truth | None = None
        self._loader: Loader | None = None
        self._catalogue: Catalogue | None = None
        self._observer: asyncio.Task[None] | None = None

    # Life.

    async def __aenter__(self) -> LemondAdapter:
        truth = self._truth = Truth(
            self.address,
            self.client,
            self.hub,
            installed=self.installed,
            forced_driver=self._forced,
            api_key=self.api_key,
            slot_name=self.slots.slot_name,
            timing=self._timing,
        )
        self._loader = Loader(self.client, truth, self.history, self._load_options)
        self._catalogue = Catalogue(self.client, self.public_name, self._sizes)
        self._observer = asyncio.create_task(self._observe(), name="load observer")
        truth.start()
        await truth.first_contact()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._observer is not None:
            self._observer.cancel()
            await asyncio.gather(self._observer, return_exceptions=True)
        await self.loader.close()
        await self.catalogue.close()
        await self.truth.close()
        await self.client.close()

    @property
    def truth(self) -> Truth:
        """The list and the watch. Raises `RuntimeError` outside the context."""
        if self._truth is None:
            raise RuntimeError("LemondAdapter is not running: use 'async with LemondAdapter(...)'")
        return self._truth

    @property
    def loader(self) -> Loader:
        """The queue of loads."""
        if self._loader is None:
            raise RuntimeError("LemondAdapter is not running: use 'async with LemondAdapter(...)'")
        return self._loader

    @property
    def catalogue(self) -> Catalogue:
        """What lemond can serve."""
        if self._catalogue is None:
            raise RuntimeError("LemondAdapter is not running: use 'async with LemondAdapter(...)'")
        return self._catalogue

    # What is known.

    @property
    def version(self) -> str | None:
        """lemond's version, as health reports it; None before it was met."""
        return self.selection.version if self.selection else None

    @property
    def selection(self) -> Selection | None:
        """The chosen driver and how well it fits; None before lemond was met."""
        return self.truth.reading.selection

    @property
    def driver(self) -> Driver | None:
        """The driver in use."""
        return self.truth.driver

    def loaded(self) -> Knowledge[tuple[LoadedModel, ...]]:
        """What is loaded and routable: Known, or Unknown since when and why. No I/O."""
        return self.truth.knowledge()

    def public_name(self, name: str) -> str:
        """The public name of a model, given that or lemond's own (`extra.tiny-a`)."""
        listed = self.truth.ledger.records
        return self.driver.public_name(name, listed.keys()) if self.driver else public_name(name, listed)

    def resolve(self, name: str) -> tuple[SlotSpec | None, str]:
        """The slot (if any) and the model that a client's name stands for."""
        slot = self.slots.named(name)
        if slot is not None:
            return slot, slot.model
        model = name if name in self.truth.ledger.routes else self.public_name(name)
        return self.slots.of_model(model), model

    def route_now(self, name: str) -> RouteInfo | None:
        """The route of a slot or model as it stands; no I/O, no await."""
        slot = self.slots.named(name)
        route = self.truth.ledger.routes.get(slot.model if slot else name)
        return route if route is not None or slot is not None else self.truth.ledger.routes.get(
            self.public_name(name)
        )  # fmt: skip

    async def route_for(self, name: str) -> RouteInfo:
        """The route of a slot or model. On a miss a load is started in the background, once.

        Raises `SlotLoading` with the predicted wait, `SlotFailed` while a failed load's pause lasts,
        `ModelNotFound`, or `LemondUnavailable` when nothing is known of it and lemond is silent.
        """
        route = self.route_now(name)
        if route is not None:
            return route
        slot, model = self.resolve(name)
        raise await self.refusal(name, slot, model)

    async def refusal(self, name: str, slot: SlotSpec | None, model: str) -> LemondError:
        """Why a name has no route now, and the load that will give it one."""
        reachable = self.truth.reachable
        failed = self.loader.failure(model)
        known: bool | None = True
        if reachable and failed is None and slot is None and not self._met(model):
            known = await self.catalogue.knows(model)
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
                why = self.truth.unknown_why or f"it cannot be asked about {model!r}"
                return LemondUnavailable(f"lemond at {self.address.url}: {why}")
            case Verdict.FAILED if failed is not None:
                return failed
            case Verdict.NOT_FOUND:
                return ModelNotFound(f"no slot, alias or model of lemond is called {name!r}")
            case Verdict.LOAD:
                self.loader.request(model)
        return self.loading(slot, model)

    def _met(self, model: str) -> bool:
        record = self.truth.ledger.records.get(model)
        return record is not None and record.last_entry is not None

    def _lemond_loads(self, model: str) -> bool:
        """Whether lemond is in the middle of loading it for somebody else, and not for too long."""
        record = self.truth.ledger.records.get(model)
        if record is None or record.phase not in (Phase.STARTING, Phase.WARMING):
            return False
        if self.loader.pending(model) is not None:
            return False
        age = asyncio.get_running_loop().time() - record.since
        return age < max(60.0, 3 * self.history.guess(model))

    async def wait_for_route(self, model: str, timeout_s: float) -> RouteInfo | None:
        """The model's route as soon as it has one; None when `timeout_s` passed without."""
        subscription = self.hub.subscribe()
        try:
            async with asyncio.timeout(timeout_s):
                while (route := self.truth.ledger.routes.get(model)) is None:
                    await subscription.next_batch()
                return route
        except (TimeoutError, HubClosed):
            return None
        finally:
            subscription.close()

    def loading(self, slot: SlotSpec | None, model: str) -> SlotLoading:
        """The error that says how long to wait for a model."""
        record = self.truth.ledger.record(model)
        eta = self.loader.eta(model)
        state = _STATE_OF[record.phase]
        if state in ("offline", "error") and self.loader.pending(model) is not None:
            state = "starting"
        name = slot.name if slot else model
        return SlotLoading(
            f"{name} is {state}; try again in about {eta:.0f} s",
            model=model,
            slot=slot.name if slot else None,
            state=state,
            retry_after_s=eta,
            eta_s=eta if self.history.measured(model) is not None else None,
            queue_position=self.loader.position(model),
        )

    # What is done.

    async def ensure_loaded(self, name: str, options: Mapping[str, Any] | None = None) -> RouteInfo:
        """Loads a slot or model unless it is loaded, and waits for its route.

        `options` go to lemond's `/v1/load`; for a loaded model other options make lemond reload it.
        Raises what the load raised: `LoadError` with lemond's reason, `LemondUnavailable`, ...
        """
        slot, model = self.resolve(name)
        route = self.route_now(name)
        if route is not None and options is None:
            return route
        load = self.loader.request(model, options)
        await load.done.wait()
        if load.error is not None:
            raise load.error
        route = self.truth.ledger.routes.get(model)
        if route is None:
            raise self.loading(slot, model)
        return route

    async def touch(self, name: str) -> bool:
        """Tells lemond that a loaded model is in use, where a release lets that be told without harm:
        on 10.8-11.6 the same call would reload it, and nothing is sent. Whether it was told."""
        route, driver = self.route_now(name), self.driver
        if route is None or driver is None or not driver.traits.load_touches:
            return False
        entry = self.truth.ledger.record(route.model).entry
        if entry is None:
            return False
        await self.client.load(route.model, entry.options)
        return True

    async def unload(self, name: str) -> bool:
        """Unloads a slot or model; False when lemond had not loaded it. The route goes first."""
        _, model = self.resolve(name)
        self.truth.publish(self.truth.ledger.evicting_by_us(model, "manual"))
        try:
            done = await self.client.unload(model)
        except LemondError:
            self.truth.ledger.unload_failed(model)
            self.truth.relist()
            raise
        await self.truth.relisted(5.0)
        return done

    async def warm(self, names: Sequence[str]) -> dict[str, LemondError | None]:
        """Loads each of these, in order; per name None or the error. Never raises for a slot."""
        results: dict[str, LemondError | None] = {}
        for name in names:
            try:
                await self.ensure_loaded(name)
                results[name] = None
            except LemondError as error:
                results[name] = error
        return results

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[RouteInfo]:
        """The route, counted as in flight while the context lasts: never evicted by us meanwhile."""
        route = await self.route_for(name)
        with self.leases.hold(route.model):
            yield route

    # What happens.

    async def events(self, since: int | None = None) -> AsyncIterator[SlotEvent]:
        """SlotEvents from behind `since`, or from now, `seq` strictly increasing. Events that are no
        longer held are told by a `Resynced` of reason `gap`: look at `loaded()` then."""
        subscription = self.hub.subscribe(since)
        try:
            while True:
                try:
                    batch = await subscription.next_batch()
                except HubClosed:
                    return
                if isinstance(batch, Gap):
                    yield Resynced(seq=batch.resume_at, reason="gap", source="self")
                    continue
                for event in batch:
                    yield event
        finally:
            subscription.close()

    async def logs(self, since_seq: int | None = None) -> AsyncIterator[LogEntry]:
        """lemond's log entries as they come, from the one WebSocket, without duplicates. A reader that
        falls 10,000 entries behind misses the oldest of them."""
        queue: asyncio.Queue[LogEntry] = asyncio.Queue(LOG_QUEUE)

        def take(entry: LogEntry) -> None:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(entry)

        with self.truth.log_tap(take):
            while True:
                entry = await queue.get()
                if since_seq is None or entry.seq > since_seq:
                    yield entry

    # Inner.

    def _load_options(self, model: str) -> Mapping[str, Any]:
        slot, driver = self.slots.of_model(model), self.driver
        record = self.truth.ledger.records.get(model)
        options: Mapping[str, Any] = {}
        if slot is not None and slot.options is not None:
            options = slot.options
        elif record is not None and record.last_entry is not None and driver is not None:
            options = record.last_entry.options if driver.traits.options_reusable else {}
        if slot is not None and slot.pinned and driver is not None and driver.traits.pinning:
            options = {**options, "pinned": True}
        return options

    def _sizes(self, entries: tuple[CatalogueEntry, ...]) -> None:
        for entry in entries:
            if entry.size_gb is not None:
                self.history.size(entry.model, entry.size_gb)

    async def _observe(self) -> None:
        """Learns load times, and failures, from loads that others asked for as well."""
        started: dict[str, float] = {}
        loop = asyncio.get_running_loop()
        async for event in self.events():
            if event.model is None:
                continue
            if isinstance(event, LoadStarted):
                started.setdefault(event.model, loop.time())
            elif isinstance(event, ModelLoaded):
                began = started.pop(event.model, None)
                if began is not None and self.loader.pending(event.model) is None:
                    self.history.add(event.model, loop.time() - began)
                self.loader.note_loaded(event.model)
            elif isinstance(event, LoadFailed):
                started.pop(event.model, None)
                self.loader.note_failure(event.model, event.reason, event.kind)


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
