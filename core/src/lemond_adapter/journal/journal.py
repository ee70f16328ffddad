"""The journal as the service uses it: never waited for, never lost for long, never in the way.

Events go to a queue; one thread writes them within `FLUSH_S`. A disk that is full or broken costs the
journal rows, which are counted, and nothing else: the service runs on and says so.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import sqlite3
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lemond_adapter.acting.notes import Note
from lemond_adapter.journal.store import Query, Row, Store, set_aside
from lemond_adapter.types import SlotEvent, encode_event

log = logging.getLogger(__name__)

FLUSH_S = 0.25
"""A process that is killed loses at most what came in this long before."""

WAITING = 20_000
"""Rows that wait for a disk that does not take them; beyond this the oldest are given up."""

LEAP = 10_000
"""A run starts so far behind the last seq it finds: seqs that a killed run had given out and not
written are not given out again."""

TRIM_EVERY = 1_000
RETRY_S = 5.0
"""After the disk took nothing."""


@dataclass(frozen=True, slots=True)
class JournalStatus:
    """For `status`. `problem` is None while all is well."""

    path: str | None
    problem: str | None
    written: int
    lost: int


class Journal:
    """One per service. Without a `path` it lives in memory, as long as the service."""

    def __init__(self, path: Path | None, *, most_rows: int, oldest_s: float) -> None:
        self._path = path
        self._most_rows = most_rows
        self._oldest_s = oldest_s
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._rows: deque[tuple[str, Row]] = deque()
        self._loads: deque[tuple[str, float]] = deque()
        self._held: IO[bytes] | None = None
        self._problem: str | None = None
        self._lasting: str | None = None
        self._written = self._lost = self._since_trim = 0
        self._store = self._open()
        self.epoch = ""
        self.last_seq = self._ask(lambda store: store.last_seq(), 0)
        """The last event of earlier runs."""
        self._thread = threading.Thread(target=self._write_behind, name="journal", daemon=True)
        self._thread.start()

    @property
    def seq_after(self) -> int:
        """Where this run's seqs may begin."""
        return self.last_seq + LEAP if self.last_seq else 0

    # Giving.

    def event(self, event: SlotEvent) -> None:
        """Takes one event; returns at once."""
        row = Row(
            event.seq,
            self.epoch,
            event.at.timestamp(),
            event.type,
            event.model,
            event.slot,
            encode_event(event),
        )
        self._give("event", row)

    def note(self, note: Note) -> None:
        """Takes one note; returns at once."""
        text = json.dumps(note.as_json())
        self._give("note", Row(note.after, "", note.at.timestamp(), note.kind, note.model, note.slot, text))

    def load_time(self, model: str, seconds: float) -> None:
        """Takes one learned load time; returns at once."""
        with self._lock:
            self._loads.append((model, seconds))
        self._wake.set()

    def _give(self, kind: str, row: Row) -> None:
        with self._lock:
            self._rows.append((kind, row))
            while len(self._rows) > WAITING:
                self._rows.popleft()
                self._lost += 1
        self._wake.set()

    # Asking.

    async def events(self, query: Query) -> list[Any]:
        """Past events, newest last, those still on their way to the file too."""
        return await asyncio.to_thread(self._after_flush, lambda store: store.events(query))

    async def following(self, seq: int, most: int) -> list[Any]:
        """The events right behind `seq`, oldest first."""
        return await asyncio.to_thread(self._after_flush, lambda store: store.following(seq, most))

    async def notes(self, query: Query) -> list[Any]:
        """Past notes, newest last."""
        return await asyncio.to_thread(self._after_flush, lambda store: store.notes(query))

    async def oldest_seq(self) -> int | None:
        """The first event that can be had."""
        return await asyncio.to_thread(self._ask, lambda store: store.oldest_seq(), None)

    def load_times(self) -> list[tuple[str, float]]:
        """What earlier runs learned."""
        found: list[tuple[str, float]] = self._ask(lambda store: store.load_times(), [])
        return found

    def status(self) -> JournalStatus:
        """How it is doing."""
        path = str(self._path) if self._path else None
        return JournalStatus(path, self._problem or self._lasting, self._written, self._lost)

    def close(self) -> None:
        """Writes what is left. To be called when the service ends; blocks for as long as that takes."""
        self._closing.set()
        self._wake.set()
        self._thread.join()
        with self._lock:
            self._lost += len(self._rows)
            if self._store is not None:
                self._store.close()
                self._store = None
        if self._held is not None:
            self._held.close()

    # The file.

    def _open(self) -> Store | None:
        if self._path is None:
            return Store(None)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._held = self._path.with_name(self._path.name + ".lock").open("wb")
            # One process a journal: two would give out the same seqs.
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._only_in_memory("another lemond-adapter writes it")
        except OSError as error:
            return self._only_in_memory(str(error.strerror))
        return self._begin()

    def _checked(self, store: Store) -> Store:
        """Trimmed, which reads both tables: a file that breaks later is better found now."""
        try:
            store.trim(self._most_rows, self._oldest_s)
        except sqlite3.Error:
            store.close()
            raise
        return store

    def _only_in_memory(self, why: str) -> Store:
        advice = "this run's journal is kept in memory only; choose another folder: [state] dir"
        self._lasting = f"{self._path}: {why}; {advice}"
        log.warning("journal %s", self._lasting)
        self._path = None
        return Store(None)

    def _begin(self) -> Store | None:
        """The file, or a new one where what is there is no journal of ours; None when the disk refuses."""
        try:
            try:
                return self._checked(Store(self._path))
            except sqlite3.OperationalError:
                raise  # the disk, not the file
            except sqlite3.DatabaseError as error:
                if self._path is None:
                    raise
                target = set_aside(self._path)
                log.warning(
                    "journal %s is unusable (%s): kept as %s, a new one begins", self._path, error, target
                )
                return Store(self._path)
        except (OSError, sqlite3.Error) as error:
            self._trouble(error)
            return None

    def _trouble(self, error: Exception) -> None:
        text = f"{self._path or 'the journal in memory'}: {error}"
        if self._problem is None:
            log.warning("the journal is not written: %s; the service runs on without", text)
        self._problem = text

    def _ask(self, question: Any, otherwise: Any) -> Any:
        with self._lock:
            if self._store is None:
                return otherwise
            try:
                return question(self._store)
            except sqlite3.Error as error:
                self._broken(error)
                return otherwise

    def _after_flush(self, question: Any) -> list[Any]:
        self._flush()
        found: list[Any] = self._ask(question, [])
        return found

    def _write_behind(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            # What comes in meanwhile is one transaction with it.
            self._closing.wait(FLUSH_S)
            if not self._flush():
                self._closing.wait(RETRY_S)
                self._wake.set()
        self._flush()

    def _flush(self) -> bool:
        with self._lock:
            rows, loads = list(self._rows), list(self._loads)
            if not rows and not loads:
                return True
            if self._store is None:
                self._store = self._begin()
            if self._store is None:
                return False
            try:
                self._store.write(
                    (row for kind, row in rows if kind == "event"),
                    (row for kind, row in rows if kind == "note"),
                    loads,
                )
                self._since_trim += len(rows)
                if self._since_trim >= TRIM_EVERY:
                    self._store.trim(self._most_rows, self._oldest_s)
                    self._since_trim = 0
            except sqlite3.Error as error:
                self._broken(error)
                return False
            self._rows.clear()
            self._loads.clear()
            self._written += len(rows)
            if self._problem is not None:
                log.warning("the journal is written again: %s", self._path)
                self._problem = None
            return True

    def _broken(self, error: sqlite3.Error) -> None:
        self._trouble(error)
        if not isinstance(error, sqlite3.OperationalError) and self._store is not None:
            # Not the disk but the file: what is in it cannot be trusted any more.
            self._store.close()
            self._store = None
