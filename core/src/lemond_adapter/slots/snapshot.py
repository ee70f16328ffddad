"""hal0's `state.json`, one a slot: written for its readers, and read at start for a fast first paint.

Never authoritative: what lemond says replaces it. A file that is torn, foreign or older than an hour
is left out.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lemond_adapter.types import SlotState

log = logging.getLogger(__name__)

FRESH_S = 3600.0
FILE = "state.json"


class SavedState(BaseModel):
    """One file. Files of older versions lack keys: only `state` is required."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    state: SlotState
    name: str = ""
    model_id: str = ""
    port: int = Field(default=0, ge=0, le=65535)
    message: str = ""
    updated_at: float = 0.0
    extra: dict[str, Any] = Field(default_factory=dict)


def read_states(folder: Path, now: float | None = None) -> dict[str, SavedState]:
    """What the last run left, by slot name."""
    moment = time.time() if now is None else now
    found: dict[str, SavedState] = {}
    for file in sorted(folder.glob(f"*/{FILE}")):
        try:
            saved = SavedState.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            first = str(error).splitlines()[0]
            log.warning("%s is left out: not a slot's state (%s)", file, first)
            continue
        if 0 <= moment - saved.updated_at <= FRESH_S:
            found[file.parent.name] = saved
    return found


@dataclass(slots=True)
class StateFiles:
    """Writes what has changed since it was last written."""

    folder: Path
    _written: dict[str, SavedState]

    @classmethod
    def at(cls, folder: Path) -> StateFiles:
        """In this folder, made when it is missing."""
        return cls(folder, {})

    def write(self, rows: list[dict[str, Any]]) -> None:
        """One file a slot, replaced as a whole. Raises `OSError`."""
        for row in rows:
            saved = _saved(row)
            last = self._written.get(saved.name)
            if last is not None and _same(last, saved):
                continue
            if not _is_file_name(saved.name):
                continue
            _replace(self.folder / saved.name / FILE, saved.model_dump_json().encode())
            self._written[saved.name] = saved


def _saved(row: dict[str, Any]) -> SavedState:
    more = row["metadata"]
    return SavedState(
        state=row["state"],
        name=row["name"],
        model_id=row["model_id"],
        port=row["port"],
        message=more["message"],
        updated_at=time.time(),
        extra={key: more[key] for key in ("adopted", "backend", "provider")},
    )


def _same(one: SavedState, other: SavedState) -> bool:
    """Apart from its time, which is renewed before a reader would take it for too old."""
    age = other.updated_at - one.updated_at
    return age < FRESH_S / 2 and one.model_copy(update={"updated_at": other.updated_at}) == other


def _is_file_name(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name and len(name.encode()) < 200


def _replace(file: Path, content: bytes) -> None:
    """A reader sees the old file or the new one, also after a crash."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.new")
    with new.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    os.replace(new, file)
