"""What became of each data-plane request: one record a request, told to whoever counts. Sans-IO."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Flight:
    """One request. Times are of the monotonic clock, in seconds.

    `model` is None until the name was resolved to a model that lemond or a slot knows: what a client
    typed is never a label. `request_id` is the client's X-Request-Id (its first 200 characters), or ours
    where it sent none. `outcome` is `served`, the code of the refusal, `interrupted` (cut in the middle
    of the answer) or `client_gone`. `events` counts the data events of a stream, which for chat is
    about one a token.
    """

    path: str
    began: float
    request_id: str = ""
    model: str | None = None
    slot: str | None = None
    streamed: bool = False
    held_s: float = 0.0
    first_byte: float | None = None
    ended: float | None = None
    outcome: str = ""
    status: int = 0
    retry_after_s: float | None = None
    events: int = 0

    @property
    def ttft_s(self) -> float | None:
        """From the request's head to the first byte of the answer's body."""
        return None if self.first_byte is None else self.first_byte - self.began

    @property
    def events_per_s(self) -> float | None:
        """Data events a second after the first one; None where there are too few to say."""
        if self.first_byte is None or self.ended is None or self.events < 2:
            return None
        lasted = self.ended - self.first_byte
        return (self.events - 1) / lasted if lasted > 0 else None


class Traffic:
    """One per data plane. `observers` get each flight once, when it has ended."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.outcomes: Counter[str] = Counter()
        self.observers: list[Callable[[Flight], None]] = []

    def begin(self, path: str) -> Flight:
        """A request came in."""
        return Flight(path, self.clock())

    def end(self, flight: Flight, outcome: str, status: int = 0) -> None:
        """It is over; the first word on its outcome counts."""
        if flight.ended is not None:
            return
        flight.ended = self.clock()
        flight.outcome, flight.status = outcome, status
        self.outcomes[outcome] += 1
        for observe in self.observers:
            observe(flight)
