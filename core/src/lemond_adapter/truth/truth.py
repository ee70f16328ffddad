"""List + watch: keeps the ledger true from lemond's listing, its log and its processes.

As a Kubernetes informer: `/v1/health` is the list, the log stream the watch, a heartbeat the relist
of last resort. Whatever the number of clients, lemond sees at most one listing at a time and one
WebSocket.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lemond_adapter.drivers import Driver, HealthListing, Installed, message_of
from lemond_adapter.drivers.native import ListReason
from lemond_adapter.truth.address import LemondAddress
from lemond_adapter.truth.backoff import Backoff
from lemond_adapter.truth.control import LemondClient
from lemond_adapter.truth.correlator import Correlator
from lemond_adapter.truth.cursor import Continuity, Opening
from lemond_adapter.truth.hints import Hint
from lemond_adapter.truth.hub import EventHub
from lemond_adapter.truth.ledger import Ledger
from lemond_adapter.truth.logentry import LogEntry
from lemond_adapter.truth.logstream import LogStreamSubscriber
from lemond_adapter.truth.native_feed import NativeFeed
from lemond_adapter.truth.neighbour import Neighbour
from lemond_adapter.truth.reading import Reading
from lemond_adapter.truth.record import Ending
from lemond_adapter.truth.witness import Witness
from lemond_adapter.types import (
    Knowledge,
    Known,
    LemondError,
    LemondLost,
    LemondStarted,
    LoadedModel,
    LoadFailed,
    LoadStarted,
    ModelLoaded,
    ProcessSpawned,
    Resynced,
    ResyncReason,
    SlotEvent,
    Unknown,
)

log = logging.getLogger(__name__)

COALESCE_S = 0.005

_LOAD_EVENTS = (LoadStarted, ProcessSpawned, ModelLoaded, LoadFailed)

RECHECK_S = 0.2
"""Pause before a listing that is only to confirm the one before."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Periods in seconds. `silence_s` is how long health may be silent before knowledge is Unknown."""

    heartbeat_s: float = 30.0
    silence_s: float = 10.0


