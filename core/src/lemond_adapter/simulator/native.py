"""The reference server of the native event protocol (docs/native-events.md), protocol 1.

No lemond has it: this is the shape we propose, small enough to be read beside the document. A
connection is a position in one bounded history, so a slow or absent client costs no memory.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from lemond_adapter.drivers.native import encode_native_event
from lemond_adapter.types import SlotEvent, rfc3339

PROTOCOL = 1
PATH = "/v1/events"
MAX_CONNECTIONS = 32
_SHUTTING_DOWN = {"type": "error", "code": "shutting_down", "message": "lemond is going down"}
_LOCAL = ("localhost", "127.0.0.1", "::1")

ListingProvider = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Resume:
    """What the client saw last, as it says."""

    boot_id: str
    after_seq: int


class BadRequest(ValueError):
    """A handshake that is refused with 400."""


class NativeEventServer:
    """Usable alone: `async with NativeEventServer(listing) as server: ... server.base_url`.

    `listing` gives a health body; its entries become the `list` frame. Counters (`connects`, `peak`,
    `refused`, `lists_sent`) and `handshakes` (the query of each) are for tests.
    """

    def __init__(
        self,
        listing: ListingProvider = lambda: {"all_models_loaded": []},
        *,
        api_key: str | None = None,
        heartbeat_s: float = 15.0,
        history: int = 1000,
        version: str = "12.0.0",
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._listing = listing
        self._api_key = api_key
        self._host = host
        self._asked_port = port
        self._server: Server | None = None
        self._history: deque[tuple[int, str]] = deque(maxlen=history)
        self._connections: set[ServerConnection] = set()
        self._changed = asyncio.Event()
        self.heartbeat_s = heartbeat_s
        self.version = version
        self.protocol = PROTOCOL
        self.boot_id = secrets.token_hex(8)
        self.seq = 0
        self.heartbeats = True
        self.connects = 0
        self.peak = 0
        self.refused = 0
        self.lists_sent = 0
        self.handshakes: list[str] = []

    async def __aenter__(self) -> NativeEventServer:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens."""
        self._server = await serve(
            self._serve,
            self._host,
            self._asked_port,
            process_request=self._admit,
            compression=None,
            max_size=1024,  # clients have nothing to say
            close_timeout=1,
        )
        self._asked_port = self.port  # a restarted server is found where it was

    async def stop(self) -> None:
        """Ends as a lemond that shuts down: says so, then closes. A later `start` is another boot."""
        server, self._server = self._server, None
        if server is None:
            return
        await self.send_raw(_text(_SHUTTING_DOWN))
        server.close(close_connections=True)
        await server.wait_closed()
        self._forget(None)

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._server is None:
            raise RuntimeError("the native event server is not running")
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    @property
    def base_url(self) -> str:
        """As if lemond served HTTP here too: what a driver gets as `base_url`."""
        return f"http://{self._host}:{self.port}"

    @property
    def advertisement(self) -> dict[str, Any]:
        """The `native_events` object for /v1/health."""
        return {"protocol": self.protocol, "path": PATH, "port": self.port}

    @property
    def open_connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def set_listing(self, listing: ListingProvider) -> None:
        """Where `list` frames take the loaded models from."""
        self._listing = listing

    def set_history(self, bound: int) -> None:
        """How many events are kept from now on."""
        self._history = deque(self._history, maxlen=bound)

    def publish(self, event: SlotEvent | Mapping[str, Any]) -> int:
        """Gives the event the next seq and sends it to all; a mapping goes out as it is."""
        now = datetime.now(UTC)
        body = (
            encode_native_event(event.model_copy(update={"at": now}))
            if isinstance(event, SlotEvent)
            else dict(event)
        )
        self.seq += 1
        self._history.append((self.seq, _text({"type": "event", "seq": self.seq, "event": body})))
        self._wake()
        return self.seq

    async def send_raw(self, message: str | bytes) -> None:
        """Sends anything at all to every client: what a broken server would."""
        for connection in list(self._connections):
            await _send_quietly(connection, message)

    async def drop_connections(self, *, abort: bool = True) -> None:
        """Loses all connections, by default as a cut cable does: without a close frame."""
        gone = list(self._connections)
        for connection in gone:
            if abort:
                connection.transport.abort()
            else:
                await connection.close(1001, "dropped")
        for connection in gone:
            await connection.wait_closed()

    async def restart(self, boot_id: str | None = None, *, announce: bool = False) -> None:
        """Another lemond process: new boot id, seq from 1, nothing remembered."""
        if announce:
            await self.send_raw(_text(_SHUTTING_DOWN))
        self._forget(boot_id)
        await self.drop_connections()

    def _forget(self, boot_id: str | None) -> None:
        """What a process takes with it."""
        self.boot_id = boot_id or secrets.token_hex(8)
        self.seq = 0
        self._history.clear()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """The handshake: path, origin, key and resume are checked before anything is sent."""
        parts = urlsplit(request.path)
        self.handshakes.append(parts.query)
        origin = request.headers.get("Origin")
        if parts.path != PATH:
            return self._refuse(connection, HTTPStatus.NOT_FOUND, f"events are at {PATH}")
        if origin is not None and urlsplit(origin).hostname not in _LOCAL:
            return self._refuse(connection, HTTPStatus.FORBIDDEN, "origin not allowed")
        if self._api_key is not None:
            given = request.headers.get("Authorization") or ""
            if not hmac.compare_digest(given.encode(), f"Bearer {self._api_key}".encode()):
                return self._refuse(connection, HTTPStatus.UNAUTHORIZED, "invalid or missing API key")
        if len(self._connections) >= MAX_CONNECTIONS:
            return self._refuse(connection, HTTPStatus.SERVICE_UNAVAILABLE, "too many event clients")
        try:
            read_resume(parts.query)
        except BadRequest as error:
            return self._refuse(connection, HTTPStatus.BAD_REQUEST, str(error))
        return None

    def _refuse(self, connection: ServerConnection, status: HTTPStatus, why: str) -> Response:
        self.refused += 1
        response = connection.respond(status, json.dumps({"error": {"message": why}}))
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        return response

    async def _serve(self, connection: ServerConnection) -> None:
        self._connections.add(connection)
        self.connects += 1
        self.peak = max(self.peak, len(self._connections))
        request = connection.request
        resume = read_resume(urlsplit(request.path).query) if request is not None else None
        tasks = [
            asyncio.create_task(self._feed(connection, resume)),
            asyncio.create_task(_ignore(connection)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a listing provider that raises closes the connection with 1011
        finally:
            self._connections.discard(connection)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _feed(self, connection: ServerConnection, resume: Resume | None) -> None:
        """Hello, then a list or the missed events, then events and heartbeats until the end."""
        boot_id, position = self.boot_id, self.seq
        reason = "start" if resume is None else "boot"
        resumed = False
        if resume is not None and resume.boot_id == boot_id:
            resumed = self._after(resume.after_seq) is not None
            position, reason = (resume.after_seq, "") if resumed else (position, "gap")
        try:
            await connection.send(self._hello(resumed))
            if not resumed:
                position = await self._send_list(connection, reason)
            while self.boot_id == boot_id:
                # Taken before the look, so that news between look and wait is not slept through.
                changed = self._changed
                news = self._after(position)
                if news is None:
                    position = await self._send_list(connection, "gap")
                elif news:
                    for seq, text in news:
                        await connection.send(text)
                        position = seq
                elif not await _happens(changed, self.heartbeat_s) and self.heartbeats:
                    await connection.send(
                        _text({"type": "heartbeat", "seq": position, "at": rfc3339(datetime.now(UTC))})
                    )
        except ConnectionClosed:
            return

    def _after(self, seq: int) -> list[tuple[int, str]] | None:
        """The events behind `seq`; None when some are gone or never were."""
        oldest = self._history[0][0] if self._history else self.seq + 1
        if seq > self.seq or seq + 1 < oldest:
            return None
        return [item for item in self._history if item[0] > seq]

    def _hello(self, resumed: bool) -> str:
        return _text(
            {
                "type": "hello",
                "protocol": self.protocol,
                "boot_id": self.boot_id,
                "version": self.version,
                "heartbeat_s": self.heartbeat_s,
                "seq": self.seq,
                "oldest_seq": self._history[0][0] if self._history else self.seq + 1,
                "resumed": resumed,
            }
        )

    async def _send_list(self, connection: ServerConnection, reason: str) -> int:
        """Listing and seq are taken in one step of the loop: the list holds exactly events <= seq."""
        seq, body = self.seq, self._listing()
        frame = {"type": "list", "seq": seq, "reason": reason, "at": rfc3339(datetime.now(UTC))}
        frame |= {key: body[key] for key in ("all_models_loaded", "max_models") if key in body}
        self.lists_sent += 1
        await connection.send(_text(frame))
        return seq

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def read_resume(query: str) -> Resume | None:
    """The resume point in a query; None for none. Raises `BadRequest`."""
    fields = parse_qs(query, keep_blank_values=True)
    if "api_key" in fields:
        raise BadRequest("the API key belongs in the Authorization header: queries end up in logs")
    boot_id, after = fields.get("boot_id", [None])[0], fields.get("after_seq", [None])[0]
    if boot_id is None and after is None:
        return None
    if not boot_id or after is None or not (after.isascii() and after.isdigit()) or len(after) > 19:
        raise BadRequest("resume needs boot_id and after_seq, a whole number")
    return Resume(boot_id, int(after))


def _text(frame: Mapping[str, Any]) -> str:
    return json.dumps(frame, separators=(",", ":"))


async def _ignore(connection: ServerConnection) -> None:
    """Whatever a client says is thrown away: no message can do harm."""
    try:
        async for _ in connection:
            continue
    except ConnectionClosed:
        return  # an abrupt end is a normal end here


async def _happens(event: asyncio.Event, within_s: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), within_s)
    except TimeoutError:
        return False
    return True


async def _send_quietly(connection: ServerConnection, message: str | bytes) -> None:
    try:
        await connection.send(message)
    except ConnectionClosed:
        return
