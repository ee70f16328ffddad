"""The ASGI application: data plane, slots, events, status."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.dispatch.catalogue_view import model_rows
from lemond_adapter.dispatch.dataplane import DataPlane
from lemond_adapter.dispatch.envelope import Refusal
from lemond_adapter.dispatch.traffic import Flight
from lemond_adapter.journal import Journal
from lemond_adapter.service import dashboard, logs, metrics, reports, sse
from lemond_adapter.service.live import live_feed
from lemond_adapter.service.session import Session, refused
from lemond_adapter.service.slot_routes import SlotRoutes
from lemond_adapter.slots.rows import SlotBoard

_OPEN_PATHS = frozenset({"/healthz", "/readyz"}) | dashboard.PATHS


def build_app(
    adapter: LemondAdapter,
    plane: DataPlane,
    board: SlotBoard,
    journal: Journal,
    *,
    api_key: str | None = None,
) -> ASGIApp:
    """Everything that is not the data plane, over a running adapter. With `api_key`, everything but the
    dashboard's files, `/healthz` and `/readyz` wants it as a bearer token or `x-api-key`."""
    logs.follow(adapter, plane)
    plane.traffic.observers.append(lambda flight: _served(adapter, flight))
    surface = Surface(adapter, plane, board, journal)
    return Front(surface.starlette(), api_key)


def _served(adapter: LemondAdapter, flight: Flight) -> None:
    if flight.outcome == "served" and flight.status < 500 and flight.model is not None:
        adapter.actor.served(flight.model)


class Front:
    """Keys, then everything else. The data plane has its own way, and checks them itself."""

    def __init__(self, rest: ASGIApp, api_key: str | None) -> None:
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
        elif scope["method"] not in _SAFE and _foreign(scope):
            refusal = Refusal(403, "origin.refused", "a web page of another origin may not act here")
            await refused(refusal)(scope, receive, send)
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


_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def _foreign(scope: Scope) -> bool:
    """Whether a browser says that the request comes from a page of somebody else: any site that its user
    visits could otherwise unload models on this machine."""
    headers = dict(scope["headers"])
    origin = headers.get(b"origin")
    return origin is not None and origin.rpartition(b"//")[2] != headers.get(b"host", b"")


Handler = Callable[[Request], Awaitable[Response]]


class Surface:
    """Everything that is not the data plane."""

    def __init__(self, adapter: LemondAdapter, plane: DataPlane, board: SlotBoard, journal: Journal) -> None:
        self._journal = journal
        self._adapter = adapter
        self._plane = plane
        self._board = board
        self._metrics = metrics.Metrics(adapter, plane, board)
        self._live = live_feed(adapter, plane, board, journal)

    def starlette(self) -> Starlette:
        """The routes."""
        base = "/api/v1/adapter"
        session = Session(self._adapter, self._journal)
        return Starlette(
            routes=[
                *dashboard.routes(),
                Route("/healthz", self.healthz),
                Route("/readyz", self.readyz),
                Route("/v1/models", self.models),
                Route("/v1/models/{name:path}", self.model),
                *SlotRoutes(self._adapter, self._board).routes(),
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

    async def events(self, request: Request) -> Response:
        hub = self._adapter.hub
        since = sse.position_of(
            hub.epoch, request.headers.get("last-event-id"), request.query_params.get("since")
        )
        live = self._live if request.query_params.get("traffic") == "1" else None
        past = self._journal.following
        body = sse.stream(hub, lambda: reports.snapshot(self._adapter, self._board), since, live, past)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(body, media_type="text/event-stream", headers=headers)

    async def status(self, request: Request) -> Response:
        return JSONResponse(reports.status(self._adapter, self._plane, self._journal))

    async def routes(self, request: Request) -> Response:
        return JSONResponse(reports.routes(self._adapter))

    async def metrics(self, request: Request) -> Response:
        text = self._metrics.text(hal0=request.query_params.get("hal0") == "1")
        return Response(text, media_type=metrics.CONTENT_TYPE)

    async def nothing(self, request: Request) -> Response:
        what = f"{request.method} {request.url.path}"
        return refused(Refusal(404, "path.not_found", f"there is no {what} here"))


__all__ = ["build_app"]
