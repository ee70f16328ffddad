"""The native channel's end in the core: what lemond tells by itself becomes hints, as log lines do.

A better watch, not another truth: a native event still makes no route, because only the listing and
the processes together prove one. It names its model, so nothing has to be correlated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lemond_adapter.drivers import Driver, HealthListing
from lemond_adapter.drivers.native import EventSource, ListReason, SourceStatus
from lemond_adapter.truth.hints import Hint, HintKind
from lemond_adapter.types import (
    EvictionStarted,
    LemondError,
    LoadFailed,
    LoadStarted,
    ModelEvicted,
    ModelLoaded,
    PortChanged,
    ProcessCrashed,
    ProcessSpawned,
    SlotEvent,
)

log = logging.getLogger(__name__)


def hint_of(event: SlotEvent) -> Hint | None:
    """What an event of lemond's suggests to the ledger; None for downloads."""
    model, seq = event.model, event.lemond_seq
    match event:
        case LoadStarted():
            return Hint(HintKind.STARTING, model, lemond_seq=seq)
        case ProcessSpawned():
            return Hint(HintKind.SPAWNED, model, pid=event.pid, lemond_seq=seq)
        case ModelLoaded():
            return Hint(HintKind.LOADED, model, pid=event.pid, lemond_seq=seq)
        case LoadFailed():
            return Hint(HintKind.FAILED, model, text=event.reason, failure=event.kind, lemond_seq=seq)
        case EvictionStarted():
            return Hint(HintKind.EVICTING, model, reason=event.reason, lemond_seq=seq)
        case ModelEvicted():
            return Hint(HintKind.EVICTED, model, reason=event.reason, lemond_seq=seq)
        case ProcessCrashed():
            return Hint(HintKind.DEAD, model, pid=event.pid, text=event.exit, lemond_seq=seq)
        case PortChanged():
            return Hint(HintKind.RELIST, model, text="its port changed", lemond_seq=seq)
    return None


class NativeFeed:
    """Runs the source that a native driver gives for what health advertises, and implements its sink.

    `on_hint` and `on_event` get what it tells; `on_restart` is called for another boot, `on_gap` when
    something may have been missed, `on_up` and `on_down` when the channel comes and goes.
    """

    def __init__(
        self,
        drivers: Sequence[Driver],
        base_url: str,
        api_key: str | None,
        *,
        on_hint: Callable[[Hint], None],
        on_event: Callable[[SlotEvent], None],
        on_restart: Callable[[str], None],
        on_up: Callable[[ListReason | None], None],
        on_down: Callable[[str], None],
        complain: Callable[[str], None],
    ) -> None:
        self._drivers = [driver for driver in drivers if driver.info.channel == "native"]
        self._base_url = base_url
        self._api_key = api_key
        self._on_hint = on_hint
        self._on_event = on_event
        self._on_restart = on_restart
        self._on_up = on_up
        self._on_down = on_down
        self._complain = complain
        self._advertised: Mapping[str, Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._source: EventSource | None = None

    @property
    def active(self) -> bool:
        """Whether lemond advertises a channel that an installed driver follows."""
        return self._task is not None and not self._task.done()

    @property
    def status(self) -> SourceStatus | None:
        """The source's counters while there is one."""
        return self._source.status if self._source is not None else None

    def advertise(self, advertised: Mapping[str, Any] | None) -> None:
        """What health says of the channel now: starts, changes or ends the source."""
        if advertised == self._advertised:
            return
        self._advertised = advertised
        ending = self._task
        self._stop()
        if advertised is None:
            return
        for driver in self._drivers:
            source = self._ask(driver, advertised)
            if source is not None:
                self._source = source
                self._task = asyncio.create_task(self._run(source, driver.name, ending), name="native events")
                return

    def _ask(self, driver: Driver, advertised: Mapping[str, Any]) -> EventSource | None:
        try:
            source = driver.event_source(advertised, self._base_url, self._api_key)
        except LemondError as error:
            self._complain(f"native events: {error}")
            return None
        except Exception as error:  # noqa: BLE001 - a plugin's fault; the log stream goes on
            self._complain(f"driver {driver.name}: event_source raised {error!r:.200}")
            return None
        if source is None or isinstance(source, EventSource):
            return source
        self._complain(f"driver {driver.name}: event_source gave a {type(source).__name__}")
        return None

    async def _run(self, source: EventSource, name: str, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)  # never two connections at once
        try:
            await source.run(self)
        except Exception as error:  # noqa: BLE001 - a plugin's fault; the log stream takes over
            self._complain(f"driver {name}: its event source ended: {error!r:.200}")
        self._on_down("the native event source ended")

    def nudge(self) -> None:
        """lemond seems to be back."""
        if self._source is not None:
            self._source.nudge()

    async def close(self) -> None:
        """Ends the source."""
        task = self._task
        self._stop()
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = self._source = None

    # The sink.

    def listed(self, listing: HealthListing, *, boot_id: str, seq: int, reason: ListReason) -> None:
        """A list came: health is asked as well, because a route needs its proof."""
        if reason == "boot":
            self._on_restart("another boot id")
        self._on_up(reason)

    def event(self, event: SlotEvent, *, seq: int) -> None:
        """One event of lemond's."""
        hint = hint_of(event)
        if hint is None:
            self._on_event(event)
        else:
            self._on_hint(hint)

    def resumed(self, *, boot_id: str, seq: int) -> None:
        """Nothing was missed."""
        self._on_up(None)

    def down(self, why: str) -> None:
        """The view is stale; processes and the heartbeat go on."""
        self._on_down(why)
