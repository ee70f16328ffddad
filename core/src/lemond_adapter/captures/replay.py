"""Replays a capture through a driver, the correlator and the ledger, on the capture's own clock.

Frames and health bodies are what a live adapter would get. Truth lines play the operating system
(which process has ended, and how): they never reach the driver.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lemond_adapter.captures.reader import Capture, CaptureLine
from lemond_adapter.drivers import Driver, message_of
from lemond_adapter.truth.correlator import Correlator
from lemond_adapter.truth.cursor import Continuity, LogCursor
from lemond_adapter.truth.ledger import Ledger
from lemond_adapter.truth.logentry import Live, LogEntry, Snapshot, read_frame
from lemond_adapter.truth.record import Ending
from lemond_adapter.types import LoadedModel, MalformedPayload, RouteInfo, SlotEvent
from lemond_adapter.types.events import UNSTAMPED


@dataclass(slots=True)
class Replay:
    """What came of it. `routes` is the history of the route table: (t, model, pid or None)."""

    events: list[SlotEvent] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    unknown_lines: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    routes: list[tuple[float, Mapping[str, RouteInfo]]] = field(default_factory=list)
    final_routes: Mapping[str, RouteInfo] = field(default_factory=dict)


def replay(capture: Capture, driver: Driver) -> Replay:
    """Feeds the capture's lines, in order. Malformed frames and bodies are complaints, not errors."""
    return _Player(driver).play(capture.lines)


class _Player:
    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._now = 0.0
        self._dead: set[int] = set()
        self._killed: set[int] = set()
        self._result = Replay()
        self._cursor = LogCursor()
        self._ledger = Ledger(clock=lambda: self._now, alive=self._alive, make_route=_route)
        self._ledger.log_attached = True
        self._correlator = Correlator(lambda name: driver.public_name(name, tuple(self._ledger.names())))

    def play(self, lines: Sequence[CaptureLine]) -> Replay:
        for line in lines:
            self._advance(line.t)
            match line.kind:
                case "ws_open":
                    self._cursor.begin()
                case "ws":
                    self._frame(line)
                case "health":
                    self._health(line)
                case "truth":
                    self._truth(line.data)
        self._advance(self._now + 10.0)
        self._result.final_routes = dict(self._ledger.routes)
        return self._result

    def _alive(self, entry: LoadedModel) -> bool | None:
        return entry.pid not in self._dead if entry.pid is not None else None

    def _advance(self, t: float) -> None:
        while (deadline := self._ledger.next_deadline()) is not None and deadline <= t:
            self._now = max(self._now, deadline)
            self._publish(self._ledger.expire())
        self._now = max(self._now, t)

    def _publish(self, events: Sequence[SlotEvent]) -> None:
        for event in events:
            stamped = event.model_copy(update={"seq": len(self._result.events) + 1, "at": UNSTAMPED})
            self._result.events.append(stamped)
            self._result.times.append(self._now)
        routes = dict(self._ledger.routes)
        if not self._result.routes or self._result.routes[-1][1] != routes:
            self._result.routes.append((self._now, routes))

    def _frame(self, line: CaptureLine) -> None:
        try:
            frame = read_frame(line.data.get("frame", ""))
        except MalformedPayload as error:
            self._result.complaints.append(f"line {line.number}: {error}")
            return
        match frame:
            case Snapshot():
                opening = self._cursor.snapshot(frame)
                for entry in opening.entries:
                    hints = self._hints(entry)
                    if opening.continuity is Continuity.CONTINUED:
                        self._apply(hints)
            case Live(entry):
                for fresh in self._cursor.live(entry):
                    self._apply(self._hints(fresh))

    def _hints(self, entry: LogEntry) -> list[Any]:
        signal = self._driver.matcher.match_line(entry.line)
        if signal is None:
            message = message_of(entry.line)
            if self._driver.matcher.looks_like_lifecycle(entry.tag, message):
                self._result.unknown_lines[message] += 1
            return []
        return self._correlator.feed(signal, entry.seq)

    def _apply(self, hints: Sequence[Any]) -> None:
        for hint in hints:
            self._publish(self._ledger.hint(hint))

    def _health(self, line: CaptureLine) -> None:
        if line.data.get("status") != 200:
            return
        try:
            listing = self._driver.parse_health(line.data.get("body"))
        except MalformedPayload as error:
            self._result.complaints.append(f"line {line.number}: {error}")
            return
        self._publish(self._ledger.apply_listing(listing, self._ledger.begin_listing()))

    def _truth(self, fact: Mapping[str, Any]) -> None:
        what, pid = fact.get("what"), fact.get("pid")
        if not isinstance(pid, int):
            return
        if what == "kill":
            self._killed.add(pid)
        elif what in ("zombie", "gone") and pid not in self._dead:
            self._dead.add(pid)
            killed = pid in self._killed
            ending = Ending("signal 9" if killed else "signal 15", graceful=not killed)
            self._publish(self._ledger.process_ended(pid, ending))


def _route(entry: LoadedModel, generation: int) -> RouteInfo | None:
    if entry.base_url is None or entry.port is None:
        return None
    return replace(_BLANK, model=entry.model, base_url=entry.base_url, port=entry.port, pid=entry.pid,
                   generation=generation)  # fmt: skip


_BLANK = RouteInfo(
    slot=None,
    model="",
    base_url="",
    port=0,
    pid=None,
    mode="child",
    generation=0,
    verified_at=UNSTAMPED,
)
