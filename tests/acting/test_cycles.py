"""The policies over a virtual clock: days of use, every decision by the real code, no invariant broken."""

from __future__ import annotations

import asyncio
import random
import tracemalloc

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lemond_adapter.acting.policy import Policy
from lemond_adapter.types import ModelLoaded, SlotEvent

from .virtual import TinyLemond, World, run_virtually

TYPES = {"a": "llm", "b": "llm", "c": "llm", "e": "embedding", "r": "reranking"}
POLICY = Policy(idle_timeout_s=30.0, drain_timeout_s=20.0, max_restarts=3, restart_backoff_s=0.5)
CYCLES_A_RUN = 500


class Watch:
    """What must never happen."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cycles = 0
        self.broken: list[str] = []
        self.generations: dict[str, int] = {}
        self.ended: set[int | None] = set()
        self.answered = self.gave_up = 0
        world.lemond.before_eviction = self.eviction
        world.truth.hub.observers.append(self.event)

    def eviction(self, model: str, why: str) -> None:
        self.cycles += 1
        pid = self.world.lemond.table[model].pid
        self.ended.add(pid)
        if why == "load_failure_cascade" or pid in self.world.lemond.dead:
            return  # lemond's own doing, or nothing can be in flight any more
        if self.world.leases.held(model):
            self.broken.append(f"{model} was evicted ({why}) with a request in flight")
        if why == "lru":
            self.broken.append(f"lemond had to choose a victim itself: {model}")

    def event(self, event: SlotEvent) -> None:
        if isinstance(event, ModelLoaded) and event.pid in self.ended:
            self.broken.append(f"pid {event.pid} of {event.model} routes again")
        for model, route in self.world.truth.ledger.routes.items():
            if route.generation < self.generations.get(model, 0):
                self.broken.append(f"the generation of {model} fell")
            self.generations[model] = route.generation
            if route.pid in self.world.lemond.dead:
                self.broken.append(f"{model} is routed to pid {route.pid}, which is dead")


async def live(chance: random.Random, cycles: int, *, faults: bool) -> Watch:
    lemond = TinyLemond(limit=chance.choice([1, 2]), types=TYPES)
    async with World(lemond, POLICY) as world:
        watch = Watch(world)
        clients = [asyncio.create_task(client(world, watch, chance)) for _ in range(3)]
        if faults:
            clients.append(asyncio.create_task(trouble(world, chance)))
        for _ in range(60 * 24):
            await asyncio.sleep(60)
            assert not watch.broken, watch.broken[:3]
            if watch.cycles >= cycles:
                break
            assert lemond.most_loading <= 1
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        assert not watch.broken, watch.broken[:3]
        return watch


async def client(world: World, watch: Watch, chance: random.Random) -> None:
    while True:
        model = chance.choice("abcer")
        for _ in range(12):
            if await world.ask(model, chance.choice([0.05, 1.0, 15.0])):
                watch.answered += 1
                break
            await asyncio.sleep(chance.choice([1.0, 4.0]))
        else:
            watch.gave_up += 1
        await asyncio.sleep(chance.choice([0.0, 1.0, 5.0, 40.0, 90.0]))


async def trouble(world: World, chance: random.Random) -> None:
    while True:
        await asyncio.sleep(chance.choice([30.0, 300.0]))
        kind = chance.choice(["kill", "kill", "cascade", "restart"])
        if kind == "kill" and world.truth.ledger.routes:
            world.truth.kill(chance.choice(sorted(world.truth.ledger.routes)))
        elif kind == "cascade":
            world.lemond.types["bad"] = "llm"
            world.lemond.broken.add("bad")
            await world.ask("bad", 1.0)
        elif kind == "restart" and not world.lemond.loading:
            world.truth.restarted()


@given(st.integers(0, 2**32))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
def test_five_thousand_quiet_cycles(seed: int) -> None:
    watch = run_virtually(lambda: live(random.Random(seed), CYCLES_A_RUN, faults=False))
    assert watch.cycles >= CYCLES_A_RUN
    # Nobody starves: with one place for three models a client may have to come a dozen times.
    assert watch.gave_up <= watch.answered * 0.05, (watch.answered, watch.gave_up)


@given(st.integers(0, 2**32))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
def test_five_thousand_cycles_in_trouble(seed: int) -> None:
    watch = run_virtually(lambda: live(random.Random(seed), CYCLES_A_RUN, faults=True))
    assert watch.cycles >= CYCLES_A_RUN


def test_memory_is_flat() -> None:
    async def measure() -> tuple[int, int]:
        chance = random.Random(7)
        lemond = TinyLemond(limit=1, types=TYPES)
        async with World(lemond, POLICY) as world:
            watch = Watch(world)
            clients = [asyncio.create_task(client(world, watch, chance)) for _ in range(3)]
            sizes = []
            for minutes in (120, 240):
                for _ in range(minutes):
                    await asyncio.sleep(60)
                watch.ended.clear()
                lemond.dead.clear()
                world.actor.notes.recent.clear()  # bounded, and not full yet
                sizes.append(tracemalloc.get_traced_memory()[0])
            for task in clients:
                task.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
            return sizes[0], sizes[1]

    tracemalloc.start()
    try:
        early, late = run_virtually(measure)
    finally:
        tracemalloc.stop()
    assert late - early < 300_000
