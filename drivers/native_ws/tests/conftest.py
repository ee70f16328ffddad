"""A recording sink, the reference server, and sources that try again soon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from lemond_adapter.drivers import HealthListing
from lemond_adapter.drivers.native import ListReason
from lemond_adapter.simulator.native import PATH, NativeEventServer
from lemond_adapter.types import ModelEvicted, ModelLoaded, SlotEvent
from lemond_driver_native_ws import NativeEventSource

ENTRY = {
    "model_name": "tiny-a",
    "backend_url": "http://127.0.0.1:8001/v1",
    "pid": 4711,
    "type": "llm",
    "recipe": "llamacpp",
    "recipe_options": {"ctx_size": 4096},
    "a_key_of_tomorrow": {"x": 1},
}
PATIENCE_S = 10.0


class Recorder:
    """A sink that remembers, and can be waited for."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.listings: list[tuple[HealthListing, str, int, ListReason]] = []
        self.events: list[SlotEvent] = []
        self.seqs: list[int] = []
        self.resumes: list[tuple[str, int]] = []
        self.downs: list[str] = []
        self.view: set[str] = set()
        self.position: tuple[str, int] = ("", 0)
        self.holes: list[int] = []
        self._news = asyncio.Event()

    def listed(self, listing: HealthListing, *, boot_id: str, seq: int, reason: ListReason) -> None:
        self.view = {model.model for model in listing.models}
        self.position = (boot_id, seq)
        self.listings.append((listing, boot_id, seq, reason))
        self._call("listed", seq)

    def event(self, event: SlotEvent, *, seq: int) -> None:
        if seq != self.position[1] + 1:
            self.holes.append(seq)
        self.position = (self.position[0], seq)
        if isinstance(event, ModelLoaded):
            self.view.add(str(event.model))
        elif isinstance(event, ModelEvicted):
            self.view.discard(str(event.model))
        self.events.append(event)
        self.seqs.append(seq)
        self._call("event", seq)

    def resumed(self, *, boot_id: str, seq: int) -> None:
        self.resumes.append((boot_id, seq))
        self._call("resumed", seq)

    def down(self, why: str) -> None:
        self.downs.append(why)
        self._call("down", why)

    def _call(self, *what: Any) -> None:
        self.calls.append(what)
        self._news.set()

    async def up(self, listings: int = 1) -> None:
        await self.until(lambda s: len(s.listings) >= listings)

    async def until(self, holds: Callable[[Recorder], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds(self):
                self._news.clear()
                await self._news.wait()


@pytest.fixture
async def server() -> AsyncIterator[NativeEventServer]:
    async with NativeEventServer(lambda: {"all_models_loaded": [ENTRY], "max_models": {"llm": 2}}) as server:
        yield server


def _source_for(server: NativeEventServer, **kwargs: Any) -> NativeEventSource:
    kwargs.setdefault("first_delay_s", 0.01)
    kwargs.setdefault("max_delay_s", 0.05)
    return NativeEventSource(f"ws://127.0.0.1:{server.port}{PATH}", **kwargs)


@asynccontextmanager
async def _following(source: NativeEventSource, sink: Recorder | None = None) -> AsyncIterator[Recorder]:
    sink = sink or Recorder()
    task = asyncio.create_task(source.run(sink))
    try:
        yield sink
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def source_for() -> Callable[..., NativeEventSource]:
    """Makes a source for a server, with short delays."""
    return _source_for


@pytest.fixture
def following() -> Callable[..., Any]:
    """Runs a source for the length of a block; gives what its sink saw."""
    return _following


@pytest.fixture
def recorder() -> type[Recorder]:
    """The sink's class, for tests that need their own."""
    return Recorder
