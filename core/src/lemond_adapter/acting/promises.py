"""Clients that were told to come back for a model, and have not yet. Sans-IO."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable

LONGEST_WAIT_S = 59.0

LATE_S = 2.0
"""How much later than told a client may return: SDKs add up to a quarter to short waits."""

MOST = 256


class Promises:
    """Per model, until when each of them may still return."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, list[float]] = {}

    def made(self, model: str, wait_s: float) -> None:
        """A client was told to come back after `wait_s`."""
        due = self._until.setdefault(model, [])
        insort(due, self._clock() + min(wait_s, LONGEST_WAIT_S) + LATE_S)
        del due[:-MOST]

    def kept(self, model: str) -> None:
        """A request found the model: the client that was expected first."""
        self.until(model)
        if due := self._until.get(model):
            due.pop(0)

    def until(self, model: str) -> float:
        """When the last of them may return; 0 when nobody is expected."""
        due = self._until.get(model)
        if due is None:
            return 0.0
        del due[: bisect_right(due, self._clock())]
        if not due:
            del self._until[model]
            return 0.0
        return due[-1]
