"""What a native driver's event source implements, and what the core consumes of it.

A native channel is lemond telling by itself what the log channel has to guess. No release has one up
to 11.7; `docs/native-events.md` is the protocol we would want. No network library is imported here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from pydantic import ValidationError

from lemond_adapter.drivers.health import HealthListing
from lemond_adapter.types import (
    EvictionReason,
    EvictionStarted,
    FailureKind,
    LoadFailed,
    LoadStarted,
    MalformedPayload,
    ModelEvicted,
    ModelLoaded,
    PortChanged,
    ProcessCrashed,
    ProcessSpawned,
    PullFinished,
    PullProgress,
    PullStarted,
    SlotEvent,
)

ListReason = Literal["start", "boot", "gap"]
"""Why a listing came: nothing was asked to be resumed, another lemond process answers, or events were
lost for good. In the core's words: `startup`, `restart`, `gap`."""

EVENT_TYPES: Mapping[str, type[SlotEvent]] = {
    "pull_started": PullStarted,
    "pull_progress": PullProgress,
    "pull_finished": PullFinished,
    "load_started": LoadStarted,
    "process_spawned": ProcessSpawned,
    "model_loaded": ModelLoaded,
    "port_changed": PortChanged,
    "load_failed": LoadFailed,
    "eviction_started": EvictionStarted,
    "model_evicted": ModelEvicted,
    "process_crashed": ProcessCrashed,
}
"""What lemond can tell. `lemond_started`, `lemond_lost` and `resynced` are the adapter's own to say."""

ADAPTER_KEYS = frozenset({"seq", "slot", "source", "lemond_seq", "initiator"})
"""Keys of a SlotEvent that only the adapter knows; never on this wire."""

_PORTS = ("port", "old_port", "new_port")
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "reason": get_args(EvictionReason),
    "kind": get_args(FailureKind),
}


class EventSink(Protocol):
    """The core's end. Called in the loop, in order; it must not block. What it raises ends `run`."""

    def listed(self, listing: HealthListing, *, boot_id: str, seq: int, reason: ListReason) -> None:
        """All that is loaded as of event `seq` of this boot; replaces what was known before."""

    def event(self, event: SlotEvent, *, seq: int) -> None:
        """One event, exactly once and without a gap since the last `listed` or event.

        `event.lemond_seq` is `seq`; `event.seq` and `event.slot` are left for the core to fill.
        """

    def resumed(self, *, boot_id: str, seq: int) -> None:
        """After `down`: all that happened meanwhile, up to `seq`, has been given as events."""

    def down(self, why: str) -> None:
        """The view is stale from now on. Once for each loss, and again when the reason changes."""


@dataclass(slots=True)
class SourceStatus:
    """For `status` and `doctor`. `problems` counts what was skipped or cost a connection, by kind."""

    url: str | None = None
    connected: bool = False
    connects: int = 0
    reconnects: int = 0
    lists: int = 0
    events: int = 0
    resumes: int = 0
    boot_id: str | None = None
    last_seq: int | None = None
    last_error: str | None = None
    problems: Counter[str] = field(default_factory=Counter)


@runtime_checkable
class EventSource(Protocol):
    """What `lemond_event_source` returns.

    When health advertises another address, the core cancels `run` and asks the driver for a new one.
    """

    @property
    def status(self) -> SourceStatus:
        """Live counters."""

    async def run(self, sink: EventSink) -> None:
        """Follows for ever; ends only by cancellation or by what the sink raises.

        Reconnects by itself with jittered back-off and never holds two connections at once.
        """

    def nudge(self) -> None:
        """lemond seems to be back: try now instead of at the end of the delay."""


def encode_native_event(event: SlotEvent) -> dict[str, Any]:
    """The object for the wire: the SlotEvent's JSON without what only the adapter knows."""
    if event.type not in EVENT_TYPES:
        raise ValueError(f"{event.type} is the adapter's own event; lemond never sends it")
    data = event.model_dump(mode="json")
    return {key: value for key, value in data.items() if key not in ADAPTER_KEYS}


def decode_native_event(data: Mapping[str, Any], *, seq: int) -> SlotEvent | None:
    """The event in a wire object; None for a type that this version does not know.

    Unknown keys are dropped and unknown reasons read as `unknown`, so that lemond may add both.
    Raises `MalformedPayload` naming the first thing that does not fit.
    """
    kind = data.get("type")
    if not isinstance(kind, str):
        raise MalformedPayload(f"native event {seq}: type is {kind!r:.40}")
    model = EVENT_TYPES.get(kind)
    if model is None:
        return None
    known = {key: data[key] for key in model.model_fields if key in data and key not in ADAPTER_KEYS}
    for key, choices in _CHOICES.items():
        is_choice = key == "kind" or issubclass(model, EvictionStarted | ModelEvicted)
        if is_choice and isinstance(known.get(key), str) and known[key] not in choices:
            known[key] = "unknown"
    try:
        # Through JSON, because pydantic's strict mode reads a time from text only there.
        event = model.model_validate_json(
            json.dumps({**known, "source": "log", "lemond_seq": seq}), strict=True
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "event"
        raise MalformedPayload(f"native event {seq} ({kind}): {where}: {first['msg']}") from None
    _check(event, seq)
    return event


def _check(event: SlotEvent, seq: int) -> None:
    """What the types cannot say: a pid goes to the kernel and a port into a URL."""
    if not event.model or len(event.model) > 512:
        raise MalformedPayload(f"native event {seq} ({event.type}): model is missing, empty or too long")
    if event.at.tzinfo is None:
        raise MalformedPayload(f"native event {seq} ({event.type}): at has no time zone")
    pid = getattr(event, "pid", None)
    if pid is not None and not 0 < pid <= 2**31:
        raise MalformedPayload(f"native event {seq} ({event.type}): pid {pid} is none")
    for key in _PORTS:
        port = getattr(event, key, None)
        if port is not None and not 0 < port <= 65535:
            raise MalformedPayload(f"native event {seq} ({event.type}): {key} {port} is none")
