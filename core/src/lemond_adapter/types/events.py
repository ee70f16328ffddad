"""SlotEvents: every change of truth, one frozen object each, one JSON shape everywhere.

The same object is what SSE sends, `--json` prints and the journal stores. `decode_event` and
`encode_event` are the only codec.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    model_serializer,
)

Source = Literal["log", "health", "process", "probe", "self"]
EvictionReason = Literal[
    "idle",
    "oom",
    "manual",
    "load_failure_cascade",
    "lru",
    "npu_exclusivity",
    "reload",
    "shutdown",
    "unknown",
]
FailureKind = Literal["not_found", "backend_exit", "timeout", "rejected", "unknown"]
DriverMatch = Literal["exact", "nearest", "generic"]
ResyncReason = Literal["startup", "reconnect", "gap", "restart", "heartbeat"]


def rfc3339(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, the one time format on every wire."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


Timestamp = Annotated[datetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]

UNSTAMPED = datetime(1970, 1, 1, tzinfo=UTC)

# Optional keys that are left out, not null, when they say nothing.
_OMIT_WHEN_NONE = ("lemond_seq", "initiator")


class SlotEvent(BaseModel):
    """Base of all events.

    `seq` is the adapter's own, strictly increasing within one run of the adapter. `slot` is None
    for a model that no slot names. `lemond_seq` is the log entry that gave the evidence, if one did.
    `initiator` is "adapter" on what we caused ourselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seq: int = 0
    at: Timestamp = UNSTAMPED
    type: str
    model: str | None = None
    slot: str | None = None
    source: Source = "self"
    lemond_seq: int | None = None
    initiator: Literal["adapter"] | None = None

    @model_serializer(mode="wrap")
    def _omit_silent_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        for key in _OMIT_WHEN_NONE:
            if data.get(key) is None:
                data.pop(key, None)
        return data


class PullStarted(SlotEvent):
    """A download began."""

    type: Literal["pull_started"] = "pull_started"


class PullProgress(SlotEvent):
    """A download moved on; `percent` is 0..100."""

    type: Literal["pull_progress"] = "pull_progress"
    percent: float = Field(ge=0.0, le=100.0)


class PullFinished(SlotEvent):
    """A download ended; `reason` says why when `ok` is false."""

    type: Literal["pull_finished"] = "pull_finished"
    ok: bool
    reason: str | None = None


class LoadStarted(SlotEvent):
    """lemond began to load the model; it has no process yet."""

    type: Literal["load_started"] = "load_started"


class ProcessSpawned(SlotEvent):
    """The model's server process exists and warms up."""

    type: Literal["process_spawned"] = "process_spawned"
    pid: int


class ModelLoaded(SlotEvent):
    """Health names the model and the process evidence agrees: it is routable."""

    type: Literal["model_loaded"] = "model_loaded"
    port: int | None
    pid: int | None


class PortChanged(SlotEvent):
    """The model answers elsewhere than before, without a reload that we saw."""

    type: Literal["port_changed"] = "port_changed"
    old_port: int | None
    new_port: int | None
    pid: int | None


class LoadFailed(SlotEvent):
    """A load ended without a model; `reason` is lemond's text."""

    type: Literal["load_failed"] = "load_failed"
    reason: str
    kind: FailureKind = "unknown"


class EvictionStarted(SlotEvent):
    """The model is going away. Its route is withdrawn here, not at the end."""

    type: Literal["eviction_started"] = "eviction_started"
    reason: EvictionReason = "unknown"


class ModelEvicted(SlotEvent):
    """The model is gone."""

    type: Literal["model_evicted"] = "model_evicted"
    reason: EvictionReason = "unknown"


class ProcessCrashed(SlotEvent):
    """The model's process ended without an eviction; `exit` is its status in words, if known."""

    type: Literal["process_crashed"] = "process_crashed"
    pid: int
    exit: str | None = None


class LemondStarted(SlotEvent):
    """A lemond is there (again), with this version, read by this driver."""

    type: Literal["lemond_started"] = "lemond_started"
    version: str | None
    driver: str
    driver_match: DriverMatch


class LemondLost(SlotEvent):
    """lemond no longer answers: what we know is stale until `resynced`."""

    type: Literal["lemond_lost"] = "lemond_lost"
    reason: str


class Resynced(SlotEvent):
    """Our view was compared with lemond's listing; `changes` is how many things differed."""

    type: Literal["resynced"] = "resynced"
    reason: ResyncReason
    changes: int = 0


AnyEvent = Annotated[
    PullStarted
    | PullProgress
    | PullFinished
    | LoadStarted
    | ProcessSpawned
    | ModelLoaded
    | PortChanged
    | LoadFailed
    | EvictionStarted
    | ModelEvicted
    | ProcessCrashed
    | LemondStarted
    | LemondLost
    | Resynced,
    Field(discriminator="type"),
]

_codec: TypeAdapter[SlotEvent] = TypeAdapter(AnyEvent)


def decode_event(data: str | bytes | dict[str, Any]) -> SlotEvent:
    """The event that this JSON text or object stands for.

    Raises `ValueError` (pydantic's `ValidationError`) naming what does not fit.
    """
    if isinstance(data, dict):
        return _codec.validate_python(data)
    return _codec.validate_json(data)


def encode_event(event: SlotEvent) -> str:
    """The event as one line of JSON."""
    return event.model_dump_json()
