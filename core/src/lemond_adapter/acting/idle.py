"""Idle eviction: who has been unused for longer than its limit. Pure."""

from __future__ import annotations

from lemond_adapter.acting.residents import Resident, Residents


def idle_deadline(resident: Resident) -> float | None:
    """When it may be evicted for idleness; None while it must not be. A request in flight, however
    long its stream, is use."""
    if resident.idle_limit_s <= 0 or resident.pinned or resident.leases or resident.busy:
        return None
    if resident.leaving or resident.dead or resident.loading:
        return None
    return max(resident.used_at + resident.idle_limit_s, resident.awaited_until)


def overdue(residents: Residents, now: float) -> list[Resident]:
    """Those whose deadline has passed, the longest unused first."""
    late = [r for r in residents if (due := idle_deadline(r)) is not None and due <= now]
    return sorted(late, key=lambda r: r.used_at)
