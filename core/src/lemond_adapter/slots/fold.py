"""Slot state is a fold over events: the same events give the same state. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from lemond_adapter.types import (
    EvictionStarted,
    LemondLost,
    LoadFailed,
    LoadStarted,
    ModelEvicted,
    ModelLoaded,
    PortChanged,
    ProcessCrashed,
    ProcessSpawned,
    PullFinished,
    PullProgress,
    PullStarted,
    Resynced,
    SlotEvent,
    SlotState,
)


@dataclass(frozen=True, slots=True)
class ModelView:
    """What the events say of one model. `message` is for people: why it is as it is."""

    model: str
    state: SlotState = SlotState.OFFLINE
    port: int | None = None
    pid: int | None = None
    generation: int = 0
    loads: int = 0
    adopted: bool = False
    """Loaded by somebody else than us."""
    message: str = ""
    changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class View:
    """What the events say of everything. `stale`: lemond is silent, this is the last that was known."""

    models: Mapping[str, ModelView] = field(default_factory=lambda: MappingProxyType({}))
    stale: bool = False
    seq: int = 0


def fold(view: View, event: SlotEvent) -> View:
    """The view after one more event. An event that is not newer than the view changes nothing."""
    if event.seq <= view.seq:
        return view
    if isinstance(event, LemondLost):
        return replace(view, stale=True, seq=event.seq)
    if isinstance(event, Resynced):
        return replace(view, stale=False, seq=event.seq)
    if event.model is None:
        return replace(view, seq=event.seq)
    before = view.models.get(event.model) or ModelView(event.model)
    after = replace(_step(before, event), changed_at=event.at)
    models = MappingProxyType({**view.models, event.model: after})
    return View(models, view.stale, event.seq)


def _step(view: ModelView, event: SlotEvent) -> ModelView:
    gone = replace(view, state=SlotState.OFFLINE, port=None, pid=None)
    match event:
        case PullStarted() | PullProgress() | PullFinished():
            return _pulled(view, event)
        case LoadStarted():
            return replace(
                view, state=SlotState.STARTING, port=None, pid=None, message="lemond is loading it"
            )
        case ProcessSpawned():
            return replace(gone, state=SlotState.WARMING, pid=event.pid, message="its server is starting")
        case ModelLoaded():
            return _loaded(view, event)
        case PortChanged():
            moved = replace(view, generation=view.generation + 1)
            if view.state is not SlotState.READY:
                return moved
            return replace(moved, port=event.new_port, pid=event.pid)
        case LoadFailed():
            return replace(gone, state=SlotState.ERROR, message=event.reason)
        case EvictionStarted():
            return replace(view, state=SlotState.UNLOADING, message=f"being evicted ({event.reason})")
        case ModelEvicted():
            return replace(gone, message=f"evicted ({event.reason}); loads again on the next request")
        case ProcessCrashed():
            how = event.exit or "no exit status"
            return replace(gone, message=f"its server died ({how}); loads again on the next request")
    return view


def _pulled(view: ModelView, event: PullStarted | PullProgress | PullFinished) -> ModelView:
    """A download says nothing of a process: what is loaded stays so while it is updated."""
    if view.state not in (SlotState.OFFLINE, SlotState.ERROR, SlotState.PULLING):
        return view
    match event:
        case PullStarted():
            return replace(view, state=SlotState.PULLING, message="downloading")
        case PullProgress():
            return replace(view, state=SlotState.PULLING, message=f"downloading, {event.percent:.0f} %")
    text = "" if event.ok else f"download failed: {event.reason}"
    return replace(view, state=SlotState.OFFLINE, message=text)


def _loaded(view: ModelView, event: ModelLoaded) -> ModelView:
    """An eviction that was called off gives the same process back: no other generation, no other load."""
    same = view.state is SlotState.UNLOADING and (view.port, view.pid) == (event.port, event.pid)
    return replace(
        view,
        state=SlotState.READY,
        port=event.port,
        pid=event.pid,
        generation=view.generation if same else view.generation + 1,
        loads=view.loads if same else view.loads + 1,
        adopted=view.adopted if same else event.initiator is None,
        message="",
    )
