"""The event stream: a snapshot first, then events, never a silent gap. Those who ask for it also get
`traffic` frames, which carry no id: they are no part of what can be resumed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from lemond_adapter.service.live import LiveFeed, LiveSubscription
from lemond_adapter.truth.hub import EventHub, Gap, HubClosed, Subscription
from lemond_adapter.types import SlotEvent, encode_event

HEARTBEAT_S = 15.0
LIVE_HEARTBEAT_S = 5.0
"""For those who show people what is true now: they must soon know that they hear nothing."""

PAGE = 500
"""Events of the past sent at once."""

Past = Callable[[int, int], Awaitable[list[Any]]]
"""(seq, most) -> the events right behind that seq, as JSON objects, oldest first."""

News = list[SlotEvent] | Gap | bytes | None


def position_of(epoch: str, last_event_id: str | None, since: str | None) -> int | None:
    """The seq to go on from; None when a snapshot is due (a new client, another epoch, nonsense)."""
    if last_event_id:
        given, _, seq = last_event_id.rpartition(":")
        return int(seq) if given == epoch and seq.isascii() and seq.isdigit() else None
    if since is not None:
        return int(since) if since.isascii() and since.isdigit() else None
    return None


async def stream(
    hub: EventHub,
    snapshot: Callable[[], dict[str, Any]],
    since: int | None,
    live: LiveFeed | None = None,
    past: Past | None = None,
) -> AsyncIterator[bytes]:
    """Server-sent events for one client, for ever; with `live`, its frames among them. What the ring no
    longer holds comes from `past`, where it is whole there."""
    start = since
    while start is not None and isinstance(hub.after(start), Gap):
        rows = await past(start, PAGE) if past is not None and hub.first <= start < hub.seq else []
        if [row["seq"] for row in rows] != list(range(start + 1, start + 1 + len(rows))):
            rows = []
        start = rows[-1]["seq"] if rows else None
        yield b"".join(_frame(hub.epoch, row["seq"], row["type"], json.dumps(row)) for row in rows)
    subscription = hub.subscribe(start)
    listening = _Listening(subscription, live.subscribe() if live else None)
    try:
        if start is None:
            yield _snapshot(hub, snapshot)
        while True:
            try:
                news = await listening.next()
            except HubClosed:
                return
            if news is None:
                yield b": heartbeat\n\n"
            elif isinstance(news, Gap):
                yield _snapshot(hub, snapshot)
            elif isinstance(news, bytes):
                yield news
            else:
                yield b"".join(_event(hub.epoch, event) for event in news)
    finally:
        listening.close()


class _Listening:
    """To the events and, where wanted, to the traffic; events come first."""

    def __init__(self, events: Subscription, traffic: LiveSubscription | None) -> None:
        self._events = events
        self._traffic = traffic
        self._event_task: asyncio.Task[list[SlotEvent] | Gap] | None = None
        self._traffic_task: asyncio.Task[bytes] | None = None

    async def next(self) -> News:
        """What comes next; None when there was nothing for a while."""
        if self._event_task is None:
            self._event_task = asyncio.create_task(self._events.next_batch())
        if self._traffic is not None and self._traffic_task is None:
            self._traffic_task = asyncio.create_task(self._traffic.next_frames())
        waiting = {task for task in (self._event_task, self._traffic_task) if task is not None}
        limit = LIVE_HEARTBEAT_S if self._traffic else HEARTBEAT_S
        await asyncio.wait(waiting, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if self._event_task.done():
            task, self._event_task = self._event_task, None
            return task.result()
        if self._traffic_task is not None and self._traffic_task.done():
            frames, self._traffic_task = self._traffic_task, None
            return frames.result()
        return None

    def close(self) -> None:
        for task in (self._event_task, self._traffic_task):
            if task is not None:
                task.cancel()
        self._events.close()
        if self._traffic is not None:
            self._traffic.close()


def _event(epoch: str, event: SlotEvent) -> bytes:
    return _frame(epoch, event.seq, event.type, encode_event(event))


def _frame(epoch: str, seq: int, kind: str, data: str) -> bytes:
    return f"id: {epoch}:{seq}\nevent: {kind}\ndata: {data}\n\n".encode()


def _snapshot(hub: EventHub, snapshot: Callable[[], dict[str, Any]]) -> bytes:
    return _frame(hub.epoch, hub.seq, "snapshot", json.dumps(snapshot()))
