"""Inference through lemond's own port: loads by itself what is missing, then forwards to the child."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from lemond_adapter.simulator import lines
from lemond_adapter.simulator.children import SimChild
from lemond_adapter.simulator.daemon import Daemon
from lemond_adapter.simulator.models import SimModel
from lemond_adapter.simulator.router import LoadFailed

if TYPE_CHECKING:
    import httpx  # imported where it is used: half of the start-up time otherwise

_LLM_ONLY = ("/chat/completions", "/completions", "/responses", "/messages")
_UNREACHABLE = "CURL error: Couldn't connect to server"
_CUT = "CURL error: Transferred a partial file"


class Gateway:
    """The inference handlers."""

    def __init__(self, daemon: Daemon) -> None:
        self._router = daemon.router
        self._log = daemon.log

    async def infer(self, request: Request) -> Response:
        """Any inference endpoint."""
        raw = await request.body()
        body = _fields(raw, request.headers.get("content-type", ""))
        path = request.url.path.partition("/v1")[2] or request.url.path.partition("/v0")[2]
        name = body.get("model")
        if name is None and self._router.table:
            name = max(self._router.table, key=lambda child: child.last_use).model.public
        if name is None:
            return JSONResponse({"error": "No model loaded and no model specified in request"}, 400)
        model = self._router.find(str(name))
        if model is None:
            self._log.error("Server", f"Error 404: POST {request.url.path}")
            return model_error(404, "model_not_found", f"Model '{name}' was not found", str(name))
        if path in _LLM_ONLY and model.type != "llm":
            message = "This model does not support chat completion. Only LLM models support this endpoint."
            return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, 400)
        problem = await self._loaded(model, str(name))
        if problem is not None:
            return problem
        child = self._router.child_of(model)
        if child is None:  # evicted by another load between the two
            error = {"message": f"No model loaded: {name}", "type": "model_not_loaded"}
            return JSONResponse({"error": error}, 500)
        self._router.touch(child)
        streamed = body.get("stream") is True
        self._log.info("Server", f"POST /api/v1{path} - {'Streaming' if streamed else '200 OK'}")
        child.requests += 1
        forward = self._stream if streamed else self._plain
        return await forward(child, path, raw, request)

    async def _loaded(self, model: SimModel, name: str) -> Response | None:
        """Auto-load; an answer when it failed. A child that died counts as loaded: nobody looks."""
        if self._router.child_of(model) is not None:
            self._log.info("Server", f"Model already loaded: {name}")
            return None
        self._log.info("Server", f"Auto-loading model: {name}")
        try:
            await self._router.load(model, {})
        except LoadFailed as error:
            self._log.error("Server", f"Failed to load model: {error}")
            return model_error(500, "model_load_error", f"Failed to load model '{name}': {error}", name)
        self._log.info("Server", f"Model loaded successfully: {name}")
        return None

    async def _plain(self, child: SimChild, path: str, raw: bytes, request: Request) -> Response:
        import httpx

        try:
            async with _client() as client:
                answer = await client.send(_outgoing(client, child, path, raw, request))
        except httpx.HTTPError as problem:
            why = _UNREACHABLE if isinstance(problem, httpx.ConnectError) else _CUT
            error = {"message": f"Network error: {why}", "type": "network_error"}
            self._log.error("Server", f"Backend returned error response: {_compact(error)}")
            self._log.error("Server", f"Error 500: POST {request.url.path}")
            return JSONResponse({"error": error}, 500)
        finally:
            child.requests -= 1
        if answer.status_code >= 400 and path in _LLM_ONLY:
            return _backend_error(child, answer)
        if path in ("/chat/completions", "/completions"):
            lines.telemetry(self._log)
        status = answer.status_code
        if status >= 400 and self._router.profile.masks_embedding_errors:
            status = 200
        return Response(answer.content, status, media_type=answer.headers.get("content-type"))

    async def _stream(self, child: SimChild, path: str, raw: bytes, request: Request) -> Response:
        import httpx

        client = _client()
        try:
            answer = await client.send(_outgoing(client, child, path, raw, request), stream=True)
        except httpx.HTTPError:
            child.requests -= 1
            await client.aclose()
            error = {"error": {"message": _UNREACHABLE, "type": "streaming_error"}}
            return Response(b"data: " + json.dumps(error).encode() + b"\n\n", media_type="text/event-stream")

        async def body() -> AsyncIterator[bytes]:
            try:
                async for chunk in answer.aiter_raw():
                    yield chunk
            except httpx.HTTPError:
                if self._router.profile.fabricates_done:
                    yield b"data: [DONE]\n\n"

        async def over() -> None:
            child.requests -= 1
            self._log.info("Server", "Streaming completed - 200 OK")
            await client.aclose()

        # 200 has been promised before the child was asked; its error body goes into the stream unframed.
        return _Relay(body(), over)


class _Relay(StreamingResponse):
    """A stream that says when it is over, also when the client left before its first byte."""

    def __init__(self, body: AsyncIterator[bytes], over: Callable[[], Awaitable[None]]) -> None:
        super().__init__(body, 200, media_type="text/event-stream")
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._over()


def _compact(body: dict[str, Any]) -> str:
    return json.dumps(body, separators=(",", ":"))


def _client() -> httpx.AsyncClient:
    import httpx

    # Plain HTTP on loopback; loading certificates would cost more than the request.
    return httpx.AsyncClient(trust_env=False, timeout=None, verify=False)


def _outgoing(
    client: httpx.AsyncClient, child: SimChild, path: str, raw: bytes, request: Request
) -> httpx.Request:
    target = "/inference" if child.model.recipe == "whispercpp" else f"/v1{path}"
    kind = request.headers.get("content-type", "application/json")
    headers = {"Content-Type": kind}
    if "x-request-id" in request.headers:
        headers["X-Request-Id"] = request.headers["x-request-id"]
    if child.model.recipe == "flm" and not kind.startswith("multipart/"):
        raw = json.dumps({**json.loads(raw), "model": child.model.checkpoint}).encode()
    return client.build_request(
        "POST", f"http://127.0.0.1:{child.port}{target}", content=raw, headers=headers
    )


def _backend_error(child: SimChild, answer: httpx.Response) -> Response:
    try:
        told = answer.json()
    except ValueError:
        told = {"raw": answer.text}
    inner = told.get("error") if isinstance(told, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else f"{child.model.server} request failed"
    error = {
        "message": message,
        "type": "backend_error",
        "status_code": answer.status_code,
        "details": {"backend": child.model.server, "response": told},
    }
    return JSONResponse({"error": error}, answer.status_code)


def _fields(raw: bytes, content_type: str) -> dict[str, Any]:
    """`model` and whatever else a JSON body has; of a form, `model` alone."""
    if content_type.startswith("multipart/"):
        _, found, rest = raw.partition(b'name="model"')
        value = rest.partition(b"\r\n\r\n")[2].partition(b"\r\n")[0].decode(errors="replace")
        return {"model": value} if found else {}
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def model_error(status: int, code: str, message: str, name: str) -> JSONResponse:
    """lemond's shape for errors about a model."""
    error = {"code": code, "message": message, "param": "model", "requested_model": name, "type": code}
    return JSONResponse({"error": error}, status)
