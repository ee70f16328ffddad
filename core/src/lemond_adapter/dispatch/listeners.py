"""Which sockets listen on a TCP port right now, asked of the kernel (Linux sock_diag): one round trip of
some ten microseconds, whatever the number of connections.

A socket's inode tells one listening socket from its successor on the same port: a process that has
stopped listening and lives on (a server that is shutting down) no longer vouches for its port.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST, _NLM_F_DUMP = 1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_TCP_LISTEN = 10
_HEADER = struct.Struct("=IHHII")
# inet_diag_req_v2: family, protocol, extensions, padding, states; then the socket's identity, of which
# a dump matches the source port alone.
_REQUEST = struct.Struct("=BBBBI")
_IDENTITY = struct.Struct("!HH32x4x8x")
# inet_diag_msg: family, state, timer, retransmissions, identity (48), expires, queues, uid, inode.
_ANSWER = struct.Struct("=BBBB48xIIIII")
_LOCAL_PORT = struct.Struct("!4xH")


class Listeners:
    """`on` gives the inodes of the sockets that listen on a port; None where the kernel cannot be asked."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._sequence = 0
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
            self._socket.settimeout(0.2)
        except (OSError, AttributeError):
            self._socket = None

    def on(self, port: int) -> frozenset[int] | None:
        """All addresses, IPv4 and IPv6."""
        if self._socket is None:
            return None
        try:
            found = self._dump(socket.AF_INET, port) | self._dump(socket.AF_INET6, port)
        except OSError:
            self.close()
            return None
        return frozenset(found)

    def _dump(self, family: int, port: int) -> set[int]:
        assert self._socket is not None
        self._sequence += 1
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << _TCP_LISTEN) + _IDENTITY.pack(port, 0)
        flags = _NLM_F_REQUEST | _NLM_F_DUMP
        length = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, flags, self._sequence, 0) + body)
        found: set[int] = set()
        while True:
            data = self._socket.recv(65536)
            position = 0
            while position + _HEADER.size <= len(data):
                size, kind, _, sequence, _ = _HEADER.unpack_from(data, position)
                if sequence != self._sequence:
                    pass  # of a question that was given up
                elif kind == _NLMSG_DONE:
                    return found
                elif kind == _NLMSG_ERROR:
                    raise OSError(errno.EIO, "sock_diag refused the question")
                elif kind == _SOCK_DIAG_BY_FAMILY:
                    at = position + _HEADER.size
                    if _LOCAL_PORT.unpack_from(data, at)[0] == port:
                        found.add(_ANSWER.unpack_from(data, at)[8])
                position += max(_HEADER.size, (size + 3) & ~3)

    def close(self) -> None:
        """No more questions."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def held_by(pid: int, inodes: frozenset[int]) -> frozenset[int] | None:
    """Those of the sockets that a process, or one it started, holds; None where that cannot be seen."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: set[int] = set()
    todo, seen = [pid], False
    while todo and len(found) < len(wanted):
        process = todo.pop()
        try:
            names = os.listdir(f"/proc/{process}/fd")
            seen = True
        except OSError:
            continue
        for name in names:
            with contextlib.suppress(OSError):
                inode = wanted.get(os.readlink(f"/proc/{process}/fd/{name}"))
                if inode is not None:
                    found.add(inode)
        todo += _started_by(process)
    return frozenset(found) if seen else None


def _started_by(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as children:
                found += map(int, children.read().split())
    return found
