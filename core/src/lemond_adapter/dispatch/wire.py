"""HTTP/1 framing, sans-IO: heads, and where a body ends. Strict towards clients, because a request that
two parsers could read differently can smuggle a second one past the first.

Only what is unambiguous is read: one framing, one Host, no folded lines, CRLF and nothing else as line
end. The bytes themselves are never rewritten here; what is passed on is a slice of what came in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_HEAD = 64 * 1024
MAX_HEADERS = 128
MAX_CHUNK_LINE = 4096
MAX_TRAILERS = 16 * 1024

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# Field values: anything but control characters; tab is allowed, and so are bytes above 127.
_LINES = re.compile(rb"(?:" + _TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+\r\n")
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]++) HTTP/1\.([01])\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\x00-\x08\x0a-\x1f\x7f]*+)?\r\n")
_TRAILER = re.compile(_TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*+\r\n")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*+(?:;[^\x00-\x08\x0a-\x1f\x7f]*+)?\r\n")
_LENGTH = re.compile(rb"[0-9]{1,15}")

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

Lines = list[tuple[bytes, bytes]]
"""(name in lower case, the whole line as it came, with its CRLF)"""


class BadMessage(ValueError):
    """Not HTTP/1 as it is read here. `status` is what a client is answered."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def value_of(line: bytes) -> bytes:
    """A header line's value, without the blanks around it."""
    return line[line.index(b":") + 1 : -2].strip(b" \t")


def _tokens(value: bytes) -> Iterator[bytes]:
    return (token.strip(b" \t").lower() for token in value.split(b","))


def _split(block: bytes, start: int, *, whose: str) -> Lines:
    if _LINES.fullmatch(block, start) is None:
        raise BadMessage(400, f"the {whose}'s header lines are not valid HTTP/1.1")
    lines: Lines = []
    for line in block[start:-4].split(b"\r\n") if len(block) - start > 2 else ():
        lines.append((line[: line.index(b":")].lower(), line + b"\r\n"))
    if len(lines) > MAX_HEADERS:
        raise BadMessage(431, f"the {whose} has more than {MAX_HEADERS} headers")
    return lines


class RequestHead:
    """A request's head. `length` is the body's; None when it is chunked. `path` has no query."""

    __slots__ = (
        "expects_continue",
        "keep_alive",
        "length",
        "lines",
        "method",
        "minor",
        "path",
        "query",
        "raw",
    )

    def __init__(self, raw: bytes) -> None:
        """`raw` ends with the empty line. Raises `BadMessage`."""
        found = _REQUEST_LINE.match(raw)
        if found is None:
            raise BadMessage(400, "the request line is not valid HTTP/1.1")
        method, target, minor = found.groups()
        self.raw = raw
        self.method = method
        self.minor = 0 if minor == b"0" else 1
        self.lines = lines = _split(raw, found.end(), whose="request")
        if not target.startswith(b"/"):
            target = _origin_form(target)
        path, mark, query = target.partition(b"?")
        self.path = path.decode("ascii")
        self.query = mark + query
        self.expects_continue = False
        length: int | None = 0
        lengths = codings = hosts = 0
        keep = self.minor == 1
        for name, line in lines:
            if name == b"content-length":
                lengths += 1
                value = value_of(line)
                if _LENGTH.fullmatch(value) is None:
                    raise BadMessage(400, "Content-Length is not a number")
                length = int(value)
            elif name == b"host":
                hosts += 1
            elif name == b"connection":
                options = frozenset(_tokens(value_of(line)))
                if b"close" in options:
                    keep = False
                elif b"keep-alive" in options and self.minor == 0:
                    keep = True
            elif name == b"transfer-encoding":
                codings += 1
                if value_of(line).lower() != b"chunked":
                    raise BadMessage(400, "Transfer-Encoding other than 'chunked' is not read")
            elif name == b"expect":
                if value_of(line).lower() != b"100-continue":
                    raise BadMessage(417, "Expect other than '100-continue' is not met")
                self.expects_continue = self.minor == 1
        if lengths + codings > 1:
            raise BadMessage(400, "the request's length is given more than once: send one framing")
        if codings:
            if self.minor == 0:
                raise BadMessage(400, "Transfer-Encoding in an HTTP/1.0 request")
            length = None
        if hosts > 1 or (hosts == 0 and self.minor == 1):
            raise BadMessage(400, "one Host header is needed")
        self.length = length
        self.keep_alive = keep

    def get(self, name: bytes) -> bytes | None:
        """The last value of a header; `name` in lower case."""
        found = None
        for key, line in self.lines:
            if key == name:
                found = line
        return None if found is None else value_of(found)


def _origin_form(target: bytes) -> bytes:
    """A proxy's clients name the whole URL; the server's own path is what counts."""
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        slash = rest.find(b"/")
        return rest[slash:] if slash >= 0 else b"/"
    return target


class ResponseHead:
    """A response's head. `length` is the body's; None when it is chunked, -1 when it lasts until the
    connection ends. `reusable`: the connection can serve another request afterwards."""

    __slots__ = ("length", "lines", "minor", "reusable", "start", "status")

    def __init__(self, raw: bytes) -> None:
        """`raw` ends with the empty line. Raises `BadMessage`."""
        found = _STATUS_LINE.match(raw)
        if found is None:
            raise BadMessage(502, "the status line is not valid HTTP/1.1")
        self.minor = 0 if found.group(1) == b"0" else 1
        self.status = int(found.group(2))
        self.start = found.group()
        self.lines = lines = _split(raw, found.end(), whose="response")
        reusable = self.minor == 1
        length: int | None = -1
        chunked = False
        for name, line in lines:
            if name == b"content-length":
                value = value_of(line)
                if _LENGTH.fullmatch(value) is None or length not in (-1, int(value)):
                    raise BadMessage(502, "the response's Content-Length is not one number")
                length = int(value)
            elif name == b"connection":
                options = frozenset(_tokens(value_of(line)))
                if b"close" in options:
                    reusable = False
                elif b"keep-alive" in options:
                    reusable = True
            elif name == b"transfer-encoding":
                if chunked or value_of(line).lower() != b"chunked":
                    raise BadMessage(502, "the response's Transfer-Encoding is not 'chunked'")
                chunked = True
        if chunked:
            if length != -1:
                raise BadMessage(502, "the response's length is given twice")
            length = None
        if self.status in (204, 304) or self.status < 200:
            length = 0
        self.length = length
        self.reusable = reusable and length != -1

    def dropped(self) -> frozenset[bytes]:
        """Names of the headers that end here, besides the hop-by-hop ones: what Connection names."""
        return connection_options(self.lines)


def connection_options(lines: Lines) -> frozenset[bytes]:
    """What the Connection headers name, in lower case; a framing header cannot be dropped that way."""
    named: set[bytes] = set()
    for name, line in lines:
        if name == b"connection":
            named.update(_tokens(value_of(line)))
    return frozenset(named - {b"content-length", b"transfer-encoding", b"host", b""})


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
