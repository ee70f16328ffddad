"""`Idempotency-Key`: a request that is sent again is not executed again.

While the first one runs, the same request with the same key joins it; afterwards it gets the stored
answer. The first one runs to its end even if its client leaves, because what was sent to a model cannot
be taken back. What was refused before anything was sent is not stored: sent again, it is tried again.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lemond_adapter.dispatch.answering import Client

MAX_ENTRIES = 1024
MAX_BYTES = 64 * 1024 * 1024
MAX_ANSWER = 8 * 1024 * 1024
MAX_KEY = 255
_REPLAYED = b"\r\nIdempotent-Replayed: true\r\n"


class Recorder:
    """Takes one execution's answer: keeps it, and passes it on to every client that waits for it."""

    minor = 1

    def __init__(self, store: Answers, key: bytes, fingerprint: bytes) -> None:
        self.keep_alive = True
        self.fingerprint = fingerprint
        self.key = key
        self.kept = bytearray()
        self.too_large = False
        self.complete = False
        self.ended_at = 0.0
        self.clients: dict[Client, Callable[[], None]] = {}
        self._cut = False
        self._store = store

    @property
    def peer(self) -> str:
        """It has no address of its own."""
        return ""

    def behind(self) -> int:
        """It takes everything at once."""
        return 0

    @property
    def status(self) -> int:
        """The answer's; 0 before it has begun."""
        return int(self.kept[9:12]) if self.kept else 0

    def attach(self, client: Client, done: Callable[[], None]) -> None:
        """One more client waits; it gets what there is, and what comes. `done` is called when the answer
        is complete, before the client is told."""
        if self.complete:
            done()
            client.write(bytes(self.kept).replace(b"\r\n", _REPLAYED, 1))
            self._finish(client)
            return
        self.clients[client] = done
        if self.kept:
            client.write(bytes(self.kept))

    def detach(self, client: Client) -> None:
        """It has left."""
        self.clients.pop(client, None)

    def _finish(self, client: Client) -> None:
        if self._cut:
            client.cut()
        else:
            client.finish(close=not (self.keep_alive and client.keep_alive))

    # As the client of the execution.

    def write(self, data: bytes) -> None:
        """Bytes of the answer."""
        if not self.too_large:
            self.kept += data
            self._store.size += len(data)
            if len(self.kept) > MAX_ANSWER:
                self._store.size -= len(self.kept)
                self.kept.clear()
                self.too_large = True
        for client in list(self.clients):
            if client.behind() > MAX_ANSWER:
                del self.clients[client]
                client.cut()
            else:
                client.write(data)

    def finish(self, *, close: bool) -> None:
        """The answer is complete."""
        self.keep_alive = not close
        self._over()

    def cut(self) -> None:
        """It will never be."""
        self._cut = True
        self._over()

    def _over(self) -> None:
        self.complete = True
        self._store.ended(self)
        clients, self.clients = self.clients, {}
        for client, done in clients.items():
            done()
            self._finish(client)

    def pause_upload(self, paused: bool) -> None:
        """Bodies with a key are read as a whole."""


class Answers:
    """All executions with a key that run, or ended less than `ttl_s` ago; bounded in number and bytes."""

    def __init__(self, ttl_s: float, clock: Callable[[], float]) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: OrderedDict[bytes, Recorder] = OrderedDict()
        self.size = 0

    @staticmethod
    def fingerprint(path: str, body: bytes) -> bytes:
        """What must be the same for a request to be the same."""
        return hashlib.sha256(path.encode() + b"\0" + body).digest()

    def find(self, key: bytes) -> Recorder | None:
        """The execution for a key."""
        self._expire()
        return self._entries.get(key)

    def begin(self, key: bytes, fingerprint: bytes) -> Recorder | None:
        """A new execution; None when too many run already."""
        while len(self._entries) >= MAX_ENTRIES or self.size > MAX_BYTES:
            oldest = next((entry for entry in self._entries.values() if entry.complete), None)
            if oldest is None:
                if len(self._entries) >= MAX_ENTRIES:
                    return None
                break
            self.drop(oldest)
        entry = self._entries[key] = Recorder(self, key, fingerprint)
        return entry

    def ended(self, entry: Recorder) -> None:
        """From now on its answer is kept for the agreed time."""
        entry.ended_at = self._clock()
        if self._entries.get(entry.key) is entry:
            self._entries.move_to_end(entry.key)

    def drop(self, entry: Recorder) -> None:
        """It was not executed, or there is no room for it."""
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
            self.size -= len(entry.kept)

    def _expire(self) -> None:
        oldest = self._clock() - self._ttl_s
        for entry in [e for e in self._entries.values() if e.complete and e.ended_at <= oldest]:
            self.drop(entry)

    def __len__(self) -> int:
        return len(self._entries)
