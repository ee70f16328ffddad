"""What the policies look at: the models that lemond has, with what we know of their use. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resident:
    """One model in lemond's table. Times are of one monotonic clock, in seconds.

    `used_at` is the end of its last request, or of its load when there was none. `untried_until`: it
    was loaded for somebody who has not come back yet, and makes no room until then; `awaited_until`: nor
    is it idle until then. `leaving`: it is being evicted. `dead`: lemond lists it, its process is gone.
    `loading`: lemond is bringing it up, whoever asked. `unmetered`: no limit counts it (cloud, routing
    helpers).
    """

    model: str
    type: str = "llm"
    recipe: str = "llamacpp"
    device: str = ""
    leases: int = 0
    used_at: float = 0.0
    untried_until: float = 0.0
    awaited_until: float = 0.0
    pinned: bool = False
    priority: int = 0
    idle_limit_s: float = 0.0
    busy: bool = False
    leaving: bool = False
    dead: bool = False
    loading: bool = False
    unmetered: bool = False


Residents = Sequence[Resident]
Limits = Mapping[str, int]
"""Models per type, as health's `max_models` has them; a negative number is no limit."""


def limit_of(limits: Limits, kind: str) -> int | None:
    """How many models of a type lemond holds; None = any number. Types that lemond gives no key for
    (`audio-generation`, `mesh`) have the same limit as the others, which are all equal (10.5-11.7)."""
    found = limits.get(kind, next(iter(limits.values()), -1))
    return None if found < 0 else found


def counted(residents: Residents, kind: str) -> list[Resident]:
    """Those that fill places of a type."""
    return [r for r in residents if r.type == kind and not r.unmetered]
