"""The one subscriber to lemond's log stream; the only module that speaks WebSocket to it.

One well-formed subscribe a connection: a malformed message terminates lemond and a second subscribe
leaks copies of every entry (10.5.1-11.7.0, measured). No Origin header is sent (11.0+ refuses
foreign ones); a snapshot may exceed the library's default of 1 MiB.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from lemond_adapter.truth.backoff import Backoff
from lemond_adapter.truth.cursor import Continuity, LogCursor, Opening
from lemond_adapter.truth.logentry import Complaint, Live, LogEntry, Snapshot, read_frame
from lemond_adapter.types import MalformedPayload

log = logging.getLogger(__name__)

SNAPSHOT_LIMIT_S = 10.0
MAX_FRAME = 64 * 1024 * 1024
MAX_GARBAGE = 100
"""Unreadable frames in a row after which the connection is given up."""


@dataclass(slots=True)
class StreamStatus:
    """For `status` and `doctor`."""

    connected: bool = False
    connects: int = 0
    reconnects: int = 0
    failures: int = 0
    """Attempts in a row that brought no snapshot."""
    restarts_seen: int = 0
    malformed: int = 0
    last_error: str | None = None
    url: str | None = None
    problems: Counter[str] = field(default_factory=Counter)


class LogStreamSubscriber:
    """Follows the stream for ever; `run` is a task of the adapter.

    `on_opening` gets the first snapshot of each connection, `on_entry` each new live entry,
    `on_down` is called when a working connection ends. `target` gives the URL to use now, or None.
    """

    def __init__(
        self,
        target: Callable[[], str | None],
        *,
        api_key: str | None,
        on_opening: Callable[[Opening], None],
        on_entry: Callable[[LogEntry], None],
        on_down: Callable[[str], None],
    ) -> None:
        self._target = target
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._on_opening = on_opening
        self._on_entry = on_entry
        self._on_down = on_down
        self._nudge = asyncio.Event()
        self._backoff = Backoff()
        self._socket: ClientConnection | None = None
        self.cursor = LogCursor()
        self.status = StreamStatus()
        self.on_raw: Callable[[str | bytes], None] | None = None
        """Gets every frame as it came, for recording."""

    def nudge(self) -> None:
        """Something changed (lemond is back, another port): try now instead of at the next delay."""
        self._nudge.set()

    async def reconnect(self) -> None:
        """Ends the connection, if there is one; `run` opens the next."""
        if self._socket is not None:
            await self._socket.close()
        self.nudge()

    async def run(self) -> None:
        """Connects, follows, reconnects. Ends only by cancellation."""
        while True:
            url = self._target()
            again = False
            if url is not None:
                again = await self._pass(url)
            if not again:
                await self._wait(self._backoff.next() if url is not None else None)

    async def _wait(self, delay: float | None) -> None:
        try:
            async with asyncio.timeout(delay):
                await self._nudge.wait()
        except TimeoutError:
            return
        finally:
            self._nudge.clear()

    async def _pass(self, url: str) -> bool:
        """One connection, from opening to end; whether to connect again at once."""
        self.status.url = url
        opened = False
        try:
            async with connect(
                url,
                proxy=None,
                compression=None,
                max_size=MAX_FRAME,
                open_timeout=5,
                close_timeout=1,
                ping_interval=20,
                ping_timeout=20,
                additional_headers=self._headers,
            ) as socket:
                self.status.reconnects += self.status.connects > 0
                self.status.connects += 1
                self._socket = socket
                opening = await self._subscribe(socket)
                self._on_opening(opening)
                if opening.continuity is Continuity.BROKEN:
                    self.status.restarts_seen += 1
                    return True
                opened = self.status.connected = True
                self.status.failures = 0
                self._backoff.reset()
                await self._follow(socket)
                why = "closed"
        except ConnectionClosed as error:
            why = f"closed: {error}"
        except (OSError, InvalidHandshake, EOFError, TimeoutError, MalformedPayload) as error:
            why = f"{type(error).__name__}: {error}"
        self._socket = None
        self.status.connected = False
        self.status.last_error = why[:300]
        self.status.failures += not opened
        if opened:
            log.info("log stream ended (%s); reconnecting", why)
            self._on_down(why)
        return False

    async def _subscribe(self, socket: ClientConnection) -> Opening:
        """Sends the one subscribe and waits for the snapshot; entries before it are kept."""
        after = self.cursor.begin()
        await socket.send(json.dumps({"type": "logs.subscribe", "after_seq": after}))
        async with asyncio.timeout(SNAPSHOT_LIMIT_S):
            while True:
                frame = self._read(await socket.recv())
                if isinstance(frame, Snapshot):
                    return self.cursor.snapshot(frame)
                if isinstance(frame, Live):
                    self.cursor.live(frame.entry)
                elif isinstance(frame, Complaint):
                    raise MalformedPayload(f"lemond refused the subscription: {frame.message}")

    async def _follow(self, socket: ClientConnection) -> None:
        garbage = 0
        async for message in socket:
            frame = self._read(message)
            garbage = garbage + 1 if frame is None else 0
            if garbage > MAX_GARBAGE:
                raise MalformedPayload(f"{garbage} unreadable frames in a row")
            if isinstance(frame, Live):
                for entry in self.cursor.live(frame.entry):
                    self._on_entry(entry)
            elif isinstance(frame, Snapshot):
                for entry in self.cursor.snapshot(frame).entries:
                    self._on_entry(entry)

    def _read(self, message: str | bytes) -> Snapshot | Live | Complaint | None:
        if self.on_raw is not None:
            self.on_raw(message)
        try:
            return read_frame(message)
        except MalformedPayload as error:
            self.status.malformed += 1
            self.status.last_error = str(error)[:300]
            if self.status.malformed <= 3 or self.status.malformed % 1000 == 0:
                log.warning("%s (%d so far; skipped)", error, self.status.malformed)
            return None
