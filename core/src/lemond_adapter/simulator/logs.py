"""The log hub: 5000 retained entries, seq from 1, the frame shapes of lemond 10.5-11.7."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

RETAINED = 5000
_ORDER = ("Trace", "Debug", "Info", "Notice", "Warn", "Error", "Fatal")
_LEVELS = {"trace": 0, "debug": 1, "info": 2, "warning": 4, "error": 5, "fatal": 6}
echo = logging.getLogger("lemond_adapter.simulator.log")

Send = Callable[[str], None]


class LogHub:
    """Lines come in by `write`; subscribers get frames. `hidden` entries are published to nobody."""

    def __init__(self, level: str) -> None:
        self._least = _LEVELS.get(level, 2)
        self._ring: deque[dict[str, Any]] = deque(maxlen=RETAINED)
        self._seq = 0
        self._subscribers: list[Send] = []
        self.hidden = 0
        self.silent_until = 0.0
        self.subscribes = 0
        self.clock_offset_s = 0.0

    def set_level(self, level: str) -> None:
        """What is written from now on; lemond takes a level it does not know for info."""
        self._least = _LEVELS.get(level, 2)

    def write(self, severity: str, tag: str, text: str) -> None:
        """One log statement; several lines become several entries, empty ones none."""
        if severity in _ORDER and _ORDER.index(severity) < self._least:
            return
        now = datetime.now() + timedelta(seconds=self.clock_offset_s)
        stamp = now.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        for line in text.split("\n"):
            if line:
                self._publish(severity, tag, line, stamp)

    def info(self, tag: str, text: str) -> None:
        """At the level that shows by default."""
        self.write("Info", tag, text)

    def debug(self, tag: str, text: str) -> None:
        """Shown at log level debug."""
        self.write("Debug", tag, text)

    def error(self, tag: str, text: str) -> None:
        """An error line."""
        self.write("Error", tag, text)

    def _publish(self, severity: str, tag: str, line: str, stamp: str) -> None:
        self._seq += 1
        entry = {
            "line": f"{stamp} [{severity}] ({tag}) {line}",
            "seq": self._seq,
            "severity": severity,
            "tag": tag,
            "timestamp": stamp,
        }
        echo.debug("%s", entry["line"])
        self._ring.append(entry)
        if self.hidden > 0:
            self.hidden -= 1
            return
        if time.monotonic() < self.silent_until:
            return
        frame = _frame({"entry": entry, "type": "logs.entry"})
        for send in list(self._subscribers):
            send(frame)

    def snapshot(self, after: int) -> str:
        """One frame with everything behind `after`."""
        entries = [entry for entry in self._ring if entry["seq"] > after]
        return _frame({"entries": entries, "type": "logs.snapshot"})

    def subscribe(self, send: Send) -> None:
        """A second subscribe on one connection adds a second subscriber, as in lemond."""
        self.subscribes += 1
        self._subscribers.append(send)

    def leave(self, send: Send) -> None:
        """Removes all of a connection's subscriptions."""
        self._subscribers = [other for other in self._subscribers if other is not send]

    def restart(self) -> None:
        """Another process: the ring is empty and seq starts at 1."""
        self._ring.clear()
        self._seq = 0
        self.hidden = 0


def _frame(body: dict[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
