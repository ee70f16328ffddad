"""The census: the residents of lemond's table as the policies see them, drawn from the ledger, the
slots and the leases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lemond_adapter.acting.admission import Newcomer
from lemond_adapter.acting.catalogue import Catalogue
from lemond_adapter.acting.leases import Leases
from lemond_adapter.acting.policy import Policy
from lemond_adapter.acting.promises import Promises
from lemond_adapter.acting.residents import Limits, Resident
from lemond_adapter.truth.record import Phase, Record
from lemond_adapter.truth.truth import Truth
from lemond_adapter.types import LoadedModel, SlotMap

_IN_TABLE = frozenset({Phase.LOADED, Phase.UNLOADING, Phase.DYING, Phase.STARTING, Phase.WARMING})


@dataclass(slots=True)
class _ForeignUse:
    """lemond's own counter of a model's use: a change that is not ours is somebody else's request."""

    counter: float | None
    at: float = 0.0


class Census:
    """One per adapter. `slots` and `policy` are asked each time: they can be reloaded."""

    def __init__(
        self,
        truth: Truth,
        leases: Leases,
        catalogue: Catalogue,
        *,
        slots: Callable[[], SlotMap],
        policy: Callable[[], Policy],
        leaving: Callable[[str], bool],
        clock: Callable[[], float],
    ) -> None:
        self._truth = truth
        self._leases = leases
        self._catalogue = catalogue
        self._slots = slots
        self._policy = policy
        self._leaving = leaving
        self._clock = clock
        self._foreign: dict[str, _ForeignUse] = {}
        self.untried: dict[str, float] = {}
        """Loaded on demand: until when it is left alone if nobody has used it yet."""
        self.promises = Promises(clock)
        """Not only the first of those who were told to come back is to find it."""
        leases.on_take.append(self.promises.kept)

    def limits(self) -> Limits:
        """Models per type, as the last listing had them; empty before the first."""
        listing = self._truth.listing
        return listing.max_models if listing is not None else {}

    def residents(self) -> list[Resident]:
        """Everything that fills a place in lemond's table, or is about to."""
        return [self._resident(record) for record in self._truth.ledger.records.values() if _present(record)]

    def resident(self, model: str) -> Resident:
        """One model, whether it is there or has just gone."""
        return self._resident(self._truth.ledger.records.get(model) or Record(model))

    def newcomer(self, model: str) -> Newcomer:
        """What a load of it will bring."""
        record = self._truth.ledger.records.get(model)
        entry = record.last_entry if record else None
        if entry is not None:
            return Newcomer(model, entry.type, entry.recipe, entry.device or "")
        return Newcomer(model, self._type(model, None), self._catalogue.recipe_of(model) or "llamacpp")

    def knows_type(self, model: str) -> bool:
        """Whether its type comes from lemond, not from the configuration."""
        record = self._truth.ledger.records.get(model)
        return (record is not None and record.last_entry is not None) or bool(self._catalogue.type_of(model))

    def _type(self, model: str, entry: LoadedModel | None) -> str:
        if entry is not None:
            return entry.type
        slot = self._slots().of_model(model)
        return self._catalogue.type_of(model) or (slot.type if slot else "llm")

    def _resident(self, record: Record) -> Resident:
        model, entry = record.model, record.last_entry
        slot, policy = self._slots().of_model(model), self._policy()
        leases = self._leases.held(model)
        used = self._leases.used_at.get(model, 0.0)
        loaded_at = record.since if record.phase is Phase.LOADED else 0.0
        foreign = self._foreign_use(record, entry)
        awaited = self.promises.until(model)
        untried = 0.0 if leases or used > loaded_at else self.untried.get(model, 0.0)
        return Resident(
            model=model,
            type=self._type(model, entry),
            recipe=entry.recipe if entry else self._catalogue.recipe_of(model) or "llamacpp",
            device=(entry.device or "") if entry else "",
            leases=leases,
            used_at=self._clock() if leases else max(used, loaded_at, foreign),
            untried_until=max(untried, awaited),
            awaited_until=awaited,
            pinned=bool(slot and slot.pinned),
            priority=slot.priority if slot else 0,
            idle_limit_s=policy.idle_limit(slot),
            busy=bool(entry and entry.busy and record.phase is Phase.LOADED),
            leaving=self._leaving(model) or record.phase in (Phase.UNLOADING, Phase.DYING),
            dead=record.needs_unload,
            loading=record.phase in (Phase.STARTING, Phase.WARMING),
            unmetered=_unmetered(entry),
        )

    def _foreign_use(self, record: Record, entry: LoadedModel | None) -> float:
        if entry is None or entry.last_use is None or record.phase is not Phase.LOADED:
            self._foreign.pop(record.model, None)
            return 0.0
        seen = self._foreign.get(record.model)
        if seen is None:
            self._foreign[record.model] = _ForeignUse(entry.last_use)
            return 0.0
        if seen.counter != entry.last_use:
            seen.counter, seen.at = entry.last_use, self._clock()
        return seen.at


def _present(record: Record) -> bool:
    return record.phase in _IN_TABLE or record.needs_unload


def _unmetered(entry: LoadedModel | None) -> bool:
    """Cloud models and, from 11.5 on, routing helpers fill no place of their type."""
    if entry is None:
        return False
    extra: Any = entry.extra.get("residency_class")
    return entry.recipe == "cloud" or extra == "routing_helper" or entry.extra.get("slot_pool") == "unmetered"
