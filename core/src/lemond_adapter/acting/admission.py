"""Admission: what must go before a load may be sent, so that lemond never chooses a victim itself.

lemond evicts by its own last use, which never sees requests that went straight to a child: it would
take the busiest model, in the middle of a stream (measured on 10.7.0: cut 5 s after SIGTERM). Pure.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lemond_adapter.acting.residents import Limits, Resident, Residents, counted, limit_of


@dataclass(frozen=True, slots=True)
class Newcomer:
    """The model to be loaded. `device` as lemond showed it last, empty when it never did."""

    model: str
    type: str = "llm"
    recipe: str = "llamacpp"
    device: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """It can be loaded now."""


@dataclass(frozen=True, slots=True)
class MakeRoom:
    """These go first; one with leases is drained, never cut."""

    victims: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet: look again at `until`, or when something changes."""

    until: float
    why: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing may go for it."""

    why: str


Admission = Room | MakeRoom | Wait | Refused

LOOK_AGAIN_S = 1.0


def admit(
    newcomer: Newcomer,
    residents: Residents,
    limits: Limits,
    now: float,
    *,
    may_evict: bool = True,
    protected: Collection[str] = (),
) -> Admission:
    """What to do before the newcomer is loaded. `protected` models are not chosen as victims."""
    others = [r for r in residents if r.model != newcomer.model]
    needed = {r.model: r for r in rivals(newcomer, others)}
    same = counted(others, newcomer.type)
    limit = limit_of(limits, newcomer.type)
    excess = 0 if limit is None else len(same) + 1 - limit - sum(r.model in needed for r in same)
    if not needed and excess <= 0:
        return Room()
    if any(r.loading for r in same):
        return Wait(now + LOOK_AGAIN_S, "lemond is loading another model of its type")
    free = [r for r in same if r.model not in needed and not r.pinned and r.model not in protected]
    free.sort(key=_cost)
    chosen = [*needed.values(), *free[: max(0, excess)]]
    if excess > len(free) or any(r.pinned for r in chosen):
        return Refused(_full(newcomer, limit, same, chosen))
    if not may_evict and any(not r.dead for r in chosen):
        return Refused(f"no place is free for {newcomer.model}, and nothing is evicted for it")
    untried = [r.untried_until for r in chosen if r.untried_until > now and not r.dead]
    if untried:
        return Wait(max(untried), "the model in its place was loaded for a client that is about to return")
    return MakeRoom(tuple(r.model for r in chosen))


def _cost(resident: Resident) -> tuple[bool, bool, bool, int, float]:
    """Cheapest victim first: the dead, the leaving, the unused, the unimportant, the long unused."""
    in_use = resident.leases > 0 or resident.busy
    return (not resident.dead, not resident.leaving, in_use, resident.priority, resident.used_at)


def _full(newcomer: Newcomer, limit: int | None, same: list[Resident], chosen: list[Resident]) -> str:
    pinned = sorted({r.model for r in (*same, *chosen) if r.pinned})
    held = f"pinned: {', '.join(pinned)}" if pinned else "none of them may be evicted for it"
    places = "the NPU" if limit is None else f"lemond's {limit} places for models of type {newcomer.type}"
    return f"{places} are taken ({held}); unload one first, or raise max_loaded_models in lemond"


_ALONE_ON_NPU = frozenset({"ryzenai-llm", "whispercpp"})


def _same_flm(newcomer: Newcomer, resident: Resident) -> bool:
    return resident.recipe == "flm" and resident.type == newcomer.type


def rivals(newcomer: Newcomer, others: Residents) -> list[Resident]:
    """Who cannot stay beside it on the NPU (lemond 10.5-10.8, `router.cpp`; later releases say the same
    through slot policies): `ryzenai-llm` and Whisper on the NPU tolerate nobody there, `flm` tolerates
    `flm` models of other types."""
    on_npu = [r for r in others if "npu" in r.device and not r.dead]
    if newcomer.recipe == "ryzenai-llm" or (newcomer.recipe in _ALONE_ON_NPU and "npu" in newcomer.device):
        return on_npu
    if newcomer.recipe == "flm":
        return [r for r in on_npu if r.recipe in _ALONE_ON_NPU or _same_flm(newcomer, r)]
    return []
