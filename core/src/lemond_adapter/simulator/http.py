"""The simulated lemond's HTTP surface."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from packaging.version import Version
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lemond_adapter.simulator.children import ChildAbandoned
from lemond_adapter.simulator.daemon import Daemon
from lemond_adapter.simulator.faults import BadFault, apply_fault
from lemond_adapter.simulator.gateway import Gateway, model_error
from lemond_adapter.simulator.router import LoadFailed

_PREFIXES = ("/v1", "/api/v1", "/v0", "/api/v0")
_WANT_KEY = ("/v1", "/v0", "/api", "/internal", "/metrics")
_GATEWAY = (
    "chat/completions",
    "completions",
    "embeddings",
    "rerank",
    "reranking",
    "responses",
    "messages",
    "audio/{rest:path}",
    "images/{rest:path}",
)


def build_app(daemon: Daemon) -> Starlette:
    """The ASGI application of one simulated lemond."""
    surface, gateway = Surface(daemon), Gateway(daemon)
    routes = [
        Route("/live", surface.live),
        Route("/api/version", surface.ollama_version),
        Route("/internal/config", surface.config),
        Route("/simulator/stats", surface.stats),
        Route("/simulator/reset-stats", surface.reset_stats, methods=["POST"]),
        Route("/simulator/fault", surface.fault, methods=["POST"]),
    ]
    for prefix in _PREFIXES:
        routes += [
            Route(f"{prefix}/health", surface.health),
            Route(f"{prefix}/params", surface.params),
            Route(f"{prefix}/load", surface.load, methods=["POST"]),
            Route(f"{prefix}/unload", surface.unload, methods=["POST"]),
            Route(f"{prefix}/load", surface.wants_post, methods=["GET"]),
            Route(f"{prefix}/unload", surface.wants_post, methods=["GET"]),
            Route(f"{prefix}/models", surface.models),
            Route(f"{prefix}/models/{{name:path}}", surface.model),
        ]
        routes += [Route(f"{prefix}/{path}", gateway.infer, methods=["POST"]) for path in _GATEWAY]
    routes.append(Route("/{path:path}", surface.nothing, methods=["GET", "POST", "DELETE", "PUT"]))
    return Starlette(routes=routes, middleware=[Middleware(_Gate, daemon=daemon)])


class _Gate:
    """Counts, hangs when told to, and wants the key where one is set."""

    def __init__(self, app: ASGIApp, daemon: Daemon) -> None:
        self._app = app
        self._daemon = daemon
        # lemond has so many threads, and one request holds one of them from its head to its last byte.
        threads = daemon.http_threads
        self._threads = asyncio.Semaphore(threads) if threads > 0 else contextlib.nullcontext()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/simulator/"):
            await self._app(scope, receive, send)
            return
        daemon = self._daemon
        daemon.counters.requests[f"{scope['method']} {scope['path']}"] += 1
        loop = asyncio.get_running_loop()
        while loop.time() < daemon.faults.hang_until:
            await asyncio.sleep(0.02)
        path, method = scope["path"], scope["method"]
        if daemon.api_key and path.startswith(_WANT_KEY) and method != "OPTIONS":
            given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            if 0 < len(given) < 7 and daemon.router.profile.short_authorization_is_500:
                await Response(None, 500)(scope, receive, send)
                return
            if given[7:] != daemon.api_key:
                await JSONResponse({"error": "Invalid or missing API key"}, 401)(scope, receive, send)
                return
        daemon.log.debug("Server", f"{method} {path}")

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                daemon.log.debug("Server", f"{method} {path} - {message['status']}")
            await send(message)

        try:
            async with self._threads:
                await self._app(scope, receive, answer)
        except ChildAbandoned:
            # lemond "restarted" under the request. An answer shorter than announced makes uvicorn drop the
            # connection, which is what the client of a dead lemond sees.
            await send({"type": "http.response.start", "status": 500, "headers": [(b"content-length", b"1")]})
            await send({"type": "http.response.body", "body": b""})


class Surface:
    """The handlers."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._router = daemon.router
        self._log = daemon.log

    async def live(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ollama_version(self, request: Request) -> Response:
        return JSONResponse({"version": "0.16.1"})

    async def health(self, request: Request) -> Response:
        faults, loop = self._daemon.faults, asyncio.get_running_loop()
        while loop.time() < self._daemon.faults.health_hang_until:
            await asyncio.sleep(0.02)
        if faults.health_delay_s:
            await asyncio.sleep(faults.health_delay_s)
        told = faults.health_body
        if told is not None and faults.health_body_times > 0:
            faults.health_body_times -= 1
            kind = str(told.get("content_type", "application/json"))
            return Response(str(told["body"]), int(told.get("status", 200)), media_type=kind)
        return JSONResponse(await self._daemon.health())

    async def config(self, request: Request) -> Response:
        if self._daemon.faults.config_hidden:
            return JSONResponse({"error": "Invalid or missing admin API key"}, 401)
        return JSONResponse(self._daemon.config())

    async def params(self, request: Request) -> Response:
        """Since 10.9; before that the path is unknown."""
        if Version(self._daemon.version) < Version("10.9"):
            return await self.nothing(request)
        return JSONResponse(self._daemon.config())

    async def load(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            name = body["model_name"]
        except (ValueError, KeyError, TypeError) as error:
            code = "invalid_request"
            problem = {"code": code, "message": f"Invalid request: {error}", "type": f"{code}_error"}
            return JSONResponse({"error": problem}, 400)
        options = ", ".join(f"{k}={v}" for k, v in body.items() if k != "model_name")
        model = self._router.find(str(name))
        if model is None:
            self._log.info("ModelManager", 'Loading "user_models.json"')
            self._log.error("Server", f"Model not found: {name}")
            self._log.info("ModelManager", 'Loading "user_models.json"')
            self._log.error("Server", "Error 404: POST /v1/load")
            return self._unknown(str(name))
        self._log.info("Server", f"Ensuring model loaded: {name} {options}")
        try:
            await self._router.load(model, body)
        except LoadFailed as error:
            self._log.error("Server", f"Failed to load model: {error}")
            self._log.error("Server", "Error 500: POST /v1/load")
            message = f"Failed to load model '{name}': {error}"
            return model_error(500, "model_load_error", message, str(name))
        return JSONResponse(
            {
                "checkpoint": model.checkpoint,
                "model_name": name,
                "recipe": model.recipe,
                "status": "success",
            }
        )

    async def unload(self, request: Request) -> Response:
        self._log.info("Server", "Unload request received")
        name: Any = None
        try:
            body = json.loads(await request.body())
            name = body.get("model_name") or body.get("model")
        except (ValueError, AttributeError):
            name = None  # lemond takes what it cannot read as "everything"
        if not isinstance(name, str) or not name:
            self._log.info("Router", "Unload all models called")
            await self._router.unload_all()
            self._log.info("Server", "All models unloaded successfully")
            return JSONResponse({"message": "All models unloaded successfully", "status": "success"})
        self._log.info("Router", f"Unload model called: {name}")
        model = self._router.find(name)
        if model is None or not await self._router.unload(model):
            self._log.error("Server", f"Unload failed: Model not loaded: {name}")
            self._log.error("Server", "Error 404: POST /v1/unload")
            return JSONResponse({"error": f"Model not loaded: {name}"}, 404)
        self._log.info("Server", f"Model '{name}' unloaded successfully")
        return JSONResponse(
            {"message": "Model unloaded successfully", "model_name": name, "status": "success"}
        )

    async def models(self, request: Request) -> Response:
        rows = [self._row(model.public) for model in self._router.models.values()]
        return JSONResponse({"data": rows, "object": "list"})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if self._router.find(name) is None:
            return self._unknown(name)
        return JSONResponse(self._row(name))

    def _unknown(self, name: str) -> Response:
        known = ", ".join(f"'{public}'" for public in list(self._router.models)[:3])
        message = f"Model '{name}' was not found. Available models include: {known}."
        return model_error(404, "model_not_found", message, name)

    def _row(self, name: str) -> dict[str, Any]:
        model = self._router.find(name)
        assert model is not None
        return {
            "id": model.public,
            "object": "model",
            "created": 1234567890,
            "owned_by": "lemonade",
            "checkpoint": model.checkpoint,
            "recipe": model.recipe,
            "downloaded": True,
            "size": model.size_gb,
            "labels": model.labels,
            "recipe_options": {},
        }

    async def wants_post(self, request: Request) -> Response:
        return JSONResponse({"error": "Method Not Allowed. Use POST for this endpoint"}, 405)

    async def nothing(self, request: Request) -> Response:
        error = {
            "message": "The requested endpoint does not exist",
            "path": request.url.path,
            "type": "not_found",
        }
        return JSONResponse({"error": error}, 404)

    # For tests; not part of lemond.

    async def stats(self, request: Request) -> Response:
        return JSONResponse(self._daemon.stats())

    async def reset_stats(self, request: Request) -> Response:
        self._daemon.counters.requests.clear()
        return JSONResponse({})

    async def fault(self, request: Request) -> Response:
        try:
            return JSONResponse(await apply_fault(self._daemon, await request.json()))
        except (BadFault, KeyError, ValueError) as error:
            return JSONResponse({"error": str(error)}, 400)
