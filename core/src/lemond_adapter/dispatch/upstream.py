"""Connections to model servers, each proven to be to its route's own process.

A connect that succeeded went to the socket that listened on the port then. If afterwards the route's
process lives, and the only listener on the port is the socket that was found to be its own before, it
was that socket: whatever else happened to the port meanwhile. (That the process lives is not enough: a
server that shuts down stops listening first, and another one may take the port while it lives on.)
An established connection stays with the process that accepted it, so it may serve more requests: pools
are kept per (pid, generation, port) and what is in them is of no use to any other route.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast
from urllib.parse import urlsplit

from lemond_adapter.dispatch.listeners import Listeners, held_by
from lemond_adapter.types import RouteInfo

CONNECT_LIMIT_S = 3.0
IDLE_LIMIT_S = 2.0
"""llama-server (cpp-httplib) closes an idle connection after 5 s: we are well before it."""
IDLE_LIMIT_WHEN_BUSY_S = 0.02
"""An idle connection holds one of the few threads of such a server. While other requests of ours
still wait for an answer, perhaps for that very thread, it is given back almost at once."""
MAX_USES = 1000
"""A server that serves fewer requests on a connection (cpp-httplib: 100) says so with the last one's
Connection: close."""
MAX_IDLE = 64


class NotReached(Exception):
    """No byte of the request can have been processed: trying elsewhere is safe."""


class Listener(Protocol):
    """Who a connection belongs to while it serves a request."""

    def upstream_data(self, data: bytes) -> None:
        """Bytes of the answer."""

    def upstream_lost(self, error: Exception | None) -> None:
        """The connection has ended; None: in an orderly way."""

    def upstream_paused(self, paused: bool) -> None:
        """Whether the request's body has to wait."""


class Upstream(asyncio.Protocol):
    """One connection. `listener` is None while it idles in its pool."""

    __slots__ = (
        "_poll",
        "answered",
        "idle_since",
        "listener",
        "lost",
        "paused",
        "pool",
        "route",
        "transport",
        "uses",
    )

    def __init__(self, pool: Pool, sock: socket.socket) -> None:
        self.pool = pool
        self.route = pool.route
        self.listener: Listener | None = None
        self.transport: asyncio.Transport
        self.lost = False
        self.paused = False
        self.answered = True
        self.uses = 0
        self.idle_since = 0.0
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.listener is None:
            # Nobody asked: whatever it says (a farewell, a second answer), it serves no more requests.
            self.abort()
        else:
            self.listener.upstream_data(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.pool.forget(self)
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.upstream_lost(exc)

    def pause_writing(self) -> None:
        self.paused = True
        if self.listener is not None:
            self.listener.upstream_paused(True)

    def resume_writing(self) -> None:
        self.paused = False
        if self.listener is not None:
            self.listener.upstream_paused(False)

    def quiet(self) -> bool:
        """Whether nothing has come in, asked of the kernel now: the event loop may not have got round
        to telling us that the other side has closed."""
        return not self.lost and not self.transport.is_closing() and not self._poll.poll(0)

    def first_byte(self) -> None:
        """The answer has begun: its server has a thread for it."""
        if not self.answered:
            self.answered = True
            self.pool.unanswered -= 1

    def release(self, *, reusable: bool) -> None:
        """The exchange is over."""
        self.listener = None
        self.first_byte()
        if reusable and not self.lost and self.uses < MAX_USES:
            self.pool.put(self)
        else:
            self.abort()

    def abort(self) -> None:
        """At once: a model server whose client is gone stops generating."""
        self.listener = None
        self.first_byte()
        if not self.lost:
            self.transport.abort()


JUST_USED_S = 0.005
"""A connection that was in use so long ago is taken without asking the kernel whether it has ended: a
server's own idle limit is far away, and the event loop has just looked."""


class Pool:
    """Connections to one process on one port."""

    def __init__(
        self,
        route: RouteInfo,
        own: frozenset[int] | None,
        clock: Callable[[], float],
        later: Callable[..., object],
    ) -> None:
        self.route = route
        self.own = own
        """The listening sockets found to be the process's own; None where that cannot be seen."""
        self.unanswered = 0
        """Requests sent that have no byte of an answer yet."""
        self.open: set[Upstream] = set()
        self._idle: deque[Upstream] = deque()
        self._clock = clock
        self._later = later
        self._trimming = False

    def take(self) -> Upstream | None:
        """An idle connection that is still good, the one last used. What remains: the server may close
        it after this look and before our bytes arrive. Such a request is answered as interrupted and
        never sent again, because from here that cannot be told from a server that read it and died."""
        now = self._clock()
        while self._idle:
            upstream = self._idle.pop()
            idle = now - upstream.idle_since
            if idle < JUST_USED_S and not upstream.lost and not upstream.transport.is_closing():
                return upstream
            if idle < IDLE_LIMIT_S and upstream.quiet():
                return upstream
            upstream.abort()
        return None

    def put(self, upstream: Upstream) -> None:
        """Back for another request."""
        # Paused by the last reader's slowness, perhaps; an idle one must hear of its end.
        if not upstream.transport.is_reading():
            upstream.transport.resume_reading()
        upstream.idle_since = self._clock()
        self._idle.append(upstream)
        if len(self._idle) > MAX_IDLE:
            self._idle.popleft().abort()
        if self.unanswered and not self._trimming:
            self._trimming = True
            self._later(IDLE_LIMIT_WHEN_BUSY_S, self._trim)

    def _trim(self) -> None:
        self._trimming = False
        if self.unanswered:
            self.sweep(IDLE_LIMIT_WHEN_BUSY_S)
        if self.unanswered and self._idle:
            self._trimming = True
            self._later(IDLE_LIMIT_WHEN_BUSY_S, self._trim)

    def sweep(self, limit_s: float = IDLE_LIMIT_S) -> None:
        """Closes what has idled too long."""
        oldest = self._clock() - limit_s
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.popleft().abort()

    def forget(self, upstream: Upstream) -> None:
        """It is closed."""
        self.open.discard(upstream)
        if upstream in self._idle:
            self._idle.remove(upstream)

    def close(self) -> None:
        """Closes the idle ones; those in use end with their exchange, or with the process."""
        while self._idle:
            self._idle.popleft().abort()

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)


