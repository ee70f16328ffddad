"""Requests in flight, counted per model: what is leased is never evicted by us. Sans-IO."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Leases:
    """Counts, and when each model was last used (Unix time)."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._held: Counter[str] = Counter()
        self.last_used: dict[str, float] = {}

    def held(self, model: str) -> int:
        """Requests in flight to this model."""
        return self._held[model]

    def total(self) -> int:
        """Requests in flight to all models."""
        return self._held.total()

    @contextmanager
    def hold(self, model: str) -> Iterator[None]:
        """In flight while the context lasts."""
        self.begin(model)
        try:
            yield
        finally:
            self.end(model)

    def begin(self, model: str) -> None:
        """For those who cannot use a context: one more in flight. Each `begin` needs its `end`."""
        self._held[model] += 1
        self.last_used[model] = self._now()

    def end(self, model: str) -> None:
        """One fewer."""
        self._held[model] -= 1
        if self._held[model] <= 0:
            del self._held[model]
        self.last_used[model] = self._now()
