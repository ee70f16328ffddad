"""The queue of loads: who is next, and how long each will take. Sans-IO."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from lemond_adapter.acting.history import LoadHistory
from lemond_adapter.types import LemondError


class Purpose(IntEnum):
    """Why a model is loaded; the lower goes first."""

    DEMAND = 0
    WARM = 1
    RESTORE = 2


@dataclass(slots=True)
class Load:
    """A load asked for: waiting, or running since `began`. Times are monotonic, in seconds."""

    model: str
    options: Mapping[str, Any] | None
    asked: float
    purpose: Purpose = Purpose.DEMAND
    protected: frozenset[str] = frozenset()
    """Models that are not evicted for it."""
    began: float | None = None
    not_before: float = 0.0
    resting_until: float = 0.0
    """The model in its place serves at least until then: nothing ends this pause early."""
    draining: bool = False
    """What must go first is going."""
    victims: tuple[str, ...] = ()
    """What goes for it."""
    called_off: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)
    error: LemondError | None = None

    def may_begin(self, now: float) -> bool:
        """Whether it can be tried now."""
        return not self.draining and self.earliest <= now

    @property
    def earliest(self) -> float:
        """When it may begin."""
        return max(self.not_before, self.resting_until)


class LoadQueue:
    """One load a model. Demand comes before warm-up, warm-up before restoring; within one purpose first
    come, first served."""

    def __init__(self, history: LoadHistory) -> None:
        self._history = history
        self._loads: dict[str, Load] = {}

    def __len__(self) -> int:
        return len(self._loads)

    def __iter__(self) -> Iterator[Load]:
        """In the order in which they will be done."""
        return iter(sorted(self._loads.values(), key=lambda one: (one.began is None, one.purpose, one.asked)))

    def get(self, model: str) -> Load | None:
        """The load of this model."""
        return self._loads.get(model)

    def add(self, load: Load) -> Load:
        """This load, or the one that is there already: it then serves the more urgent purpose."""
        there = self._loads.setdefault(load.model, load)
        if there is not load:
            there.purpose = min(there.purpose, load.purpose)
            there.options = there.options if load.options is None or there.began else load.options
        return there

    def remove(self, load: Load) -> None:
        """It has ended."""
        self._loads.pop(load.model, None)

    def next(self, now: float) -> Load | None:
        """The one to try now."""
        return next((load for load in self if load.may_begin(now)), None)

    def next_moment(self) -> float | None:
        """When one of those that only wait for their time may begin."""
        return min((load.earliest for load in self._loads.values() if not load.draining), default=None)

    def position(self, model: str) -> int | None:
        """0 for the one that runs or is next, 1 for the one behind it, ...; None when none is asked for."""
        return next((index for index, load in enumerate(self) if load.model == model), None)

    def eta(self, model: str, now: float, room_s: Callable[[Load, float], float]) -> float | None:
        """Seconds until it is loaded, with all before it; None when no load of it was asked for. `room_s`
        says how long making room for a load will still take."""
        total = 0.0
        for load in self:
            started = load.began if load.began is not None else now
            total = max(total, load.earliest - now) + room_s(load, now)
            total += self._history.remaining(load.model, now - started)
            if load.model == model:
                return total
        return None
