"""The `traffic` frames of the event stream: what changes too often, or too slightly, to be an event.

One look at the service serves every client: a frame is made and encoded once, whoever gets it. Nobody
looks while nobody listens, and looking asks lemond nothing.

A frame is an object with `now` (the service's clock, Unix seconds) and, of the following, what changed:

- `slots`: by name, `state`, `in_flight`, `last_used_at`, `idle_deadline` (absent when it has none)
- `traffic`: by name ("" for requests that belong to no slot), `outcomes` since the service started,
  `retry_after_s` (the last one given), `buckets` of `bucket_s` seconds: `start`, `requests`, `errors`,
  `retries`, and the medians `ttft_ms` and `tokens_per_s` where something was measured
- `status`: sections of `/api/v1/adapter/status`
- `catalogue`: which slots there are, all of them
- `notes`: decisions, as the journal gives them

The first frame has `full: true` and everything but notes. So has one for a client that fell far behind.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.dispatch.dataplane import DataPlane
from lemond_adapter.journal import Journal
from lemond_adapter.service import reports
from lemond_adapter.service.tally import BUCKET_S, BUCKETS, Tally
from lemond_adapter.slots.rows import SlotBoard

QUICK_S = 0.1
"""How soon a request that begins or ends is told."""

SLOW_EVERY = 10
"""Everything else is looked at every so many quick looks: about once a second."""

KEPT = 64
"""Frames kept for clients that are slow; one that is further behind gets everything."""

SECTIONS = (
    "lemond",
    "driver",
    "log_stream",
    "native_events",
    "processes",
    "control_requests",
    "drift",
    "journal",
    "problems",
)
"""What of the status is told; the rest is in other parts of a frame, or in nobody's sight."""

TREMBLING_S = 0.5
NOTES = 200
"""How many notes may wait for the first client."""

Rows = list[dict[str, Any]]


