"""Prometheus metrics: counted as things happen, read when they are asked for.

Labels are bounded: states, error codes, drivers, and names that lemond or a slot knows, never what a
client typed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.dispatch.dataplane import DataPlane
from lemond_adapter.service.metrics.hal0 import Hal0Collector
from lemond_adapter.service.metrics.labels import Bounded
from lemond_adapter.service.metrics.lifecycle import LifecycleMetrics
from lemond_adapter.service.metrics.requests import RequestMetrics
from lemond_adapter.service.metrics.snapshot import SnapshotCollector
from lemond_adapter.slots.rows import SlotBoard

__all__ = ["CONTENT_TYPE", "Metrics"]


class Metrics:
    """One per service, with registries of its own: several adapters in one process do not mix."""

    def __init__(self, adapter: LemondAdapter, plane: DataPlane, board: SlotBoard) -> None:
        names = Bounded()
        self._registry = CollectorRegistry(auto_describe=False)
        self._compatible = CollectorRegistry(auto_describe=False)
        requests = RequestMetrics(self._registry, names)
        lifecycle = LifecycleMetrics(
            self._registry,
            names,
            routed=lambda model: model in adapter.truth.ledger.routes,
            load_began=lambda model: load.began if (load := adapter.loader.pending(model)) else None,
        )
        hal0 = Hal0Collector(adapter, names)
        self._registry.register(SnapshotCollector(adapter, plane, board, names))
        self._compatible.register(hal0)
        ProcessCollector(registry=self._registry)
        for slot in adapter.slots.slots:
            requests.expect(slot)
        plane.traffic.observers += [requests.take, lifecycle.flight, hal0.take]
        past = adapter.hub.after(adapter.hub.oldest() - 1)
        for event in past if isinstance(past, list) else []:
            age = (datetime.now(UTC) - event.at).total_seconds()
            lifecycle.take(event, time.monotonic() - age)
        adapter.hub.observers.append(lifecycle.take)
        for note in adapter.actor.notes.recent:
            lifecycle.decided(note.kind)
        adapter.actor.notes.observers.append(lambda note: lifecycle.decided(note.kind))

    def text(self, *, hal0: bool = False) -> bytes:
        """The exposition; with `hal0` also the gauges under hal0's names."""
        text = _text(self._registry)
        return text + _text(self._compatible) if hal0 else text


class _WithoutCreated(CollectorRegistry):
    """`_created` gauges double the number of series and say what nobody asks."""

    def __init__(self, inner: CollectorRegistry) -> None:
        super().__init__()
        self._inner = inner

    def collect(self) -> Iterator[Metric]:
        for metric in self._inner.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def _text(registry: CollectorRegistry) -> bytes:
    return generate_latest(_WithoutCreated(registry))
