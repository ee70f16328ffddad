"""The frames of protocol 1, read strictly; unknown keys and unknown frame types are let pass."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from lemond_adapter.types import MalformedPayload

MAX_SMALL = 1024 * 1024
"""Only a list may be longer than this."""

Seq = Annotated[int, Field(ge=0, le=2**63 - 1)]


class _Frame(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Hello(_Frame):
    """First on each connection. `seq` is the newest event of this boot, 0 before the first."""

    type: Literal["hello"]
    protocol: int
    boot_id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")
    heartbeat_s: float = Field(ge=0.05, le=300.0)
    seq: Seq
    resumed: bool
    version: str | None = Field(default=None, max_length=64)


class Listing(_Frame):
    """All that is loaded as of event `seq`, entries as in health."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    type: Literal["list"]
    seq: Seq
    reason: str = Field(default="start", max_length=64)
    all_models_loaded: list[dict[str, Any]]


class Event(_Frame):
    """One event; its object is read by the core's codec."""

    type: Literal["event"]
    seq: Annotated[int, Field(ge=1, le=2**63 - 1)]
    event: dict[str, Any]


class Heartbeat(_Frame):
    """`seq` is the last event sent on this connection, or skipped by its list."""

    type: Literal["heartbeat"]
    seq: Seq


class Problem(_Frame):
    """Last on a connection that lemond ends on purpose."""

    type: Literal["error"]
    code: str = Field(max_length=64)
    message: str = ""
    retry_after_s: float = Field(default=0.0, ge=0.0, le=3600.0)


Frame = Hello | Listing | Event | Heartbeat | Problem

_TYPES: dict[str, type[Hello] | type[Listing] | type[Event] | type[Heartbeat] | type[Problem]] = {
    "hello": Hello,
    "list": Listing,
    "event": Event,
    "heartbeat": Heartbeat,
    "error": Problem,
}
_STATE = ("hello", "list", "event")


class MalformedFrame(MalformedPayload):
    """`costs_state`: the frame was to carry state, so what is known cannot be trusted without it."""

    def __init__(self, message: str, *, problem: str, costs_state: bool = False) -> None:
        super().__init__(message)
        self.problem = problem
        self.costs_state = costs_state


def read_frame(message: str | bytes) -> Frame | None:
    """The frame in a message; None for a type that protocol 1 does not know.

    Raises `MalformedFrame`.
    """
    if isinstance(message, bytes):
        raise MalformedFrame(f"a binary frame of {len(message)} bytes; events are text", problem="binary")
    try:
        # Not the json module: it answers deep nesting with a RecursionError.
        body: Any = from_json(message)
    except ValueError as error:
        raise MalformedFrame(f"not JSON ({error}): {message[:80]!r}", problem="not_json") from None
    kind = body.get("type") if isinstance(body, dict) else None
    if not isinstance(kind, str):
        raise MalformedFrame(f"no object with a type: {message[:80]!r}", problem="not_a_frame")
    model = _TYPES.get(kind)
    if model is None:
        return None
    if kind != "list" and len(message) > MAX_SMALL:
        raise MalformedFrame(
            f"{kind} frame of {len(message)} characters", problem="too_long", costs_state=kind in _STATE
        )
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "frame"
        raise MalformedFrame(
            f"{kind} frame: {where}: {first['msg']}", problem=f"bad_{kind}", costs_state=kind in _STATE
        ) from None
