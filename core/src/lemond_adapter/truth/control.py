"""The one client of lemond's HTTP API. Nothing else in the package sends lemond a control request.

lemond <= 10.10 serves 8 connections at a time and keeps a thread for each idle one, so no
connection is kept. httpx 0.28 loses pool slots when a call is cancelled: calls run in tasks of
their own that no leaving caller cancels; each has its own time limit.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from lemond_adapter.truth.address import LemondAddress
from lemond_adapter.truth.correlator import failure_kind
from lemond_adapter.types import (
    LemondHTTPError,
    LemondTimeout,
    LemondUnavailable,
    LoadError,
    MalformedPayload,
)

T = TypeVar("T")

HEALTH_LIMIT_S = 60.0
"""How long one health call may stay open. lemond's health blocks for 2.1 s in every eviction and for
as long as a victim's requests run (10.5.1-11.7.0), so silence alone proves nothing."""

MAX_BODY = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One model of `/v1/models`: its public name and size in GB, where lemond knows it."""

    model: str
    size_gb: float | None
    raw: Mapping[str, Any]


class LemondClient:
    """Bound to one lemond. `close` waits for calls in flight only as long as `close_s`."""

    def __init__(
        self,
        address: LemondAddress,
        *,
        api_key: str | None = None,
        connect_timeout_s: float = 3.0,
        load_timeout_s: float = 600.0,
    ) -> None:
        self.address = address
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._connect_s = connect_timeout_s
        self._load_s = load_timeout_s
        self._http: httpx.AsyncClient | None = None
        self._calls: set[asyncio.Task[Any]] = set()
        self.requests: Counter[str] = Counter()
        self._recent: deque[float] = deque(maxlen=600)

    def requests_last_minute(self) -> int:
        """Control requests of the last 60 s: the budget in steady state is 4."""
        limit = time.monotonic() - 60.0
        return sum(1 for moment in self._recent if moment >= limit)

    async def health(self) -> dict[str, Any]:
        """The body of `/v1/health`."""
        body = await self._detached(self._call("GET", "/v1/health", HEALTH_LIMIT_S))
        if not isinstance(body, dict):
            raise MalformedPayload(f"/v1/health holds {type(body).__name__} where an object was expected")
        return body

    async def live(self) -> bool:
        """Whether lemond's HTTP server answers at all; instant even while health blocks."""
        try:
            await self._detached(self._call("GET", "/live", 3.0))
        except (LemondUnavailable, LemondTimeout):
            return False
        except (LemondHTTPError, MalformedPayload):
            return True
        return True

    async def load(self, model: str, options: Mapping[str, Any] | None = None) -> None:
        """Loads a model and waits until it is ready. Raises `LoadError` with lemond's reason."""
        body = {**(options or {}), "model_name": model}
        try:
            await self._detached(self._call("POST", "/v1/load", self._load_s, body))
        except LemondHTTPError as error:
            reason = _reason(error.body) or str(error)
            kind = "not_found" if error.status_code == 404 else failure_kind(reason)
            raise LoadError(reason, status_code=error.status_code, body=error.body, kind=kind) from error

    async def unload(self, model: str) -> bool:
        """Unloads one model; False when lemond had not loaded it. Always names the model: lemond takes
        a body without one as "unload everything" (10.5-11.7, measured)."""
        if not model:
            raise ValueError("unload needs a model name")
        try:
            await self._detached(self._call("POST", "/v1/unload", self._load_s, {"model_name": model}))
        except LemondHTTPError as error:
            if error.status_code == 404:
                return False
            raise
        return True

    async def catalogue(self) -> tuple[CatalogueEntry, ...]:
        """The models lemond can serve."""
        body = await self._detached(self._call("GET", "/v1/models", HEALTH_LIMIT_S))
        data = body.get("data") if isinstance(body, dict) else None
        if not isinstance(data, list):
            raise MalformedPayload("/v1/models has no list 'data'")
        entries = []
        for raw in data:
            if isinstance(raw, dict) and isinstance(raw.get("id"), str):
                size = raw.get("size")
                size_gb = (
                    float(size) if isinstance(size, int | float) and not isinstance(size, bool) else None
                )
                entries.append(CatalogueEntry(raw["id"], size_gb, raw))
        return tuple(entries)

    async def object_at(self, path: str) -> dict[str, Any]:
        """The JSON object at any path, for questions that only `doctor` asks."""
        body = await self._detached(self._call("GET", path, 10.0))
        if not isinstance(body, dict):
            raise MalformedPayload(f"{path} holds {type(body).__name__} where an object was expected")
        return body

    async def close(self, close_s: float = 1.0) -> None:
        """Ends the client; calls still open after `close_s` are cut."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=close_s)
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls, timeout=close_s)
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def _detached(self, call: Coroutine[Any, Any, T]) -> T:
        task = asyncio.get_running_loop().create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # seen, also when the caller has left

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            self._http = httpx.AsyncClient(
                base_url=self.address.url,
                headers=self._headers,
                trust_env=False,
                follow_redirects=False,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            )
        return self._http

    async def _call(
        self, method: str, path: str, limit_s: float, body: Mapping[str, Any] | None = None
    ) -> Any:
        self.requests[f"{method} {path}"] += 1
        self._recent.append(time.monotonic())
        what = f"{method} {path} at {self.address.url}"
        timeout = httpx.Timeout(limit_s, connect=self._connect_s, pool=self._connect_s)
        content = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            answer = await self._client().request(
                method, path, content=content, headers=headers, timeout=timeout
            )
        except httpx.PoolTimeout as error:
            self._http = None  # the pool lost its slots (httpx 0.28); start with a fresh one
            raise LemondTimeout(f"{what}: no free connection") from error
        except httpx.ConnectTimeout as error:
            raise LemondUnavailable(f"{what}: no connection within {self._connect_s:g} s") from error
        except httpx.TimeoutException as error:
            raise LemondTimeout(f"{what}: no answer within {limit_s:g} s") from error
        except httpx.HTTPError as error:
            raise LemondUnavailable(f"{what}: {error or type(error).__name__}") from error
        return _read(answer, what)


def _read(answer: httpx.Response, what: str) -> Any:
    if answer.status_code == 401:
        raise LemondHTTPError(
            f"{what}: lemond wants an API key, or another than the one given",
            status_code=401,
            body=answer.text[:2000],
        )
    if answer.status_code >= 400:
        raise LemondHTTPError(
            f"{what}: status {answer.status_code}", status_code=answer.status_code, body=answer.text[:2000]
        )
    kind = answer.headers.get("content-type", "no content type")
    if "json" not in kind.lower():
        raise MalformedPayload(
            f"{what} answered {answer.status_code} with {kind[:60]!r} where JSON was expected: "
            "is this lemond's port, or a web server in front of it?"
        )
    if len(answer.content) > MAX_BODY:
        raise MalformedPayload(f"{what}: a body of {len(answer.content)} bytes")
    try:
        return json.loads(answer.content)
    except ValueError as error:
        raise MalformedPayload(f"{what}: not JSON: {error}") from None


def _reason(body: str) -> str | None:
    """lemond's own words in an error body: `error` is a string or an object with a message."""
    try:
        error = json.loads(body).get("error")
    except (ValueError, AttributeError):
        return body.strip()[:500] or None
    if isinstance(error, dict):
        error = error.get("message")
    return error[:500] if isinstance(error, str) else None
