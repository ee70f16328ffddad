"""The ASGI application: data plane, slots, events, status."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.dispatch.catalogue_view import model_rows
from lemond_adapter.dispatch.dataplane import DataPlane
from lemond_adapter.dispatch.envelope import Refusal, refusal_for
from lemond_adapter.dispatch.traffic import Flight
from lemond_adapter.service import dashboard, metrics, reports, sse
from lemond_adapter.service.live import live_feed
from lemond_adapter.service.session import Session, refused
from lemond_adapter.slots.rows import SlotBoard
from lemond_adapter.types import LemondError

_OPEN_PATHS = frozenset({"/healthz", "/readyz"}) | dashboard.PATHS


def build_app(adapter: LemondAdapter, *, api_key: str | None = None, hold_s: float = 0.0) -> ASGIApp:
    """The application over a running adapter. With `api_key`, everything but the dashboard's
    files, `/healthz` and `/readyz` wants it as a bearer token or `x-api-key`."""
    plane = DataPlane(adapter, default_hold_s=hold_s)
    plane.traffic.observers.append(lambda flight: _served(adapter, flight))
    surface = Surface(adapter, plane, SlotBoard(adapter))
    return Front(plane, surface.starlette(), api_key)


def _served(adapter: LemondAdapter, flight: Flight) -> None:
    if flight.outcome == "served" and flight.status < 500 and flight.model is not None:
        adapter.actor.served(flight.model)


class Front:
    """Keys, then the data plane or everything else."""

    def __init__(self, plane: DataPlane, rest: ASGIApp, api_key: str | None) -> None:
        self._plane = plane
        self._rest = rest
        self._key = api_key.encode() if api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        path = scope["path"]
        if self._key is not None and path not in _OPEN_PATHS and not self._admitted(scope):
            refusal = Refusal(
                401, "auth.invalid", "wrong or missing API key: send Authorization: Bearer <key>"
            )
            await refused(refusal)(scope, receive, send)
        elif scope["method"] == "POST" and self._plane.speaks(path):
            await self._plane(scope, receive, send)
        else:
            await self._rest(scope, receive, send)

    def _admitted(self, scope: Scope) -> bool:
        given = b""
        for name, value in scope["headers"]:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                given = value[7:]
            elif name == b"x-api-key":
                given = value
        return hmac.compare_digest(given, self._key or b"")


Handler = Callable[[Request], Awaitable[Response]]


class Surface:
    """Everything that is not the data plane."""

    def __init__(self, adapter: LemondAdapter, plane: DataPlane, board: SlotBoard) -> None:
        self._adapter = adapter
        self._plane = plane
        self._board = board
        self._registry = metrics.registry(adapter, plane)
        self._live = live_feed(adapter, plane, board)
        self._acts: set[asyncio.Task[Any]] = set()

    def starlette(self) -> Starlette:
        """The routes."""
        base = "/api/v1/adapter"
        session = Session(self._adapter)
        return Starlette(
            routes=[
                *dashboard.routes(),
                Route("/healthz", self.healthz),
                Route("/readyz", self.readyz),
                Route("/v1/models", self.models),
                Route("/v1/models/{name:path}", self.model),
                Route("/api/slots", self.slots),
                Route("/api/slots/{name:path}/load", self.load, methods=["POST"]),
                Route("/api/slots/{name:path}/unload", self.unload, methods=["POST"]),
                Route("/api/slots/{name:path}/restart", self.restart, methods=["POST"]),
                Route("/api/slots/{name:path}", self.slot),
                Route("/metrics", self.metrics),
                Route(f"{base}/warm", session.warm, methods=["POST"]),
                Route(f"{base}/journal", session.journal),
                Route(f"{base}/events", self.events),
                Route(f"{base}/status", self.status),
                Route(f"{base}/routes", self.routes),
                Route("/{path:path}", self.nothing, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            ]
        )

    async def healthz(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        truth = self._adapter.truth
        if truth.reachable:
            return JSONResponse({"status": "ready", "lemond": self._adapter.version})
        return JSONResponse({"status": "not ready", "why": truth.unknown_why}, 503)

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": await model_rows(self._adapter)})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        for row in await model_rows(self._adapter):
            if row["id"] == name:
                return JSONResponse(row)
        return refused(
            Refusal(404, "model.not_found", f"no slot, alias or model of lemond is called {name!r}")
        )

    async def slots(self, request: Request) -> Response:
        return JSONResponse(self._board.rows())

    async def slot(self, request: Request) -> Response:
        row = self._board.row(request.path_params["name"])
        return JSONResponse(row) if row is not None else self._no_slot(request)

    @staticmethod
    def _no_slot(request: Request) -> Response:
        name = request.path_params["name"]
        return refused(
            Refusal(404, "slot.not_found", f"no slot is called {name!r}; GET /api/slots lists them")
        )

    async def load(self, request: Request) -> Response:
        return await self._act(request, self._adapter.ensure_loaded)

    async def unload(self, request: Request) -> Response:
        return await self._act(request, self._adapter.unload)

    async def restart(self, request: Request) -> Response:
        async def again(name: str) -> None:
            await self._adapter.unload(name)
            await self._adapter.ensure_loaded(name)

        return await self._act(request, again)

    async def _act(self, request: Request, action: Callable[[str], Awaitable[Any]]) -> Response:
        """202 at once; what comes of it is told by events. lemond's absence is told now."""
        name = request.path_params["name"]
        slot, model = self._adapter.resolve(name)
        if slot is None and self._board.row(name) is None:
            try:
                known = await self._adapter.catalogue.knows(model)
            except LemondError as error:
                return refused(refusal_for(error))
            if not known:
                return self._no_slot(request)
        if not self._adapter.truth.reachable:
            why = f"lemond cannot be reached: {self._adapter.truth.unknown_why}"
            return refused(Refusal(409, "lemonade.unavailable", why))
        task = asyncio.ensure_future(_quietly(action(name)))
        self._acts.add(task)
        task.add_done_callback(self._acts.discard)
        await asyncio.sleep(0)
        row = self._board.row(name) or {"name": name, "model_id": model, "state": "offline"}
        return JSONResponse(row, 202)

    async def events(self, request: Request) -> Response:
        hub = self._adapter.hub
        since = sse.position_of(
            hub.epoch, request.headers.get("last-event-id"), request.query_params.get("since")
        )
        live = self._live if request.query_params.get("traffic") == "1" else None
        body = sse.stream(hub, lambda: reports.snapshot(self._adapter, self._board), since, live)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(body, media_type="text/event-stream", headers=headers)

    async def status(self, request: Request) -> Response:
        return JSONResponse(reports.status(self._adapter, self._plane))

    async def routes(self, request: Request) -> Response:
        return JSONResponse(reports.routes(self._adapter))

    async def metrics(self, request: Request) -> Response:
        return Response(metrics.exposition(self._registry), media_type=metrics.CONTENT_TYPE)

    async def nothing(self, request: Request) -> Response:
        what = f"{request.method} {request.url.path}"
        return refused(Refusal(404, "path.not_found", f"there is no {what} here"))


async def _quietly(action: Awaitable[Any]) -> None:
    """The outcome of an accepted action is an event; the loader has logged what went wrong."""
    try:
        await action
    except LemondError:
        return


__all__ = ["build_app"]
