"""What lemond's router does: one load at a time, LRU per type, cascades, children it never asks after."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any, NoReturn

from lemond_adapter.simulator import lines
from lemond_adapter.simulator.children import (
    ChildAbandoned,
    ChildFailed,
    SimChild,
    free_port,
    start_child,
    stop_child,
    wait_ready,
)
from lemond_adapter.simulator.logs import LogHub
from lemond_adapter.simulator.models import SimModel
from lemond_adapter.simulator.profile import ReleaseProfile

_DEFAULTS: dict[str, dict[str, Any]] = {
    "llamacpp": {"ctx_size": 4096, "llamacpp_backend": "cpu"},
    "flm": {"ctx_size": 4096},
    "whispercpp": {"whispercpp_backend": "cpu"},
}
_OPTION_KEYS: dict[str, tuple[str, ...]] = {
    "llamacpp": ("ctx_size", "llamacpp_backend", "llamacpp_args", "llamacpp_device", "merge_args"),
    "flm": ("ctx_size", "flm_args"),
    "whispercpp": ("whispercpp_backend", "whispercpp_args"),
}


def resolve_options(model: SimModel, asked: dict[str, Any]) -> dict[str, Any]:
    """What the load call asks for, over the recipe's defaults; what it omits is the default again."""
    keys = _OPTION_KEYS.get(model.recipe, ())
    return {**_DEFAULTS.get(model.recipe, {}), **{key: asked[key] for key in keys if key in asked}}


_STARTING = "Starting backend (this may take a moment)..."
_RETRYING = "Retrying backend load..."


class LoadFailed(Exception):
    """A load ended without a model; the text is what lemond says."""


