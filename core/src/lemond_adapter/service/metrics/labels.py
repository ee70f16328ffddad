"""Label values are bounded: names that lemond or a slot knows, the first so many of them, then `other`."""

from __future__ import annotations

from lemond_adapter.dispatch.traffic import Flight

MOST_NAMES = 200

OTHER = "other"
UNRESOLVED = "unresolved"
"""The slot of a request whose name stands for nothing that is known: what a client typed is no label."""


class Bounded:
    """The first `most` different values as they are; any later one is `other`."""

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(value)
        return value


def slot_of(flight: Flight) -> str:
    """The slot that a request was for; its model where no slot names that."""
    return flight.slot or flight.model or UNRESOLVED
