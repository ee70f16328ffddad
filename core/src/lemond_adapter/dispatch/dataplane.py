"""`/v1/*`: what every exchange needs of the adapter, and what all of them share."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.dispatch.gate import Gate
from lemond_adapter.dispatch.idempotency import Answers
from lemond_adapter.dispatch.outbox import Outbox
from lemond_adapter.dispatch.traffic import Traffic
from lemond_adapter.dispatch.upstream import Pools
from lemond_adapter.types import LemondError, RouteInfo, SlotLoading, SlotSpec

if TYPE_CHECKING:
    from lemond_adapter.dispatch.connection import ClientConnection
    from lemond_adapter.dispatch.exchange import Exchange

MAX_BODY = 100 * 1024 * 1024
_PREFER_WAIT = re.compile(rb"(?:^|[,;\s])wait=(\d{1,5})(?:$|[,;\s])")
_PLAIN_PATH = re.compile(r"/v1(?:/[A-Za-z0-9_-]+)+")
_AIMS = 1024
SWEEP_S = 1.0
MAX_HOLD_S = 600.0
MAX_WAITING_FOR_ONE = 64
MAX_CONNECTIONS = 10_000
MAX_BUFFERED = 512 * 1024 * 1024

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


@dataclass(frozen=True, slots=True)
class Aim:
    """Where requests for one path go on one route: the child itself where it speaks the path, lemond
    where only lemond does. `rename` is what the receiver must see as `model`; None where any name does."""

    source: RouteInfo
    route: RouteInfo
    begin: bytes
    """The request line up to the query."""
    rename: str | None
    gateway: bool
    host: bytes
    """What follows the target: the request line's end, and the Host line."""
    end: bytes
    """The last lines of a request's head."""


