"""The event stream: a snapshot first, then events, never a silent gap."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from lemond_adapter.truth.hub import EventHub, Gap, HubClosed, Subscription
from lemond_adapter.types import SlotEvent, encode_event

HEARTBEAT_S = 15.0


def position_of(epoch: str, last_event_id: str | None, since: str | None) -> int | None:
    """The seq to go on from; None when a snapshot is due (a new client, another epoch, nonsense)."""
    if last_event_id:
        given, _, seq = last_event_id.rpartition(":")
        return int(seq) if given == epoch and seq.isascii() and seq.isdigit() else None
    if since is not None:
        return int(since) if since.isascii() and since.isdigit() else None
    return None


async def stream(
    hub: EventHub, snapshot: Callable[[], dict[str, Any]], since: int | None
) -> AsyncIterator[bytes]:
    """Server-sent events for one client, for ever."""
    start = since
    if start is not None and isinstance(hub.after(start), Gap):
        start = None
    subscription = hub.subscribe(start)
    try:
        if start is None:
            yield _snapshot(hub, snapshot)
        while True:
            try:
                news = await _next(subscription)
            except HubClosed:
                return
            if news is None:
                yield b": heartbeat\n\n"
            elif isinstance(news, Gap):
                yield _snapshot(hub, snapshot)
            else:
                yield b"".join(_event(hub.epoch, event) for event in news)
    finally:
        subscription.close()


async def _next(subscription: Subscription) -> list[SlotEvent] | Gap | None:
    try:
        async with asyncio.timeout(HEARTBEAT_S):
            return await subscription.next_batch()
    except TimeoutError:
        return None


def _event(epoch: str, event: SlotEvent) -> bytes:
    return f"id: {epoch}:{event.seq}\nevent: {event.type}\ndata: {encode_event(event)}\n\n".encode()


def _snapshot(hub: EventHub, snapshot: Callable[[], dict[str, Any]]) -> bytes:
    data = json.dumps(snapshot())
    return f"id: {hub.epoch}:{hub.seq}\nevent: snapshot\ndata: {data}\n\n".encode()
