"""Exponential back-off with full jitter."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Delays in seconds: each drawn from half to all of a span that doubles up to `ceiling`."""

    def __init__(
        self,
        first: float = 0.25,
        ceiling: float = 15.0,
        uniform: Callable[[float, float], float] | None = None,
    ) -> None:
        self._first = first
        self._ceiling = ceiling
        self._uniform = uniform or random.Random().uniform
        self._attempts = 0

    def reset(self) -> None:
        """To be called after a pass that achieved something, not after a mere connect."""
        self._attempts = 0

    def next(self) -> float:
        """The next delay."""
        span = min(self._ceiling, self._first * 2.0 ** min(self._attempts, 30))
        self._attempts += 1
        return self._uniform(span / 2, span)
