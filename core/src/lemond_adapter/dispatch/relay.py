"""The relay: takes a request to its route's process and streams the answer back.

Everything behind `Relay.forward` is one seam: it can be replaced by a faster one without the rest
noticing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import h11
from starlette.types import Send

from lemond_adapter.dispatch.envelope import cut_stream_event
from lemond_adapter.dispatch.traffic import Flight
from lemond_adapter.dispatch.upstream import Cut, Headers, NotReached, PortValidator, Upstream
from lemond_adapter.types import RouteInfo

log = logging.getLogger(__name__)

T = TypeVar("T")

_HOP_BY_HOP = frozenset(
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
        b"expect",
    }
)
_NOT_FOR_CHILDREN = frozenset(
    {b"host", b"content-length", b"authorization", b"x-api-key", b"cookie", b"origin", b"prefer"}
)
_PEEK_BODY = 64 * 1024


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class NotReady(Exception):
    """The process answered that it is not ready, or that its own backend is gone: nothing was done."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as the model's server will see it."""

    method: str
    target: str
    headers: Headers
    body: bytes
    model: str


def request_headers(incoming: Headers, route: RouteInfo, length: int, key: str | None) -> Headers:
    """Hop-by-hop headers and the client's credentials stay here; lemond's own key is added for it."""
    dropped = _HOP_BY_HOP | _NOT_FOR_CHILDREN | _named_by_connection(incoming)
    headers = [(name, value) for name, value in incoming if name.lower() not in dropped]
    host = route.base_url.partition("//")[2].encode()
    headers = [(b"host", host), *headers, (b"content-length", b"%d" % length), (b"connection", b"close")]
    if route.mode == "gateway" and key:
        headers.append((b"authorization", b"Bearer " + key.encode()))
    return headers


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    named = (value for name, value in headers if name.lower() == b"connection")
    return frozenset(token.strip().lower() for value in named for token in value.split(b","))


class Relay:
    """`send` is ASGI's; `gone` ends when the client has left; `abort` cuts the client's connection."""

    def __init__(self, ports: PortValidator) -> None:
        self._ports = ports

    async def connect(self, route: RouteInfo) -> Upstream:
        """A connection that belongs to the route. Raises `NotReached`: the request can go elsewhere."""
        return await self._ports.open(route)

    async def forward(
        self,
        upstream: Upstream,
        request: Outgoing,
        send: Send,
        gone: asyncio.Future[Any],
        abort: Callable[[], None],
        flight: Flight,
    ) -> None:
        """Raises `Cut` or `NotReady` before the first byte of an answer, `ClientGone` at any time.
        Afterwards a lost child ends the stream with the error event."""
        try:
            head = await _unless(
                gone, upstream.request(request.method, request.target, request.headers, request.body)
            )
            stream = _is_event_stream(head)
            early = b"" if head.status_code < 500 else await _unless(gone, _whole(upstream))
            if head.status_code >= 500 and _means_not_ready(head.status_code, early):
                raise NotReady(early[:200].decode("utf-8", errors="replace"))
            flight.status = head.status_code
            await send(_start(head, close=False))
            if head.status_code >= 500:
                await send({"type": "http.response.body", "body": early})
                return
            await self._body(upstream, request, send, gone, abort, flight, stream=stream)
        finally:
            upstream.close()

    async def _body(
        self,
        upstream: Upstream,
        request: Outgoing,
        send: Send,
        gone: asyncio.Future[Any],
        abort: Callable[[], None],
        flight: Flight,
        *,
        stream: bool,
    ) -> None:
        chunks = upstream.body()
        try:
            while True:
                chunk = await _unless(gone, anext(chunks, None))
                if chunk is None:
                    break
                if flight.first_byte is None:
                    flight.first_byte = time.monotonic()
                if stream:
                    flight.events += chunk.count(b"data:")
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except Cut as error:
            log.info("%s: answer cut short: %s", request.model, error)
            flight.outcome = "interrupted"
            if stream:
                event = cut_stream_event(request.model, str(error))
                await send({"type": "http.response.body", "body": event, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            abort()
            return
        await send({"type": "http.response.body", "body": b""})


def _start(head: h11.Response, *, close: bool) -> dict[str, Any]:
    # The server in front writes its own date.
    dropped = _HOP_BY_HOP | {b"date"} | _named_by_connection(list(head.headers))
    headers = [(name, value) for name, value in head.headers if name not in dropped]
    return {"type": "http.response.start", "status": head.status_code, "headers": headers}


def _is_event_stream(head: h11.Response) -> bool:
    return any(
        name == b"content-type" and value.lower().startswith(b"text/event-stream")
        for name, value in head.headers
    )


async def _whole(upstream: Upstream) -> bytes:
    """An error's body; longer ones are cut off, an error is not data."""
    found = bytearray()
    async for chunk in upstream.body():
        found += chunk
        if len(found) > _PEEK_BODY:
            break
    return bytes(found)


def _means_not_ready(status: int, body: bytes) -> bool:
    """llama-server's 503 while it loads, a gateway's 502/504, and lemond's 500 for a child that it
    could not reach (10.6/10.7: type network_error)."""
    if status in (502, 504):
        return True
    if status == 503:
        return b"Loading model" in body
    return status == 500 and b'"network_error"' in body


async def _unless(gone: asyncio.Future[Any], work: Awaitable[T]) -> T:
    """The result of `work`, unless the client leaves first."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


__all__ = ["ClientGone", "Cut", "NotReached", "NotReady", "Outgoing", "Relay", "request_headers"]
