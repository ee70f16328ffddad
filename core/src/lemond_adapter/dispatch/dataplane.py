"""`/v1/*`: decides at dispatch time where a request goes, and answers what cannot go anywhere."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

from starlette.types import Receive, Scope, Send

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.dispatch.envelope import Refusal, refusal_for
from lemond_adapter.dispatch.peek import BodyProblem, BodyTooLarge, Peeked, peek, replace_model
from lemond_adapter.dispatch.relay import ClientGone, NotReady, Outgoing, Relay, request_headers
from lemond_adapter.dispatch.traffic import Flight, Traffic
from lemond_adapter.dispatch.upstream import Cut, NotReached, PortValidator, Upstream
from lemond_adapter.types import LemondError, RouteInfo, SlotSpec

log = logging.getLogger(__name__)

MAX_BODY = 100 * 1024 * 1024
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,5})(?:$|[,;\s])")

POSTS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/reranking",
        "/v1/responses",
        "/v1/messages",
    }
)
POST_PREFIXES = ("/v1/audio/", "/v1/images/")


class DataPlane:
    """An ASGI application for the inference paths. `default_hold_s` as in the policy."""

    def __init__(self, adapter: LemondAdapter, *, default_hold_s: float = 0.0) -> None:
        self._adapter = adapter
        self._hold_s = default_hold_s
        self._relay = Relay(PortValidator(adapter.truth.witness.processes.alive))
        self.traffic = Traffic()

    @staticmethod
    def speaks(path: str) -> bool:
        """Whether a path is one of ours."""
        return path in POSTS or path.startswith(POST_PREFIXES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        flight = self.traffic.begin(scope["path"])
        try:
            body = await _read(receive)
            content_type = _header(scope, b"content-type") or "application/json"
            peeked = peek(body, content_type)
        except ClientGone:
            self.traffic.end(flight, "client_gone")
            return
        except BodyTooLarge as problem:
            await self._refuse(send, flight, Refusal(413, "request.too_large", str(problem)))
            return
        except BodyProblem as problem:
            await self._refuse(send, flight, Refusal(400, "request.invalid", str(problem)))
            return
        flight.streamed = peeked.stream
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await self._dispatch(scope, send, gone, body, content_type, peeked, flight)
        except ClientGone:
            self.traffic.end(flight, "client_gone")
        finally:
            gone.cancel()

    async def _dispatch(
        self,
        scope: Scope,
        send: Send,
        gone: asyncio.Future[Any],
        body: bytes,
        content_type: str,
        peeked: Peeked,
        flight: Flight,
    ) -> None:
        adapter = self._adapter
        slot, model = adapter.resolve(peeked.model)
        flight.slot = slot.name if slot else None
        flight.model = model if slot or adapter.truth.ledger.records.get(model) else None
        headers: list[tuple[bytes, bytes]] = []
        try:
            route = adapter.route_now(peeked.model)
            if route is None:
                route = await self._hold(scope, slot, model, peeked.model, headers)
                flight.held_s = self.traffic.clock() - flight.began
            flight.model = route.model
            with adapter.leases.hold(route.model):
                upstream = await self._connect(scope["path"], slot, route)
                request = self._outgoing(scope, upstream.route, body, content_type, peeked.model)
                await self._relay.forward(upstream, request, send, gone, _aborter(scope), flight)
            self.traffic.end(flight, "interrupted" if flight.outcome else "served", flight.status)
        except NotReady as error:
            log.info("%s: not ready: %s", model, error)
            adapter.truth.relist()
            await self._refuse(send, flight, refusal_for(adapter.loading(slot, model)), headers)
        except Cut as error:
            log.info("%s: lost before it answered: %s", model, error)
            adapter.truth.relist()
            refusal = refusal_for(adapter.loading(slot, model), interrupted=True)
            await self._refuse(send, flight, refusal, headers)
        except LemondError as error:
            await self._refuse(send, flight, refusal_for(error, upstream=adapter.address.url), headers)

    async def _hold(
        self,
        scope: Scope,
        slot: SlotSpec | None,
        model: str,
        name: str,
        headers: list[tuple[bytes, bytes]],
    ) -> RouteInfo:
        """No route now: starts what will make one, and waits for it only where that was agreed."""
        error = await self._adapter.refusal(name, slot, model)
        asked = _PREFER_WAIT.search(_header(scope, b"prefer") or "")
        default = slot.hold_s if slot is not None and slot.hold_s is not None else self._hold_s
        hold_s = float(asked.group(1)) if asked else default
        wait = getattr(error, "retry_after_s", None)
        if error.code != "slot.loading" or hold_s <= 0 or wait is None or wait > hold_s:
            raise error
        if asked:
            headers.append((b"preference-applied", b"wait=" + asked.group(1).encode()))
        route = await self._adapter.wait_for_route(model, hold_s)
        if route is None:
            raise await self._adapter.refusal(name, slot, model)
        return route

    async def _connect(self, path: str, slot: SlotSpec | None, route: RouteInfo) -> Upstream:
        """A proven connection: on the route, or once more on a fresh one if that has changed."""
        target = self._target(path, route)
        try:
            return await self._relay.connect(target)
        except NotReached as first:
            log.info("%s: %s", route.model, first)
            self._adapter.truth.relist()
            fresh = self._adapter.truth.ledger.routes.get(route.model)
            if fresh is None or fresh.generation == route.generation:
                raise await self._adapter.refusal(route.model, slot, route.model) from first
        try:
            return await self._relay.connect(self._target(path, fresh))
        except NotReached as second:
            raise await self._adapter.refusal(route.model, slot, route.model) from second

    def _target(self, path: str, route: RouteInfo) -> RouteInfo:
        """The child itself where it speaks the path, lemond where only lemond does."""
        driver = self._adapter.driver
        record = self._adapter.truth.ledger.record(route.model)
        recipe = record.entry.recipe if record.entry else "llamacpp"
        if route.mode == "gateway" or driver is None or driver.mode_for(recipe, path) == "child":
            return route
        address = self._adapter.address
        return RouteInfo(
            slot=route.slot,
            model=route.model,
            base_url=address.url,
            port=address.port,
            pid=None,
            mode="gateway",
            generation=route.generation,
            verified_at=route.verified_at,
        )

    def _outgoing(
        self, scope: Scope, route: RouteInfo, body: bytes, content_type: str, asked: str
    ) -> Outgoing:
        driver = self._adapter.driver
        path, model = scope["path"], route.model
        if route.mode == "gateway":
            target = driver.gateway_path(path) if driver else path
            name: str | None = model
        else:
            target = path
            entry = self._adapter.truth.ledger.record(model).entry
            recipe, checkpoint = (entry.recipe, entry.checkpoint) if entry else ("llamacpp", None)
            name = driver.child_model_name(recipe, model, checkpoint) if driver else None
        if name is not None and name != asked:
            body = replace_model(body, content_type, name)
        query = scope.get("query_string", b"").decode("latin-1")
        headers = request_headers(scope["headers"], route, len(body), self._adapter.api_key)
        full = f"{target}?{query}" if query else target
        return Outgoing(scope["method"], full, headers, body, model)

    async def _refuse(
        self,
        send: Send,
        flight: Flight,
        refusal: Refusal,
        more: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        flight.retry_after_s = refusal.retry_after_s
        self.traffic.end(flight, refusal.code, refusal.status)
        body = refusal.body()
        headers = [*refusal.headers(), *(more or []), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            raise BodyTooLarge(f"the body is larger than {MAX_BODY} bytes")
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


def _aborter(scope: Scope) -> Any:
    """Closes the client's connection after what was sent; an answer cut short must not look whole."""
    transport = scope.get("lemond_adapter.transport")

    def abort() -> None:
        if transport is not None:
            transport.close()

    return abort
