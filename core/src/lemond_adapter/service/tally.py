"""What the data plane did, per slot: totals, and buckets of some seconds for the charts. Sans-IO.

Fed by `Traffic.observers`, so it runs inside every request: it counts and appends, nothing else.
Medians are taken when somebody looks.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from lemond_adapter.dispatch.traffic import Flight

BUCKET_S = 10
BUCKETS = 90
"""A quarter of an hour."""

SAMPLES = 256
"""How many times are kept in a bucket; a busier slot's median is that of the first ones."""

OTHER = ""
"""The name under which requests that no slot and no model could be found for are counted."""


@dataclass(slots=True)
class Bucket:
    """Some seconds of one slot's traffic, from `start` (Unix time)."""

    start: int
    requests: int = 0
    errors: int = 0
    retries: int = 0
    ttft_s: list[float] = field(default_factory=list)
    tokens_per_s: list[float] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """As the charts want it; what nothing was measured of is left out."""
        found: dict[str, Any] = {
            "start": self.start,
            "requests": self.requests,
            "errors": self.errors,
            "retries": self.retries,
        }
        if self.ttft_s:
            found["ttft_ms"] = round(median(self.ttft_s) * 1000, 1)
        if self.tokens_per_s:
            found["tokens_per_s"] = round(median(self.tokens_per_s), 1)
        return found


@dataclass(slots=True)
class SlotTally:
    """One slot's requests, since the service started."""

    outcomes: Counter[str] = field(default_factory=Counter)
    retry_after_s: float | None = None
    """The last Retry-After that was given."""

    buckets: deque[Bucket] = field(default_factory=lambda: deque(maxlen=BUCKETS))
    fresh: dict[int, Bucket] = field(default_factory=dict)
    """Buckets that changed since `Tally.changes` was last called."""


def is_error(flight: Flight) -> bool:
    """Whether the client did not get what it asked for. Being told when to come back is no error, nor
    is leaving early."""
    if flight.outcome == "client_gone" or flight.retry_after_s is not None:
        return False
    return flight.outcome == "interrupted" or flight.status >= 400


class Tally:
    """One per service. Names are of slots, or of models that no slot names: a bounded set, since a
    name that a client made up is counted under `OTHER`."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self.slots: dict[str, SlotTally] = {}
        self._changed: set[str] = set()

    def observe(self, flight: Flight) -> None:
        """One request has ended."""
        name = flight.slot or flight.model or OTHER
        slot = self.slots.get(name)
        if slot is None:
            slot = self.slots[name] = SlotTally()
        self._changed.add(name)
        slot.outcomes[flight.outcome] += 1
        bucket = self._bucket(slot)
        bucket.requests += 1
        if flight.outcome == "served" and flight.status < 400 and flight.events < 2:
            if flight.first_byte is not None and len(bucket.ttft_s) < SAMPLES:
                bucket.ttft_s.append(flight.first_byte - flight.began)
            return
        if is_error(flight):
            bucket.errors += 1
        if flight.retry_after_s is not None:
            bucket.retries += 1
            slot.retry_after_s = flight.retry_after_s
        if flight.outcome != "served":
            return
        if (ttft := flight.ttft_s) is not None and len(bucket.ttft_s) < SAMPLES:
            bucket.ttft_s.append(ttft)
        if (rate := flight.events_per_s) is not None and len(bucket.tokens_per_s) < SAMPLES:
            bucket.tokens_per_s.append(rate)

    def _bucket(self, slot: SlotTally) -> Bucket:
        start = int(self._now()) // BUCKET_S * BUCKET_S
        if not slot.buckets or slot.buckets[-1].start < start:
            slot.buckets.append(Bucket(start))
        bucket = slot.buckets[-1]
        slot.fresh[bucket.start] = bucket
        return bucket

    def changes(self) -> dict[str, dict[str, Any]]:
        """The reports of the slots that had traffic since the last call, with the buckets it is in."""
        changed, self._changed = self._changed, set()
        found = {}
        for name in changed:
            slot = self.slots[name]
            found[name] = _report(slot, list(slot.fresh.values()))
            slot.fresh.clear()
        return found

    def everything(self) -> dict[str, dict[str, Any]]:
        """The reports of all slots, with all that their charts show."""
        oldest = self._now() - BUCKET_S * BUCKETS
        return {
            name: _report(slot, [bucket for bucket in slot.buckets if bucket.start >= oldest])
            for name, slot in self.slots.items()
        }


def _report(slot: SlotTally, buckets: list[Bucket]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "outcomes": dict(slot.outcomes),
        "buckets": [bucket.report() for bucket in buckets],
    }
    if slot.retry_after_s is not None:
        found["retry_after_s"] = round(slot.retry_after_s, 1)
    return found
