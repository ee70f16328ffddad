"""HTTP/1 heads, sans-IO. Strict, because a request that two parsers could read differently can smuggle a
second one past the first.

Only what is unambiguous is read: one framing, one Host, no folded lines, CRLF and nothing else as line
end. The bytes themselves are never rewritten here; what is passed on is a slice of what came in.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache

MAX_HEAD = 64 * 1024
MAX_HEADERS = 128
MAX_KNOWN = 4096

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# Field values: anything but control characters; tab is allowed, and so are bytes above 127.
_LINES = re.compile(rb"(?:" + TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+\r\n")
_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]++) HTTP/1\.([01])\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\x00-\x08\x0a-\x1f\x7f]*+)?\r\n")
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
_FOR_US = frozenset(
    {b"authorization", b"x-api-key", b"cookie", b"origin", b"prefer", b"idempotency-key", b"expect"}
)
"""Headers of requests that are meant for this service, or are a client's secrets: no child sees them."""


class Kind(IntEnum):
    """What a header line means for the relay."""

    PASS = 0
    DROP = 1
    LENGTH = 2
    CODING = 3
    CONNECTION = 4
    HOST = 5
    EXPECT = 6
    TYPE = 7
    REQUEST_ID = 8
    OURS = 9
    TRAILER = 10
    KEY = 11


# As plain numbers: comparing members of an enumeration costs twice as much.
_PASS, _DROP, _LENGTH_, _CODING, _CONNECTION, _HOST, _EXPECT, _TYPE, _ID, _OURS, _TRAILER_, _KEY = map(
    int, Kind
)
_COMMON = {
    **dict.fromkeys(HOP_BY_HOP, _DROP),
    b"content-length": _LENGTH_,
    b"transfer-encoding": _CODING,
    b"connection": _CONNECTION,
    b"content-type": _TYPE,
    b"x-request-id": _ID,
}
_REQUEST_KINDS = {**_COMMON, **dict.fromkeys(_FOR_US, _OURS), b"host": _HOST, b"expect": _EXPECT}
_REQUEST_KINDS[b"idempotency-key"] = _KEY
_RESPONSE_KINDS = {**_COMMON, b"trailer": _TRAILER_}
_SECRET = frozenset({b"authorization", b"x-api-key", b"cookie", b"proxy-authorization", b"set-cookie"})

Line = tuple[int, bytes, bytes]
"""(kind, name in lower case, the whole line as it came, with its CRLF)"""


class BadMessage(ValueError):
    """Not HTTP/1 as it is read here. `status` is what a client is answered."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Splitter:
    """Heads into lines. Most lines come again and again, so those seen before are neither checked nor
    taken apart a second time; secrets are not remembered."""

    def __init__(self, kinds: dict[bytes, int], whose: str) -> None:
        self._kinds = kinds
        self._whose = whose
        self._known: dict[bytes, Line] = {}

    def split(self, block: bytes, start: int) -> list[Line]:
        """The lines of `block` from `start`; it ends with an empty line. Raises `BadMessage`."""
        if not block.endswith(b"\r\n\r\n"):
            raise BadMessage(400, f"the {self._whose}'s head has no end")
        if len(block) - start <= 2:
            return []
        raw = block[start:-4].split(b"\r\n")
        if len(raw) > MAX_HEADERS:
            raise BadMessage(431, f"the {self._whose} has more than {MAX_HEADERS} headers")
        known = self._known
        try:
            return [known[line] for line in raw]
        except KeyError:
            pass
        if _LINES.fullmatch(block, start) is None:
            raise BadMessage(400, f"the {self._whose}'s header lines are not valid HTTP/1.1")
        return [known.get(line) or self._read(line) for line in raw]

    def _read(self, raw: bytes) -> Line:
        name = raw[: raw.index(b":")].lower()
        line = (self._kinds.get(name, _PASS), name, raw + b"\r\n")
        if len(raw) <= 256 and name not in _SECRET:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[raw] = line
        return line


_requests = _Splitter(_REQUEST_KINDS, "request")
_responses = _Splitter(_RESPONSE_KINDS, "response")


def value_of(line: bytes) -> bytes:
    """A header line's value, without the blanks around it."""
    return line[line.index(b":") + 1 : -2].strip(b" \t")


