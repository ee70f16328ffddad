"""LemondAdapter: the one facade over everything that is known of a lemond, and done to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

from lemond_adapter.acting.actor import Actor
from lemond_adapter.acting.catalogue import Catalogue
from lemond_adapter.acting.history import LoadHistory
from lemond_adapter.acting.leases import Leases
from lemond_adapter.acting.loader import Loader
from lemond_adapter.acting.policy import Policy
from lemond_adapter.drivers import Driver, Installed, Selection, installed_drivers, public_name
from lemond_adapter.truth.address import lemond_address
from lemond_adapter.truth.control import LemondClient
from lemond_adapter.truth.hub import EventHub, Gap, HubClosed
from lemond_adapter.truth.logentry import LogEntry
from lemond_adapter.truth.truth import Timing, Truth
from lemond_adapter.types import (
    Knowledge,
    LemondError,
    LoadedModel,
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

    `slots` gives names to models; without them every model is addressed by its own name. Without a
    `policy` nothing is done unasked: no idle eviction, no restart, no restoring. `seq_after` is the last
    event seq of an earlier run, where one is known: this run's events count on from there.
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
        policy: Policy | None = None,
        seq_after: int = 0,
        driver: str | None = None,
        installed: Installed | None = None,
    ) -> None:
        self.address = lemond_address(url)
        self.slots = SlotMap(slots)
        self.hub = EventHub(after=seq_after)
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
        self._policy = policy
        self._truth: Truth | None = None
        self._actor: Actor | None = None

    # Life.

    async def __aenter__(self) -> LemondAdapter:
        truth = self._truth = Truth(
            self.address,
            self.client,
            self.hub,
            installed=self.installed,
            forced_driver=self._forced,
            api_key=self.api_key,
            slot_name=lambda model: self.slots.slot_name(model),
            timing=self._timing,
        )
        self._actor = Actor(
            self.client,
            truth,
            self.leases,
            self.history,
            slots=lambda: self.slots,
            public_name=self.public_name,
            policy=self._policy,
        )
        truth.start()
        await truth.first_contact()
        self._actor.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.actor.close()
        await self.truth.close()
        await self.client.close()

    def reconfigure(self, slots: Sequence[SlotSpec], policy: Policy | None) -> None:
        """Other slots and another policy, from now on; routes and requests in flight stay. Raises
        `ConfigError` when two slots share a name, and changes nothing then."""
        self.slots = SlotMap(slots)
        self._policy = policy
        self.truth.ledger.rename(self.slots.slot_name)
        if self._actor is not None and policy is not None:
            self._actor.adopt(policy)

    @property
    def truth(self) -> Truth:
        """The list and the watch. Raises `RuntimeError` outside the context."""
        if self._truth is None:
            raise RuntimeError("LemondAdapter is not running: use 'async with LemondAdapter(...)'")
        return self._truth

    @property
    def actor(self) -> Actor:
        """What acts on lemond. Raises `RuntimeError` outside the context."""
        if self._actor is None:
            raise RuntimeError("LemondAdapter is not running: use 'async with LemondAdapter(...)'")
        return self._actor

    @property
    def loader(self) -> Loader:
        """The queue of loads."""
        return self.actor.loader

    @property
    def catalogue(self) -> Catalogue:
        """What lemond can serve."""
        return self.actor.catalogue

    @property
    def policy(self) -> Policy:
        """What is done unasked."""
        return self.actor.policy

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
        """Why a name has no route now; starts the load that will give it one."""
        return await self.actor.answers.refusal(name, slot, model)

    def loading(self, slot: SlotSpec | None, model: str) -> SlotLoading:
        """The error that says how long to wait for a model."""
        return self.actor.answers.loading(slot, model)

    async def wait_for_route(self, model: str, timeout_s: float) -> RouteInfo | None:
        """The model's route as soon as it has one; None: not in time, or its load failed."""
        return await self.actor.answers.wait_for_route(model, timeout_s)

    # What is done.

    async def ensure_loaded(self, name: str, options: Mapping[str, Any] | None = None) -> RouteInfo:
        """Loads a slot or model unless it is loaded, and waits for its route.

        `options` go to lemond's `/v1/load`; for a loaded model other options make lemond reload it.
        Raises what the load raised: `LoadError` with lemond's reason, `LemondUnavailable`, ...
        """
        slot, model = self.resolve(name)
        route = await self.actor.ensure_loaded(model, options)
        if route is None:
            raise self.loading(slot, model)
        return route

    async def touch(self, name: str) -> bool:
        """Tells lemond that a loaded model is in use, where its release lets that be told without harm;
        whether it was told."""
        return await self.actor.touch(self.resolve(name)[1])

    async def unload(self, name: str, *, force: bool = False) -> bool:
        """Unloads a slot or model: the route goes first, then its requests end, then the model. False when
        lemond had not loaded it. Raises `LoadError` of kind `rejected` when its requests did not end
        within the policy's drain limit; `force` cuts them instead of waiting."""
        return await self.actor.unload(self.resolve(name)[1], force=force)

    async def warm(self, names: Sequence[str]) -> dict[str, LemondError | None]:
        """Loads each of these, those of higher priority first; per name None or the error. Never raises
        for a slot, and never evicts one of them for another."""
        models = {name: self.resolve(name)[1] for name in names}
        ranked = sorted(dict.fromkeys(models.values()), key=lambda model: -self._priority(model))
        outcome = await self.actor.warm(ranked)
        return {name: outcome[model] for name, model in models.items()}

    def _priority(self, model: str) -> int:
        slot = self.slots.of_model(model)
        return slot.priority if slot else 0

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[RouteInfo]:
        """The route, counted as in flight while the context lasts: never evicted by us meanwhile."""
        route = await self.route_for(name)
        with self.leases.hold(route.model):
            yield route
        self.actor.served(route.model)

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
