"""What is so at the moment of the scrape, read from the adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.dispatch.dataplane import DataPlane
from lemond_adapter.service.metrics import families
from lemond_adapter.service.metrics.families import Family
from lemond_adapter.service.metrics.labels import Bounded
from lemond_adapter.slots.rows import SlotBoard
from lemond_adapter.truth.truth import Truth
from lemond_adapter.types import SlotState


class SnapshotCollector(Collector):
    """One per service."""

    def __init__(self, adapter: LemondAdapter, plane: DataPlane, board: SlotBoard, slots: Bounded) -> None:
        self._adapter = adapter
        self._plane = plane
        self._board = board
        self._slots = slots

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._lemond()
        yield from self._log_stream()
        yield from self._processes()
        yield from self._slot_states()
        yield from self._data_plane()

    def _lemond(self) -> Iterator[Metric]:
        adapter, truth = self._adapter, self._adapter.truth
        silent = 0.0
        if not truth.reachable:
            silent = (datetime.now(UTC) - truth.knowledge_since).total_seconds()
        yield _one(families.LEMOND_REACHABLE, truth.reachable)
        yield _one(families.KNOWLEDGE_AGE, silent)
        if truth.listed_at is not None:
            yield _one(families.LAST_LISTING, truth.listed_at.timestamp())
        driver = families.DRIVER.reading()
        if adapter.selection is not None:
            selection = adapter.selection
            driver.add_metric([selection.driver.name, selection.match, selection.version or ""], 1.0)
        yield driver
        build = families.BUILD.reading()
        build.add_metric([metadata.version("lemond-adapter")], 1.0)
        yield build
        asked = families.CONTROL_REQUESTS.reading()
        for call, count in adapter.client.requests.items():
            asked.add_metric([call], count)
        yield asked
        yield _one(families.CONTROL_RATE, adapter.client.requests_last_minute())
        yield _one(families.PORT_SHARED, truth.neighbour.shared)

    def _log_stream(self) -> Iterator[Metric]:
        truth = self._adapter.truth
        status = truth.stream.status
        yield _one(families.WATCH_CONNECTED, status.connected or _native_connected(truth))
        yield _one(families.STREAM_CONNECTED, status.connected)
        yield _one(families.STREAM_RECONNECTS, status.reconnects)
        yield _one(families.STREAM_GAPS, truth.stream.cursor.gaps)
        yield _one(families.STREAM_MALFORMED, status.malformed)
        yield _one(families.LISTINGS, truth.listings)
        yield _one(families.UNKNOWN_LINES, truth.unknown_lines.total())
        yield _one(families.UNKNOWN_KEYS, len(truth.reading.unknown_keys))

    def _processes(self) -> Iterator[Metric]:
        adapter = self._adapter
        witness = adapter.truth.witness
        yield _one(families.MISMATCHES, witness.report.mismatches)
        if witness.report.pids_visible is not None:
            yield _one(families.PIDS_VISIBLE, witness.report.pids_visible)
        yield _one(families.WATCHED, len(witness.processes.watched))
        yield _one(families.BROKEN_DRIVERS, len(adapter.installed.broken))

    def _slot_states(self) -> Iterator[Metric]:
        adapter = self._adapter
        busy: Counter[str] = Counter()
        states: Counter[tuple[str, str]] = Counter()
        for row in self._board.rows():
            # Slots beyond the bound share one label: their values add up.
            name = self._slots(row["name"])
            busy[name] += row["metadata"]["in_flight"]
            for state in SlotState:
                states[name, state.value] += row["state"] == state.value
        yield _each(families.SLOT_IN_FLIGHT, busy)
        state_set = families.SLOT_STATE.reading()
        for labels, count in states.items():
            state_set.add_metric(labels, count)
        yield state_set
        ledger, loader = adapter.truth.ledger, adapter.loader
        yield _one(families.IN_FLIGHT, adapter.leases.total())
        yield _one(families.ROUTES, len(ledger.routes))
        pending = sum(loader.pending(model) is not None for model in ledger.records)
        yield _one(families.LOADS_PENDING, pending)
        yield _one(families.EVENTS, adapter.hub.seq - adapter.hub.first)
        yield _one(families.SUBSCRIBERS, adapter.hub.subscribers)

    def _data_plane(self) -> Iterator[Metric]:
        now = self._plane.report()
        slot_name = self._adapter.slots.slot_name
        names = [self._slots(row["name"]) for row in self._board.rows()]
        held, queued = Counter(dict.fromkeys(names, 0)), Counter(dict.fromkeys(names, 0))
        for model, count in now["held"].items():
            held[self._slots(slot_name(model) or model)] += count
        for slot, count in now["queued"].items():
            queued[self._slots(slot)] += count
        yield _each(families.SLOT_HELD, held)
        yield _each(families.SLOT_QUEUED, queued)
        yield _one(families.CLIENT_CONNECTIONS, now["client_connections"])
        yield _each(families.CHILD_CONNECTIONS, now["child_connections"])
        yield _one(families.REFUSED_IDENTITIES, now["refused_identities"])


def _each(family: Family, values: Mapping[str, float]) -> Metric:
    """One sample a value of the family's one label."""
    reading = family.reading()
    for label, value in values.items():
        reading.add_metric([label], value)
    return reading


def _native_connected(truth: Truth) -> bool:
    source = truth.native.status
    return source is not None and source.connected


def _one(family: Family, value: float) -> Metric:
    reading = family.reading()
    reading.add_metric([], float(value))
    return reading