class LiveFeed:
    """One per service. `rows` are those of `/api/slots`, `status` is what the box on lemond shows."""

    def __init__(
        self,
        rows: Callable[[], Rows],
        activity: Callable[[str], tuple[str, int]],
        status: Callable[[], dict[str, Any]],
        tally: Tally,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.notes: deque[dict[str, Any]] = deque(maxlen=NOTES)
        """Decisions that were not told yet; the journal keeps them."""

        self._rows = rows
        self._activity = activity
        self._status = status
        self._tally = tally
        self._now = now
        self._models: dict[str, str] = {}
        self._last: dict[str, dict[str, Any]] = {}
        self._last_status: dict[str, Any] = {}
        self._last_catalogue: Rows = []
        self._frames: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._subscribers: set[LiveSubscription] = set()
        self._ticker: asyncio.Task[None] | None = None
        self.version = 0

    @property
    def subscribers(self) -> int:
        """How many are listening."""
        return len(self._subscribers)

    def subscribe(self) -> LiveSubscription:
        """Follows from now; the first thing it gives is everything."""
        subscription = LiveSubscription(self)
        self._subscribers.add(subscription)
        if self._ticker is None or self._ticker.done():
            self.look()
            self._ticker = asyncio.create_task(self._tick(), name="live feed")
        return subscription

    def leave(self, subscription: LiveSubscription) -> None:
        """Ends a subscription; the last one to leave stops the looking."""
        self._subscribers.discard(subscription)
        if not self._subscribers and self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    async def _tick(self) -> None:
        count = 0
        while True:
            await asyncio.sleep(QUICK_S)
            count += 1
            if count % SLOW_EVERY:
                self.glance()
            else:
                self.look()

    def glance(self) -> None:
        """Tells which slots' requests in flight, or serving state, changed since the last look."""
        moved = set()
        for name, model in self._models.items():
            before = self._last[name]
            if self._activity(model) != (before["state"], before["in_flight"]):
                moved.add(name)
        if not moved:
            return
        changed = {row["name"]: _live(row) for row in self._rows() if row["name"] in moved}
        self._last |= changed
        self._publish({"slots": changed})

    def look(self) -> None:
        """Tells everything that changed since the last look."""
        frame: dict[str, Any] = {}
        rows = self._rows()
        catalogue = [_named(row) for row in rows]
        if catalogue != self._last_catalogue:
            frame["catalogue"] = self._last_catalogue = catalogue
        current = {row["name"]: _steady(_live(row), self._last.get(row["name"])) for row in rows}
        changed = {name: live for name, live in current.items() if live != self._last.get(name)}
        self._last = current
        self._models = {row["name"]: row["model_id"] for row in rows}
        if changed:
            frame["slots"] = changed
        if traffic := self._tally.changes():
            frame["traffic"] = traffic
        status = self._status()
        if news := {key: value for key, value in status.items() if value != self._last_status.get(key)}:
            frame["status"] = news
        self._last_status = status
        if self.notes:
            frame["notes"] = list(self.notes)
            self.notes.clear()
        if frame:
            self._publish(frame)

    def everything(self) -> bytes:
        """The frame for a client that knows nothing yet."""
        return self._encoded(
            {
                "full": True,
                "bucket_s": BUCKET_S,
                "buckets": BUCKETS,
                "catalogue": self._last_catalogue,
                "slots": self._last,
                "traffic": self._tally.everything(),
                "status": self._last_status,
            }
        )

    def after(self, version: int) -> bytes:
        """The frames behind `version`; everything, where some of them are no longer there."""
        if not self._frames or self._frames[0][0] > version + 1:
            return self.everything()
        return b"".join(frame for number, frame in self._frames if number > version)

    def _publish(self, frame: dict[str, Any]) -> None:
        self.version += 1
        self._frames.append((self.version, self._encoded(frame)))
        for subscriber in self._subscribers:
            subscriber.wake()

    def _encoded(self, frame: dict[str, Any]) -> bytes:
        data = json.dumps({"now": round(self._now(), 3), **frame}, separators=(",", ":"))
        return f"event: traffic\ndata: {data}\n\n".encode()


class LiveSubscription:
    """A position in the frames."""

    def __init__(self, feed: LiveFeed) -> None:
        self._feed = feed
        self._position: int | None = None
        self._signal = asyncio.Event()
        self._signal.set()

    def wake(self) -> None:
        """There is something new."""
        self._signal.set()

    async def next_frames(self) -> bytes:
        """Waits for news; encoded."""
        while True:
            await self._signal.wait()
            self._signal.clear()
            position, self._position = self._position, self._feed.version
            if position is None:
                return self._feed.everything()
            if position < self._feed.version:
                return self._feed.after(position)

    def close(self) -> None:
        """Leaves the feed."""
        self._feed.leave(self)


def live_feed(adapter: LemondAdapter, plane: DataPlane, board: SlotBoard, journal: Journal) -> LiveFeed:
    """The feed of a running service."""
    tally = Tally()
    plane.traffic.observers.append(tally.observe)

    def activity(model: str) -> tuple[str, int]:
        return board.state(model).value, adapter.leases.held(model)

    def status() -> dict[str, Any]:
        found = reports.status(adapter, plane, journal)
        return {section: found[section] for section in SECTIONS}

    feed = LiveFeed(board.rows, activity, status, tally)
    adapter.actor.notes.observers.append(lambda note: feed.notes.append(note.as_json()))
    return feed


def _named(row: dict[str, Any]) -> dict[str, Any]:
    """Which slots there are."""
    return {key: row[key] for key in ("name", "model_id", "type", "backend", "enabled")}


def _live(row: dict[str, Any]) -> dict[str, Any]:
    """What a row says that no event tells."""
    found = {"state": row["state"], "in_flight": row["metadata"]["in_flight"]}
    if row["last_used_at"] is not None:
        found["last_used_at"] = round(row["last_used_at"], 3)
    if "idle_deadline" in row["metadata"]:
        found["idle_deadline"] = row["metadata"]["idle_deadline"]
    return found


def _steady(live: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """A deadline is worked out anew each time, and differs by the clocks' trembling: that is no news."""
    told = (before or {}).get("idle_deadline")
    if told is not None and abs(live.get("idle_deadline", 0.0) - told) < TREMBLING_S:
        live["idle_deadline"] = told
    return live
