"""One request on its way: decided, sent to the process that is proven to serve it, answered.

The way of a request whose route stands and whose process has an idle connection has no await and no
task in it. Everything else (no route, no connection yet) goes through one task, which the client's
leaving cancels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from lemond_adapter.dispatch.answering import CHUNKED, Answering
from lemond_adapter.dispatch.envelope import Refusal, refusal_for
from lemond_adapter.dispatch.idempotency import MAX_KEY
from lemond_adapter.dispatch.peek import BodyProblem, Peeked, peek, replace_model
from lemond_adapter.dispatch.upstream import NotReached, Upstream
from lemond_adapter.types import LemondError, RouteInfo, SlotSpec

if TYPE_CHECKING:
    from lemond_adapter.dispatch.dataplane import Aim

log = logging.getLogger(__name__)

HEARTBEAT_S = 5.0


class Exchange(Answering):
    """From a request's head to the last byte of its answer."""

    def start(self, body: bytes) -> None:
        """A request whose body is here as a whole."""
        try:
            self.peeked = peek(body, self._content_type())
        except BodyProblem as problem:
            self.refuse(Refusal(400, "request.invalid", str(problem)))
            return
        if self._head.idempotency_key and not self._first_of_its_key(self._head.idempotency_key, body):
            return
        self._go(body)

    def start_upload(self, name: str, begun: bytes) -> None:
        """A form whose body is still coming in; `begun` has its `model`, which has a route."""
        self.peeked = Peeked(name, stream=False)
        self._body_ended = False
        self._client.pause_upload(True)
        self._go(begun)

    def more_body(self, pieces: list[bytes], *, ended: bool) -> None:
        """More of a form. Without a connection yet the client is paused, and this is what came before
        that could work."""
        self._body_ended = ended
        upstream = self._upstream
        if upstream is None:
            self._body += b"".join(pieces)
            return
        if self._head.length is None:
            pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
            if ended:
                pieces.append(b"0\r\n\r\n")
        for piece in pieces:
            self._plane.outbox.write(upstream.transport, piece)

    def _go(self, body: bytes) -> None:
        plane, flight = self._plane, self.flight
        name = self.peeked.model
        flight.streamed = self.peeked.stream
        self._body = body
        self.slot, self.model = plane.resolve(name)
        if self.slot is not None:
            flight.slot = self.slot.name
            if self.slot.max_in_flight and not self._let_in(self.slot):
                return
        self._find_route()

    def _let_in(self, slot: SlotSpec) -> bool:
        """Whether the slot has room now; else it waits for its turn, or is refused."""
        gate = self._plane.gate(slot)
        self.flight.model = self.model
        entered = gate.enter(self, self._who())
        if entered is None:
            text = f"{slot.name} runs {slot.max_in_flight} requests and {gate.queued} wait; try again later"
            details = {"slot": slot.name, "limit": slot.max_in_flight, "queued": gate.queued}
            self.refuse(Refusal(429, "slot.busy", text, gate.wait_s(), details))
            return False
        self._gate = gate
        return entered

    def admitted(self) -> None:
        """It has waited for its turn, and that has come."""
        self.flight.held_s = self._plane.traffic.clock() - self.flight.began
        self._find_route()

    def _find_route(self) -> None:
        route = self._plane.route_now(self.peeked.model)
        if route is None:
            self.flight.model = self._plane.label(self.slot, self.model)
            self._do(self._without_route)
        else:
            self._forward(route)

    def _do(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = self._plane.spawn(self._watched(work))

    async def _watched(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception:
            # A fault of ours. Its client must not wait for ever, and the log has to tell.
            log.exception("%s: request %s failed", self.model, self.flight.request_id)
            self.abandon("a fault in the adapter")

    def _who(self) -> tuple[bytes, str]:
        """Which client it is, for taking turns and for keys: its own key, if it sends one, and address."""
        head = self._head
        given = head.get(b"authorization") or head.get(b"x-api-key") or b""
        return given, self._client.peer

    def _first_of_its_key(self, key: bytes, body: bytes) -> bool:
        """Whether a request with an Idempotency-Key is to be executed. If not, it has been answered, or
        waits for the answer of the one that is."""
        client, answers = self._client, self._plane.answers
        if client.minor == 0 or len(key) > MAX_KEY:
            text = f"an Idempotency-Key has at most {MAX_KEY} bytes and comes with HTTP/1.1"
            self.refuse(Refusal(400, "request.invalid", text))
            return False
        scope = self._who()[0] + b"\0" + key
        fingerprint = answers.fingerprint(self._head.path, body)
        found = answers.find(scope)
        if found is None:
            begun = answers.begin(scope, fingerprint)
            if begun is None:
                text = "too many requests with an Idempotency-Key are running; try again"
                self.refuse(Refusal(503, "slot.loading", text, 1.0))
                return False
            begun.attach(client, lambda: None)
            self._conn, self._recorder, self._client = client, begun, begun
            return True
        if found.fingerprint != fingerprint:
            text = "this Idempotency-Key was used for another request: use a new key for each"
            self.refuse(Refusal(422, "idempotency.mismatch", text))
        elif found.too_large:
            text = "the request with this Idempotency-Key was executed; its answer was too large to keep"
            self.refuse(Refusal(409, "idempotency.too_large", text))
        else:
            self._joined = found
            found.attach(client, lambda: self._end("replayed", found.status))
        return False

    def _forward(self, route: RouteInfo) -> None:
        plane = self._plane
        self.flight.model = route.model
        self._leased = route.model
        plane.leases.take(route.model)
        self._aim = aim = plane.aim(self._head.path, route)
        upstream = None if aim.gateway else plane.pools.take(aim.route)
        if upstream is not None:
            self._send(upstream)
        else:
            self._do(self._connect)

    async def _without_route(self) -> None:
        try:
            prefer = self._head.get(b"prefer")
            route = await self._plane.hold(self.peeked.model, self.slot, prefer, self._held_for)
        except LemondError as error:
            self._refuse_error(error)
            return
        finally:
            if self._beat is not None:
                self._beat.cancel()
        self.flight.held_s = self._plane.traffic.clock() - self.flight.began
        self._forward(route)

    def _held_for(self, asked: bytes | None) -> None:
        """It waits for a route; `asked`: for how long the client is content to wait, if it said so."""
        if asked is None:
            return
        self._more = ((b"Preference-Applied", b"wait=" + asked),)
        if self.peeked.stream and self._client.minor == 1:
            self._beat = self._plane.later(HEARTBEAT_S, self._heartbeat)

    def _heartbeat(self) -> None:
        """A comment for the client of a stream: the connection lives. With the first one the status has
        been sent, so whatever happens later has to be told in the stream."""
        if self._over:
            return
        data = b"a\r\n: waiting\n\r\n"
        if not self._begun:
            self._begun = True
            lines = [b"HTTP/1.1 200 OK", b"Content-Type: text/event-stream", b"Cache-Control: no-store"]
            lines += [name + b": " + value for name, value in self._more]
            if not self._head.request_id:
                lines.append(b"X-Request-Id: " + self.flight.request_id.encode())
            if not self._client.keep_alive:
                lines.append(b"Connection: close")
            data = b"\r\n".join([*lines, CHUNKED, data])
        self._client.write(data)
        self._beat = self._plane.later(HEARTBEAT_S, self._heartbeat)

    async def _connect(self) -> None:
        """A proven connection: on the route, or once more on a fresh one if that has changed."""
        plane = self._plane
        try:
            try:
                upstream = await plane.pools.connect(self._aim.route)
                plane.pools.prove(upstream)
            except NotReached as first:
                log.info("%s: %s", self.model, first)
                fresh = plane.fresh_route(self._aim.source)
                if fresh is None:
                    raise await plane.refusal(self._aim.source.model, self.slot) from first
                self._aim = plane.aim(self._head.path, fresh)
                try:
                    upstream = await plane.pools.connect(self._aim.route)
                    plane.pools.prove(upstream)
                except NotReached as second:
                    raise await plane.refusal(fresh.model, self.slot) from second
        except LemondError as error:
            self._refuse_error(error)
            return
        self._send(upstream)

    def _send(self, upstream: Upstream) -> None:
        """Writes the request; from here on it may have been executed."""
        self._upstream = upstream
        self._executed = True
        upstream.listener = self
        upstream.uses += 1
        upstream.answered = False
        upstream.pool.unanswered += 1
        body, aim = self._body, self._aim
        self._body = b""
        before = len(body)
        if aim.rename is not None and aim.rename != self.peeked.model:
            body = replace_model(body, self._content_type(), aim.rename)
        if self._body_ended:
            data = self._request_head(aim, len(body))
        elif self._head.length is not None:
            data = self._request_head(aim, self._head.length + len(body) - before)
        else:
            data = self._request_head(aim, None)
            body = b"%x\r\n%b\r\n" % (len(body), body)
        outbox, transport = self._plane.outbox, upstream.transport
        if len(body) < 65536:
            outbox.write(transport, data + body)
        else:
            outbox.write(transport, data)
            outbox.write(transport, body)
        if not self._body_ended and not upstream.paused:
            self._client.pause_upload(False)

    def _request_head(self, aim: Aim, length: int | None) -> bytes:
        """`length` None: the body goes in chunks."""
        head = self._head
        lines = [aim.begin + head.query + aim.host, *head.passed]
        if head.length != length or length is None:
            if head.length_at >= 0:
                del lines[head.length_at + 1]
            lines.append(b"Content-Length: %d\r\n" % length if length is not None else CHUNKED)
        elif head.length_at < 0:
            lines.append(b"Content-Length: 0\r\n")
        if not head.request_id:
            lines.append(b"X-Request-Id: " + self.flight.request_id.encode() + b"\r\n")
        lines.append(aim.end)
        return b"".join(lines)

    def _content_type(self) -> str:
        return self._head.content_type.decode("latin-1")

    # The client.

    def client_gone(self) -> None:
        """Nobody waits for the answer any more: the upstream is closed at once. What has an
        Idempotency-Key and may have been executed goes on, for the client that comes back."""
        if self._over:
            return
        if self._joined is not None:
            self._joined.detach(self._client)
        elif self._recorder is not None and self._conn is not None:
            self._recorder.detach(self._conn)
            if self._executed or self._recorder.clients:
                return
            self._plane.answers.drop(self._recorder)
        if self._task is not None:
            self._task.cancel()
        self._end_upstream(reusable=False)
        self._end("client_gone", self.flight.status)

    def stopping(self) -> None:
        """The service stops. What runs is finished; what only waits for a model is told to come back."""
        waits = self._task is not None or self._gate is not None
        if self._upstream is None and self._leased is None and waits and not self._over:
            if self._task is not None:
                self._task.cancel()
            self.refuse(refusal_for(self._plane.loading(self.slot, self.model)), close=True)
