"""An event loop whose clock jumps to the next thing that is due, and a tiny lemond that lives on it."""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from lemond_adapter.acting.actor import Actor
from lemond_adapter.acting.history import LoadHistory
from lemond_adapter.acting.leases import Leases
from lemond_adapter.acting.policy import Policy
from lemond_adapter.drivers import HealthListing
from lemond_adapter.truth.control import CatalogueEntry
from lemond_adapter.truth.hints import Hint, HintKind
from lemond_adapter.truth.hub import EventHub
from lemond_adapter.truth.ledger import Ledger
from lemond_adapter.truth.record import Ending
from lemond_adapter.types import LoadedModel, LoadError, Resynced, RouteInfo, SlotEvent, SlotMap

T = TypeVar("T")


class _Jump(selectors.SelectSelector):
    """Never waits: what would be waited for has come when the clock has jumped."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("nothing is due, and nobody will ever do anything again")
        self.loop.moment += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual; a year passes in no time."""

    def __init__(self) -> None:
        self.moment = 1000.0
        selector = _Jump()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.moment


def run_virtually(main: Callable[[], Awaitable[T]]) -> T:
    """Runs to its end on a loop of its own."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main())  # type: ignore[arg-type]
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class TinyLemond:
    """lemond's rules that matter to a policy: one load at a time, LRU per type, cascades."""

    LOAD_S, UNLOAD_S = 2.0, 2.1

    def __init__(self, limit: int, types: Mapping[str, str]) -> None:
        self.limit = limit
        self.types = dict(types)
        self.table: dict[str, LoadedModel] = {}
        self.dead: set[int] = set()
        self.broken: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.hint: Callable[[Hint], None] = lambda hint: None
        self.before_eviction: Callable[[str, str], None] = lambda model, why: None
        self._turn = asyncio.Lock()
        self._next = 100
        self.loading = self.most_loading = 0

    # As LemondClient.

    async def load(self, model: str, options: Mapping[str, Any] | None = None) -> None:
        self.calls["load"] += 1
        self.loading += 1
        self.most_loading = max(self.most_loading, self.loading)
        try:
            async with self._turn:
                await self._load(model)
        finally:
            self.loading -= 1

    async def _load(self, model: str) -> None:
        there = self.table.get(model)
        if there is not None:
            return  # also when its process is dead, as lemond <= 10.7 does
        same = [name for name in self.table if self.types[name] == self.types[model]]
        if len(same) >= self.limit:
            await self._evict(min(same, key=lambda name: self.table[name].last_use or 0), "lru")
        self.hint(Hint(HintKind.STARTING, model))
        await asyncio.sleep(self.LOAD_S)
        if model in self.broken:
            for name in list(self.table):
                await self._evict(name, "load_failure_cascade")
            await asyncio.sleep(self.LOAD_S)
            self.hint(Hint(HintKind.FAILED, model, text="it would not start", failure="backend_exit"))
            raise LoadError("it would not start", status_code=500, kind="backend_exit")
        self._next += 1
        port = 8001
        while any(entry.port == port for entry in self.table.values()):
            port += 1
        self.table[model] = LoadedModel(
            model=model,
            base_url=f"http://127.0.0.1:{port}",
            port=port,
            pid=self._next,
            type=self.types[model],
            last_use=float(self._next),
        )
        self.hint(Hint(HintKind.LOADED, model, pid=self._next))

    async def unload(self, model: str) -> bool:
        self.calls["unload"] += 1
        async with self._turn:
            if model not in self.table:
                return False
            await self._evict(model, "manual")
            return True

    async def _evict(self, model: str, why: str) -> None:
        self.before_eviction(model, why)
        self.hint(Hint(HintKind.EVICTING, model, reason=why))  # type: ignore[arg-type]
        self.dead.add(self.table[model].pid or 0)
        await asyncio.sleep(self.UNLOAD_S)
        self.table.pop(model, None)
        self.hint(Hint(HintKind.EVICTED, model, reason=why))  # type: ignore[arg-type]

    async def catalogue(self) -> tuple[CatalogueEntry, ...]:
        self.calls["catalogue"] += 1
        label = {"embedding": ["embeddings"], "reranking": ["reranking"]}
        return tuple(
            CatalogueEntry(name, None, {"labels": label.get(kind, [])}) for name, kind in self.types.items()
        )

    def listing(self) -> HealthListing:
        limits = dict.fromkeys({"llm", "embedding", "reranking"}, self.limit)
        return HealthListing("10.7.0", tuple(self.table.values()), max_models=limits)


