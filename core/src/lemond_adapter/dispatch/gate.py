"""How many requests a slot runs at once. Those beyond wait, and clients take turns: one that sends a
hundred does not keep another's single one waiting for all of them. Sans-IO."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Gate(Generic[T]):
    """Of one slot. `T` is a request; `admit` is called with one that may go on after it has waited."""

    def __init__(self, clock: Callable[[], float], admit: Callable[[T], None]) -> None:
        self.limit = 0
        self.max_queue = 0
        self.queued = 0
        self._clock = clock
        self._admit = admit
        self._running: dict[T, float] = {}
        self._waiting: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._client_of: dict[T, Hashable] = {}
        self._usual_s = 1.0

    @property
    def running(self) -> int:
        """Requests that were let in and have not ended."""
        return len(self._running)

    def enter(self, request: T, client: Hashable) -> bool | None:
        """True: goes on at once. False: has to wait, and will be admitted. None: too many wait already."""
        if len(self._running) < self.limit and not self.queued:
            self._running[request] = self._clock()
            return True
        if self.queued >= self.max_queue:
            return None
        self._waiting.setdefault(client, deque()).append(request)
        self._client_of[request] = client
        self.queued += 1
        return False

    def leave(self, request: T) -> None:
        """It has ended, or nobody waits for it any more."""
        began = self._running.pop(request, None)
        if began is not None:
            self._usual_s += 0.2 * (self._clock() - began - self._usual_s)
        elif request in self._client_of:
            client = self._client_of.pop(request)
            waiting = self._waiting[client]
            waiting.remove(request)
            self.queued -= 1
            if not waiting:
                del self._waiting[client]
        self._let_in()

    def wait_s(self) -> float:
        """When one more could be let in, going by how long requests usually take."""
        return (self.queued + 1) * self._usual_s / max(1, self.limit)

    def _let_in(self) -> None:
        while self.queued and len(self._running) < self.limit:
            client, waiting = next(iter(self._waiting.items()))
            request = waiting.popleft()
            del self._client_of[request]
            self.queued -= 1
            if waiting:
                self._waiting.move_to_end(client)
            else:
                del self._waiting[client]
            self._running[request] = self._clock()
            self._admit(request)
