"""One line an event, for people or for machines; every module's `logging` call comes out the same way.

Lines are written by a thread of their own: a terminal that is paused, or a pipe that nobody empties, holds
up nothing but the log.

Bodies and client names are never given to a logger; keys that turn up in a text all the same (an error of
lemond's may quote one) are blotted out at the last moment.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import structlog

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.dispatch.dataplane import DataPlane
from lemond_adapter.dispatch.traffic import Flight
from lemond_adapter.types import SlotEvent

LogFormat = Literal["auto", "console", "json"]

_CHATTY = ("asyncio", "httpcore", "httpx", "uvicorn", "websockets")
"""Their lines below warning are not for operators, and hold headers."""

SHORTEST_KEY = 4

MOST_BEHIND = 10_000

log = logging.getLogger(__name__)

events = structlog.stdlib.get_logger("lemond_adapter.events")
requests = structlog.stdlib.get_logger("lemond_adapter.requests")


def configure(
    log_format: LogFormat = "auto",
    *,
    verbose: bool = False,
    secrets: Iterable[str | None] = (),
    stream: TextIO | None = None,
) -> Callable[[], None]:
    """Sets up logging for this process. `auto` is JSON under systemd, else for people.

    To be called at the end: what is returned waits until all is written, for a second at the most.
    """
    out = sys.stderr if stream is None else stream
    machine = log_format == "json" or (log_format == "auto" and is_journal(out))
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _stamp,
    ]
    if machine:
        rendering: list[structlog.typing.Processor] = [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ]
    else:
        rendering = [
            _printable,
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(),
                timestamp_key="at",
                pad_event_to=20,
                sort_keys=False,
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    blot = Blotter(secrets)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering, blot],
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    writing = LineWriter(out)
    writing.setFormatter(formatter)
    behind = WrittenBehind(writing)
    root = logging.getLogger()
    root.handlers = [behind]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    return behind.finish


class LineWriter(logging.Handler):
    """Writes to the file descriptor where there is one: a thread that is stuck in a write must hold no lock
    of the interpreter's, which could not end then."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        try:
            self._descriptor: int | None = stream.fileno()
        except (OSError, ValueError):
            self._descriptor = None

    def createLock(self) -> None:
        """None: one thread writes, and logging's own end would wait for the lock."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
            if self._descriptor is None:
                self._stream.write(line)
            else:
                _write_all(self._descriptor, line.encode(errors="replace"))
        except OSError:
            return  # stderr is closed, or its reader is gone: there is nowhere to say so
        except Exception:  # noqa: BLE001 - a record that cannot be formatted is reported by logging itself
            self.handleError(record)


def _write_all(descriptor: int, left: bytes) -> None:
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:  # somebody who shares the terminal made it so
            select.select([], [descriptor], [])


class WrittenBehind(logging.Handler):
    """Hands records to a thread. When `MOST_BEHIND` wait, further ones are counted instead, and the count
    is told once there is room."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self._handler = handler
        self._records: queue.Queue[logging.LogRecord] = queue.Queue(MOST_BEHIND)
        self._missed = 0
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Never waits."""
        try:
            self._records.put_nowait(record)
        except queue.Full:
            self._missed += 1

    def finish(self, limit_s: float = 1.0) -> None:
        """Waits until all is written, up to a limit: nobody may be reading."""
        with self._records.all_tasks_done:
            self._records.all_tasks_done.wait_for(lambda: not self._records.unfinished_tasks, limit_s)

    def _write(self) -> None:
        while True:
            record = self._records.get()
            self._handler.handle(record)
            self._records.task_done()
            if self._missed and self._records.empty():
                missed, self._missed = self._missed, 0
                log.warning("%d lines were not written: nobody took them", missed)


def _stamp(logger: Any, name: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """When it was said, which may be well before it is written."""
    record = fields.get("_record")
    moment = datetime.fromtimestamp(record.created, UTC) if record is not None else datetime.now(UTC)
    fields["at"] = f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"
    return fields


def is_journal(stream: TextIO) -> bool:
    """Whether the stream goes to systemd's journal: JOURNAL_STREAM names its device and inode."""
    device, colon, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    if not colon:
        return False
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (str(found.st_dev), str(found.st_ino)) == (device, inode)


class Blotter:
    """The last step of rendering: no key leaves in clear."""

    def __init__(self, secrets: Iterable[str | None]) -> None:
        self._secrets = [secret for secret in secrets if secret and len(secret) >= SHORTEST_KEY]

    def __call__(self, logger: Any, name: str, line: Any) -> Any:
        for secret in self._secrets:
            line = line.replace(secret, "[key]")
        return line


def _printable(logger: Any, name: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Names and lemond's texts are data: nothing in them may steer a terminal or begin a line."""
    for key, value in fields.items():
        if isinstance(value, str) and not value.isprintable() and key != "exception":
            fields[key] = "".join(
                char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in value
            )
    return fields


def follow(adapter: LemondAdapter, plane: DataPlane) -> None:
    """Logs each slot event at info, also those there were before; each request at debug, those that were
    not served at info."""
    past = adapter.hub.after(adapter.hub.oldest() - 1)
    for event in past if isinstance(past, list) else []:
        _event(event)
    adapter.hub.observers.append(_event)
    plane.traffic.observers.append(_request)


def _event(event: SlotEvent) -> None:
    fields = event.model_dump(mode="json", exclude={"type", "at"}, exclude_none=True)
    events.info(event.type, **fields)


_CLIENTS_OWN = frozenset({"served", "client_gone", "request.invalid", "request.too_large", "model.not_found"})
"""Outcomes that say nothing of models: logged at debug."""


_requests_logger = logging.getLogger("lemond_adapter.requests")


def _request(flight: Flight) -> None:
    level = logging.DEBUG if flight.outcome in _CLIENTS_OWN else logging.INFO
    if not _requests_logger.isEnabledFor(level):
        return
    duration = None if flight.ended is None else flight.ended - flight.began
    fields = {
        "request_id": flight.request_id or None,
        "path": flight.path,
        "slot": flight.slot,
        "model": flight.model,
        "outcome": flight.outcome,
        "status": flight.status or None,
        "stream": flight.streamed or None,
        "ttft_s": _rounded(flight.ttft_s),
        "duration_s": _rounded(duration),
        "held_s": _rounded(flight.held_s or None),
        "retry_after_s": _rounded(flight.retry_after_s),
    }
    requests.log(level, "request", **{key: value for key, value in fields.items() if value is not None})


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