Key = tuple[int | None, int, str]


class Pools:
    """All pools. `alive` asks the kernel about a pid now; None means that the process cannot be seen
    from here, and identity rests on the listing."""

    def __init__(self, alive: Callable[[int], bool | None]) -> None:
        self._alive = alive
        self._listeners = Listeners()
        self._loop = asyncio.get_running_loop()
        self._pools: dict[Key, Pool] = {}
        self.connects = 0
        self.refused_identities = 0

    def take(self, route: RouteInfo) -> Upstream | None:
        """An idle connection to the route's process. No waiting, and no question to the kernel about the
        process: the connection was proven to be its own when it was made, and dies with it."""
        pool = self._pools.get((route.pid, route.generation, route.base_url))
        if pool is None or not pool.idle:
            return None
        return pool.take()

    async def connect(self, route: RouteInfo) -> Upstream:
        """A new connection that belongs to the route. The probe is the connection the request will use.
        Raises `NotReached`."""
        pool = self._pool(route)
        host = urlsplit(route.base_url).hostname or "127.0.0.1"
        self.connects += 1
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        upstream = Upstream(pool, sock)
        pool.open.add(upstream)
        connected = False
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                await self._loop.sock_connect(sock, (host, route.port))
                await self._loop.create_connection(lambda: upstream, sock=sock)
        except (OSError, TimeoutError) as error:
            raise NotReached(f"port {route.port}: {error or 'no connection in time'}") from error
        else:
            connected = True
        finally:
            if not connected:
                sock.close()
                pool.forget(upstream)
        return upstream

    def prove(self, upstream: Upstream) -> None:
        """Right before the request is written: the process that accepted the connection still lives.
        Raises `NotReached`."""
        pid, port, own = upstream.route.pid, upstream.route.port, upstream.pool.own
        problem = None
        if pid is not None and own is not None:
            now = self._listeners.on(port)
            if now is not None and not (now and now <= own):
                problem = f"port {port} is not, or not only, process {pid}'s"
        if pid is not None and self._alive(pid) is not True:
            problem = f"process {pid} is gone; another may have taken port {port}"
        if problem is not None:
            self.refused_identities += 1
            upstream.abort()
            raise NotReached(problem)
        if upstream.lost:
            raise NotReached(f"port {port}: closed before anything was sent")

    def sweep(self) -> None:
        """Now and then: closes what has idled too long, forgets pools that have nothing left."""
        for key, pool in list(self._pools.items()):
            pool.sweep()
            if not pool.open:
                del self._pools[key]

    def close(self) -> None:
        """Closes all idle connections."""
        self._listeners.close()
        for pool in self._pools.values():
            pool.close()

    def _pool(self, route: RouteInfo) -> Pool:
        key = (route.pid, route.generation, route.base_url)
        pool = self._pools.get(key)
        if pool is None:
            own = self._own(route)
            pool = self._pools[key] = Pool(route, own, self._loop.time, self._loop.call_later)
        return pool

    def _own(self, route: RouteInfo) -> frozenset[int] | None:
        if route.pid is None:
            return None
        listening = self._listeners.on(route.port)
        own = None if listening is None else held_by(route.pid, listening)
        if own is not None and own != listening:
            self.refused_identities += 1
            raise NotReached(f"port {route.port} is not, or not only, process {route.pid}'s")
        return own

    def idle(self) -> int:
        """Connections that wait for a request, of all pools."""
        return sum(pool.idle for pool in self._pools.values())

    def open(self) -> int:
        """All connections to model servers."""
        return sum(len(pool.open) for pool in self._pools.values())
