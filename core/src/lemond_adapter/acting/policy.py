"""What the operator wants done without being asked. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from lemond_adapter.types import SlotSpec


@dataclass(frozen=True, slots=True)
class Policy:
    """Durations in seconds; 0 = never, or none.

    `idle_timeout_s`: a model unused for so long is evicted, unless its slot says otherwise.
    `drain_timeout_s`: how long an eviction of ours waits for requests in flight before it is called off.
    `max_restarts`: deaths in a row, without a request served between, after which a model is in error.
    `restart_backoff_s`: pause before the second restart in a row; each further one doubles it.
    `restart_refill_s`: so long after the last death the budget is whole again.
    `warm`: slots or models to load at start and after a restart of lemond.
    """

    idle_timeout_s: float = 300.0
    drain_timeout_s: float = 30.0
    max_restarts: int = 5
    restart_backoff_s: float = 1.0
    restart_refill_s: float = 600.0
    hold_s: float = 0.0
    warm: tuple[str, ...] = ()

    def idle_limit(self, slot: SlotSpec | None) -> float:
        """The slot's own limit, else the general one."""
        if slot is not None and slot.idle_timeout_s is not None:
            return slot.idle_timeout_s
        return self.idle_timeout_s


HANDS_OFF = Policy(idle_timeout_s=0.0, max_restarts=0)
"""Nothing happens unasked: for looking at a lemond without touching it."""
