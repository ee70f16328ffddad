"""What Linux's /proc says about a process: who listens on a port, how it ended, whose child it is.

Every answer has three values: None where /proc cannot be read from here (other user, other
namespace, other system).
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from lemond_adapter.truth.record import Ending

_PROC = Path("/proc")
_LISTEN = "0A"


def owns_port(pid: int, port: int) -> bool | None:
    """Whether the process, or one of its descendants, listens on the TCP port."""
    inodes = _listening_inodes(pid, port)
    if inodes is None:
        return None
    held = _holds(pid, inodes)
    if held is not False:
        return held
    return any(_holds(child, inodes) for child in _descendants(pid))


def listener_pid(port: int) -> int | None:
    """A visible process that listens on the port; None when none can be seen."""
    inodes = _listening_inodes(os.getpid(), port)
    if not inodes:
        return None
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and _holds(int(entry.name), inodes):
            return int(entry.name)
    return None


def parent_pid(pid: int) -> int | None:
    """The process's parent."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def children(pid: int) -> list[int]:
    """The process's children, zombies too."""
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and parent_pid(int(entry.name)) == pid:
            found.append(int(entry.name))
    return sorted(found)


def glance(pid: int) -> tuple[str, str]:
    """(state letter, command line); empty where they cannot be read."""
    fields = _stat(pid)
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        raw = b""
    command = raw.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", errors="replace")
    return (fields[0] if fields else "", command)


def ending_of(pid: int) -> Ending:
    """How a process ended, read from its zombie. Unreadable (reaped already, other user) counts as
    graceful: it could have been anybody's SIGTERM."""
    fields = _stat(pid)
    if fields is None or len(fields) < 50 or fields[0] not in ("Z", "X"):
        return Ending(None, graceful=True)
    status = int(fields[49])
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return Ending(f"signal {number} ({_signal_name(number)})", graceful=number == signal.SIGTERM)
    code = os.WEXITSTATUS(status)
    return Ending(f"exit code {code}", graceful=code == 0)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the state on (the third); the name before it may hold anything."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _listening_inodes(pid: int, port: int) -> frozenset[str] | None:
    wanted = f":{port:04X}"
    inodes: set[str] = set()
    seen = False
    for table in ("tcp", "tcp6"):
        try:
            lines = (_PROC / str(pid) / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        seen = True
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and fields[1].endswith(wanted):
                inodes.add(fields[9])
    return frozenset(inodes) if seen else None


def _holds(pid: int, inodes: frozenset[str]) -> bool | None:
    try:
        descriptors = list((_PROC / str(pid) / "fd").iterdir())
    except OSError:
        return None
    for descriptor in descriptors:
        try:
            link = os.readlink(descriptor)
        except OSError:
            continue
        if link.startswith("socket:[") and link[8:-1] in inodes:
            return True
    return False


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (parent := parent_pid(int(entry.name))) is not None:
            parents.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found
