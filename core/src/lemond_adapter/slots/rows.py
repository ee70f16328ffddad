"""Rows of `/api/slots`, in the shape hal0 reads. Optional keys are left out, never null."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.slots.fold import ModelView, View, fold
from lemond_adapter.types import LoadedModel, SlotEvent, SlotSpec, SlotState

_RESIDENT = frozenset({SlotState.READY, SlotState.SERVING, SlotState.IDLE, SlotState.UNLOADING})


class SlotBoard:
    """The rows of all slots, kept by folding the adapter's events as they are published."""

    def __init__(self, adapter: LemondAdapter) -> None:
        self._adapter = adapter
        self.view = View()
        past = adapter.hub.after(0)
        for event in past if isinstance(past, list) else []:
            self.view = fold(self.view, event)
        adapter.hub.observers.append(self._take)

    def _take(self, event: SlotEvent) -> None:
        self.view = fold(self.view, event)

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
        """The model's state; leases make a ready one serving."""
        seen = self.view.models.get(model)
        if seen is None:
            return SlotState.OFFLINE
        if seen.state is SlotState.READY and self._adapter.leases.held(model):
            return SlotState.SERVING
        return seen.state

    def _row(self, name: str, model: str, slot: SlotSpec | None) -> dict[str, Any]:
        seen = self.view.models.get(model) or ModelView(model)
        state = self.state(model)
        record = self._adapter.truth.ledger.records.get(model)
        entry = record.last_entry if record else None
        resident = state in _RESIDENT
        backend = (slot.backend if slot else "") or _backend(entry)
        enabled = slot.enabled if slot else True
        changed = seen.changed_at.timestamp() if seen.changed_at else None
        metadata: dict[str, Any] = {
            "updated_at": changed,
            "message": seen.message,
            "adopted": True,
            "backend": backend,
            "provider": "lemonade",
            "stale": self.view.stale,
            "generation": seen.generation,
            "loads": seen.loads,
            "in_flight": self._adapter.leases.held(model),
        }
        if seen.pid is not None:
            metadata["pid"] = seen.pid
        row: dict[str, Any] = {
            "name": name,
            "state": state.value,
            "port": seen.port or 0,
            "model_id": model,
            "backend": backend,
            "metadata": metadata,
            "last_used_at": self._adapter.leases.last_used.get(model),
            "kind": "local",
            "status": state.value,
            "provider": "lemonade",
            "models": [_file_name(entry, model)] if resident else [],
            "type": slot.type if slot and slot.type else (entry.type if entry else "llm"),
            "model_default": model,
            "enabled": enabled,
            "lemonade_state": "disabled" if not enabled else ("loaded" if resident else "idle"),
        }
        if resident and entry is not None and entry.base_url is not None:
            row["backend_url"] = f"{entry.base_url}/v1"
        return row


def _backend(entry: LoadedModel | None) -> str:
    if entry is None:
        return ""
    return str(entry.options.get("llamacpp_backend") or entry.device or "")


def _file_name(entry: LoadedModel | None, model: str) -> str:
    if entry is None or not entry.checkpoint:
        return model
    return PurePosixPath(entry.checkpoint).name if entry.checkpoint.startswith("/") else model
