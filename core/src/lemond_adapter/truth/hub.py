"""Stamps events and hands them to any number of subscribers, none of which can hold it up.

A subscriber is a position in one bounded ring: a slow one costs no memory, and what it missed is
told as a gap, never skipped in silence.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from lemond_adapter.types import SlotEvent

RING = 10_000


@dataclass(frozen=True, slots=True)
class Gap:
    """Events after `after` up to `resume_at` are no longer there: take a snapshot."""

    after: int
    resume_at: int


class HubClosed(Exception):
    """The adapter is going away."""


class EventHub:
    """One per adapter. `epoch` names this run: seq counts on from `after` within it."""

    def __init__(
        self, ring: int = RING, now: Callable[[], datetime] = lambda: datetime.now(UTC), after: int = 0
    ) -> None:
        self.epoch = secrets.token_hex(4)
        self._now = now
        self._ring: deque[SlotEvent] = deque(maxlen=ring)
        self._subscribers: set[Subscription] = set()
        self.observers: list[Callable[[SlotEvent], None]] = []
        """Called with each event before any subscriber sees it: what they build is never behind."""
        self.seq = self.first = after
        """`first`: the seq before the first of this run."""
        self.closed = False

    @property
    def subscribers(self) -> int:
        """How many are listening."""
        return len(self._subscribers)

    def publish(self, event: SlotEvent) -> SlotEvent:
        """Gives the event its seq and time, and wakes all subscribers."""
        self.seq += 1
        stamped = event.model_copy(update={"seq": self.seq, "at": self._now()})
        self._ring.append(stamped)
        for observe in self.observers:
            observe(stamped)
        for subscriber in self._subscribers:
            subscriber.wake()
        return stamped

    def close(self) -> None:
        """No more subscribers: all of them end."""
        self.closed = True
        for subscriber in self._subscribers:
            subscriber.wake()

    def oldest(self) -> int:
        """The oldest seq still held; `seq + 1` when none is."""
        return self._ring[0].seq if self._ring else self.seq + 1

    def after(self, seq: int) -> list[SlotEvent] | Gap:
        """What happened after `seq`."""
        if seq > self.seq or seq + 1 < self.oldest():
            return Gap(seq, self.seq)
        skip = seq + 1 - self.oldest()
        return [event for index, event in enumerate(self._ring) if index >= skip]

    def subscribe(self, since: int | None = None) -> Subscription:
        """Follows from behind `since`, or from now."""
        subscription = Subscription(self, self.seq if since is None else since)
        self._subscribers.add(subscription)
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Ends a subscription."""
        self._subscribers.discard(subscription)


class Subscription:
    """A position in the ring. `next_batch` returns what is new, or a `Gap` and goes on after it."""

    def __init__(self, hub: EventHub, position: int) -> None:
        self._hub = hub
        self._signal = asyncio.Event()
        self.position = position
        self._signal.set()

    def wake(self) -> None:
        """There is something new."""
        self._signal.set()

    async def next_batch(self) -> list[SlotEvent] | Gap:
        """Waits for news. Raises `HubClosed` when there will be none."""
        while True:
            await self._signal.wait()
            if self._hub.closed:
                raise HubClosed
            self._signal.clear()
            news = self._hub.after(self.position)
            if isinstance(news, Gap):
                self.position = news.resume_at
                return news
            if news:
                self.position = news[-1].seq
                return news

    def close(self) -> None:
        """Leaves the hub."""
        self._hub.leave(self)
