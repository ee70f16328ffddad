"""What the checks are about: gathered once, without changing anything at lemond's."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.truth import procfs
from lemond_adapter.truth.control import LemondClient
from lemond_adapter.truth.logentry import Live, LogEntry, Snapshot, read_frame
from lemond_adapter.types import LemondError, LoadedModel, MalformedPayload, SlotSpec

LOOKS = 6
"""Listings that are compared: where two lemonds share a port, the answers differ from one to the next."""

STREAM_WAIT_S = 3.0
CONNECT_S = 2.0

PidState = Literal["alive", "dead", "not here", "unknown"]


@dataclass(frozen=True, slots=True)
class Child:
    """A listed child as it looks from here. `refused` is why its port could not be reached."""

    entry: LoadedModel
    pid_state: PidState
    refused: str | None
    owns_port: bool | None


@dataclass(slots=True)
class Look:
    """The findings are functions of this. `settings` are lemond's own, None where they could not be read."""

    adapter: LemondAdapter
    key_given: bool
    slots: tuple[SlotSpec, ...] = ()
    answers_live: bool | None = None
    history: list[LogEntry] = field(default_factory=list)
    opened_at: datetime | None = None
    stream_port: str | None = None
    """Why the log stream's port takes no connection; None when it does, or was not tried."""
    settings: dict[str, Any] | None = None
    settings_from: str = ""
    children: list[Child] = field(default_factory=list)
    connections: int | None = None
    """Open connections to lemond's port; None where they cannot be seen."""
    lemond_visible: bool | None = None
    missing: list[SlotSpec] = field(default_factory=list)
    """Slots whose model lemond's catalogue does not have."""


async def look(adapter: LemondAdapter, *, admin_key: str | None, slots: tuple[SlotSpec, ...]) -> Look:
    """Looks for a few seconds; every wait is bounded."""
    found = Look(adapter, adapter.api_key is not None, slots)
    truth = adapter.truth
    if not truth.reachable:
        found.answers_live = await adapter.client.live()
        return found
    await _stream(found)
    for _ in range(LOOKS):
        await truth.relisted(5.0)
    await _settings(found, admin_key or adapter.api_key)
    if truth.listing is not None and adapter.address.local:
        found.children = [await _child(entry) for entry in truth.listing.models]
        found.connections = _connections(adapter.address.port)
        found.lemond_visible = procfs.listener_pid(adapter.address.port) is not None
    if slots and await adapter.catalogue.refresh(0.0):
        known = {entry.model for entry in adapter.catalogue.entries}
        found.missing = [slot for slot in slots if slot.model not in known]
    return found


async def _stream(found: Look) -> None:
    """A connection of our own making, so that its snapshot holds the whole retained log."""
    stream = found.adapter.truth.stream

    def keep(message: str | bytes) -> None:
        with contextlib.suppress(MalformedPayload):
            frame = read_frame(message)
            if isinstance(frame, Snapshot):
                found.history = list(frame.entries)
                found.opened_at = datetime.now()
            elif isinstance(frame, Live):
                found.history.append(frame.entry)

    truth = found.adapter.truth
    on_main = truth.driver is not None and truth.driver.traits.log_stream_on_main_port
    if not on_main and truth.listing is not None and truth.listing.websocket_port is None:
        return
    # Two failures, because there may be two ports to try.
    await _until(lambda: stream.status.connected or stream.status.failures > 1)
    if not stream.status.connected:
        await _try_port(found, stream.status.url)
        return
    stream.on_raw = keep
    stream.cursor.reset()
    await stream.reconnect()
    await _until(lambda: found.opened_at is not None and stream.status.connected)


async def _until(condition: Callable[[], bool]) -> bool:
    try:
        async with asyncio.timeout(STREAM_WAIT_S):
            while not condition():  # noqa: ASYNC110 - several things change it, none of them tells
                await asyncio.sleep(0.02)
    except TimeoutError:
        return False
    return True


async def _try_port(found: Look, url: str | None) -> None:
    if url is not None:
        parts = urlsplit(url)
        found.stream_port = await _connect(parts.hostname or "", parts.port or 80)


async def _connect(host: str, port: int) -> str | None:
    """Why no connection can be had; None when one can."""
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"no answer within {CONNECT_S:g} s"
    except OSError as error:
        return error.strerror or str(error)
    writer.close()
    return None


async def _settings(found: Look, key: str | None) -> None:
    """From /internal/config (the admin key), else /v1/params (10.9 and later, the plain key)."""
    client = LemondClient(found.adapter.address, api_key=key)
    try:
        for path in ("/internal/config", "/v1/params"):
            try:
                found.settings = await client.object_at(path)
            except LemondError as error:
                found.settings_from = str(error)
            else:
                found.settings_from = path
                return
    finally:
        await client.close()


async def _child(entry: LoadedModel) -> Child:
    refused: str | None = None
    if entry.port is not None:
        refused = await _connect("127.0.0.1", entry.port)
    state: PidState = "unknown"
    owns: bool | None = None
    if entry.pid is not None and sys.platform == "linux":
        letter = procfs.glance(entry.pid)[0]
        state = "not here" if not letter else ("dead" if letter in "ZX" else "alive")
        if state == "alive" and entry.port is not None:
            owns = procfs.owns_port(entry.pid, entry.port)
    return Child(entry, state, refused, owns)


def _connections(port: int) -> int | None:
    """Established connections to a local port, our own log stream there not counted."""
    count, seen = 0, False
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        seen = True
        for line in lines:
            _, local, _, state, *_ = line.split()
            count += state == "01" and local.endswith(f":{port:04X}")
    return count if seen else None
