"""Reads the capture format: JSON Lines, each with `t` (seconds since the start) and `kind`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lemond_adapter.types import CaptureError

KINDS = frozenset({"meta", "ws_open", "ws", "ws_close", "ws_error", "health", "request", "response", "truth"})


@dataclass(frozen=True, slots=True)
class CaptureLine:
    """One recorded fact. `number` is its line in the file, from 1."""

    number: int
    t: float
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Capture:
    """A whole recording; `warnings` name kinds that were skipped because they are unknown."""

    path: Path
    meta: Mapping[str, Any]
    lines: tuple[CaptureLine, ...]
    warnings: tuple[str, ...] = ()

    @property
    def release(self) -> str | None:
        """The lemond release that was recorded."""
        release = self.meta.get("lemond")
        return release if isinstance(release, str) else None


def read_capture(path: str | Path) -> Capture:
    """Reads a capture file. Raises `CaptureError` naming file and line."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CaptureError(f"{file}: cannot be read: {error}") from error
    lines: list[CaptureLine] = []
    warnings: list[str] = []
    # Split at "\n" alone: a log line may hold characters that `splitlines` takes for line ends.
    for number, raw in enumerate(text.split("\n"), start=1):
        if not raw.strip():
            continue
        line = _line(file, number, raw)
        if line.kind not in KINDS:
            warnings.append(f"{file}:{number}: unknown kind {line.kind!r} skipped")
            continue
        lines.append(line)
    if not lines or lines[0].kind != "meta":
        raise CaptureError(f"{file}:1: the first line must be of kind 'meta'")
    return Capture(file, lines[0].data, tuple(lines), tuple(warnings))


def _line(file: Path, number: int, raw: str) -> CaptureLine:
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise CaptureError(f"{file}:{number}: not JSON: {error}") from None
    if not isinstance(data, dict):
        raise CaptureError(f"{file}:{number}: an object was expected, not {type(data).__name__}")
    t, kind = data.get("t"), data.get("kind")
    if not isinstance(t, int | float) or isinstance(t, bool) or not isinstance(kind, str):
        raise CaptureError(f"{file}:{number}: needs a number 't' and a string 'kind'")
    return CaptureLine(number, float(t), kind, data)
