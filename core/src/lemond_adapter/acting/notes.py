"""Notes: what was decided and why, in words, beside the events that came of it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lemond_adapter.types import rfc3339

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Note:
    """One decision. `after` is the seq of the last event before it."""

    at: datetime
    after: int
    kind: str
    text: str
    model: str | None = None
    slot: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As the journal gives it."""
        return {
            "at": rfc3339(self.at),
            "after": self.after,
            "kind": self.kind,
            "text": self.text,
            "model": self.model,
            "slot": self.slot,
            "details": dict(self.details),
        }


class Notebook:
    """The last notes. `observers` get each one as it is made."""

    def __init__(self, last_seq: Callable[[], int], slot_name: Callable[[str], str | None]) -> None:
        self._last_seq = last_seq
        self._slot_name = slot_name
        self.recent: deque[Note] = deque(maxlen=1000)
        self.observers: list[Callable[[Note], None]] = []

    def add(self, kind: str, text: str, model: str | None = None, **details: Any) -> Note:
        """Writes one down."""
        slot = self._slot_name(model) if model else None
        note = Note(datetime.now(UTC), self._last_seq(), kind, text, model, slot, details)
        self.recent.append(note)
        log.info("%s: %s", kind, text)
        for observe in self.observers:
            observe(note)
        return note
