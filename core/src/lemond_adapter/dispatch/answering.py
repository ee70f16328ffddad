"""The answer's half of an exchange: what a model's server says, and what its client is told.

Bytes are passed on as they come. What is read of them is where the answer ends, so that the next
request can follow, and so that an answer cut short never looks whole.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, Protocol

from lemond_adapter.dispatch.envelope import Refusal, cut_stream_event, refusal_for, response_bytes
from lemond_adapter.dispatch.framing import Chunks
from lemond_adapter.dispatch.gate import Gate
from lemond_adapter.dispatch.idempotency import Recorder
from lemond_adapter.dispatch.peek import Peeked
from lemond_adapter.dispatch.traffic import Flight
from lemond_adapter.dispatch.upstream import Upstream
from lemond_adapter.dispatch.wire import BadMessage, RequestHead, ResponseHead, response_head
from lemond_adapter.types import LemondError, SlotSpec

if TYPE_CHECKING:
    from lemond_adapter.dispatch.dataplane import Aim, DataPlane

log = logging.getLogger(__name__)

MAX_ANSWER_HEAD = 256 * 1024
CHUNKED = b"Transfer-Encoding: chunked\r\n"
_PEEK_BODY = 64 * 1024
_HELD_CHUNK = 64 * 1024


class Client(Protocol):
    """Where an answer goes. Nothing is written after `finish` or `cut`."""

    minor: int
    """Of its HTTP version: 0 knows no chunks."""
    keep_alive: bool

    @property
    def peer(self) -> str:
        """Its address."""

    def behind(self) -> int:
        """Bytes that it has not taken yet."""

    def write(self, data: bytes) -> None:
        """Bytes of the answer."""

    def finish(self, *, close: bool) -> None:
        """The answer is complete; `close`: and so is the connection."""

    def cut(self) -> None:
        """The answer cannot be completed: the connection ends so that it does not look whole."""

    def pause_upload(self, paused: bool) -> None:
        """Whether the request's body has to wait."""


