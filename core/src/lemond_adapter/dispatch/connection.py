"""One client's connection: reads requests, sends those of the data plane on their way, hands all others
to the ASGI side, in order, on the same connection.

A client that closes its side is gone: for a model that is generating, nothing tells a closed program
from one that only stopped sending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Protocol, cast

from lemond_adapter.dispatch.envelope import Refusal, response_bytes
from lemond_adapter.dispatch.exchange import Exchange
from lemond_adapter.dispatch.framing import BodyReader
from lemond_adapter.dispatch.peek import form_model, is_form
from lemond_adapter.dispatch.wire import MAX_HEAD, BadMessage, RequestHead, request_head

if TYPE_CHECKING:
    from lemond_adapter.dispatch.dataplane import DataPlane

KEEP_ALIVE_S = 75.0
HEAD_LIMIT_S = 20.0
"""From a head's first byte to its last."""
BODY_IDLE_S = 60.0
"""Between two pieces of a body."""
LINGER_S = 5.0
MAX_PIPELINED = 64 * 1024
MAX_API_BODY = 1024 * 1024
STREAM_FROM = 256 * 1024
"""Forms that are larger are passed on while they come in."""


class AsgiSide(Protocol):
    """The server for everything that is not the data plane."""

    def data_received(self, data: bytes) -> None:
        """Bytes of one request."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""

    def shutdown(self) -> None:
        """After this answer, no more."""

    def pause_writing(self) -> None:
        """The client reads slowly."""

    def resume_writing(self) -> None:
        """It has caught up."""


class Mode(Enum):
    """What the next bytes are."""

    HEAD = "a request's head"
    BODY = "a body that is read as a whole"
    UPLOAD = "a body that is passed on as it comes"
    BUSY = "nothing yet: an answer is under way"
    ASGI = "a request for the ASGI side"
    DISCARD = "what is left of an answered request"
    LINGER = "of no interest: the connection is about to end"


_HEAD, _BODY, _UPLOAD, _BUSY, _ASGI, _DISCARD, _LINGER = Mode


class ClientConnection(asyncio.Protocol):
    """Serves one client. `asgi` makes its ASGI side when that is first needed; `registry` is where a
    server keeps its connections, for its shutdown."""

    __slots__ = (
        "_asgi",
        "_asgi_answered",
        "_body",
        "_body_done",
        "_body_size",
        "_consuming",
        "_exchange",
        "_head",
        "_loop",
        "_make_asgi",
        "_mode",
        "_next_look",
        "_outbox",
        "_paused",
        "_plane",
        "_reader",
        "_registry",
        "_rest",
        "_stopping",
        "_transport",
        "deadline",
        "keep_alive",
        "minor",
    )

    def __init__(
        self,
        plane: DataPlane,
        asgi: Callable[[ClientConnection, asyncio.Transport], AsgiSide],
        registry: set[ClientConnection],
    ) -> None:
        self._plane = plane
        self._outbox = plane.outbox
        self._make_asgi = asgi
        self._registry = registry
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._mode = _HEAD
        self._rest = b""
        self._consuming = False
        self._stopping = False
        self._paused = False
        self._asgi: AsgiSide | None = None
        self._asgi_answered = True
        self._exchange: Exchange | None = None
        self._head: RequestHead
        self._reader: BodyReader
        self._body: list[bytes] = []
        self._body_size = 0
        self._body_done = True
        self._next_look = 0
        self.minor = 1
        self.keep_alive = True
        self.deadline = 0.0
        """When the connection ends if nothing happens; loop time, 0 = never."""

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._registry.add(self)
        self.deadline = self._loop.time() + KEEP_ALIVE_S
        if not self._plane.enter(self):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._registry.discard(self)
        self._plane.leave(self)
        self._forget_body()
        self._mode = _LINGER
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()
        if self._asgi is not None:
            self._asgi.connection_lost(exc)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.client_paused(True)
        elif self._asgi is not None:
            self._asgi.pause_writing()

    def resume_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.client_paused(False)
        elif self._asgi is not None:
            self._asgi.resume_writing()

    def shutdown(self) -> None:
        """The server stops: now when idle, else after the answer that is under way."""
        self._stopping = True
        self.keep_alive = False
        if self._mode is _HEAD:
            self._transport.close()
        elif not self._asgi_answered and self._asgi is not None:
            self._asgi.shutdown()
        elif self._exchange is not None:
            self._exchange.stopping()

    def end(self) -> None:
        """The service ends: what is still under way is cut off, a stream with its error event."""
        if self._exchange is not None:
            self._exchange.abandon("the service stops")
        self._outbox.flush()
        self._transport.close()

    def expire(self) -> None:
        """The deadline has passed."""
        self.deadline = 0.0
        late = Refusal(408, "request.timeout", "the request did not come in time")
        if self._mode is _HEAD and self._rest:
            self._answer(late, close=True)
            return
        if self._mode is _BODY and self._exchange is not None:
            self._forget_body()
            self._exchange.refuse(late, close=True)
            return
        self._outbox.flush()
        if self._mode is _LINGER:
            self._transport.abort()
        else:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        mode = self._mode
        if mode is _HEAD and not self._rest:
            # As nearly always: one whole request, and nothing else.
            self._consuming = True
            data = self._take_head(data)
            self._consuming = False
            if not data:
                return
        elif mode is _LINGER:
            return
        if self._rest:
            data, self._rest = self._rest + data, b""
        self._consume(data)

    def _consume(self, data: bytes) -> None:
        self._consuming = True
        while data:
            mode = self._mode
            if mode is _HEAD:
                data = self._take_head(data)
            elif mode is _BUSY:
                self._rest = data
                if len(data) > MAX_PIPELINED:
                    self._pause()
                break
            elif mode is _LINGER:
                break
            else:
                data = self._take_body(data)
        self._consuming = False

    # Heads.

    def _take_head(self, data: bytes) -> bytes:
        while data.startswith(b"\r\n"):
            data = data[2:]  # after a body, some clients send one line too many
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 or end > MAX_HEAD:
            if len(data) > MAX_HEAD:
                text = f"the request's head is longer than {MAX_HEAD} bytes"
                self._answer(Refusal(431, "request.invalid", text), close=True)
            elif data:
                if not self._rest and self.deadline > (latest := self._loop.time() + HEAD_LIMIT_S):
                    self.deadline = latest
                self._rest = data
            return b""
        try:
            head = request_head(data[:end])
        except BadMessage as problem:
            self._answer(Refusal(problem.status, "request.invalid", str(problem)), close=True)
            return b""
        self._head = head
        self.minor = head.minor
        self.keep_alive = head.keep_alive and not self._stopping
        if head.method == b"POST" and self._plane.speaks(head.path):
            return self._begin(head, data, end)
        self._begin_asgi(head)
        return data[end:]

    def _begin(self, head: RequestHead, data: bytes, end: int) -> bytes:
        plane = self._plane
        if plane.has_key and not plane.admits(_key_of(head)):
            text = "wrong or missing API key: send Authorization: Bearer <key>"
            self._turn_down(head, Refusal(401, "auth.invalid", text))
            return data[end:]
        if head.length is not None and head.length > plane.max_body:
            text = f"the body is larger than {plane.max_body} bytes"
            self._turn_down(head, Refusal(413, "request.too_large", text), close=True)
            return data[end:]
        self._exchange = Exchange(plane, self, head, plane.traffic.begin(head.path))
        if head.length is not None and head.length <= len(data) - end:
            self._body_done = True
            self._whole_body(data[end : end + head.length])
            return data[end + head.length :]
        self._reader = BodyReader(head.length)
        self._body_done = False
        self._mode = _BODY
        self.deadline = self._loop.time() + BODY_IDLE_S
        self._next_look = STREAM_FROM
        if head.expects_continue and len(data) == end:
            self._outbox.write(self._transport, b"HTTP/1.1 100 Continue\r\n\r\n")
        return data[end:]

    def _turn_down(self, head: RequestHead, refusal: Refusal, *, close: bool = False) -> None:
        """Refused before its body is read."""
        exchange = Exchange(self._plane, self, head, self._plane.traffic.begin(head.path))
        self._exchange = exchange
        self._reader = BodyReader(head.length)
        self._body_done = self._reader.done
        self._mode = _UPLOAD
        # A client that waits for 100 may send its body or not: what follows could not be told apart.
        exchange.refuse(refusal, close=close or head.expects_continue)

    # Bodies.

    def _take_body(self, data: bytes) -> bytes:
        reader, mode = self._reader, self._mode
        payload: list[bytes] = []
        try:
            used = reader.feed(data, payload)
        except BadMessage as problem:
            self._broken_body(problem)
            return b""
        rest = data[used:]
        self._body_done = reader.done
        if not reader.done:
            self.deadline = self._loop.time() + BODY_IDLE_S
        if mode is _BODY:
            self._gather_body(payload)
        elif mode is _UPLOAD and self._exchange is not None:
            if reader.size > self._plane.max_body:
                self._transport.abort()
                return b""
            if reader.done:
                self._mode = _BUSY
                self.deadline = 0.0
            self._exchange.more_body(payload, ended=reader.done)
        elif mode is _ASGI and self._asgi is not None:
            if reader.size > MAX_API_BODY:
                self._transport.abort()
                return b""
            self._asgi.data_received(data[:used])
            self._asgi_rests()
        elif mode is _DISCARD and reader.done:
            self._next_request()
        return rest

    def _gather_body(self, payload: list[bytes]) -> None:
        reader, plane, exchange = self._reader, self._plane, self._exchange
        assert exchange is not None
        self._body += payload
        fresh = reader.size - self._body_size
        self._body_size = reader.size
        if reader.size > plane.max_body:
            text = f"the body is larger than {plane.max_body} bytes"
            self._mode = _UPLOAD
            self._forget_body()
            exchange.refuse(Refusal(413, "request.too_large", text), close=True)
        elif reader.done:
            plane.buffered -= self._body_size - fresh
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body, self._body_size = [], 0
            self._whole_body(body)
        elif not plane.may_buffer(fresh):
            self._body_size -= fresh
            self._mode = _UPLOAD
            self._forget_body()
            text = "too many large requests at once: try again"
            exchange.refuse(Refusal(503, "slot.loading", text, retry_after_s=1.0), close=True)
        elif self._body_size >= self._next_look:
            self._next_look = 2 * self._body_size
            self._look_for_upload(exchange)

    def _whole_body(self, body: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._mode = _BUSY
        self.deadline = 0.0
        exchange.start(body)

    def _look_for_upload(self, exchange: Exchange) -> None:
        """A large form is passed on as soon as its model is known, if that has a route now."""
        kind = self._head.get(b"content-type") or b""
        if not is_form(kind) or self._head.idempotency_key:
            return
        body = b"".join(self._body)
        self._body = [body]
        name = form_model(body, kind)
        if name is None or self._plane.route_now(name) is None:
            return
        self._forget_body()
        self._mode = _UPLOAD
        exchange.start_upload(name, body)

    def _broken_body(self, problem: BadMessage) -> None:
        if self._mode is _BODY and self._exchange is not None:
            self._mode = _LINGER
            self._exchange.refuse(Refusal(400, "request.invalid", str(problem)), close=True)
        else:
            self._transport.abort()

    def _forget_body(self) -> None:
        self._plane.buffered -= self._body_size
        self._body, self._body_size = [], 0

    # The ASGI side.

    def _begin_asgi(self, head: RequestHead) -> None:
        self._outbox.flush()
        if self._asgi is None:
            self._asgi = self._make_asgi(self, self._transport)
        self._mode = _ASGI
        self._asgi_answered = False
        self._reader = BodyReader(head.length)
        self._body_done = self._reader.done
        self.deadline = 0.0 if self._body_done else self._loop.time() + BODY_IDLE_S
        if head.length is not None and head.length > MAX_API_BODY:
            text = f"the body is larger than {MAX_API_BODY} bytes"
            self._answer(Refusal(413, "request.too_large", text), close=True)
            return
        self._asgi.data_received(head.raw)
        self._asgi_rests()

    def asgi_answered(self) -> None:
        """The ASGI side's answer is complete."""
        self._asgi_answered = True
        self._asgi_rests()

    def _asgi_rests(self) -> None:
        """Both the request and its answer are complete: the next one, or what waited meanwhile."""
        if self._mode is not _ASGI and self._mode is not _BUSY:
            return
        if not self._body_done:
            return
        self.deadline = 0.0
        if self._asgi_answered:
            self._next_request()
        else:
            self._mode = _BUSY

    # The answer's side: what an exchange writes.

    @property
    def peer(self) -> str:
        """The client's address."""
        name = self._transport.get_extra_info("peername")
        return str(name[0]) if name else ""

    def behind(self) -> int:
        """Bytes that the client has not taken yet."""
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Bytes of the answer."""
        self._outbox.write(self._transport, data)

    def finish(self, *, close: bool) -> None:
        """The answer is complete."""
        self._exchange = None
        self._resume()
        if self._mode is _LINGER or (close and not self._body_done):
            self._linger()
        elif close:
            self._mode = _LINGER
            self._outbox.flush()
            self._transport.close()
        elif self._body_done:
            self._next_request()
        else:
            self._mode = _DISCARD

    def cut(self) -> None:
        """The answer cannot be completed."""
        self._exchange = None
        self._mode = _LINGER
        self._outbox.flush()
        if self.minor == 0:
            self._transport.abort()
        else:
            self._transport.close()

    def pause_upload(self, paused: bool) -> None:
        """Whether the request's body has to wait."""
        if paused:
            self._pause()
        else:
            self._resume()

    def _next_request(self) -> None:
        self._mode = _HEAD
        self.deadline = self._loop.time() + KEEP_ALIVE_S
        if self._stopping:
            self._outbox.flush()
            self._transport.close()
            return
        self._resume()
        if self._rest and not self._consuming:
            data, self._rest = self._rest, b""
            self._consume(data)

    def _answer(self, refusal: Refusal, *, close: bool) -> None:
        """A refusal for what never became an exchange."""
        self._outbox.write(self._transport, response_bytes(refusal, close=close, minor=self.minor))
        self._linger()

    def _linger(self) -> None:
        """Closes for writing and reads on for a moment: a close with unread bytes would reset the
        connection, and the answer could be lost with it."""
        self._mode = _LINGER
        self._rest = b""
        self._outbox.flush()
        self._resume()
        self.deadline = self._loop.time() + LINGER_S
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()


def _key_of(head: RequestHead) -> bytes:
    given = head.get(b"authorization") or b""
    if given[:7].lower() == b"bearer ":
        return given[7:]
    return head.get(b"x-api-key") or b""