class TinyTruth:
    """A truth over it: the real ledger and hub, listings without a network."""

    driver = None
    reachable = True
    unknown_why = None

    def __init__(self, lemond: TinyLemond) -> None:
        self._lemond = lemond
        loop = asyncio.get_running_loop()
        self.hub = EventHub(ring=100)
        self.ledger = Ledger(clock=loop.time, alive=self.alive, make_route=_route)
        self.ledger.log_attached = True
        self.listing = lemond.listing()
        self.loads_for_us: Callable[[str], bool] = lambda model: False
        self._busy: asyncio.Task[None] | None = None
        self._again = False
        lemond.hint = lambda hint: self.publish(self.ledger.hint(hint))

        class Address:
            url = "http://127.0.0.1:13305"

        self.address = Address()

    def alive(self, entry: LoadedModel) -> bool | None:
        return entry.pid not in self._lemond.dead

    def publish(self, events: list[SlotEvent]) -> None:
        for event in events:
            self.hub.publish(event)
        if self.ledger.wants_listing:
            self.relist()

    def relist(self) -> None:
        if self._busy is None or self._busy.done():
            self._busy = asyncio.get_running_loop().create_task(self._list())
        else:
            self._again = True

    async def relisted(self, timeout_s: float) -> bool:
        self.relist()
        assert self._busy is not None
        await asyncio.wait({self._busy}, timeout=timeout_s)
        return self._busy.done()

    async def _list(self) -> None:
        while True:
            self._again = False
            token = self.ledger.begin_listing()
            await asyncio.sleep(0.01)
            self.listing = self._lemond.listing()
            self.publish(self.ledger.apply_listing(self.listing, token))
            if not self._again and not self.ledger.wants_listing:
                return
            await asyncio.sleep(0.2)

    def kill(self, model: str) -> None:
        """kill -9 of its process."""
        pid = self._lemond.table[model].pid
        if pid is not None and pid not in self._lemond.dead:
            self._lemond.dead.add(pid)
            self.publish(self.ledger.process_ended(pid, Ending("signal 9 (SIGKILL)", graceful=False)))

    def restarted(self) -> None:
        """lemond is a new process: nothing is loaded."""
        self._lemond.dead |= {entry.pid for entry in self._lemond.table.values() if entry.pid}
        self._lemond.table.clear()
        self.ledger.lemond_restarted()
        self.publish(self.ledger.apply_listing(self._lemond.listing(), self.ledger.begin_listing()))
        self.hub.publish(Resynced(reason="restart"))


def _route(entry: LoadedModel, generation: int) -> RouteInfo:
    from datetime import UTC, datetime

    assert entry.base_url is not None
    assert entry.port is not None
    return RouteInfo(
        slot=None,
        model=entry.model,
        base_url=entry.base_url,
        port=entry.port,
        pid=entry.pid,
        mode="child",
        generation=generation,
        verified_at=datetime.now(UTC),
    )


class World:
    """The real actor over the tiny lemond."""

    def __init__(self, lemond: TinyLemond, policy: Policy, slots: SlotMap | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.lemond = lemond
        self.truth = TinyTruth(lemond)
        self.leases = Leases(now=loop.time, clock=loop.time)
        self.events: list[SlotEvent] = []
        self.actor = Actor(
            lemond,  # type: ignore[arg-type]
            self.truth,  # type: ignore[arg-type]
            self.leases,
            LoadHistory(),
            slots=lambda: slots or SlotMap(),
            public_name=lambda name: name,
            policy=policy,
        )
        self.actor.start()

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.actor.close()
        if self.truth._busy is not None:
            self.truth._busy.cancel()
            await asyncio.gather(self.truth._busy, return_exceptions=True)

    async def ask(self, model: str, seconds: float) -> bool:
        """One request: answered after `seconds` by the model's process, or refused."""
        route = self.truth.ledger.routes.get(model)
        if route is None:
            await self.actor.answers.refusal(model, None, model)
            return False
        with self.leases.hold(model):
            await asyncio.sleep(seconds)
        self.actor.served(model)
        return True
