"""Prometheus metrics, read from the adapter when they are asked for. Labels are bounded: states, error
codes, drivers and model names that lemond listed, never what a client typed."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client.registry import Collector

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.dispatch.dataplane import DataPlane

__all__ = ["CONTENT_TYPE", "exposition", "registry"]


class _AdapterCollector(Collector):
    def __init__(self, adapter: LemondAdapter, plane: DataPlane) -> None:
        self._adapter = adapter
        self._plane = plane

    def collect(self) -> Iterator[Metric]:
        yield from self._lemond()
        yield from self._truth()
        yield from self._requests()

    def _lemond(self) -> Iterator[Metric]:
        adapter, truth = self._adapter, self._adapter.truth
        yield _gauge("lemond_reachable", "Whether lemond answered when last asked", float(truth.reachable))
        chosen = GaugeMetricFamily(
            "lemond_adapter_driver_info", "The driver in use", labels=["driver", "match", "version"]
        )
        if adapter.selection is not None:
            selection = adapter.selection
            chosen.add_metric([selection.driver.name, selection.match, selection.version or ""], 1.0)
        yield chosen
        asked = CounterMetricFamily(
            "lemond_adapter_control_requests", "Requests sent to lemond", labels=["call"]
        )
        for call, count in adapter.client.requests.items():
            asked.add_metric([call], count)
        yield asked

    def _truth(self) -> Iterator[Metric]:
        truth = self._adapter.truth
        status, cursor = truth.stream.status, truth.stream.cursor
        yield _gauge("log_stream_connected", "Whether the log stream is open", status.connected)
        yield _counter("log_stream_reconnects", "Log streams after the first", status.reconnects)
        yield _counter("log_stream_gaps", "Holes in lemond's log seq", cursor.gaps)
        yield _counter("log_stream_malformed_frames", "Frames that could not be read", status.malformed)
        yield _counter("listings", "Answers of /v1/health taken", truth.listings)
        lines, keys = truth.unknown_lines.total(), len(truth.reading.unknown_keys)
        yield _counter("unknown_lifecycle_lines", "Lifecycle-looking lines no rule knew", lines)
        yield _gauge("unknown_health_keys", "Health keys the driver does not know", keys)
        prevented = truth.witness.report.mismatches
        yield _counter("identity_mismatches_prevented", "Ports found to be another process's", prevented)
        yield _gauge("lemond_port_shared", "Whether two lemonds share a port", truth.neighbour.shared)

    def _requests(self) -> Iterator[Metric]:
        adapter = self._adapter
        served = CounterMetricFamily(
            "lemond_adapter_requests", "Data-plane requests by outcome", labels=["outcome"]
        )
        for outcome, count in self._plane.traffic.outcomes.items():
            served.add_metric([outcome], count)
        yield served
        yield _gauge("requests_in_flight", "Requests being served", adapter.leases.total())
        yield _gauge("routes", "Models with a route", len(adapter.truth.ledger.routes))
        yield _counter("events", "Slot events published", adapter.hub.seq)
        yield _gauge("event_subscribers", "Clients of the event stream", adapter.hub.subscribers)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"lemond_adapter_{name}", text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"lemond_adapter_{name}", text, value=float(value))


def registry(adapter: LemondAdapter, plane: DataPlane) -> CollectorRegistry:
    """A registry of its own: several adapters in one process do not mix."""
    found = CollectorRegistry(auto_describe=False)
    found.register(_AdapterCollector(adapter, plane))
    return found


def exposition(registry: CollectorRegistry) -> bytes:
    """The Prometheus text."""
    return generate_latest(registry)
