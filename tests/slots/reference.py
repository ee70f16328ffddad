"""A deliberately naive reference for slot state: the whole history is read again for each question."""

from __future__ import annotations

from typing import Any

from lemond_adapter.types import SlotEvent

ROUTABLE = ("ready",)


def history(events: list[SlotEvent]) -> list[dict[str, Any]]:
    """What counts: each seq once, and none that comes behind a later one."""
    kept: list[dict[str, Any]] = []
    highest = 0
    for event in events:
        if event.seq > highest:
            highest = event.seq
            kept.append(event.model_dump())
    return kept


def stale(events: list[SlotEvent]) -> bool:
    """Whether the last word about lemond itself was that it is lost."""
    words = [e["type"] for e in history(events) if e["type"] in ("lemond_lost", "resynced")]
    return bool(words) and words[-1] == "lemond_lost"


def of_model(events: list[SlotEvent], model: str) -> dict[str, Any]:
    """State, port, pid, generation and loads, written out as a table of cases."""
    s: dict[str, Any] = {"state": "offline", "port": None, "pid": None, "generation": 0, "loads": 0}
    for e in history(events):
        if e["model"] != model:
            continue
        kind = e["type"]
        if kind in ("pull_started", "pull_progress"):
            if s["state"] in ("offline", "error", "pulling"):
                s["state"] = "pulling"
        elif kind == "pull_finished":
            if s["state"] in ("offline", "error", "pulling"):
                s["state"] = "offline"
        elif kind == "load_started":
            s.update(state="starting", port=None, pid=None)
        elif kind == "process_spawned":
            s.update(state="warming", port=None, pid=e["pid"])
        elif kind == "model_loaded":
            if not (s["state"] == "unloading" and s["port"] == e["port"] and s["pid"] == e["pid"]):
                s["generation"] += 1
                s["loads"] += 1
            s.update(state="ready", port=e["port"], pid=e["pid"])
        elif kind == "port_changed":
            s["generation"] += 1
            if s["state"] == "ready":
                s.update(port=e["new_port"], pid=e["pid"])
        elif kind == "load_failed":
            s.update(state="error", port=None, pid=None)
        elif kind == "eviction_started":
            s["state"] = "unloading"
        elif kind in ("model_evicted", "process_crashed"):
            s.update(state="offline", port=None, pid=None)
    return s
