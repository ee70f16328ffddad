"""What a capture says happened, read from its truth lines, its health bodies and lemond's answers:
everything but the log, which is what is put to the test."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from lemond_adapter.captures import Capture, CaptureLine

_MODEL = re.compile(r"-m \S*/([\w.-]+)\.gguf")
_PORT = re.compile(r"--port (\d+)")


@dataclass(frozen=True, slots=True)
class Spawn:
    """A model server that the process table saw."""

    model: str
    port: int
    pid: int


def spawned(capture: Capture) -> list[Spawn]:
    """Model servers in order of their start. A later `exec` line completes a bare `spawn`."""
    commands: dict[int, str] = {}
    for line in capture.lines:
        if line.kind == "truth" and line.data.get("what") in ("spawn", "exec"):
            pid = int(line.data["pid"])
            commands[pid] = str(line.data.get("cmd") or commands.get(pid, ""))
    found = []
    for pid, command in commands.items():
        model, port = _MODEL.search(command), _PORT.search(command)
        if model and port:
            found.append(Spawn(model[1], int(port[1]), pid))
    return found


def listings(capture: Capture) -> list[list[dict[str, object]]]:
    """`all_models_loaded` of each recorded health body."""
    return [
        line.data["body"]["all_models_loaded"]
        for line in capture.lines
        if line.kind == "health" and line.data.get("status") == 200
    ]


def listed_pids(capture: Capture) -> set[int]:
    """Pids that some recorded listing names: the others nobody could have routed to."""
    return {int(str(entry["pid"])) for listing in listings(capture) for entry in listing}


def ends(capture: Capture) -> dict[int, float]:
    """When each process was first seen dead."""
    found: dict[int, float] = {}
    for line in capture.lines:
        if line.kind == "truth" and line.data.get("what") in ("zombie", "gone"):
            found.setdefault(int(line.data["pid"]), line.t)
    return found


def killed(capture: Capture) -> list[int]:
    """Pids that the scenario killed."""
    return [int(line.data["pid"]) for line in capture.lines if line.data.get("what") == "kill"]


def refused(capture: Capture) -> list[str]:
    """lemond's reasons for failed loads, from its answers; a dead child's network error is none."""
    return [reason for line in capture.lines if (reason := _refusal(line)) is not None]


def _refusal(line: CaptureLine) -> str | None:
    if line.kind != "response" or int(line.data.get("status", 0)) < 500:
        return None
    try:
        message = str(json.loads(line.data["body"])["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return None
    if message.startswith("Network error"):
        return None
    return re.sub(r"^Failed to load model '.*?': ", "", message)


def final(capture: Capture) -> dict[str, tuple[int, int]]:
    """model -> (port, pid): in the last listing, and alive."""
    last = listings(capture)[-1:] or [[]]
    dead = ends(capture)
    found = {}
    for entry in last[0]:
        port = int(str(entry["backend_url"]).rpartition(":")[2].partition("/")[0])
        pid = int(str(entry["pid"]))
        if pid not in dead:
            found[str(entry["model_name"])] = (port, pid)
    return found
