"""Everything that acts on lemond, put together: loads, evictions, policies, and the answers meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lemond_adapter.acting.answers import Answers
from lemond_adapter.acting.catalogue import Catalogue
from lemond_adapter.acting.census import Census
from lemond_adapter.acting.evictor import Eviction, Evictor
from lemond_adapter.acting.history import LoadHistory
from lemond_adapter.acting.keeper import Keeper
from lemond_adapter.acting.leases import Leases
from lemond_adapter.acting.loader import Loader
from lemond_adapter.acting.notes import Notebook
from lemond_adapter.acting.policy import HANDS_OFF, Policy
from lemond_adapter.acting.waiting import Purpose
from lemond_adapter.truth.control import CatalogueEntry, LemondClient
from lemond_adapter.truth.truth import Truth
from lemond_adapter.types import (
    LemondError,
    LoadError,
    LoadFailed,
    LoadStarted,
    ModelLoaded,
    RouteInfo,
    SlotEvent,
    SlotMap,
)


class Actor:
    """One per adapter. `slots` is asked each time: they can be reloaded. Without a `policy` nothing
    happens unasked."""

    def __init__(
        self,
        client: LemondClient,
        truth: Truth,
        leases: Leases,
        history: LoadHistory,
        *,
        slots: Callable[[], SlotMap],
        public_name: Callable[[str], str],
        policy: Policy | None,
    ) -> None:
        self._client = client
        self._truth = truth
        self._leases = leases
        self._history = history
        self._slots = slots
        self._clock = asyncio.get_running_loop().time
        self._started: dict[str, float] = {}
        self.policy = policy or HANDS_OFF
        self.notes = Notebook(lambda: truth.hub.seq, lambda model: slots().slot_name(model))
        self.catalogue = Catalogue(client, public_name, self._sizes)
        self.evictor = Evictor(client, truth, leases, self.notes, lambda: self.policy.drain_timeout_s)
        self.census = Census(
            truth,
            leases,
            self.catalogue,
            slots=slots,
            policy=lambda: self.policy,
            leaving=self.evictor.leaving,
            clock=self._clock,
        )
        self.loader = Loader(
            client,
            truth,
            history,
            census=self.census,
            evictor=self.evictor,
            leases=leases,
            catalogue=self.catalogue,
            load_options=self._load_options,
        )
        self.answers = Answers(
            truth,
            self.loader,
            self.evictor,
            self.catalogue,
            history,
            self.census.promises,
            lambda: truth.address.url,
        )
        self.keeper: Keeper | None = None
        if policy is not None:
            self.keeper = Keeper(
                client,
                truth,
                census=self.census,
                evictor=self.evictor,
                loader=self.loader,
                notes=self.notes,
                policy=policy,
                models_of=self._models_of,
            )
        truth.hub.observers.append(self._observe)
        truth.loads_for_us = self.loader.running

    def start(self) -> None:
        """Begins to act unasked, where there is a policy. To be called after the first contact."""
        if self.keeper is not None:
            self.keeper.start()

    async def close(self) -> None:
        """Ends what runs; what lemond is in the middle of goes on there."""
        if self.keeper is not None:
            await self.keeper.close()
        await self.loader.close()
        await self.evictor.close()
        await self.catalogue.close()

    def adopt(self, policy: Policy) -> None:
        """Another policy, from now on."""
        self.policy = policy
        if self.keeper is not None:
            self.keeper.adopt(policy)

    def served(self, model: str) -> None:
        """A request was answered by its process as it should: it is no crash loop."""
        if self.keeper is not None:
            self.keeper.served(model)

    # Deeds.

    async def ensure_loaded(self, model: str, options: Mapping[str, Any] | None = None) -> RouteInfo | None:
        """Loads a model unless it is loaded; its route, or None when it has gone again already. Asked by
        somebody, so earlier failures do not count. Raises what the load raised."""
        route = self._truth.ledger.routes.get(model)
        if route is not None and options is None:
            return route
        self.forgive(model)
        load = self.loader.request(model, options)
        await load.done.wait()
        if load.error is not None:
            raise load.error
        return self._truth.ledger.routes.get(model)

    def forgive(self, model: str) -> None:
        """Somebody acts by hand: pauses, failures and deaths no longer count."""
        self.loader.forgive(model)
        if self.keeper is not None:
            self.keeper.steward.budget.whole(model)

    async def unload(self, model: str, *, force: bool = False) -> bool:
        """Drains and unloads; False when lemond had not loaded it. Raises `LoadError` of kind `rejected`
        when its requests did not end within the drain limit: it stays then, unless `force` is set."""
        outcome = await asyncio.shield(self.evictor.begin(model, "manual", force=force))
        if outcome is Eviction.BUSY:
            limit = self.policy.drain_timeout_s
            text = f"{model} has requests in flight that did not end within {limit:g} s; it stays loaded"
            raise LoadError(text, status_code=409, kind="rejected")
        return outcome is Eviction.DONE

    async def warm(self, models: Sequence[str]) -> dict[str, LemondError | None]:
        """Loads these, in this order, none of them at another's expense; per model None or its error."""
        wanted = frozenset(models)
        loads = {}
        for model in models:
            if model not in self._truth.ledger.routes:
                self.forgive(model)
                loads[model] = self.loader.request(model, purpose=Purpose.WARM, protected=wanted)
        outcome: dict[str, LemondError | None] = {}
        for model in models:
            if model in loads:
                await loads[model].done.wait()
                outcome[model] = loads[model].error
            else:
                outcome[model] = None
        return outcome

    async def touch(self, model: str) -> bool:
        """Tells lemond that a loaded model is in use, where a release lets that be told without harm: on
        10.8-11.6 the same call would reload it, and nothing is sent. Whether it was told."""
        driver = self._truth.driver
        if model not in self._truth.ledger.routes or driver is None or not driver.traits.load_touches:
            return False
        entry = self._truth.ledger.record(model).entry
        if entry is None:
            return False
        await self._client.load(model, entry.options)
        return True

    # Inner.

    def _models_of(self, names: Sequence[str]) -> tuple[str, ...]:
        """The models of slots (or models), by priority; disabled slots are left out."""
        slots = self._slots()
        found: list[tuple[int, str]] = []
        for name in names:
            slot = slots.named(name)
            if slot is None:
                found.append((0, name))
            elif slot.enabled and slot.model:
                found.append((slot.priority, slot.model))
        found.sort(key=lambda one: -one[0])
        return tuple(dict.fromkeys(model for _, model in found))

    def _load_options(self, model: str) -> Mapping[str, Any]:
        slot, driver = self._slots().of_model(model), self._truth.driver
        record = self._truth.ledger.records.get(model)
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
                self._history.size(entry.model, entry.size_gb)

    def _observe(self, event: SlotEvent) -> None:
        """Learns load times, and failures, from loads that others asked for as well."""
        model = event.model
        if model is not None:
            if isinstance(event, LoadStarted):
                self._started.setdefault(model, self._clock())
            elif isinstance(event, ModelLoaded):
                began = self._started.pop(model, None)
                if began is not None and self.loader.pending(model) is None:
                    self._history.add(model, self._clock() - began)
                self.loader.failures.over(model)
                self.loader.look_again()
            elif isinstance(event, LoadFailed):
                self._started.pop(model, None)
                self.loader.failures.note(model, event.reason, event.kind)
        if self.keeper is not None:
            self.keeper.observe(event)
