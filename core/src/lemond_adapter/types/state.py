"""The states a slot can be in; the wire value is the member's value."""

from __future__ import annotations

from enum import StrEnum


class SlotState(StrEnum):
    """What a slot is doing. `stale` is not among them: it is a flag beside the state."""

    PULLING = "pulling"
    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    SERVING = "serving"
    IDLE = "idle"
    UNLOADING = "unloading"
    OFFLINE = "offline"
    ERROR = "error"


ROUTABLE_STATES = frozenset({SlotState.READY, SlotState.SERVING, SlotState.IDLE})