def _host_line(url: str) -> bytes:
    return b" HTTP/1.1\r\nHost: " + url.partition("//")[2].encode() + b"\r\n"


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the waiting room and the stored answers, as in the policy. Durations in seconds."""

    max_waiting: int = 256
    idempotency_ttl_s: float = 600.0


class DataPlane:
    """One per service; to be made in the running loop."""

    def __init__(
        self, adapter: LemondAdapter, limits: Limits | None = None, *, api_key: str | None = None
    ) -> None:
        self._adapter = adapter
        self._limits = limits or Limits()
        self._gates: dict[str, Gate[Exchange]] = {}
        self.waiting: Counter[str] = Counter()
        """Requests that are held until their model has a route."""
        self._key = api_key.encode() if api_key else None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._aims: dict[tuple[str, str], Aim] = {}
        self._ids = itertools.count(1)
        self._boot = os.urandom(6).hex()
        self._connections: set[ClientConnection] = set()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        self.max_body = MAX_BODY
        self.buffered = 0
        """Bytes of bodies that are not complete yet, over all clients."""
        self.leases = adapter.leases
        self.outbox = Outbox(asyncio.get_running_loop())
        self.traffic = Traffic()
        self.answers = Answers(self._limits.idempotency_ttl_s, self.traffic.clock)
        self.pools = Pools(adapter.truth.witness.processes.alive)

    # Its clients.

    def enter(self, connection: ClientConnection) -> bool:
        """A client has connected; False when there are too many."""
        self._connections.add(connection)
        return len(self._connections) <= MAX_CONNECTIONS

    def leave(self, connection: ClientConnection) -> None:
        """It has gone."""
        self._connections.discard(connection)

    def may_buffer(self, size: int) -> bool:
        """Whether `size` more bytes may be kept; they are counted then, in `buffered`."""
        if self.buffered + size > MAX_BUFFERED:
            return False
        self.buffered += size
        return True

    def _sweep(self) -> None:
        """One timer for all time limits: a timer for each request would cost more than the check."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [c for c in self._connections if 0.0 < c.deadline < now]:
            connection.expire()
        self.pools.sweep()
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)

    @staticmethod
    def speaks(path: str) -> bool:
        """Whether a path is one of ours. Nothing that a server could read as another path is."""
        return path in POSTS or (path.startswith(POST_PREFIXES) and _PLAIN_PATH.fullmatch(path) is not None)

    @property
    def has_key(self) -> bool:
        """Whether clients need a key."""
        return self._key is not None

    def admits(self, given: bytes) -> bool:
        """Whether a client's key is the right one; every key is where none is set."""
        return self._key is None or hmac.compare_digest(given, self._key)

    def new_id(self) -> str:
        """A request id of ours: unique, and cheap."""
        return f"{self._boot}-{next(self._ids):x}"

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that is kept until it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # What the adapter knows.

    @property
    def lemond_url(self) -> str:
        """For what a refusal tells."""
        return self._adapter.address.url

    def resolve(self, name: str) -> tuple[SlotSpec | None, str]:
        """The slot (if any) and the model that a client's name stands for."""
        return self._adapter.resolve(name)

    def route_now(self, name: str) -> RouteInfo | None:
        """The route as it stands."""
        return self._adapter.route_now(name)

    def label(self, slot: SlotSpec | None, model: str) -> str | None:
        """The model's name where it is one that lemond or a slot knows: never what a client made up."""
        return model if slot or self._adapter.truth.ledger.records.get(model) else None

    def loading(self, slot: SlotSpec | None, model: str) -> SlotLoading:
        """The error that says how long to wait."""
        return self._adapter.loading(slot, model)

    def relist(self) -> None:
        """Something was not as the listing says."""
        self._adapter.truth.relist()

    def lives(self, route: RouteInfo) -> bool:
        """Whether the route's process lives, as far as that can be seen."""
        return route.pid is None or self._adapter.truth.witness.processes.alive(route.pid) is True

    def fresh_route(self, old: RouteInfo) -> RouteInfo | None:
        """Another route for the same model than the one that was not reached."""
        self._adapter.truth.relist()
        fresh = self._adapter.truth.ledger.routes.get(old.model)
        return None if fresh is None or fresh.generation == old.generation else fresh

    async def refusal(self, name: str, slot: SlotSpec | None) -> LemondError:
        """Why there is no route now. A client's leaving does not cancel a question to lemond."""
        _, model = self._adapter.resolve(name)
        task = asyncio.ensure_future(self._adapter.refusal(name, slot, model))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def hold(
        self,
        name: str,
        slot: SlotSpec | None,
        prefer: bytes | None,
        held: Callable[[bytes | None], None],
    ) -> RouteInfo:
        """No route now: starts what will make one, and waits for it only where that was agreed. `held`
        is called when the waiting begins, with what the client asked for. Raises why there is none."""
        _, model = self._adapter.resolve(name)
        error = await self.refusal(name, slot)
        found = _PREFER_WAIT.search(prefer or b"")
        asked = found.group(1) if found else None
        default = slot.hold_s if slot is not None and slot.hold_s is not None else self._adapter.policy.hold_s
        hold_s = min(float(asked), MAX_HOLD_S) if asked else default
        wait = getattr(error, "retry_after_s", None)
        if error.code != "slot.loading" or hold_s <= 0 or wait is None or wait > hold_s:
            raise error
        most = slot.max_queue if slot is not None else MAX_WAITING_FOR_ONE
        if self.waiting.total() >= self._limits.max_waiting or self.waiting[model] >= most:
            raise error
        held(asked)
        self.waiting[model] += 1
        try:
            route = await self._adapter.wait_for_route(model, hold_s)
        finally:
            self.waiting[model] -= 1
            if not self.waiting[model]:
                del self.waiting[model]
        if route is None:
            raise await self.refusal(name, slot)
        return route

    def gate(self, slot: SlotSpec) -> Gate[Exchange]:
        """What counts a slot's requests; its limits as they are configured now."""
        gate = self._gates.get(slot.name)
        if gate is None:
            gate = self._gates[slot.name] = Gate(self.traffic.clock, lambda exchange: exchange.admitted())
        gate.limit, gate.max_queue = slot.max_in_flight, slot.max_queue
        return gate

    def later(self, delay_s: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        """A timer."""
        return asyncio.get_running_loop().call_later(delay_s, act)

    def report(self) -> dict[str, Any]:
        """For `status`: what is open, and what waits for what."""
        return {
            "client_connections": len(self._connections),
            "child_connections": {"open": self.pools.open(), "idle": self.pools.idle()},
            "connects": self.pools.connects,
            "refused_identities": self.pools.refused_identities,
            "held": dict(self.waiting),
            "queued": {name: gate.queued for name, gate in self._gates.items() if gate.queued},
            "stored_answers": len(self.answers),
        }

    # Where requests go.

    def aim(self, path: str, route: RouteInfo) -> Aim:
        """Where requests for a path on a route go."""
        aim = self._aims.get((path, route.model))
        if aim is None or aim.source is not route:
            if len(self._aims) >= _AIMS:
                self._aims.clear()
            aim = self._aims[path, route.model] = self._take_aim(path, route)
        return aim

    def _take_aim(self, path: str, route: RouteInfo) -> Aim:
        driver, address = self._adapter.driver, self._adapter.address
        recipe, checkpoint = self._served_by(route.model)
        gateway = route.mode == "gateway"
        if not gateway and driver is not None and driver.mode_for(recipe, path) != "child":
            gateway = True
        if not gateway:
            rename = driver.child_model_name(recipe, route.model, checkpoint) if driver else None
            host = _host_line(route.base_url)
            return Aim(route, route, b"POST " + path.encode(), rename, False, host, b"\r\n")
        target = driver.gateway_path(path) if driver else path
        towards = replace(route, base_url=address.url, port=address.port, pid=None, mode="gateway")
        # lemond has few threads, and an idle connection would hold one of them.
        end = b"Connection: close\r\n\r\n"
        if self._adapter.api_key:
            end = b"Authorization: Bearer " + self._adapter.api_key.encode() + b"\r\n" + end
        return Aim(
            route, towards, b"POST " + target.encode(), route.model, True, _host_line(address.url), end
        )

    def _served_by(self, model: str) -> tuple[str, str | None]:
        """Recipe and checkpoint of what serves a model."""
        entry = self._adapter.truth.ledger.record(model).entry
        return (entry.recipe, entry.checkpoint) if entry else ("llamacpp", None)

    async def close(self) -> None:
        """Ends what is left."""
        self._sweeper.cancel()
        for connection in list(self._connections):
            connection.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.pools.close()
