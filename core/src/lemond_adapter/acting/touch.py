"""Keeping lemond's own LRU honest: which model to touch so that its victim would be ours. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from lemond_adapter.acting.residents import Limits, Residents, counted, limit_of


def touch_due(
    residents: Residents, limits: Limits, last_use: Mapping[str, float], used: Mapping[str, float]
) -> str | None:
    """The model that lemond would evict next although others have been unused for longer.

    `last_use` is lemond's own order (only its order is used), `used` when requests of ours last ended
    or "now" for those in flight. None where the table is not full, holds one model, or lemond's choice
    is also ours.
    """
    for kind in {r.type for r in residents}:
        same = [r for r in counted(residents, kind) if not r.dead and not r.pinned and r.model in last_use]
        limit = limit_of(limits, kind)
        if limit is None or len(same) < limit or len(same) < 2 or any(r.leaving or r.loading for r in same):
            continue
        theirs = min(same, key=lambda r: last_use[r.model]).model
        ours = min(same, key=lambda r: used.get(r.model, r.used_at)).model
        if theirs != ours and theirs in used:
            return theirs
    return None
