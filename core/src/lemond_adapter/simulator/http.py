"""The simulated lemond's HTTP surface."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lemond_adapter.simulator.children import SimChild
from lemond_adapter.simulator.daemon import Daemon
from lemond_adapter.simulator.faults import BadFault, apply_fault
from lemond_adapter.simulator.router import LoadFailed

_PREFIXES = ("/v1", "/api/v1", "/v0", "/api/v0")
_GATEWAY = ("chat/completions", "completions", "embeddings", "reranking", "responses", "audio/transcriptions")

Handler = Callable[[Request], Awaitable[Response]]


def build_app(daemon: Daemon) -> Starlette:
    """The ASGI application of one simulated lemond."""
    surface = Surface(daemon)
    routes = [
        Route("/live", surface.live),
        Route("/api/version", surface.ollama_version),
        Route("/simulator/stats", surface.stats),
        Route("/simulator/reset-stats", surface.reset_stats, methods=["POST"]),
        Route("/simulator/fault", surface.fault, methods=["POST"]),
    ]
    for prefix in _PREFIXES:
        routes += [
            Route(f"{prefix}/health", surface.health),
            Route(f"{prefix}/load", surface.load, methods=["POST"]),
            Route(f"{prefix}/unload", surface.unload, methods=["POST"]),
            Route(f"{prefix}/models", surface.models),
            Route(f"{prefix}/models/{{name:path}}", surface.model),
        ]
        routes += [Route(f"{prefix}/{path}", surface.infer, methods=["POST"]) for path in _GATEWAY]
    routes.append(Route("/{path:path}", surface.nothing, methods=["GET", "POST", "DELETE", "PUT"]))
    return Starlette(routes=routes, middleware=[Middleware(_Gate, daemon=daemon)])


class _Gate:
    """Counts, hangs when told to, and wants the key where one is set."""

    def __init__(self, app: ASGIApp, daemon: Daemon) -> None:
        self._app = app
        self._daemon = daemon

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/simulator/"):
            await self._app(scope, receive, send)
            return
        daemon = self._daemon
        daemon.counters.requests[f"{scope['method']} {scope['path']}"] += 1
        loop = asyncio.get_running_loop()
        while loop.time() < daemon.faults.hang_until:
            await asyncio.sleep(0.02)
        path = scope["path"]
        if daemon.api_key and path.startswith(("/v1", "/v0", "/api")):
            given = dict(scope["headers"]).get(b"authorization", b"")[7:].decode("latin-1")
            if given != daemon.api_key:
                await JSONResponse({"error": "Invalid or missing API key"}, 401)(scope, receive, send)
                return
        await self._app(scope, receive, send)


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
        if told is not None:
            kind = str(told.get("content_type", "application/json"))
            return Response(str(told["body"]), int(told.get("status", 200)), media_type=kind)
        return JSONResponse(await self._daemon.health())

    async def load(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            name = body["model_name"]
        except (ValueError, KeyError, TypeError) as error:
            code = "invalid_request"
            problem = {"code": code, "message": f"Invalid request: {error}", "type": f"{code}_error"}
            return JSONResponse({"error": problem}, 400)
        options = ", ".join(f"{k}={v}" for k, v in body.items() if k != "model_name")
        self._log.info("Server", f"Ensuring model loaded: {name} {options}")
        model = self._router.find(str(name))
        if model is None:
            self._log.error("Server", f"Model not found: {name}")
            return _model_error(404, "model_not_found", f"Model '{name}' was not found", str(name))
        try:
            await self._router.load(model, body)
        except LoadFailed as error:
            self._log.error("Server", f"Failed to load model: {error}")
            self._log.error("Server", "Error 500: POST /v1/load")
            message = f"Failed to load model '{name}': {error}"
            return _model_error(500, "model_load_error", message, str(name))
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
            return _model_error(404, "model_not_found", f"Model '{name}' was not found", name)
        return JSONResponse(self._row(name))

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
            "labels": [model.type] if model.type != "llm" else [],
        }

    async def infer(self, request: Request) -> Response:
        """Through lemond: loads by itself what is missing, then forwards."""
        raw = await request.body()
        name = _model_of(raw, request.headers.get("content-type", ""))
        model = self._router.find(name) if name else None
        if model is None:
            return _model_error(404, "model_not_found", f"Model '{name}' was not found", str(name))
        if self._router.child_of(model) is None:
            self._log.info("Server", f"Auto-loading model: {name}")
            try:
                await self._router.load(model, {})
            except LoadFailed as error:
                self._log.error("Server", f"Failed to load model: {error}")
                return _model_error(
                    500, "model_load_error", f"Failed to load model '{name}': {error}", str(name)
                )
            self._log.info("Server", f"Model loaded successfully: {name}")
        else:
            self._log.info("Server", f"Model already loaded: {name}")
        child = self._router.child_of(model)
        assert child is not None
        self._router.touch(child)
        path = request.url.path.partition("/v1")[2] or request.url.path.partition("/v0")[2]
        self._log.info("Server", f"POST /api/v1{path} - 200 OK")
        return await self._forward(child, path, raw, request)

    async def _forward(self, child: SimChild, path: str, raw: bytes, request: Request) -> Response:
        target = "/inference" if child.model.recipe == "whispercpp" else f"/v1{path}"
        client = httpx.AsyncClient(trust_env=False, timeout=None)
        headers = {"Content-Type": request.headers.get("content-type", "application/json")}
        for name in ("x-request-id",):
            if name in request.headers:
                headers[name] = request.headers[name]
        outgoing = client.build_request(
            "POST", f"http://127.0.0.1:{child.port}{target}", content=raw, headers=headers
        )
        child.requests += 1
        try:
            answer = await client.send(outgoing, stream=True)
        except httpx.HTTPError:
            child.requests -= 1
            await client.aclose()
            message = "Network error: CURL error: Couldn't connect to server"
            return JSONResponse({"error": {"message": message, "type": "network_error"}}, 500)

        async def body() -> AsyncIterator[bytes]:
            try:
                async for chunk in answer.aiter_raw():
                    yield chunk
            except httpx.HTTPError:
                yield b"data: [DONE]\n\n"  # lemond <= 10.7 ends a cut stream as if it were whole
            finally:
                child.requests -= 1
                await client.aclose()

        return StreamingResponse(body(), answer.status_code, media_type=answer.headers.get("content-type"))

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


def _model_of(raw: bytes, content_type: str) -> str | None:
    if content_type.startswith("multipart/"):
        _, found, rest = raw.partition(b'name="model"')
        return rest.partition(b"\r\n\r\n")[2].partition(b"\r\n")[0].decode() if found else None
    try:
        name = json.loads(raw).get("model")
    except (ValueError, AttributeError):
        return None
    return name if isinstance(name, str) else None


def _model_error(status: int, code: str, message: str, name: str) -> JSONResponse:
    error = {"code": code, "message": message, "param": "model", "requested_model": name, "type": code}
    return JSONResponse({"error": error}, status)