class Answering:
    """What an exchange is while it has been sent, and how it ends."""

    # As the class's own: an exchange is made for every request, and most of this never changes.
    _body = b""
    _body_ended = True
    _task: asyncio.Task[None] | None = None
    _leased: str | None = None
    _upstream: Upstream | None = None
    _buffer = b""
    _answer: ResponseHead | None = None
    _gathered: list[bytes] | None = None
    _chunks: Chunks | None = None
    _held = b""
    _left = 0
    _rechunk = False
    _unframed = False
    _sse = False
    _torn = False
    _over = False
    _executed = False
    """Its server may have begun to work on it."""
    _begun = False
    """The head of an event stream has been sent, before there was an answer."""
    _beat: asyncio.TimerHandle | None = None
    _gate: Gate[Any] | None = None
    _conn: Client | None = None
    _recorder: Recorder | None = None
    _joined: Recorder | None = None
    _more: tuple[tuple[bytes, bytes], ...] = ()
    """Headers for whatever answer it will be."""
    slot: SlotSpec | None = None
    model = ""
    peeked: Peeked
    _aim: Aim

    def __init__(self, plane: DataPlane, client: Client, head: RequestHead, flight: Flight) -> None:
        self._plane = plane
        self._client = client
        self._head = head
        self.flight = flight
        given = head.request_id
        flight.request_id = given[:200].decode("latin-1") if given else plane.new_id()
        plane.outbox.under_way += 1

    # The answer.

    def upstream_data(self, data: bytes) -> None:
        """Bytes from the model's server."""
        try:
            if self._answer is None:
                self._heading(data)
            elif self._gathered is not None:
                self._gather(data)
            else:
                self._pass(data)
        except BadMessage as problem:
            self._lost(f"it does not speak HTTP: {problem}")

    def _heading(self, data: bytes) -> None:
        upstream = self._upstream
        assert upstream is not None
        upstream.first_byte()
        if self._buffer:
            data = self._buffer + data
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                if len(data) > MAX_ANSWER_HEAD:
                    raise BadMessage(502, "the answer's head is too long")
                self._buffer = data
                return
            head = response_head(data[:end])
            data = data[end:]
            if head.status >= 200:
                break
            if head.status == 101:
                raise BadMessage(502, "it changed the protocol")
        self._buffer = b""
        self._answer = head
        self.flight.status = head.status
        if head.length is None:
            self._chunks = Chunks()
        else:
            self._left = head.length
        if head.status >= 500 or (self._begun and not (head.status == 200 and head.streams)):
            self._gathered = []
            self._gather(data)
        else:
            self._open(head, data)

    def _gather(self, data: bytes) -> None:
        """An error's body is read before anything is passed on: it may mean that the model is not ready."""
        self._buffer += data
        answer, gathered = self._answer, self._gathered
        assert answer is not None
        assert gathered is not None
        if self._chunks is not None:
            self._chunks.feed(data, gathered)
            over = self._chunks.done
        else:
            gathered.append(data)
            over = len(self._buffer) >= self._left >= 0
        if not over and len(self._buffer) <= _PEEK_BODY:
            return
        self._judge(answer, b"".join(gathered))

    def _judge(self, answer: ResponseHead, body: bytes) -> None:
        if _means_not_ready(answer.status, body):
            said = body[:200].decode("utf-8", errors="replace")
            log.info("%s: not ready: %s", self.model, said)
            self._end_upstream(reusable=False)
            self._executed = False
            self._refuse_loading(interrupted=False)
            return
        if self._begun:
            self._end_upstream(reusable=False)
            self._end_in_stream(answer.status, body)
            return
        raw, self._buffer, self._gathered = self._buffer, b"", None
        if self._chunks is not None:
            self._chunks = Chunks()
        self._open(answer, raw)

    def _open(self, answer: ResponseHead, data: bytes) -> None:
        """Passes the head on, and what of the body came with it."""
        client = self._client
        keep = client.keep_alive
        self._sse = answer.streams
        if self._begun:
            self._rechunk = answer.length is not None
            self._pass(data)
            return
        lines = [answer.start, *answer.passed]
        if answer.length is None and client.minor == 0:
            lines[1:] = answer.unframed()
            self._unframed = True
            keep = False
        elif answer.length == -1:
            if client.minor == 0:
                self._unframed = True
                keep = False
            else:
                self._rechunk = True
                lines.append(CHUNKED)
        if not self._head.request_id and not answer.has_id:
            lines.append(b"X-Request-Id: " + self.flight.request_id.encode() + b"\r\n")
        for name, value in self._more:
            lines.append(name + b": " + value + b"\r\n")
        if not keep:
            lines.append(b"Connection: close\r\n")
            client.keep_alive = False
        elif client.minor == 0:
            lines.append(b"Connection: keep-alive\r\n")
        lines.append(b"\r\n")
        self._buffer = b"".join(lines)
        self._pass(data)

    def _pass(self, data: bytes) -> None:
        """Bytes of the body, as they come; the head waits in the buffer for the first of them."""
        flight = self.flight
        if data:
            if flight.first_byte is None:
                flight.first_byte = self._plane.traffic.clock()
            if self._sse:
                flight.events += data.count(b"data:")
        head, self._buffer = self._buffer, b""
        chunks = self._chunks
        surplus = False
        if chunks is not None:
            payload: list[bytes] | None = [] if self._unframed else None
            used = chunks.feed(data, payload)
            surplus = used < len(data)
            over = chunks.done
            if payload is not None:
                data = b"".join(payload)
            else:
                data = data[:used] if surplus else data
                if self._sse:
                    data = self._whole_chunks(chunks, data)
        elif self._left >= 0:
            if len(data) > self._left:
                data, surplus = data[: self._left], True
            self._left -= len(data)
            over = self._left == 0
        else:
            over = False
        if self._rechunk:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            data += b"0\r\n\r\n" if over else b""
        if head:
            self._client.write(head + data if data else head)
        elif data:
            self._client.write(data)
        if over:
            self._complete(surplus=surplus)

    def _whole_chunks(self, chunks: Chunks, data: bytes) -> bytes:
        """Of an event stream, what ends with a whole chunk: so that an event of ours can follow it when
        the process is lost. Servers write an event a chunk, so nothing is kept back of a healthy one."""
        at = len(data) if chunks.whole or chunks.done else chunks.boundary
        if at > 0:
            out, self._held = self._held + data[:at], data[at:]
            self._torn = False
        else:
            out = b""
            self._held += data
        if self._torn or len(self._held) > _HELD_CHUNK:
            out, self._held = out + self._held, b""
            self._torn = True
        return out

    def _complete(self, *, surplus: bool) -> None:
        answer, upstream = self._answer, self._upstream
        assert answer is not None
        assert upstream is not None
        reusable = (
            answer.reusable
            and not surplus
            and self._body_ended
            and not self._aim.gateway
            and not upstream.transport.get_write_buffer_size()
        )
        self._end_upstream(reusable=reusable)
        self._end("served", answer.status)
        self._client.finish(close=not self._client.keep_alive)

    def upstream_lost(self, error: Exception | None) -> None:
        """The connection to the model's server has ended."""
        answer = self._answer
        if answer is None or answer.length != -1 or error or not self._plane.lives(self._aim.route):
            self._lost(str(error) if error else "it closed the connection")
            return
        # An answer that lasts as long as the connection: its end, unless the process ended too.
        if self._gathered is not None:
            self._judge(answer, b"".join(self._gathered))
            if self._over:
                return
        if self._rechunk:
            self._client.write(b"0\r\n\r\n")
        self._complete(surplus=True)

    def _lost(self, why: str) -> None:
        """No more of the answer will come."""
        self._plane.relist()
        answer = self._answer
        if answer is None or self._gathered is not None:
            log.info("%s: lost before it answered: %s", self.model, why)
            self._end_upstream(reusable=False)
            self._refuse_loading(interrupted=True)
            return
        log.info("%s: answer cut short: %s", self.model, why)
        self._end_upstream(reusable=False)
        self._end("interrupted", answer.status)
        if not self._sse or (self._left > 0 and not self._rechunk) or self._torn:
            self._client.cut()
            return
        event = cut_stream_event(self.model, why)
        if self._unframed:
            self._client.write(b"\n\n" + event)
        else:
            event = b"\n\n" + event
            self._client.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))
        self._client.finish(close=True)

    def abandon(self, why: str) -> None:
        """Ends it from our side, in the way that a lost process ends it."""
        if self._over:
            return
        if self._task is not None:
            self._task.cancel()
        if self._joined is not None:
            self._joined.detach(self._client)
            self._end("interrupted", self._joined.status)
            self._client.cut()
        elif self._upstream is not None:
            self._lost(why)
        else:
            self.refuse(refusal_for(self._plane.loading(self.slot, self.model)), close=True)

    def _end_in_stream(self, status: int, body: bytes) -> None:
        """An answer that is no event stream, where one has been begun: told as its error event."""
        try:
            told = json.loads(body)
        except ValueError:
            told = {}
        if not isinstance(told, dict) or "error" not in told:
            text = f"the model's server answered {status}"
            told = {"error": {"code": "upstream.error", "message": text, "type": "server_error"}}
        self._end("served", status)
        self._last_event(json.dumps(told).encode())

    def _last_event(self, data: bytes) -> None:
        event = b"data: " + data + b"\n\n"
        self._client.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))
        self._client.finish(close=True)

    def client_paused(self, paused: bool) -> None:
        """The client reads more slowly than the answer comes, or has caught up."""
        upstream = self._upstream if self._recorder is None else None
        if upstream is not None and not upstream.lost:
            if paused:
                upstream.transport.pause_reading()
            else:
                upstream.transport.resume_reading()

    def upstream_paused(self, paused: bool) -> None:
        """The model's server reads the body more slowly than it comes, or has caught up."""
        self._client.pause_upload(paused)

    # Refusals.

    def refuse(self, refusal: Refusal, *, close: bool = False) -> None:
        """An answer of ours instead of the model's."""
        if self._over:
            return
        flight = self.flight
        flight.retry_after_s = refusal.retry_after_s
        if self._recorder is not None and not self._executed:
            self._plane.answers.drop(self._recorder)
        self._end(refusal.code, refusal.status)
        client = self._client
        if self._begun:
            self._last_event(refusal.body())
            return
        more = [*self._more, (b"x-request-id", flight.request_id.encode("latin-1", errors="replace"))]
        close = close or not client.keep_alive
        client.write(response_bytes(refusal, more, close=close, minor=client.minor))
        client.finish(close=close)

    def _refuse_error(self, error: LemondError) -> None:
        self.refuse(refusal_for(error, upstream=self._plane.lemond_url))

    def _refuse_loading(self, *, interrupted: bool) -> None:
        self._plane.relist()
        error = self._plane.loading(self.slot, self._aim.source.model)
        self.refuse(refusal_for(error, interrupted=interrupted))

    # The end.

    def _end_upstream(self, *, reusable: bool) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.release(reusable=reusable)

    def _end(self, outcome: str, status: int) -> None:
        self._over = True
        self._plane.outbox.under_way -= 1
        if self._leased is not None:
            self._plane.leases.release(self._leased)
            self._leased = None
        if self._gate is not None:
            gate, self._gate = self._gate, None
            gate.leave(self)
        self._plane.traffic.end(self.flight, outcome, status)


def _means_not_ready(status: int, body: bytes) -> bool:
    """llama-server's 503 while it loads, a gateway's 502/504, and lemond's 500 for a child that it
    could not reach (10.6/10.7: type network_error)."""
    if status in (502, 504):
        return True
    if status == 503:
        return b"Loading model" in body
    return status == 500 and b'"network_error"' in body
