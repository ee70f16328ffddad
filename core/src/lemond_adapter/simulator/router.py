"""What lemond's router does: one load at a time, LRU per type, cascades, children it never asks after."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from lemond_adapter.simulator.children import (
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

DEFAULT_OPTIONS: dict[str, Any] = {"ctx_size": 4096, "llamacpp_backend": "cpu"}
_OPTION_KEYS = ("ctx_size", "llamacpp_backend", "llamacpp_args", "llamacpp_device", "merge_args")


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
        self._port_base = port_base
        self._load_s = load_s
        self.models = {model.public: model for model in models}
        self._by_canonical = {model.canonical: model for model in models}
        self.table: list[SimChild] = []
        self.mutex = asyncio.Condition()
        self._loading = False
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
        options = {**DEFAULT_OPTIONS, **{key: asked[key] for key in _OPTION_KEYS if key in asked}}
        announce = f"Loading model: {model.canonical} (checkpoint: {model.checkpoint}, recipe: {model.recipe}"
        async with self.mutex:
            while self._loading:
                self.log.info("Router", "Another load is in progress, waiting...")
                await self.mutex.wait()
            self.log.debug("Router", f"{announce}, type: {model.type}, device: cpu)")
            loaded = self.child_of(model)
            if loaded is not None and loaded.options == options:
                self.log.info("Router", self.profile.already_loaded_line)
                self.touch(loaded)
                return
            if loaded is not None:
                self.log.info("Router", f"Options changed, reloading model: {model.canonical}")
                await self._evict(loaded)
            await self._make_room(model)
            self._loading = True
        try:
            await self._load(model, options)
        finally:
            async with self.mutex:
                self._loading = False
                self.mutex.notify_all()

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
                self._failed(first)
            self.log.write(
                "Warn",
                "Router",
                "Load failed with non-file-not-found error, evicting all models and retrying...",
            )
            async with self.mutex:
                await self._evict_all()
            try:
                child = await self._attempt(model, options)
            except ChildFailed as second:
                self.log.error("Router", f"Retry also failed: {second}")
                self._failed(second)
            self._add(child)
            return
        self._add(child)
        self.log.info("Router", f"Model loaded successfully. Total loaded: {len(self.table)}")

    def _add(self, child: SimChild) -> None:
        self.touch(child)
        self.table.append(child)
        self.loads[child.model.public] += 1

    def _failed(self, error: ChildFailed) -> None:
        self.log.info("LlamaCpp", "Unloading model...")
        self.log.info("LlamaCpp", "Unloading model...")
        self.log.error("Router", f"Failed to load model: {error}")
        raise LoadFailed(str(error))

    async def _attempt(self, model: SimModel, options: dict[str, Any]) -> SimChild:
        log = self.log
        log.info(model.tag, f"Loading model: {model.canonical}")
        forced = self.failures.get(model.public)
        if forced:
            raise ChildFailed(forced.pop(0))
        port = self._free_port()
        log.debug("WrappedServer", f"{model.server} will use port: {port}")
        if model.recipe == "flm":
            log.info(model.tag, "Starting flm-server...")
            log.info(
                "ProcessManager", f'Starting process: "flm" "serve" "{model.checkpoint}" "--port" "{port}"'
            )
        elif model.recipe == "whispercpp":
            log.info(model.tag, f"Starting server on port {port}")
        else:
            log.info(model.tag, f"Using LlamaCpp Backend: {options['llamacpp_backend']}")
            if model.type == "embedding":
                log.info(model.tag, "Model supports embeddings, adding --embeddings flag")
            if model.type == "reranking":
                log.info(model.tag, "Model supports reranking, adding --reranking flag")
            log.info(model.tag, "Starting llama-server...")
        child = await start_child(model, options, port, self._load_s / self.scale, log)
        if model.recipe == "flm":
            log.info("ProcessManager", "Process started successfully")
        elif model.recipe == "whispercpp":
            log.info(model.tag, f"Process started with PID: {child.pid}")
        else:
            log.info("ProcessManager", f"Process started successfully, PID: {child.pid}")
        await wait_ready(child, self.profile, self.scale, log)
        log.info("WrappedServer", f"{model.server} is ready!")
        if model.recipe == "flm":
            log.info(model.tag, f"Model loaded on port {port}")
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
        while child.requests > 0 and not child.zombie():
            await asyncio.sleep(0.01)  # waits without limit, and health with it
        await self._stop(child)
        self.log.info(child.model.tag, "Unloading model...")
        if child in self.table:
            self.table.remove(child)
        self.log.info("Router", f"Evicted model: {name}")

    async def _stop(self, child: SimChild) -> None:
        self.log.info(child.model.tag, "Unloading model...")
        await stop_child(child, self.profile, self.scale, self.log)

    async def _evict_all(self) -> None:
        self.log.info("Router", f"Evicting all models ({len(self.table)} total)")
        doomed = list(self.table)
        for child in doomed:
            self.log.info("Router", f"Unloading: {child.model.canonical}")
            await self._stop(child)
        self.table.clear()
        for child in doomed:
            self.log.info(child.model.tag, "Unloading model...")
        self.log.info("Router", "All models evicted")

    def kill_all(self) -> None:
        """lemond itself went: its children get SIGTERM from the kernel."""
        for child in self.table:
            child.process.terminate()
        for child in self.table:
            child.process.wait()
        self.table.clear()

    async def listing(self) -> list[dict[str, Any]]:
        """`all_models_loaded`, in order of load. Waits for the mutex, as lemond's does."""
        async with self.mutex:
            return [_entry(child) for child in self.table]


def _entry(child: SimChild) -> dict[str, Any]:
    return {
        "backend_url": f"http://127.0.0.1:{child.port}/v1",
        "checkpoint": child.model.checkpoint,
        "device": "npu" if child.model.recipe == "flm" else "cpu",
        "last_use": child.last_use,
        "model_name": child.model.public,
        "pid": child.pid,
        "recipe": child.model.recipe,
        "recipe_options": child.options,
        "type": child.model.type,
    }
