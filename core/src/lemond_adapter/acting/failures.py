"""Failed loads: the reason, and a pause that doubles with each failure. Sans-IO.

A failed load makes lemond evict every model and try once more (measured 19 s on 10.7.0), so it is
never repeated blindly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lemond_adapter.types import SlotFailed

FIRST_PAUSE_S = 5.0
FIRST_PAUSE_AFTER_CASCADE_S = 20.0
"""Longer than a cascade takes: the next one must not meet the models on their way back."""

LONGEST_PAUSE_S = 300.0
TOLD_TWICE_S = 2.0


@dataclass(slots=True)
class Failure:
    """Why the last load failed, and until when another is not tried."""

    reason: str
    kind: str
    at: float
    until: float
    pause: float


class Failures:
    """Per model."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._of: dict[str, Failure] = {}

    def note(self, model: str, reason: str, kind: str) -> None:
        """A load of it failed, whoever asked for it: pause, twice as long as the last time."""
        before = self._of.get(model)
        now = self._clock()
        if before is not None and (now - before.at < TOLD_TWICE_S or before.until > now + before.pause):
            before.reason, before.kind = reason, kind
            return  # the same failure, told by the log and by the answer
        # lemond evicts nothing for a file it does not find or a load it refuses (10.5-11.7).
        first = FIRST_PAUSE_S if kind in ("not_found", "rejected") else FIRST_PAUSE_AFTER_CASCADE_S
        pause = first if before is None else min(before.pause * 2, LONGEST_PAUSE_S)
        self._of[model] = Failure(reason, kind, now, now + pause, pause)

    def abandon(self, model: str, reason: str, until: float) -> None:
        """It is not tried again before `until`."""
        now = self._clock()
        self._of[model] = Failure(reason, "backend_exit", now, until, FIRST_PAUSE_S)

    def forgive(self, model: str) -> None:
        """Somebody acts: it is tried at once. The next failure still pauses longer than this one did."""
        if (failed := self._of.get(model)) is not None:
            failed.until = failed.at = float("-inf")

    def over(self, model: str) -> None:
        """It is loaded: earlier failures no longer count."""
        self._of.pop(model, None)

    def standing(self, model: str) -> SlotFailed | None:
        """The error to answer while the pause lasts."""
        failed = self._of.get(model)
        if failed is None:
            return None
        left = failed.until - self._clock()
        if left <= 0:
            return None
        return SlotFailed(failed.reason, model=model, retry_after_s=left, kind=failed.kind)
