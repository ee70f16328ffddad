"""The frames of lemond's log stream, read strictly.

Shapes as in `log_stream.cpp`, byte-identical in 10.5.0-11.7.0. A frame that does not fit is a
`MalformedPayload`; it is reported and skipped, never fatal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lemond_adapter.types import MalformedPayload


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One retained line. `seq` counts from 1 in each lemond process and carries no boot id.

    `severity` and `tag` may be those of another thread's line (measured on 10.7.0): never decide on
    them. `timestamp` is lemond's local time without a zone.
    """

    seq: int
    line: str
    tag: str = ""
    severity: str = ""
    timestamp: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All retained entries behind the asked-for seq, in one frame (can exceed 1 MiB)."""

    entries: tuple[LogEntry, ...]


@dataclass(frozen=True, slots=True)
class Live:
    """One entry as it happens."""

    entry: LogEntry


@dataclass(frozen=True, slots=True)
class Complaint:
    """lemond did not like what we sent, or wants a key."""

    message: str


Frame = Snapshot | Live | Complaint


def read_frame(data: str | bytes | Mapping[str, Any]) -> Frame:
    """The frame in a WebSocket message. Raises `MalformedPayload`."""
    if isinstance(data, bytes):
        raise MalformedPayload(f"log stream: a binary frame of {len(data)} bytes; lemond sends text only")
    if isinstance(data, str):
        try:
            body: Any = json.loads(data)
        except ValueError as error:
            raise MalformedPayload(f"log stream: not JSON ({error}): {data[:80]!r}") from None
    else:
        body = data
    if not isinstance(body, Mapping):
        raise MalformedPayload(f"log stream: {type(body).__name__} where an object was expected")
    kind = body.get("type")
    if kind == "logs.entry":
        return Live(_entry(body.get("entry")))
    if kind == "logs.snapshot":
        entries = body.get("entries")
        if not isinstance(entries, list):
            raise MalformedPayload("log stream: a snapshot without a list of entries")
        return Snapshot(tuple(_entry(raw) for raw in entries))
    if kind == "error":
        problem = body.get("error")
        message = problem.get("message") if isinstance(problem, Mapping) else problem
        return Complaint(str(message)[:300])
    raise MalformedPayload(f"log stream: unknown frame type {kind!r:.60}")


def _entry(raw: object) -> LogEntry:
    if not isinstance(raw, Mapping):
        raise MalformedPayload("log stream: an entry that is not an object")
    seq, line = raw.get("seq"), raw.get("line")
    if not isinstance(seq, int) or isinstance(seq, bool) or seq < 0:
        raise MalformedPayload(f"log stream: an entry whose seq is {seq!r:.40}")
    if not isinstance(line, str):
        raise MalformedPayload(f"log stream: entry {seq} has no line")
    return LogEntry(
        seq=seq,
        line=line,
        tag=str(raw.get("tag", "")),
        severity=str(raw.get("severity", "")),
        timestamp=str(raw.get("timestamp", "")),
    )
