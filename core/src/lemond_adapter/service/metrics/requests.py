"""What became of requests, counted as each of them ends."""

from __future__ import annotations

import math
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from lemond_adapter.dispatch.traffic import Flight
from lemond_adapter.service.metrics import families
from lemond_adapter.service.metrics.labels import Bounded, slot_of

_UNAVAILABLE = frozenset({502, 504})

_USUAL = ("served", "interrupted", "client_gone", "slot.loading", "slot.error", "lemonade.unavailable")
"""Outcomes that a known slot has from the start, as 0: a series that begins with 1 never rises."""


class _Children(dict[tuple[str, ...], Any]):
    """A metric's children by their label values: finding one anew costs more than counting."""

    def __init__(self, parent: Counter | Histogram) -> None:
        super().__init__()
        self._parent = parent

    def __missing__(self, labels: tuple[str, ...]) -> Any:
        child = self[labels] = self._parent.labels(*labels)
        return child


class RequestMetrics:
    """An observer of the data plane's traffic."""

    def __init__(self, registry: CollectorRegistry, slots: Bounded) -> None:
        self._slots = slots
        self._outcomes = Bounded()
        self._requests = _Children(families.REQUESTS.counter(registry))
        self._duration = _Children(families.REQUEST_DURATION.histogram(registry))
        self._ttft = _Children(families.TTFT.histogram(registry))
        self._rate = _Children(families.TOKENS_PER_SECOND.histogram(registry))
        self._retry_after = _Children(families.RETRY_AFTER.histogram(registry))
        self._holds = _Children(families.HOLDS.histogram(registry))
        self._swift: dict[str, tuple[Any, Any]] = {}
        self._unavailable = families.UPSTREAM_UNAVAILABLE.counter(registry)

    def _plain(self, flight: Flight) -> None:
        """The many: served at once, as a whole."""
        name = slot_of(flight)
        both = self._swift.get(name)
        if both is None:
            slot = self._slots(name)
            both = self._swift[name] = (
                self._requests[slot, self._outcomes("served")],
                self._duration[(slot,)],
            )
        both[0].inc()
        if flight.ended is not None:
            both[1].observe(flight.ended - flight.began)
        if flight.status in _UNAVAILABLE:
            self._unavailable.inc()

    def expect(self, slot: str) -> None:
        """A slot that requests may come for."""
        for outcome in _USUAL:
            self._requests[self._slots(slot), self._outcomes(outcome)].inc(0)

    def take(self, flight: Flight) -> None:
        """A request has ended."""
        if flight.outcome == "served" and not flight.streamed and not flight.held_s:
            self._plain(flight)
            return
        slot, outcome = self._slots(slot_of(flight)), self._outcomes(flight.outcome)
        self._requests[slot, outcome].inc()
        if flight.status in _UNAVAILABLE:
            self._unavailable.inc()
        if flight.retry_after_s is not None:
            # As the header says it: whole seconds, in the range that SDKs obey.
            self._retry_after[(outcome,)].observe(min(59, max(1, math.ceil(flight.retry_after_s))))
        if flight.held_s > 0:
            self._holds[(outcome,)].observe(flight.held_s)
        if flight.streamed and flight.ttft_s is not None:
            self._ttft[(slot,)].observe(flight.ttft_s)
        if flight.events_per_s is not None:
            self._rate[(slot,)].observe(flight.events_per_s)
        if flight.outcome == "served" and flight.ended is not None:
            self._duration[(slot,)].observe(flight.ended - flight.began)
