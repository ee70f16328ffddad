"""One line an event, for people or for machines; every module's `logging` call comes out the same way.

Bodies and client names are never given to a logger; keys that turn up in a text all the same (an error of
lemond's may quote one) are blotted out at the last moment.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
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

events = structlog.stdlib.get_logger("lemond_adapter.events")
requests = structlog.stdlib.get_logger("lemond_adapter.requests")


def configure(
    log_format: LogFormat = "auto",
    *,
    verbose: bool = False,
    secrets: Iterable[str | None] = (),
    stream: TextIO | None = None,
) -> None:
    """Sets up logging for this process. `auto` is JSON under systemd, else for people."""
    out = sys.stderr if stream is None else stream
    machine = log_format == "json" or (log_format == "auto" and is_journal(out))
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
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
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


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


def _request(flight: Flight) -> None:
    level = logging.DEBUG if flight.outcome in _CLIENTS_OWN else logging.INFO
    if not logging.getLogger("lemond_adapter.requests").isEnabledFor(level):
        return
    duration = None if flight.ended is None else flight.ended - flight.began
    fields = {
        "request_id": getattr(flight, "request_id", None),
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
