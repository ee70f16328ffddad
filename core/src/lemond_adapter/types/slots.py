"""A slot: a name that clients use for a model, with what the operator wants for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lemond_adapter.types.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SlotSpec:
    """One configured slot.

    `options` are sent with every `/v1/load` of ours; None means: those lemond last showed, where the
    release allows that, else lemond's defaults. `hold_s` is how long a request may wait for the route
    by default, in seconds. `pinned` slots are never evicted by us; those of higher `priority` are warmed
    and restored first. `max_in_flight` (0 = no limit) bounds the requests running at once, `max_queue`
    those that wait for one of them to end.
    """

    name: str
    model: str
    aliases: tuple[str, ...] = ()
    type: str = "llm"
    backend: str = ""
    enabled: bool = True
    options: Mapping[str, Any] | None = None
    idle_timeout_s: float | None = None
    hold_s: float | None = None
    pinned: bool = False
    priority: int = 0
    max_in_flight: int = 0
    max_queue: int = 64
    extra: Mapping[str, Any] = field(default_factory=dict)


class SlotMap:
    """Slot names and aliases to models, and back. Names are matched exactly; a name that is no slot
    stands for the model of that name."""

    def __init__(self, slots: Iterable[SlotSpec] = ()) -> None:
        self.slots: dict[str, SlotSpec] = {}
        self._by_name: dict[str, SlotSpec] = {}
        self._by_model: dict[str, SlotSpec] = {}
        for slot in slots:
            self.slots[slot.name] = slot
            for name in (slot.name, *slot.aliases):
                if name in self._by_name:
                    raise ConfigError(
                        f"slot {slot.name!r}: the name {name!r} is already taken by slot "
                        f"{self._by_name[name].name!r}; slot names and aliases must differ"
                    )
                self._by_name[name] = slot
            if slot.model:
                self._by_model.setdefault(slot.model, slot)

    def named(self, name: str) -> SlotSpec | None:
        """The slot of this name or alias."""
        return self._by_name.get(name)

    def of_model(self, model: str) -> SlotSpec | None:
        """The first slot that is for this model."""
        return self._by_model.get(model)

    def slot_name(self, model: str) -> str | None:
        """Its name, for events and routes."""
        slot = self._by_model.get(model)
        return slot.name if slot else None

    def aliases(self) -> Iterable[tuple[str, SlotSpec]]:
        """Every name a client may use for a slot."""
        return self._by_name.items()
