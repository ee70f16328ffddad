"""uvicorn with our own protocol in front: the data plane is relayed, everything else is ASGI."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import socket
from collections.abc import Callable, Generator
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from lemond_adapter.dispatch.connection import ClientConnection
from lemond_adapter.dispatch.dataplane import DataPlane

WANTED_FILES = 65_536


class AsgiSide(HttpToolsProtocol):
    """uvicorn's, for the requests of a connection that are not relayed. It gets one whole request after
    another, and its owner does the waiting in between."""

    owner: ClientConnection

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()
        self.owner.asgi_answered()


def protocol_for(plane: DataPlane) -> type[asyncio.Protocol]:
    """What uvicorn makes for each connection."""

    def protocol(
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> ClientConnection:
        registry = cast("set[ClientConnection]", server_state.connections)

        def asgi(owner: ClientConnection, transport: asyncio.Transport) -> AsgiSide:
            side = AsgiSide(config, server_state, app_state, _loop)
            side.owner = owner
            side.connection_made(transport)
            # The server knows the connection already, by its owner.
            server_state.connections.discard(side)
            return side

        return ClientConnection(plane, asgi, registry)

    make: Callable[..., asyncio.Protocol] = protocol
    return cast("type[asyncio.Protocol]", make)


class Server(uvicorn.Server):
    """uvicorn's, with signals left to us (a drained service exits 0) and `up` set once it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


def raise_file_limit() -> None:
    """Two descriptors a request: the usual soft limit of 1024 would end at 500 streams."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def settle_memory() -> None:
    """What was made at the start stays: the garbage collector need not look at it for every few hundred
    requests. What a request leaves behind is freed without the collector."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
