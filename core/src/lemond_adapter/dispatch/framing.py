"""Where a body ends, sans-IO: by its length, or by its chunks. As strict as llhttp."""

from __future__ import annotations

import re

from lemond_adapter.dispatch.wire import TOKEN, BadMessage

MAX_CHUNK_LINE = 4096
MAX_TRAILERS = 16 * 1024
_TRAILER = re.compile(TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*+\r\n")
_NOT_IN_TRAILERS = frozenset({b"content-length", b"transfer-encoding", b"host"})
"""RFC 9110, 6.5.1: whoever merged them into the head would read another message."""

_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
_EXTENSION = rb";" + TOKEN + rb"(?:=(?:" + TOKEN + rb"|" + _QUOTED + rb"))?+"
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:" + _EXTENSION + rb")*+\r\n")


class Chunks:
    """Follows a chunked body. The bytes stay the caller's: `feed` says how many of them are the
    message's, `boundary` where the last whole chunk among them ends (0 when none does)."""

    __slots__ = ("_carry", "_left", "_state", "_trailers", "boundary", "done")

    _SIZE, _DATA, _END, _TRAILER = range(4)

    def __init__(self) -> None:
        self._state = self._SIZE
        self._left = 0
        self._carry = b""
        self._trailers = 0
        self.boundary = 0
        self.done = False

    @property
    def whole(self) -> bool:
        """Whether the bytes so far end between two chunks."""
        return self._state == self._SIZE and not self._carry

    def feed(self, data: bytes, payload: list[bytes] | None = None) -> int:
        """Takes bytes; appends the data in them to `payload`. Raises `BadMessage`."""
        shift = len(self._carry)
        if shift:
            data = self._carry + data
            self._carry = b""
        position, end = 0, len(data)
        self.boundary = 0
        state = self._state
        while position < end:
            if state == self._DATA:
                take = min(self._left, end - position)
                if payload is not None:
                    payload.append(data[position : position + take])
                position += take
                self._left -= take
                if self._left:
                    break
                state = self._END
            elif state == self._END:
                if end - position < 2:
                    self._carry = data[position:]
                    if self._carry != b"\r":
                        raise BadMessage(400, "a chunk is longer than its size says")
                    position = end
                    break
                if data[position : position + 2] != b"\r\n":
                    raise BadMessage(400, "a chunk is longer than its size says")
                position += 2
                self.boundary = position - shift
                state = self._SIZE
            elif state == self._SIZE:
                found = _CHUNK_SIZE.match(data, position)
                if found is None:
                    self._keep(data, position, MAX_CHUNK_LINE, "a chunk's size line is not valid")
                    position = end
                    break
                position = found.end()
                self._left = int(found[1], 16)
                state = self._DATA if self._left else self._TRAILER
            else:
                line_end = data.find(b"\r\n", position)
                if line_end < 0:
                    self._keep(data, position, MAX_TRAILERS, "a trailer is not valid")
                    position = end
                    break
                if line_end == position:
                    position += 2
                    self.boundary = position - shift
                    self.done = True
                    break
                self._trailers += line_end + 2 - position
                if _TRAILER.fullmatch(data, position, line_end + 2) is None or self._trailers > MAX_TRAILERS:
                    raise BadMessage(400, "a trailer is not valid")
                if data[position : data.index(b":", position)].lower() in _NOT_IN_TRAILERS:
                    raise BadMessage(400, "a trailer speaks of framing or routing")
                position = line_end + 2
        self._state = state
        return position - shift

    def _keep(self, data: bytes, position: int, limit: int, problem: str) -> None:
        """An unfinished line waits for its rest, within bounds."""
        if data.find(b"\n", position) >= 0 or len(data) - position > limit:
            raise BadMessage(400, problem)
        self._carry = data[position:]


class BodyReader:
    """Where a request's body ends. `feed` returns how many bytes are the body's."""

    __slots__ = ("_chunks", "_left", "done", "size")

    def __init__(self, length: int | None) -> None:
        self._chunks = Chunks() if length is None else None
        self._left = length or 0
        self.size = 0
        """Bytes of data so far, without the framing."""
        self.done = length == 0

    def feed(self, data: bytes, payload: list[bytes] | None = None) -> int:
        """Takes bytes; appends the data in them to `payload`. Raises `BadMessage`."""
        if self._chunks is not None:
            found: list[bytes] = []
            used = self._chunks.feed(data, found)
            self.size += sum(map(len, found))
            if payload is not None:
                payload += found
            self.done = self._chunks.done
            return used
        used = min(self._left, len(data))
        self._left -= used
        self.size += used
        if payload is not None and used:
            payload.append(data if used == len(data) else data[:used])
        self.done = self._left == 0
        return used