class Router:
    """The table of loaded models. `mutex` is lemond's load mutex: health needs it too."""

    def __init__(
        self,
        profile: ReleaseProfile,
        models: tuple[SimModel, ...],
        log: LogHub,
        *,
        scale: float,
        max_loaded: int,
        port_base: int,
        load_s: float,
    ) -> None:
        self.profile = profile
        self.log = log
        self.scale = scale
        self.max_loaded = max_loaded
        # Base 0: somewhere below the ephemeral ports, so that simulators keep out of each other's way.
        self._port_base = port_base or random.randrange(20_000, 31_000)
        self._load_s = load_s
        self.models = {model.public: model for model in models}
        self._by_canonical = {model.canonical: model for model in models}
        self.table: list[SimChild] = []
        self.mutex = asyncio.Lock()
        self._loading = False
        self._waiters: list[asyncio.Future[None]] = []
        self._starting: SimChild | None = None
        self._generation = 0
        self._clock = int(time.monotonic() * 1000)
        self.loads: Counter[str] = Counter()
        self.failures: dict[str, list[str]] = {}
        self.avoid_ports: set[int] = set()
        self.next_port: int | None = None

    def find(self, name: str) -> SimModel | None:
        """By public or canonical name."""
        return self.models.get(name) or self._by_canonical.get(name)

    def child_of(self, model: SimModel) -> SimChild | None:
        """Its entry in the table, dead or alive."""
        return next((child for child in self.table if child.model is model), None)

    def touch(self, child: SimChild) -> None:
        """A request or load began with it."""
        self._clock = max(self._clock + 1, int(time.monotonic() * 1000))
        child.last_use = self._clock

    async def load(self, model: SimModel, asked: dict[str, Any]) -> None:
        """Raises `LoadFailed`."""
        options = resolve_options(model, asked)
        generation = self._generation
        lines.asked(self.log, model, options, checked=False)
        async with self.mutex:
            while self._loading:
                self.log.info("Router", "Another load is in progress, waiting...")
                await self._wait_turn()
            self._check(model, generation)
            lines.asked(self.log, model, options, checked=True)
            loaded = self.child_of(model)
            if loaded is not None and loaded.options == options:
                self.log.info("Router", self.profile.already_loaded_line)
                self.touch(loaded)
                return
            if loaded is not None:
                self.log.info("Router", f"Options changed, reloading model: {model.canonical}")
                await self._evict(loaded)
            await self._make_room(model)
            self._check(model, generation)
            self._loading = True
        try:
            await self._load(model, options)
        finally:
            # After a restart `_loading` belongs to the new lemond.
            if generation == self._generation:
                self._loading = False
                self._wake_all()

    def _check(self, model: SimModel, generation: int) -> None:
        """Nothing that one lemond began goes on in the next."""
        if generation != self._generation:
            raise ChildAbandoned(model.public)

    async def _wait_turn(self) -> None:
        """As a wait on a condition variable: the mutex is free meanwhile."""
        turn = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        self.mutex.release()
        try:
            await turn
        finally:
            await self.mutex.acquire()

    def _wake_all(self) -> None:
        """Waiters come in no particular order, as after lemond's notify_all."""
        waiters, self._waiters = self._waiters, []
        random.shuffle(waiters)
        for turn in waiters:
            if not turn.done():
                turn.set_result(None)

    async def _make_room(self, model: SimModel) -> None:
        same = [child for child in self.table if child.model.type == model.type]
        while self.max_loaded > 0 and len(same) >= self.max_loaded:
            victim = min(same, key=lambda child: child.last_use)
            line = self.profile.lru_line.format(type=model.type, name=victim.model.canonical)
            self.log.info("Router", line)
            await self._evict(victim)
            same.remove(victim)

    async def _load(self, model: SimModel, options: dict[str, Any]) -> None:
        try:
            child = await self._attempt(model, options)
        except ChildFailed as first:
            self.log.error("Router", f"Backend load failed: {first}")
            if any(word in str(first) for word in ("not found", "does not exist", "No such file")):
                self.log.error("Router", "File not found error, NOT evicting other models")
                self._failed(model, first)
            self.log.write(
                "Warn",
                "Router",
                "Load failed with non-file-not-found error, evicting all models and retrying...",
            )
            generation = self._generation
            async with self.mutex:
                await self._evict_all()
            self._check(model, generation)
            try:
                child = await self._attempt(model, options, again=True)
            except ChildFailed as second:
                self.log.error("Router", f"Retry also failed: {second}")
                self._failed(model, second)
            self._add(child)
            # The first attempt's object goes only now, and says so: not an unload.
            self.log.info(model.tag, "Unloading model...")
            self.log.debug("Router", "Retry successful!")
            return
        self._add(child)
        self.log.info("Router", f"Model loaded successfully. Total loaded: {len(self.table)}")

    def _add(self, child: SimChild) -> None:
        self.touch(child)
        self.table.append(child)
        self.loads[child.model.public] += 1

    def _failed(self, model: SimModel, error: ChildFailed) -> NoReturn:
        self.log.info(model.tag, "Unloading model...")
        self.log.info(model.tag, "Unloading model...")
        self.log.error("Router", f"Failed to load model: {error}")
        raise LoadFailed(str(error))

    async def _attempt(self, model: SimModel, options: dict[str, Any], *, again: bool = False) -> SimChild:
        log, generation = self.log, self._generation
        log.debug("Router", f"Creating {model.tag} backend")
        log.debug("Router", _RETRYING if again else _STARTING)
        log.info(model.tag, f"Loading model: {model.canonical}")
        forced = self.failures.get(model.public)
        if forced:
            raise ChildFailed(forced.pop(0))
        port = self._free_port()
        lines.starting(log, model, options, port)
        child = await start_child(model, options, port, self._load_s / self.scale, log)
        self._starting = child
        if generation != self._generation:
            child.abandoned = True
            child.process.kill()
            self._starting = None
        try:
            if not child.abandoned:
                lines.started(log, model, child.pid)
            await wait_ready(child, self.profile, self.scale, log)
        finally:
            if generation == self._generation:
                self._starting = None
        lines.ready(log, model, port)
        return child

    def _free_port(self) -> int:
        if self.next_port is not None:
            port, self.next_port = self.next_port, None
            return port
        port = free_port(self._port_base)
        while port in self.avoid_ports:
            port = free_port(port + 1)
        return port

    async def unload(self, model: SimModel) -> bool:
        """False when it is not in the table."""
        async with self.mutex:
            child = self.child_of(model)
            if child is None:
                return False
            await self._evict(child)
            return True

    async def unload_all(self) -> None:
        """`/v1/unload` without a model."""
        async with self.mutex:
            await self._evict_all()

    async def evict(self, child: SimChild) -> None:
        """As an eviction for another model's sake."""
        async with self.mutex:
            line = self.profile.lru_line.format(type=child.model.type, name=child.model.canonical)
            self.log.info("Router", line)
            await self._evict(child)

    async def _evict(self, child: SimChild) -> None:
        name = child.model.canonical
        self.log.info("Router", f"Evicting model: {name}")
        await self._unbusy(child, float("inf"))  # without limit, and health waits with it
        await self._stop(child)
        self.log.info(child.model.tag, "Unloading model...")
        if child in self.table:
            self.table.remove(child)
        self.log.info("Router", f"Evicted model: {name}")

    async def _unbusy(self, child: SimChild, limit_s: float) -> None:
        """Until no request that came through lemond runs in it, or the limit is reached."""
        loop = asyncio.get_running_loop()
        end = loop.time() + limit_s
        while child.requests > 0 and not child.zombie() and loop.time() < end:
            await asyncio.sleep(0.005)

    async def _stop(self, child: SimChild) -> None:
        self.log.info(child.model.tag, "Unloading model...")
        await stop_child(child, self.profile, self.scale, self.log)

    async def _evict_all(self) -> None:
        self.log.info("Router", f"Evicting all models ({len(self.table)} total)")
        doomed = list(self.table)
        for child in doomed:
            self.log.info("Router", f"Unloading: {child.model.canonical}")
            await self._unbusy(child, self.profile.evict_all_wait_s / self.scale)
            await self._stop(child)
        self.table = [child for child in self.table if child not in doomed]
        for child in doomed:
            self.log.info(child.model.tag, "Unloading model...")
        self.log.info("Router", "All models evicted")

    def kill_all(self) -> None:
        """lemond itself went: its children get SIGTERM from the kernel, also the one that starts."""
        doomed = [*self.table, *([self._starting] if self._starting else [])]
        for child in doomed:
            child.abandoned = True
            child.process.terminate()
        for child in doomed:
            child.process.wait()
        self.table.clear()
        self._starting = None
        self._generation += 1
        self._loading = False
        self._wake_all()

    async def listing(self) -> list[dict[str, Any]]:
        """`all_models_loaded`, in order of load. Waits for the mutex, as lemond's does."""
        async with self.mutex:
            return [_entry(child) for child in self.table]


def _entry(child: SimChild) -> dict[str, Any]:
    return {
        "backend_url": f"http://127.0.0.1:{child.port}/v1",
        "checkpoint": child.model.checkpoint,
        "device": child.model.device,
        "last_use": child.last_use,
        "model_name": child.model.public,
        "pid": child.pid,
        "recipe": child.model.recipe,
        "recipe_options": child.options,
        "type": child.model.type,
    }
