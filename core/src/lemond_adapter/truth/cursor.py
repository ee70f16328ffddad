"""Where we are in lemond's log, across connections and lemond's restarts. Sans-IO.

The protocol has no epoch: `seq` restarts at 1 with lemond, and subscribing with an `after_seq`
beyond its last entry silently hides everything until it catches up. So a resume asks for one entry
of overlap and compares it: equal means same process and nothing lost, anything else means restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from lemond_adapter.truth.logentry import LogEntry, Snapshot


class Continuity(Enum):
    """What a snapshot says about the time we were away."""

    FIRST = "first"
    """Nothing was known before: these entries are history."""
    CONTINUED = "continued"
    """Same lemond, nothing lost."""
    BROKEN = "broken"
    """Another lemond, or more lost than it retains: start over on a new connection."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What the first snapshot of a connection brings."""

    continuity: Continuity
    entries: tuple[LogEntry, ...] = ()


class LogCursor:
    """One per LemondAdapter; `begin` for each connection."""

    def __init__(self) -> None:
        self._last: LogEntry | None = None
        self._early: list[LogEntry] = []
        self._open = False
        self.duplicates = 0
        self.gaps = 0

    @property
    def last_seq(self) -> int | None:
        """seq of the newest entry that was taken; None before the first."""
        return self._last.seq if self._last else None

    def reset(self) -> None:
        """Forgets the position: the next snapshot is history."""
        self._last = None

    def begin(self) -> int | None:
        """Starts a connection; what to send as `after_seq`: one entry of overlap, or None for all."""
        self._early = []
        self._open = False
        return max(self._last.seq - 1, 0) if self._last else None

    def snapshot(self, frame: Snapshot) -> Opening:
        """Takes the snapshot. A second one on the same connection yields only what is new."""
        entries = sorted(frame.entries, key=lambda entry: entry.seq)
        if self._open:
            return Opening(Continuity.CONTINUED, tuple(self._fresh(entries)))
        if self._last is None:
            self._open = True
            fresh = tuple(self._fresh(entries))
            return Opening(Continuity.FIRST, (*fresh, *self._drain()))
        if not entries or entries[0] != self._last:
            self._last = None
            return Opening(Continuity.BROKEN)
        self._open = True
        fresh = tuple(self._fresh(entries))
        return Opening(Continuity.CONTINUED, (*fresh, *self._drain()))

    def live(self, entry: LogEntry) -> tuple[LogEntry, ...]:
        """Takes a live entry: itself when it is new; nothing while the snapshot is still awaited."""
        if not self._open:
            self._early.append(entry)
            return ()
        return tuple(self._fresh((entry,)))

    def _drain(self) -> tuple[LogEntry, ...]:
        early, self._early = self._early, []
        return tuple(self._fresh(sorted(early, key=lambda entry: entry.seq)))

    def _fresh(self, entries: Sequence[LogEntry]) -> list[LogEntry]:
        fresh: list[LogEntry] = []
        for entry in entries:
            if self._last is not None and entry.seq <= self._last.seq:
                self.duplicates += 1
                continue
            if self._last is not None and entry.seq > self._last.seq + 1:
                self.gaps += 1
            self._last = entry
            fresh.append(entry)
        return fresh
