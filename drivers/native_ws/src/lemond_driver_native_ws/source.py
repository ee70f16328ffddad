"""Follows the event WebSocket: one connection, list then watch, resume by boot id and seq.

Nothing is ever sent after the handshake: what to resume stands in the URL and the key in a header.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from lemond_adapter.drivers import HealthListing, parse_health
from lemond_adapter.drivers.native import EventSink, ListReason, SourceStatus, decode_native_event
from lemond_adapter.types import ConfigError, MalformedPayload
from lemond_driver_native_ws.address import PROTOCOL, resume_url
from lemond_driver_native_ws.errors import (
    BadContent,
    Ended,
    HeartbeatMissed,
    LinkError,
    ProtocolMismatch,
    Refused,
    SeqGap,
    Unreachable,
)
from lemond_driver_native_ws.frames import (
    Event,
    Frame,
    Heartbeat,
    Hello,
    Listing,
    MalformedFrame,
    Problem,
    read_frame,
)

log = logging.getLogger(__name__)

MAX_FRAME = 64 * 1024 * 1024
MAX_GARBAGE = 100
"""Unreadable frames in a row after which the connection is given up."""
HELLO_LIMIT_S = 10.0
SILENCE = 2.5
"""Heartbeat periods without any frame after which the connection counts as dead."""
_CONTENT_CODES = (1002, 1007, 1009)
"""Close codes by which the library says that it could not take what came."""


class _Connect(connect):
    """Without redirects: the key and the trust belong to the configured host alone."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class NativeEventSource:
    """An `EventSource` over `websockets`."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        first_delay_s: float = 0.25,
        max_delay_s: float = 15.0,
        max_frame: int = MAX_FRAME,
    ) -> None:
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise ConfigError("lemond's API key holds characters that no HTTP header can carry")
        self._url = url
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._first_delay_s = first_delay_s
        self._max_delay_s = max_delay_s
        self._max_frame = max_frame
        self._nudge = asyncio.Event()
        self._status = SourceStatus(url=url)
        self._running = False
        self._attempts = 0
        self._boot: str | None = None
        self._seq = 0
        self._fresh = False
        self._gap_at: tuple[str | None, int] | None = None
        self._up_since: float | None = None
        self._told: str | None = None

    @property
    def status(self) -> SourceStatus:
        return self._status

    def nudge(self) -> None:
        self._nudge.set()

    async def run(self, sink: EventSink) -> None:
        if self._running:
            raise RuntimeError("this event source runs already; it holds one connection, not two")
        self._running = True
        try:
            while True:
                error = await self._pass(sink)
                self._note(error, sink)
                await self._wait(self._delay(error))
        finally:
            self._running = False
            self._status.connected = False

    async def _pass(self, sink: EventSink) -> LinkError:
        """One connection, from the handshake to its end; returns why it ended."""
        try:
            socket = await self._connect()
            try:
                hello = await self._hello(socket)
                await self._follow(socket, hello, sink)
            finally:
                await socket.close()
        except LinkError as error:
            return error
        return Ended("the connection ended")

    async def _connect(self) -> ClientConnection:
        boot = None if self._fresh else self._boot
        try:
            socket = await _Connect(
                resume_url(self._url, boot, self._seq),
                proxy=None,
                compression=None,
                max_size=self._max_frame,
                max_queue=4,
                open_timeout=5,
                close_timeout=1,
                ping_interval=None,  # lemond's heartbeat is the sign of life
                user_agent_header="lemond-driver-native-ws",
                additional_headers=self._headers,
            )
        except InvalidStatus as error:
            raise _refusal(error) from error
        except (EOFError, InvalidHandshake) as error:
            raise Unreachable(
                f"{self._url}: no HTTP answer to the handshake ({error}); "
                "lemond's WebSockets also refuse a wrong or missing key in this way"
            ) from error
        except (OSError, InvalidURI, UnicodeError) as error:  # UnicodeError: a host that is no name
            raise Unreachable(f"{self._url}: {type(error).__name__}: {error}") from error
        self._status.reconnects += self._status.connects > 0
        self._status.connects += 1
        return socket

    async def _hello(self, socket: ClientConnection) -> Hello:
        async with _limit(HELLO_LIMIT_S, f"no hello within {HELLO_LIMIT_S:g} s"):
            frame = await self._receive(socket)
        if isinstance(frame, Problem):
            raise _ending(frame)
        if not isinstance(frame, Hello):
            raise BadContent("the first frame is not a hello")
        if frame.protocol != PROTOCOL:
            raise ProtocolMismatch(f"lemond speaks event protocol {frame.protocol}, this driver {PROTOCOL}")
        if frame.resumed and (self._fresh or frame.boot_id != self._boot or frame.seq < self._seq):
            raise BadContent(f"lemond resumed what was not asked for (boot {frame.boot_id}, seq {frame.seq})")
        return frame

    async def _follow(self, socket: ClientConnection, hello: Hello, sink: EventSink) -> None:
        """Hands frames to the sink until the connection ends, always by a `LinkError`."""
        silence = hello.heartbeat_s * SILENCE
        listed, owed = hello.resumed, hello.resumed
        garbage = 0
        while True:
            if owed and self._seq >= hello.seq:
                owed = False
                self._is_up()
                self._status.resumes += 1
                sink.resumed(boot_id=hello.boot_id, seq=self._seq)
            async with _limit(
                silence, f"silence for {silence:g} s (heartbeats every {hello.heartbeat_s:g} s)"
            ):
                frame = await self._receive(socket)
            garbage = garbage + 1 if frame is None else 0
            if garbage > MAX_GARBAGE:
                raise BadContent(f"{garbage} unreadable frames in a row")
            if isinstance(frame, Problem):
                raise _ending(frame)
            if isinstance(frame, Listing):
                self._take_list(frame, hello, sink)
                listed, owed = True, False
            elif isinstance(frame, Hello):
                raise BadContent("a second hello on one connection")
            elif frame is not None and not listed:
                raise BadContent("neither resumed nor listed before the first event")
            elif isinstance(frame, Event):
                self._take_event(frame, sink)
            elif isinstance(frame, Heartbeat) and frame.seq > self._seq:
                raise SeqGap(f"lemond has sent event {frame.seq}, the last one seen is {self._seq}")
            elif isinstance(frame, Heartbeat) and owed:
                raise SeqGap(f"lemond fell silent at event {self._seq} of {hello.seq} that it resumed")

    def _take_list(self, frame: Listing, hello: Hello, sink: EventSink) -> None:
        try:
            listing = _listing(frame, hello)
        except MalformedPayload as error:
            raise BadContent(f"list frame: {error}") from error
        # What it means to the core depends on what the core was told, not on what was asked for here.
        reason: ListReason = (
            "start" if self._boot is None else "gap" if self._boot == hello.boot_id else "boot"
        )
        self._boot, self._seq, self._fresh = hello.boot_id, frame.seq, False
        self._status.lists += 1
        self._is_up()
        sink.listed(listing, boot_id=hello.boot_id, seq=frame.seq, reason=reason)

    def _take_event(self, frame: Event, sink: EventSink) -> None:
        if frame.seq <= self._seq:
            self._count("duplicate", f"event {frame.seq} came again")
            return
        if frame.seq > self._seq + 1:
            raise SeqGap(f"event {frame.seq} follows {self._seq}")
        try:
            event = decode_native_event(frame.event, seq=frame.seq)
        except MalformedPayload as error:
            raise BadContent(str(error)) from error
        self._seq = self._status.last_seq = frame.seq
        if event is None:
            self._count(
                "unknown_event", f"event {frame.seq} is of unknown type {frame.event.get('type')!r:.60}"
            )
            return
        self._status.events += 1
        sink.event(event, seq=frame.seq)

    async def _receive(self, socket: ClientConnection) -> Frame | None:
        """The next frame; None for one that was skipped and counted."""
        try:
            message = await socket.recv()
        except ConnectionClosed as error:
            if error.sent is not None and not error.rcvd_then_sent and error.sent.code in _CONTENT_CODES:
                raise BadContent(f"a frame that cannot be taken: {error}") from error
            raise Ended(f"closed: {error}") from error
        try:
            frame = read_frame(message)
        except MalformedFrame as error:
            self._count(error.problem, str(error))
            if error.costs_state:
                raise BadContent(str(error)) from error
            return None
        if frame is None:
            self._count("unknown_frame", f"unknown frame: {message[:80]!r}")
        return frame

    def _is_up(self) -> None:
        if self._up_since is None:
            self._up_since = asyncio.get_running_loop().time()
        self._status.connected = True
        self._status.boot_id, self._status.last_seq = self._boot, self._seq

    def _note(self, error: LinkError, sink: EventSink) -> None:
        """Draws the conclusions from the end of a connection, and tells the sink once."""
        was_up, self._status.connected = self._status.connected, False
        if self._up_since is not None:
            # Only a connection that lasted resets the back-off: one that fails on content does not.
            if asyncio.get_running_loop().time() - self._up_since >= self._max_delay_s:
                self._attempts = 0
            self._up_since = None
        if isinstance(error, SeqGap):
            # Resuming brings the lost event back; if it does not, only a list can.
            here = (self._boot, self._seq)
            self._fresh, self._gap_at = self._gap_at == here, here
        elif error.fresh:
            self._fresh = True
        why = str(error)[:300]
        self._status.last_error = why
        self._status.problems[error.problem] += 1
        if was_up or why != self._told:
            log.warning("native events: %s", why)
            sink.down(why)
        self._told = why

    def _count(self, problem: str, text: str) -> None:
        self._status.problems[problem] += 1
        count = self._status.problems[problem]
        if count <= 3 or count % 1000 == 0:
            log.warning("native events: %s (%s, %d so far)", text, problem, count)

    def _delay(self, error: LinkError) -> float:
        span = min(self._max_delay_s, self._first_delay_s * 2.0 ** min(self._attempts, 30))
        self._attempts += 1
        if error.patient:
            span = self._max_delay_s
        return max(random.uniform(span / 2, span), min(error.retry_after_s, self._max_delay_s))

    async def _wait(self, delay: float) -> None:
        try:
            await asyncio.wait_for(self._nudge.wait(), delay)
        except TimeoutError:
            return
        finally:
            self._nudge.clear()


@asynccontextmanager
async def _limit(seconds: float, why: str) -> AsyncIterator[None]:
    """A time limit that ends as `HeartbeatMissed`."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise HeartbeatMissed(why) from None


def _listing(frame: Listing, hello: Hello) -> HealthListing:
    """By the core's own schema. Drift of keys is for the release's driver to report, from health."""
    body = {"version": hello.version, "all_models_loaded": frame.all_models_loaded}
    extra = frame.model_extra or {}
    if isinstance(extra.get("max_models"), dict):
        body["max_models"] = extra["max_models"]
    return dataclasses.replace(parse_health(body), unknown_keys=frozenset())


def _refusal(error: InvalidStatus) -> Refused:
    status = error.response.status_code
    text = bytes(error.response.body or b"")[:200].decode("utf-8", "replace").strip()
    hint = {
        401: "lemond refused the API key for its events (401): it is missing or wrong",
        403: "lemond forbids its events to this client (403)",
        404: "lemond has no events at the path it advertises (404)",
    }.get(status, f"lemond refused the event WebSocket with status {status}")
    return Refused(f"{hint}{': ' + text if text else ''}")


def _ending(frame: Problem) -> LinkError:
    why = f"lemond ended the events: {frame.code}: {frame.message[:200]}"
    return Ended(why, retry_after_s=frame.retry_after_s)
