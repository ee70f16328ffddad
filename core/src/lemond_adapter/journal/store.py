"""The journal's file: one SQLite database. Everything here blocks, and raises `sqlite3.Error`."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, epoch TEXT NOT NULL, at REAL NOT NULL, type TEXT NOT NULL,
    model TEXT, slot TEXT, json TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_at ON events (at);
CREATE TABLE IF NOT EXISTS notes (
    id INTEGER PRIMARY KEY, after INTEGER NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL,
    model TEXT, slot TEXT, json TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS load_times (
    id INTEGER PRIMARY KEY, model TEXT NOT NULL, seconds REAL NOT NULL
);
"""

LOAD_TIMES_KEPT = 20


@dataclass(frozen=True, slots=True)
class Row:
    """An event or note on its way to the file. `at` is Unix time."""

    number: int
    epoch: str
    at: float
    kind: str
    model: str | None
    slot: str | None
    json: str


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of the journal: rows behind `since`, the newest `limit` of them."""

    since: int = 0
    limit: int = 100
    model: str | None = None
    slot: str | None = None
    type: str | None = None


class Store:
    """An open database. To be used by one thread at a time."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
        try:
            # A commit survives the death of this process; one of the machine may take the last second.
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._check_version()
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except sqlite3.Error:
            self._db.close()
            raise

    def _check_version(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"written by a newer version of this program (schema {version})")
        for name, columns in (("events", "seq epoch at type"), ("notes", "after kind")):
            found = {row[1] for row in self._db.execute(f"PRAGMA table_info({name})")}
            if found and not set(columns.split()) <= found:
                raise sqlite3.DatabaseError(f"its table {name!r} is another program's")

    def write(self, events: Iterable[Row], notes: Iterable[Row], loads: Iterable[tuple[str, float]]) -> None:
        """All of it, or nothing."""
        with _Transaction(self._db):
            self._db.executemany(
                "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(r.number, r.epoch, r.at, r.kind, r.model, r.slot, r.json) for r in events],
            )
            self._db.executemany(
                "INSERT INTO notes (after, at, kind, model, slot, json) VALUES (?, ?, ?, ?, ?, ?)",
                [(r.number, r.at, r.kind, r.model, r.slot, r.json) for r in notes],
            )
            for model, seconds in loads:
                self._db.execute("INSERT INTO load_times (model, seconds) VALUES (?, ?)", (model, seconds))
                self._db.execute(
                    "DELETE FROM load_times WHERE model = ?1 AND id NOT IN (SELECT id FROM load_times"
                    " WHERE model = ?1 ORDER BY id DESC LIMIT ?2)",
                    (model, LOAD_TIMES_KEPT),
                )

    def trim(self, most_rows: int, oldest_s: float) -> None:
        """Drops what is beyond the bounds: rows of each kind, age in seconds."""
        limit = time.time() - oldest_s
        with _Transaction(self._db):
            for table, key in (("events", "seq"), ("notes", "id")):
                self._db.execute(f"DELETE FROM {table} WHERE at < ?", (limit,))
                self._db.execute(
                    f"DELETE FROM {table} WHERE {key} <= (SELECT {key} FROM {table}"
                    f" ORDER BY {key} DESC LIMIT 1 OFFSET ?)",
                    (most_rows,),
                )

    def last_seq(self) -> int:
        """Of all runs; 0 when there is no event."""
        (seq,) = self._db.execute("SELECT COALESCE(MAX(seq), 0) FROM events").fetchone()
        return int(seq)

    def oldest_seq(self) -> int | None:
        """The first event that is still there."""
        (seq,) = self._db.execute("SELECT MIN(seq) FROM events").fetchone()
        return None if seq is None else int(seq)

    def events(self, query: Query) -> list[Mapping[str, Any]]:
        """Newest last."""
        return self._select("events", "seq", "type", query)

    def following(self, seq: int, most: int) -> list[Mapping[str, Any]]:
        """The first events behind a seq, oldest first."""
        sql = "SELECT json FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
        return [json.loads(row[0]) for row in self._db.execute(sql, (seq, most)).fetchall()]

    def notes(self, query: Query) -> list[Mapping[str, Any]]:
        """Newest last; the type of a query does not concern them."""
        asked = Query(query.since - 1, query.limit, query.model, query.slot, None)
        return self._select("notes", "after", "kind", asked)

    def _select(self, table: str, number: str, kind: str, query: Query) -> list[Mapping[str, Any]]:
        where, values = [f"{number} > ?"], [query.since]
        found: Sequence[tuple[str, str | None]] = ((kind, query.type),)
        for column, value in found:
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)  # type: ignore[arg-type]
        if query.model is not None or query.slot is not None:
            where.append("(model = ? OR slot = ?)")
            values += [query.model, query.slot]  # type: ignore[list-item]
        key = "seq" if table == "events" else "id"
        sql = f"SELECT json FROM {table} WHERE {' AND '.join(where)} ORDER BY {key} DESC LIMIT ?"
        rows = self._db.execute(sql, (*values, query.limit)).fetchall()
        return [json.loads(row[0]) for row in reversed(rows)]

    def load_times(self) -> list[tuple[str, float]]:
        """Oldest first."""
        rows = self._db.execute("SELECT model, seconds FROM load_times ORDER BY id").fetchall()
        return [(str(model), float(seconds)) for model, seconds in rows]

    def close(self) -> None:
        """Gives the file back, as one file."""
        self._db.close()


class _Transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._db.execute("COMMIT")
        elif self._db.in_transaction:
            self._db.execute("ROLLBACK")


def set_aside(path: Path) -> Path:
    """Moves an unusable database out of the way, with what belongs to it; where to."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    target = path.with_name(f"{path.name}.unusable-{stamp}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.unusable-{stamp}-{number}")
    for suffix in ("-wal", "-shm"):
        extra = path.with_name(path.name + suffix)
        if extra.exists():
            os.replace(extra, target.with_name(target.name + suffix))
    os.replace(path, target)
    return target
