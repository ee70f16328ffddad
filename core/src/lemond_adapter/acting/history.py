"""How long loads take, learned from those we saw; the source of every `Retry-After`. Sans-IO."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

FIRST_GUESS_S = 3.0
"""For a model nobody has timed and whose size is not known."""

SECONDS_PER_GB = 1.2
"""A first guess from the file's size, until one load was timed: a disk of about 0.8 GB/s."""

MARGIN = 1.15


class LoadHistory:
    """Durations of the last loads of each model, in seconds."""

    def __init__(self, kept: int = 20) -> None:
        self._kept = kept
        self._seen: dict[str, deque[float]] = {}
        self._sizes: dict[str, float] = {}
        self.observers: list[Callable[[str, float], None]] = []
        """Told of each load timed here, to keep it."""

    def add(self, model: str, seconds: float) -> None:
        """A load took this long, from request to route."""
        self.learned(model, seconds)
        for tell in self.observers:
            tell(model, seconds)

    def learned(self, model: str, seconds: float) -> None:
        """The same, from an earlier run."""
        self._seen.setdefault(model, deque(maxlen=self._kept)).append(seconds)

    def size(self, model: str, gigabytes: float) -> None:
        """The model's file size, for the first guess."""
        self._sizes[model] = gigabytes

    def measured(self, model: str) -> float | None:
        """The 90th percentile of its loads; None when none was seen."""
        seen = self._seen.get(model)
        if not seen:
            return None
        ranked = sorted(seen)
        return ranked[min(len(ranked) - 1, math.ceil(0.9 * len(ranked)) - 1)]

    def guess(self, model: str) -> float:
        """What one load of it will take."""
        measured = self.measured(model)
        if measured is not None:
            return measured * MARGIN
        size = self._sizes.get(model)
        return FIRST_GUESS_S if size is None else 2.0 + size * SECONDS_PER_GB

    def remaining(self, model: str, elapsed: float) -> float:
        """What is left of a load that has run for `elapsed` seconds. A load that overruns its guess is
        taken to need as long again as it has had: each wait then doubles the total."""
        expected = self.guess(model)
        if elapsed < expected:
            return expected - elapsed
        return max(0.25, elapsed)