@lru_cache(256)
def _options(line: bytes) -> frozenset[bytes]:
    """What a Connection line names."""
    return frozenset(option.strip(b" \t").lower() for option in value_of(line).split(b","))


_LIFETIME = frozenset({b"close", b"keep-alive"})
_NEVER_DROPPED = frozenset({b"content-length", b"transfer-encoding", b"host", b"content-type"})


def _without(passed: list[bytes], lines: list[Line], options: frozenset[bytes]) -> list[bytes]:
    """The lines that go on, but for those that a Connection header names."""
    named = options - _NEVER_DROPPED
    dropped = {line for _, name, line in lines if name in named}
    return [line for line in passed if line not in dropped]


class RequestHead:
    """A request's head; not to be changed once it is made. `length` is the body's; None when it is
    chunked. `path` has no query. `passed` are the lines that go on to a model's server, as they came;
    `length_at` tells which of them is the Content-Length, -1 = none."""

    __slots__ = (
        "content_type",
        "expects_continue",
        "idempotency_key",
        "keep_alive",
        "length",
        "length_at",
        "lines",
        "method",
        "minor",
        "passed",
        "path",
        "query",
        "raw",
        "request_id",
    )

    def __init__(self, raw: bytes) -> None:
        """`raw` ends with the empty line. Raises `BadMessage`."""
        found = _REQUEST_LINE.match(raw)
        if found is None:
            raise BadMessage(400, "the request line is not valid HTTP/1.1")
        self.method, target, minor = found.groups()
        self.raw = raw
        self.minor = 0 if minor == b"0" else 1
        self.lines = lines = _requests.split(raw, found.end())
        if not target.startswith(b"/"):
            target = _origin_form(target)
            if target[:1] not in (b"/", b"*"):
                raise BadMessage(400, "the request's target is not a path")
        path, mark, query = target.partition(b"?")
        self.path = path.decode("ascii")
        self.query = mark + query
        self.expects_continue = False
        self.content_type = b"application/json"
        self.request_id = self.idempotency_key = b""
        self.length_at = -1
        length: int | None = 0
        framings = hosts = 0
        options: frozenset[bytes] = frozenset()
        passed: list[bytes] = []
        for kind, _, line in lines:
            if kind == _PASS:
                passed.append(line)
            elif kind == _TYPE:
                self.content_type = value_of(line)
                passed.append(line)
            elif kind == _LENGTH_:
                framings += 1
                value = value_of(line)
                if _LENGTH.fullmatch(value) is None:
                    raise BadMessage(400, "Content-Length is not a number")
                length = int(value)
                self.length_at = len(passed)
                passed.append(line)
            elif kind == _HOST:
                hosts += 1
            elif kind == _ID:
                self.request_id = value_of(line)
                passed.append(line)
            elif kind == _CONNECTION:
                options |= _options(line)
            elif kind == _KEY:
                self.idempotency_key = value_of(line)
            elif kind == _CODING:
                framings += 1
                # (No tabs: there are parsers to which "chunked<TAB>" is another coding.)
                if line[18:-2].strip(b" ").lower() != b"chunked" or self.minor == 0:
                    raise BadMessage(400, "this Transfer-Encoding is not read: send 'chunked', with HTTP/1.1")
                length = None
            elif kind == _EXPECT:
                if value_of(line).lower() != b"100-continue":
                    raise BadMessage(417, "Expect other than '100-continue' is not met")
                self.expects_continue = self.minor == 1
        if framings > 1:
            raise BadMessage(400, "the request's length is given more than once: send one framing")
        if hosts > 1 or (hosts == 0 and self.minor == 1):
            raise BadMessage(400, "one Host header is needed")
        self.length = length
        self.keep_alive = self.minor == 1
        if options:
            self.keep_alive = b"close" not in options and (self.minor == 1 or b"keep-alive" in options)
            if not options <= _LIFETIME:
                passed = _without(passed, lines, options)
                self.length_at = next(
                    (i for i, x in enumerate(passed) if x[:15].lower() == b"content-length:"), -1
                )
        self.passed = passed

    def get(self, name: bytes) -> bytes | None:
        """The last value of a header; `name` in lower case."""
        found = None
        for _, key, line in self.lines:
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
    """A response's head; not to be changed once it is made. `length` is the body's; None when it is
    chunked, -1 when it lasts until the connection ends. `reusable`: the connection can serve another
    request afterwards. `passed` are the lines that go on to the client, as they came, the chunks' own
    among them."""

    __slots__ = ("has_id", "length", "minor", "passed", "reusable", "start", "status", "streams")

    def __init__(self, raw: bytes) -> None:
        """`raw` ends with the empty line. Raises `BadMessage`."""
        found = _STATUS_LINE.match(raw)
        if found is None:
            raise BadMessage(502, "the status line is not valid HTTP/1.1")
        start, minor, status = found.group(0, 1, 2)
        self.minor = 0 if minor == b"0" else 1
        self.status = int(status)
        self.start = start if self.minor else b"HTTP/1.1" + start[8:]
        lines = _responses.split(raw, found.end())
        self.has_id = self.streams = False
        length: int | None = -1
        chunked = False
        options: frozenset[bytes] = frozenset()
        passed: list[bytes] = []
        for kind, _, line in lines:
            if kind == _DROP:
                continue
            passed.append(line)
            if kind == _PASS:
                continue
            if kind == _LENGTH_:
                value = value_of(line)
                if _LENGTH.fullmatch(value) is None or length not in (-1, int(value)):
                    raise BadMessage(502, "the response's Content-Length is not one number")
                length = int(value)
            elif kind == _TYPE:
                self.streams = b"text/event-stream" in line.lower()
            elif kind == _CONNECTION:
                passed.pop()
                options |= _options(line)
            elif kind == _CODING:
                if chunked or value_of(line).lower() != b"chunked":
                    raise BadMessage(502, "the response's Transfer-Encoding is not 'chunked'")
                chunked = True
            elif kind == _ID:
                self.has_id = True
        if chunked:
            if length != -1:
                raise BadMessage(502, "the response's length is given twice")
            length = None
        if self.status in (204, 304) or self.status < 200:
            length = 0
        self.length = length
        reusable = self.minor == 1
        if options:
            reusable = b"close" not in options and (self.minor == 1 or b"keep-alive" in options)
            if not options <= _LIFETIME:
                passed = _without(passed, lines, options)
        self.reusable = reusable and length != -1
        self.passed = passed

    def unframed(self) -> list[bytes]:
        """The lines that go on where the chunks do not."""
        return [line for line in self.passed if not line[:8].lower().startswith((b"transfer", b"trailer:"))]


MAX_REMEMBERED = 1024
_request_heads: dict[bytes, RequestHead] = {}
_response_heads: dict[bytes, ResponseHead] = {}


def request_head(raw: bytes) -> RequestHead:
    """`RequestHead`, remembered: a client's requests differ in little but their length. Not remembered:
    what holds a secret, or is there once only. Raises `BadMessage`."""
    found = _request_heads.get(raw)
    if found is None:
        found = RequestHead(raw)
        once = found.request_id or found.idempotency_key
        if not once and len(raw) <= MAX_REMEMBERED and not any(name in _SECRET for _, name, _ in found.lines):
            if len(_request_heads) >= MAX_REMEMBERED:
                _request_heads.clear()
            _request_heads[raw] = found
    return found


def response_head(raw: bytes) -> ResponseHead:
    """`ResponseHead`, remembered likewise. Raises `BadMessage`."""
    found = _response_heads.get(raw)
    if found is None:
        found = ResponseHead(raw)
        if not found.has_id and len(raw) <= MAX_REMEMBERED and b"set-cookie" not in raw.lower():
            if len(_response_heads) >= MAX_REMEMBERED:
                _response_heads.clear()
            _response_heads[raw] = found
    return found
