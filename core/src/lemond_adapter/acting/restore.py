"""After a cascade or a restart of lemond: what to bring back, in which order. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from lemond_adapter.acting.residents import Limits, Residents, counted, limit_of
from lemond_adapter.types import EvictionReason


@dataclass(frozen=True, slots=True)
class Lost:
    """A model that went without anybody wanting that. `in_use`: it had requests in flight."""

    model: str
    type: str
    reason: EvictionReason
    at: float
    used_at: float
    in_use: bool = False
    pinned: bool = False
    priority: int = 0


def restore_order(
    lost: Iterable[Lost], residents: Residents, limits: Limits, *, without: Collection[str] = ()
) -> list[str]:
    """Pinned first, then what was in use, then by priority and last use; no more of a type than there
    is room for, so that bringing one back never evicts another."""
    here = {r.model for r in residents if not r.dead and not r.leaving}
    taken: dict[str, int] = {}
    order: list[str] = []
    ranked = sorted(lost, key=lambda one: (not one.pinned, not one.in_use, -one.priority, -one.used_at))
    for one in ranked:
        if one.model in here or one.model in without or one.model in order:
            continue
        limit = limit_of(limits, one.type)
        used = taken.setdefault(one.type, len([r for r in counted(residents, one.type) if r.model in here]))
        if limit is not None and used >= limit:
            continue
        taken[one.type] = used + 1
        order.append(one.model)
    return order
