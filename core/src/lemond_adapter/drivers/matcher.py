"""Finds the rule for a log line: one dictionary look-up for chatter, one or two patterns otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lemond_adapter.drivers.signals import LogRule, Signal, SignalKind

_PREFIX = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} "
    r"\[(?:Trace|Debug|Info|Notice|Warn|Error|Fatal)\] \([^)]*\(?\)?\) "
)
_PREFIX_LENGTH = len("2026-11-23 23:41:54.005 [")

# Words of the daemon's own lifecycle vocabulary. A line with one of them that no rule knows is worth
# a look when a new release appears; children's output (tag Process) is not the daemon's.
_LIFECYCLE_LOOK = re.compile(
    r"\b(?:un|re)?load(?:ing|ed|s)?\b|\bevict(?:ing|ed|ion)\b|\bwatchdog\b|\bbackend marked\b|\bPID\b"
    r"|\bunavailable\b|\btombston|\bremov(?:ing|ed)\b|\bspawn(?:ing|ed)?\b|\bcrash(?:ed)?\b|\bdied\b"
    r"|\brestart(?:ing|ed)\b|\bkill(?:ing|ed)\b",
    re.IGNORECASE,
)
_NOT_LIFECYCLE_TAGS = frozenset({"Process", "Telemetry", "ModelManager", "FLM", "WebSocket"})


def message_of(line: str) -> str:
    """The message text of a log line, without timestamp, severity and tag.

    Falls back to the whole line when the prefix is not lemond's (all releases 10.5.0-11.7.0 use it).
    """
    found = _PREFIX.match(line)
    return line[found.end() :] if found else line


class LogMatcher:
    """Compiled rules of one driver. Stateless, safe to share."""

    __slots__ = ("_by_word", "rules")

    def __init__(self, rules: Iterable[LogRule]) -> None:
        self.rules = tuple(rules)
        by_word: dict[str, list[LogRule]] = {}
        for rule in self.rules:
            for word in rule.words:
                by_word.setdefault(word, []).append(rule)
        self._by_word = {word: tuple(found) for word, found in by_word.items()}

    def match(self, message: str) -> Signal | None:
        """The signal in a message text, or None when no rule knows it."""
        candidates = self._by_word.get(message.partition(" ")[0])
        if candidates is None:
            return None
        for rule in candidates:
            found = rule.pattern.match(message)
            if found is not None:
                return _signal(rule.kind, found)
        return None

    def match_line(self, line: str) -> Signal | None:
        """The signal in a whole log line."""
        # The tag ends at the first ") " behind the fixed-width timestamp; looking for it is several
        # times cheaper than a pattern, and a tag that holds ") " only costs the slow path below.
        end = line.find(") ", _PREFIX_LENGTH)
        if end < 0:
            return self.match(line)
        signal = self.match(line[end + 2 :])
        if signal is None and line.startswith("operator()", line.find("(", _PREFIX_LENGTH) + 1):
            return self.match(message_of(line))
        return signal

    def looks_like_lifecycle(self, tag: str, message: str) -> bool:
        """Whether a message that no rule knows sounds like lifecycle (a sign of a changed release)."""
        return tag not in _NOT_LIFECYCLE_TAGS and _LIFECYCLE_LOOK.search(message) is not None


def _signal(kind: SignalKind, found: re.Match[str]) -> Signal:
    groups = found.groupdict()
    if not groups:
        return Signal(kind)
    pid, port = groups.get("pid"), groups.get("port")
    return Signal(
        kind,
        model=groups.get("model"),
        pid=int(pid) if pid else None,
        port=int(port) if port else None,
        reason=groups.get("reason"),
    )
