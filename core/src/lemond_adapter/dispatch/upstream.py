"""One exchange with a model's server, over a connection proven to be to its process.

A listening socket lives as long as its process. So a connect that succeeded while the route's
process still lives afterwards was accepted by that process, whatever happened to the port before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from urllib.parse import urlsplit

import h11

from lemond_adapter.types import RouteInfo

CONNECT_LIMIT_S = 3.0
READ_SIZE = 65536

Headers = Sequence[tuple[bytes, bytes]]


class NotReached(Exception):
    """No byte of the request can have been processed: trying elsewhere is safe."""


class Cut(Exception):
    """The connection ended early. The request may have been processed."""


class PortValidator:
    """Opens connections that belong to their route, or none. `alive` asks the kernel about a pid now;
    None means that the process cannot be seen from here, and identity rests on the listing."""

    def __init__(self, alive: Callable[[int], bool | None]) -> None:
        self._alive = alive

    async def open(self, route: RouteInfo) -> Upstream:
        """Connects. The probe is the connection the request will use. Raises `NotReached`."""
        host = urlsplit(route.base_url).hostname or "127.0.0.1"
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                reader, writer = await asyncio.open_connection(host, route.port, limit=READ_SIZE * 4)
        except (OSError, TimeoutError) as error:
            raise NotReached(f"port {route.port}: {error or 'no connection in time'}") from error
        if route.pid is not None and self._alive(route.pid) is not True:
            writer.transport.abort()
            raise NotReached(f"process {route.pid} is gone; another may have taken port {route.port}")
        return Upstream(route, reader, writer)


class Upstream:
    """A fresh connection for one request."""

    def __init__(self, route: RouteInfo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.route = route
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=256 * 1024)

    async def request(self, method: str, target: str, headers: Headers, body: bytes) -> h11.Response:
        """Sends the request and waits for the answer's head. Raises `Cut`."""
        head = h11.Request(method=method, target=target, headers=list(headers))
        try:
            data = self._http.send(head) or b""
            self._writer.write(data + body)
            self._http.send(h11.Data(data=body))
            self._http.send(h11.EndOfMessage())
            await self._writer.drain()
            while True:
                event = await self._next()
                if isinstance(event, h11.Response):
                    return event
                if isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                    raise Cut("closed before it answered")
        except (OSError, h11.ProtocolError) as error:
            raise Cut(str(error) or type(error).__name__) from error

    async def body(self) -> AsyncIterator[bytes]:
        """The answer's bytes as they come. Raises `Cut` when they end early."""
        try:
            while True:
                event = await self._next()
                if isinstance(event, h11.Data):
                    yield bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    return
                elif isinstance(event, h11.ConnectionClosed):
                    raise Cut("closed in the middle of the answer")
        except (OSError, h11.ProtocolError) as error:
            raise Cut(str(error) or type(error).__name__) from error

    async def _next(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(await self._reader.read(READ_SIZE))

    def close(self) -> None:
        """At once: a model server whose client is gone stops generating."""
        self._writer.transport.abort()
