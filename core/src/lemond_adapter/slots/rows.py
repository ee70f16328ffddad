"""Rows of `/api/slots`, in the shape hal0 reads. Optional keys are left out, never null."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from lemond_adapter.acting.idle import idle_deadline
from lemond_adapter.acting.residents import Resident
from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.slots.fold import ModelView, View, fold
from lemond_adapter.slots.snapshot import SavedState
from lemond_adapter.types import LoadedModel, SlotEvent, SlotSpec, SlotState

_RESIDENT = frozenset({SlotState.READY, SlotState.SERVING, SlotState.IDLE, SlotState.UNLOADING})


class SlotBoard:
    """The rows of all slots, kept by folding the adapter's events as they are published.

    `saved` is what an earlier run left: shown, flagged stale, until lemond was met for the first time.
    """

    def __init__(self, adapter: LemondAdapter, saved: Mapping[str, SavedState] | None = None) -> None:
        self._adapter = adapter
        self._saved = dict(saved or {})
        self._began = time.time()
        self.view = View()
        past = adapter.hub.after(adapter.hub.first)
        for event in past if isinstance(past, list) else []:
            self.view = fold(self.view, event)
        adapter.hub.observers.append(self._take)

    def _take(self, event: SlotEvent) -> None:
        self.view = fold(self.view, event)

    @property
    def stale(self) -> bool:
        """Whether this is the last that was known, not what is."""
        return self.view.stale or not self._adapter.truth.reachable

    def rows(self) -> list[dict[str, Any]]:
        """Configured slots in order, then models that no slot names."""
        slots = self._adapter.slots.slots
        rows = [self._row(slot.name, slot.model, slot) for slot in slots.values()]
        named = {slot.model for slot in slots.values()}
        rows += [self._row(model, model, None) for model in sorted(self.view.models) if model not in named]
        return rows

    def row(self, name: str) -> dict[str, Any] | None:
        """One slot by name or alias, or a model that is loaded or was."""
        slot = self._adapter.slots.named(name)
        if slot is not None:
            return self._row(slot.name, slot.model, slot)
        if name in self.view.models:
            return self._row(name, name, None)
        return None

    def state(self, model: str) -> SlotState:
        """The model's state; leases make a ready one serving, half of its idle limit makes it idle."""
        seen = self.view.models.get(model)
        if seen is None:
            return SlotState.OFFLINE
        return _shown(seen.state, self._adapter.actor.census.resident(model), _now())

    def _row(self, name: str, model: str, slot: SlotSpec | None) -> dict[str, Any]:
        seen = self.view.models.get(model)
        if seen is None and (saved := self._first_paint(name, model)) is not None:
            return self._saved_row(name, slot, saved)
        seen = seen or ModelView(model)
        resident = self._adapter.actor.census.resident(model)
        state = _shown(seen.state, resident, _now())
        record = self._adapter.truth.ledger.records.get(model)
        entry = record.last_entry if record else None
        changed = seen.changed_at.timestamp() if seen.changed_at else self._began
        metadata: dict[str, Any] = {
            "updated_at": changed,
            "message": seen.message,
            "adopted": seen.adopted,
            "backend": _backend(slot, entry),
            "provider": "lemonade",
            "stale": self.stale,
            "generation": seen.generation,
            "loads": seen.loads,
            "in_flight": resident.leases,
        }
        if seen.pid is not None:
            metadata["pid"] = seen.pid
        deadline = idle_deadline(resident) if state in (SlotState.READY, SlotState.IDLE) else None
        if deadline is not None:
            metadata["idle_deadline"] = round(time.time() + deadline - _now(), 3)
        row = _base(name, model, slot, state, seen.port or 0, metadata)
        row["last_used_at"] = self._adapter.leases.last_used.get(model)
        row["type"] = entry.type if entry else self._adapter.actor.census.newcomer(model).type
        if state in _RESIDENT:
            row["models"] = [_file_name(entry, model)]
            if entry is not None and entry.base_url is not None:
                row["backend_url"] = f"{entry.base_url}/v1"
        return row

    def _first_paint(self, name: str, model: str) -> SavedState | None:
        if self._adapter.selection is not None:
            return None  # lemond was met: what it says counts
        saved = self._saved.get(name)
        return saved if saved is not None and saved.model_id == model else None

    def _saved_row(self, name: str, slot: SlotSpec | None, saved: SavedState) -> dict[str, Any]:
        backend = str(saved.extra.get("backend") or (slot.backend if slot else ""))
        metadata: dict[str, Any] = {
            "updated_at": saved.updated_at,
            "message": saved.message,
            "adopted": bool(saved.extra.get("adopted", True)),
            "backend": backend,
            "provider": "lemonade",
            "stale": True,
            "generation": 0,
            "loads": 0,
            "in_flight": 0,
        }
        row = _base(name, saved.model_id, slot, saved.state, saved.port, metadata)
        if saved.state in _RESIDENT:
            row["models"] = [saved.model_id]
        return row


def _base(
    name: str, model: str, slot: SlotSpec | None, state: SlotState, port: int, metadata: dict[str, Any]
) -> dict[str, Any]:
    enabled = slot.enabled if slot else True
    return {
        "name": name,
        "state": state.value,
        "port": port,
        "model_id": model,
        "backend": metadata["backend"],
        "metadata": metadata,
        "last_used_at": None,
        "kind": "local",
        "status": state.value,
        "provider": "lemonade",
        "models": [],
        "type": slot.type if slot else "llm",
        "model_default": model,
        "enabled": enabled,
        "lemonade_state": "disabled" if not enabled else ("loaded" if state in _RESIDENT else "idle"),
    }


def _shown(state: SlotState, resident: Resident, now: float) -> SlotState:
    if state is not SlotState.READY:
        return state
    if resident.leases:
        return SlotState.SERVING
    limit = resident.idle_limit_s
    return SlotState.IDLE if limit > 0 and now - resident.used_at >= limit / 2 else state


def _now() -> float:
    return asyncio.get_running_loop().time()


def _backend(slot: SlotSpec | None, entry: LoadedModel | None) -> str:
    if slot is not None and slot.backend:
        return slot.backend
    if entry is None:
        return ""
    return str(entry.options.get("llamacpp_backend") or entry.device or "")


def _file_name(entry: LoadedModel | None, model: str) -> str:
    if entry is None or not entry.checkpoint:
        return model
    return PurePosixPath(entry.checkpoint).name if entry.checkpoint.startswith("/") else model
