"""The log stream's WebSocket server, on its own port, with lemond's manners, bad ones included."""

from __future__ import annotations

import asyncio
import http
import json
import os
import signal
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from lemond_adapter.simulator.logs import LogHub

PATH = "/logs/stream"


class LogStreamServer:
    """Serves `/logs/stream`. `refuse` makes new connections fail."""

    def __init__(self, hub: LogHub, api_key: str | None) -> None:
        self._hub = hub
        self._api_key = api_key
        self._server: Server | None = None
        self._open: set[ServerConnection] = set()
        self.port = 0
        self.connections_total = 0
        self.refuse = False

    @property
    def connections_open(self) -> int:
        """WebSockets open now."""
        return len(self._open)

    async def start(self, host: str, port: int) -> None:
        """Binds; port 0 takes any."""
        self._server = await serve(
            self._serve,
            host,
            port,
            compression=None,
            process_request=self._admit,
            ping_interval=None,
            close_timeout=0.2,
            server_header=None,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        """Drops everybody without a close frame, as lemond does."""
        self.drop()
        if self._server is not None:
            self._server.close()

    def drop(self) -> None:
        """Cuts all connections at the TCP level."""
        for connection in list(self._open):
            connection.transport.abort()

    def end_soon(self) -> None:
        """Cuts them once the frames already queued have been written."""
        asyncio.get_running_loop().call_later(0.01, self.drop)

    def send_all(self, message: str | bytes) -> None:
        """A frame of any content to everybody."""
        for connection in list(self._open):
            _send(connection, message)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        path, _, query = request.path.partition("?")
        given = request.headers.get("Authorization", "")[7:]
        key_ok = not self._api_key or given == self._api_key or f"api_key={self._api_key}" in query
        if path != PATH or not key_ok or self.refuse:
            connection.transport.abort()
            return Response(http.HTTPStatus.FORBIDDEN, "", request.headers)
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        self.connections_total += 1
        self._open.add(connection)
        peer = connection.remote_address[0]
        self._hub.info("WebSocket", f"New connection from: {peer} (id: {self.connections_total})")

        def send(frame: str) -> None:
            _send(connection, frame)

        try:
            async for message in connection:
                self._message(message, send)
        except ConnectionClosed:
            return
        finally:
            self._hub.leave(send)
            self._open.discard(connection)

    def _message(self, message: str | bytes, send: Any) -> None:
        try:
            body = json.loads(message)
        except ValueError as error:
            send(_complaint(f"Invalid JSON: {error}"))
            return
        kind = body.get("type", "") if isinstance(body, dict) else None
        after = body.get("after_seq") if isinstance(body, dict) else None
        number = after is None or (isinstance(after, int | float) and not isinstance(after, bool))
        if not isinstance(kind, str) or (kind == "logs.subscribe" and not number):
            # An uncaught exception in lemond's service thread: the daemon terminates.
            os.kill(os.getpid(), signal.SIGABRT)
            return
        if kind != "logs.subscribe":
            send(_complaint("Expected logs.subscribe message"))
            return
        self._hub.subscribe(send)
        # A negative number wraps to a huge one: the snapshot is empty.
        after = int(after or 0)
        send(self._hub.snapshot(after if after >= 0 else 2**64 + after))


def _send(connection: ServerConnection, frame: str | bytes) -> None:
    if connection.transport.is_closing():
        return
    task = asyncio.get_running_loop().create_task(_sent(connection, frame))
    _TASKS.add(task)
    task.add_done_callback(_TASKS.discard)


async def _sent(connection: ServerConnection, frame: str | bytes) -> None:
    try:
        await connection.send(frame)
    except ConnectionClosed:
        return


_TASKS: set[asyncio.Task[None]] = set()


def _complaint(message: str) -> str:
    body = {"error": {"message": message, "type": "invalid_request_error"}, "type": "error"}
    return json.dumps(body, sort_keys=True)