class Truth:
    """Everything that is known of one lemond, kept current by two tasks."""

    def __init__(
        self,
        address: LemondAddress,
        client: LemondClient,
        hub: EventHub,
        *,
        installed: Installed,
        forced_driver: str | None,
        api_key: str | None,
        slot_name: Callable[[str], str | None],
        timing: Timing,
    ) -> None:
        self.address = address
        self._client = client
        self.hub = hub
        self._slot_name = slot_name
        self._timing = timing
        loop = asyncio.get_running_loop()
        self.witness = Witness(
            address, slot_name=slot_name, on_end=self._process_ended, on_lemond_end=self._lemond_ended
        )
        self.ledger = Ledger(clock=loop.time, alive=self.witness.alive, make_route=self.witness.make_route)
        self.correlator = Correlator(self._public_name)
        self.stream = LogStreamSubscriber(
            self._stream_url,
            api_key=api_key,
            on_opening=self._log_opened,
            on_entry=self._log_entry,
            on_down=self._log_down,
        )
        self.reading = Reading(installed, forced_driver)
        self.native = NativeFeed(
            installed.drivers,
            address.url,
            api_key,
            on_hint=lambda hint: self._apply([hint]),
            on_event=lambda event: self.publish([event]),
            on_restart=self._restarted,
            on_up=self._native_up,
            on_down=self._log_down,
            complain=self.reading.complain,
        )
        self.neighbour = Neighbour()
        self.listing: HealthListing | None = None
        self.knowledge_since: datetime = datetime.now(UTC)
        self.unknown_why: str | None = "lemond was not asked yet"
        self.hanging = False
        """lemond's HTTP server answers, its control plane does not."""
        self.unknown_lines: Counter[str] = Counter()
        self.listings = 0
        self.listed_at: datetime | None = None
        """When the last listing was taken."""
        self.loads_for_us: Callable[[str], bool] = lambda model: False
        """Whether a load of ours is what lemond is busy with."""
        self.on_body: Callable[[dict[str, Any]], None] | None = None
        """Gets every health body as it came, for recording."""
        self._taps: list[Callable[[LogEntry], None]] = []
        self._listing_open = False
        self._started_anew = False
        self._resync: ResyncReason | None = "startup"
        self._wanted = asyncio.Event()
        self._turn = asyncio.Condition()
        self._first = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # Questions.

    @property
    def driver(self) -> Driver | None:
        """The driver in use; None before lemond was met."""
        return self.reading.driver

    def knowledge(self) -> Knowledge[tuple[LoadedModel, ...]]:
        """What is loaded: Known, or Unknown since when and why."""
        if self.unknown_why is not None:
            return Unknown(self.knowledge_since, self.unknown_why)
        return Known(self.ledger.loaded(), self.knowledge_since)

    @property
    def reachable(self) -> bool:
        """Whether lemond answered when it was last asked."""
        return self.unknown_why is None

    # Life.

    def start(self) -> None:
        """Starts the tasks."""
        self._tasks = [
            asyncio.create_task(self._keep_listing(), name="lemond listing"),
            asyncio.create_task(self.stream.run(), name="lemond log stream"),
        ]

    async def first_contact(self) -> None:
        """Returns once lemond was asked for the first time, whatever came of it."""
        await self._first.wait()

    async def close(self) -> None:
        """Stops the tasks and the watches."""
        await self.native.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._expiry is not None:
            self._expiry.cancel()
        self.witness.close()

    def relist(self) -> None:
        """Asks for a listing soon; any number of calls make one."""
        self._wanted.set()

    async def relisted(self, timeout_s: float) -> bool:
        """Waits for a listing that was asked for after this call; False when none came in time."""
        target = self.listings + (2 if self._listing_open else 1)
        self.relist()
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                await self._turn.wait_for(lambda: self.listings >= target)
        except TimeoutError:
            return False
        return True

    def publish(self, events: list[SlotEvent]) -> None:
        """Stamps and sends events, and sees to what the ledger wants next."""
        for event in events:
            if event.model is not None:
                more: dict[str, Any] = {} if event.slot else {"slot": self._slot_name(event.model)}
                if isinstance(event, _LOAD_EVENTS) and self.loads_for_us(event.model):
                    more["initiator"] = "adapter"
                event = event.model_copy(update=more)
            self.hub.publish(event)
        if self.ledger.wants_listing:
            self._wanted.set()
        self._arm_expiry()

    # The list.

    async def _keep_listing(self) -> None:
        backoff = Backoff(first=0.2, ceiling=5.0)
        while True:
            self._wanted.clear()
            if await self._list_once():
                backoff.reset()
                pause = RECHECK_S if self.ledger.wants_listing else None
            else:
                pause = backoff.next()
            self._first.set()
            if pause is not None:
                await asyncio.sleep(pause)
            else:
                await self._until_wanted()

    async def _until_wanted(self) -> None:
        try:
            # (Not wait_for: on Python 3.11 it loses a cancellation that comes together with the event.)
            async with asyncio.timeout(self._timing.heartbeat_s):
                await self._wanted.wait()
        except TimeoutError:
            if self._resync is None:
                self._resync = "heartbeat"
            return
        # What came in a burst is answered by one listing, and the events of it go out first.
        await asyncio.sleep(COALESCE_S)

    async def _list_once(self) -> bool:
        """One question to lemond, open for as long as lemond takes; False when it gave no answer."""
        token = self.ledger.begin_listing()
        self._listing_open = True
        call = asyncio.ensure_future(self._client.health())
        try:
            done, _ = await asyncio.wait({call}, timeout=self._timing.silence_s)
            if not done:
                # Not a verdict on the children: health blocks during evictions. The call stays open,
                # so that the first moment lemond answers again is not missed.
                self._first.set()
                await self._tell_hang(call)
            body = await call
            self._take(body, token)
        except LemondError as error:
            self._lost(str(error))
            return False
        finally:
            self._listing_open = False
            call.cancel()
        self.listings += 1
        self.listed_at = datetime.now(UTC)
        async with self._turn:
            self._turn.notify_all()
        return True

    async def _tell_hang(self, call: asyncio.Future[dict[str, Any]]) -> None:
        """Silent and gone are different things: `/live` needs none of lemond's locks (10.5.0-11.7.0)."""
        silent = f"/v1/health has been silent for {self._timing.silence_s:g} s"
        live = await self._client.live()
        if call.done():
            return
        self.hanging = live
        self._lost(f"{silent}, though /live answers: its control plane hangs" if live else silent)

    def _take(self, body: dict[str, Any], token: int) -> None:
        if self.on_body is not None:
            self.on_body(body)
        self._meet(body.get("version"))
        listing = self.reading.parse(body)
        was_lost = self.unknown_why is not None
        old_port = self.listing.websocket_port if self.listing else None
        self.listing = listing
        self.unknown_why = None
        self.hanging = False
        self.witness.driver = self.driver
        self.witness.see(listing)
        if was_lost and self._resync in (None, "heartbeat"):
            self._resync = "reconnect"
        reason, self._resync = self._resync, None
        self.native.advertise(listing.native_events)
        self._mind_the_neighbour(old_port, listing.websocket_port)
        events = self.ledger.apply_listing(listing, token, partial=self.neighbour.shared)
        self.witness.settle(listing, self.ledger.loaded())
        if was_lost:
            self.knowledge_since = datetime.now(UTC)
        if was_lost or (old_port != listing.websocket_port and not self.neighbour.shared):
            self.stream.nudge()
            self.native.nudge()
        if reason is not None and (events or reason != "heartbeat"):
            events.append(Resynced(reason=reason, changes=len(events), source="health"))
        self.publish(events)

    def _mind_the_neighbour(self, old_port: int | None, port: int | None) -> None:
        lives = self.stream.status.connected and self.witness.lemond_alive() is not False
        if not self.neighbour.listing(old_port, port, first_lives=lives):
            return
        if self.neighbour.shared:
            self.reading.complain(
                f"two lemonds share {self.address.url} (WebSocket ports {old_port} and {port} "
                "alternate): stop one of them; until then only processes say what is gone"
            )
        else:
            self.relist()

    def _meet(self, reported: object) -> None:
        """A version that was not seen before, or a lemond that started anew, is an event."""
        fits = self.reading.fits(reported)
        if fits and not self._started_anew:
            return
        if not fits and self.reading.selection is not None:
            self._restarted("another version")
        self._started_anew = False
        selection = self.reading.selection if fits else self.reading.choose(reported)
        assert selection is not None
        self.hub.publish(
            LemondStarted(
                version=selection.version,
                driver=selection.driver.name,
                driver_match=selection.match,
                source="probe",
            )
        )

    def _lost(self, why: str) -> None:
        if self.unknown_why is None:
            self.knowledge_since = datetime.now(UTC)
            self.unknown_why = why
            log.warning("lemond lost: %s", why)
            self.publish([LemondLost(reason=why, source="probe")])
        elif self.unknown_why != why:
            log.warning("lemond is not there: %s", why)
            self.unknown_why = why

    def _restarted(self, how: str) -> None:
        if self._resync == "startup":
            return
        log.info("lemond restarted (%s)", how)
        self.correlator.restarted()
        events = self.ledger.lemond_restarted()
        self._resync = "restart"
        self._started_anew = True
        self.publish(events)
        self.relist()

    # The watch.

    def _stream_url(self) -> str | None:
        ports: list[int] = []
        if self.driver is not None and self.driver.traits.log_stream_on_main_port:
            ports.append(self.address.port)
        if self.listing is not None and self.listing.websocket_port is not None:
            ports.append(self.listing.websocket_port)
        if not ports or not self.reachable or self.native.active:
            return None
        # Where both exist the main port comes first; after a failure the other one has its turn.
        port = ports[self.stream.status.failures % len(ports)]
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        scheme = "wss" if self.address.scheme == "https" else "ws"
        return f"{scheme}://{host}:{port}/logs/stream"

    def _native_up(self, reason: ListReason | None) -> None:
        self.ledger.log_attached = True
        self._resync = self._resync or ("gap" if reason == "gap" else "reconnect")
        self.relist()

    def _log_opened(self, opening: Opening) -> None:
        if opening.continuity is Continuity.BROKEN:
            self._restarted("its log starts anew")
            return
        self.ledger.log_attached = True
        if opening.continuity is Continuity.FIRST:
            for entry in opening.entries:
                self._hints(entry)
            self._apply(self.correlator.history_ends())
        else:
            for entry in opening.entries:
                self._log_entry(entry)
            self._resync = self._resync or "reconnect"
        self.relist()

    @contextmanager
    def log_tap(self, take: Callable[[LogEntry], None]) -> Iterator[None]:
        """`take` gets every new log entry while the context lasts."""
        self._taps.append(take)
        try:
            yield
        finally:
            self._taps.remove(take)

    def _log_entry(self, entry: LogEntry) -> None:
        for take in self._taps:
            take(entry)
        self._apply(self._hints(entry))

    def _log_down(self, why: str) -> None:
        self.ledger.log_attached = False
        self.relist()

    def _hints(self, entry: LogEntry) -> list[Hint]:
        driver = self.driver
        if driver is None:
            return []
        signal = driver.matcher.match_line(entry.line)
        if signal is None:
            message = message_of(entry.line)
            unknown = driver.matcher.rules and driver.matcher.looks_like_lifecycle(entry.tag, message)
            if unknown and (len(self.unknown_lines) < 200 or message in self.unknown_lines):
                self.unknown_lines[message[:300]] += 1
            return []
        return self.correlator.feed(signal, entry.seq)

    def _apply(self, hints: list[Hint]) -> None:
        for hint in hints:
            self.publish(self.ledger.hint(hint))

    def _public_name(self, canonical: str) -> str:
        driver = self.driver
        return driver.public_name(canonical, tuple(self.ledger.names())) if driver else canonical

    # Processes.

    def _process_ended(self, pid: int, ending: Ending) -> None:
        self.publish(self.ledger.process_ended(pid, ending, lemond_alive=self.witness.lemond_alive()))

    def _lemond_ended(self, ending: Ending) -> None:
        self._lost(f"lemond's process ended ({ending.text or 'no exit status'})")
        self.stream.cursor.reset()  # what comes next is another process's log
        self._restarted("its process ended")

    def _arm_expiry(self) -> None:
        deadline = self.ledger.next_deadline()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if deadline is not None:
            self._expiry = asyncio.get_running_loop().call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        self.publish(self.ledger.expire())
