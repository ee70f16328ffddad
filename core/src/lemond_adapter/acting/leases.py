"""Requests in flight, counted per model: what is leased is never evicted by us. Sans-IO."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Leases:
    """Counts, and when each model was last used: `last_used` in Unix time for people, `used_at` on the
    monotonic `clock` for decisions. `on_idle` is told of each model whose last lease ended, `on_take`
    of each lease taken."""

    def __init__(
        self, now: Callable[[], float] = time.time, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._now = now
        self._clock = clock
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self.last_used: dict[str, float] = {}
        self.used_at: dict[str, float] = {}
        self.on_idle: list[Callable[[str], None]] = []
        self.on_take: list[Callable[[str], None]] = []

    def held(self, model: str) -> int:
        """Requests in flight to this model."""
        return self._held[model]

    def total(self) -> int:
        """Requests in flight to all models."""
        return self._held.total()

    @contextmanager
    def hold(self, model: str) -> Iterator[None]:
        """In flight while the context lasts."""
        self.take(model)
        try:
            yield
        finally:
            self.release(model)

    def take(self, model: str) -> None:
        """One more request in flight; to be matched by one `release`."""
        self._held[model] += 1
        self._used(model)
        for tell in self.on_take:
            tell(model)

    def release(self, model: str) -> None:
        """One request less."""
        self._used(model)
        self._held[model] -= 1
        if self._held[model] > 0:
            return
        del self._held[model]
        for waiter in self._waiting.pop(model, ()):
            if not waiter.done():
                waiter.set_result(None)
        for tell in self.on_idle:
            tell(model)

    async def idle(self, model: str, timeout_s: float) -> bool:
        """Waits until nothing is in flight to the model; False when that took longer than the limit."""
        if not self._held[model]:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(model, []).append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return False
        return True

    def forget(self, models: set[str]) -> None:
        """Drops what is known of the use of these, which lemond no longer has."""
        for model in models:
            if not self._held[model]:
                self.used_at.pop(model, None)

    def _used(self, model: str) -> None:
        self.last_used[model] = self._now()
        self.used_at[model] = self._clock()
