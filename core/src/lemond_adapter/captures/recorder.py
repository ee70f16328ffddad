"""Records a running lemond in the capture format: frames verbatim, health on change, process facts.

It watches and does nothing else: what is to be recorded (loads, evictions, kills) is done by whoever
runs it, in another terminal.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.truth import procfs
from lemond_adapter.types import CaptureError

POLL_S = 0.02
"""How often the process table is looked at; `truth` times are good to that."""

_HOME = re.compile(r"/(?:home|Users)/[^/\s\"\\]+|/root(?=/)")


class Scrubber:
    """Takes home folders and keys out of what is written."""

    def __init__(self, keys: Iterable[str | None]) -> None:
        self._keys = [key for key in keys if key]

    def __call__(self, text: str) -> str:
        for key in self._keys:
            text = text.replace(key, "REDACTED")
        return _HOME.sub("/home/user", text)


class Recorder:
    """One capture file. `scrub` is applied to every line as text."""

    def __init__(self, file: TextIO, scrub: Scrubber | None) -> None:
        self._file = file
        self._scrub = scrub
        self._began = time.monotonic()
        self._last_body: dict[str, Any] | None = None
        self._processes: dict[int, tuple[str, str]] = {}
        self.lines = 0

    def write(self, kind: str, **data: Any) -> None:
        """One line, now."""
        line = {"t": round(time.monotonic() - self._began, 6), "kind": kind, **data}
        text = json.dumps(line, ensure_ascii=False)
        self._file.write((self._scrub(text) if self._scrub else text) + "\n")
        self._file.flush()
        self.lines += 1

    def frame(self, message: str | bytes) -> None:
        """A frame of the log stream. What is no JSON is kept as text."""
        text = message if isinstance(message, str) else message.decode("utf-8", errors="replace")
        try:
            self.write("ws", frame=json.loads(text))
        except ValueError:
            self.write("ws", frame=text)

    def body(self, body: dict[str, Any]) -> None:
        """A health body, when it differs from the last in more than the access times."""
        if _essence(body) != self._last_body:
            self._last_body = _essence(body)
            self.write("health", status=200, body=body, why="changed")

    def processes(self, lemond_pid: int) -> None:
        """What changed among lemond's children."""
        seen = {pid: procfs.glance(pid) for pid in procfs.children(lemond_pid)}
        for pid, now in seen.items():
            before = self._processes.get(pid)
            if before is None:
                self.write("truth", what="spawn", pid=pid, cmd=now[1])
            elif now[0] == "Z" != before[0]:
                self.write("truth", what="zombie", pid=pid)
            elif now[1] and now[1] != before[1] and now[0] != "Z":
                self.write("truth", what="exec", pid=pid, cmd=now[1])
        for pid in self._processes.keys() - seen.keys():
            self.write("truth", what="gone", pid=pid)
        self._processes = seen


def _essence(body: dict[str, Any]) -> dict[str, Any]:
    entries = body.get("all_models_loaded")
    listed = [
        {key: value for key, value in entry.items() if key != "last_use"}
        if isinstance(entry, dict)
        else entry
        for entry in (entries if isinstance(entries, list) else [])
    ]
    return {**body, "all_models_loaded": listed, "model_loaded": None}


async def record(
    url: str,
    output: Path,
    *,
    api_key: str | None,
    duration_s: float | None,
    scenario: str,
    log_level: str,
    scrub: bool,
) -> int:
    """Records until `duration_s` is over or the task is cancelled; the number of lines written.

    Raises `CaptureError` when there is nothing to record, or the file exists or cannot be written.
    """
    async with LemondAdapter(url, api_key=api_key, heartbeat_s=1.0) as adapter:
        if adapter.version is None:
            raise CaptureError(f"nothing to record: {adapter.truth.unknown_why}")
        try:
            file = output.open("x", encoding="utf-8")
        except OSError as error:
            raise CaptureError(f"{output}: {error.strerror}; name a new file with --output") from None
        with file:
            recorder = Recorder(file, Scrubber([api_key]) if scrub else None)
            recorder.write("meta", lemond=adapter.version, scenario=scenario, log_level=log_level, config={})
            adapter.truth.stream.on_raw = recorder.frame
            adapter.truth.on_body = recorder.body
            recorder.write("ws_open")
            # A new connection, so that the recording begins with a snapshot.
            adapter.truth.stream.cursor.reset()
            await adapter.truth.stream.reconnect()
            adapter.truth.relist()
            await _watch(adapter, recorder, duration_s)
        return recorder.lines


async def _watch(adapter: LemondAdapter, recorder: Recorder, duration_s: float | None) -> None:
    end = None if duration_s is None else time.monotonic() + duration_s
    lemond_pid: int | None = None
    try:
        while end is None or time.monotonic() < end:
            if lemond_pid is None and adapter.address.local:
                lemond_pid = procfs.listener_pid(adapter.address.port)
            if lemond_pid is not None:
                recorder.processes(lemond_pid)
            await asyncio.sleep(POLL_S)
    except asyncio.CancelledError:
        return
