"""Load, recovery and route times, on invented histories with a clock of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from lemond_adapter.dispatch.traffic import Flight
from lemond_adapter.service.metrics.labels import OTHER, Bounded
from lemond_adapter.service.metrics.lifecycle import LifecycleMetrics
from lemond_adapter.types import (
    EvictionStarted,
    LoadFailed,
    LoadStarted,
    ModelEvicted,
    ModelLoaded,
    ProcessCrashed,
)


class Story:
    """A lifecycle that is told at moments of the test's own clock."""

    def __init__(self, most_models: int = 10) -> None:
        self.now = 100.0
        self.routed: set[str] = set()
        self.own_load: float | None = None
        self.registry = CollectorRegistry()
        self.metrics = LifecycleMetrics(
            self.registry,
            Bounded(most_models),
            routed=lambda model: model in self.routed,
            load_began=lambda _: self.own_load,
            clock=lambda: self.now,
        )

    def loaded(self, model: str = "a") -> None:
        self.routed.add(model)
        self.metrics.take(ModelLoaded(model=model, port=1, pid=2))

    def refused(self, began: float, model: str = "a") -> None:
        self.metrics.flight(Flight("/v1/x", began, model=model, outcome="slot.loading", ended=began))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"lemond_adapter_{name}", labels)


def test_a_load_is_timed_from_its_start_to_the_route() -> None:
    story = Story()
    story.metrics.take(LoadStarted(model="a"))
    story.now += 4.0
    story.loaded()
    assert story.value("load_duration_seconds_sum", model="a") == 4.0
    assert story.value("load_duration_seconds_bucket", model="a", le="3.0") == 0.0
    assert story.value("load_duration_seconds_bucket", model="a", le="5.0") == 1.0
    assert story.value("time_to_route_stable_seconds_sum") == 4.0


def test_a_load_that_no_line_told_of_is_timed_by_our_own_request() -> None:
    story = Story()
    story.own_load = 98.5
    story.loaded()
    assert story.value("load_duration_seconds_sum", model="a") == 1.5


def test_the_wait_counts_from_the_first_refused_request() -> None:
    story = Story()
    story.refused(100.0)
    story.refused(103.0)
    story.now = 104.0
    story.metrics.take(LoadStarted(model="a"))
    story.now = 110.0
    story.loaded()
    assert story.value("time_to_route_stable_seconds_sum") == 10.0
    assert story.value("load_duration_seconds_sum", model="a") == 6.0


def test_a_model_found_loaded_is_no_load() -> None:
    story = Story()
    story.loaded()
    assert story.value("time_to_route_stable_seconds_count") == 0.0
    assert story.value("load_duration_seconds_count", model="a") is None


def test_recovery_counts_from_the_demand_not_from_an_eviction_nobody_minded() -> None:
    story = Story()
    story.loaded()
    story.routed.clear()
    story.metrics.take(EvictionStarted(model="a", reason="unknown"))
    story.now += 2.0
    story.metrics.take(ModelEvicted(model="a", reason="lru"))
    story.now += 3600.0
    story.refused(story.now)
    story.now += 7.0
    story.loaded()
    assert story.value("eviction_recovery_seconds_sum", reason="lru") == 7.0
    assert story.value("evictions_total", reason="lru", by="lemond") == 1.0


def test_recovery_of_a_cut_request_counts_from_the_crash() -> None:
    story = Story()
    story.loaded()
    story.routed.clear()
    story.metrics.take(ProcessCrashed(model="a", pid=2))
    story.metrics.flight(Flight("/v1/x", story.now - 50.0, model="a", outcome="interrupted"))
    story.now += 3.0
    story.loaded()
    assert story.value("eviction_recovery_seconds_sum", reason="crash") == 3.0
    assert story.value("process_crashes_total", model="a") == 1.0


def test_a_refusal_that_ends_after_the_route_came_wants_nothing() -> None:
    story = Story()
    story.loaded()
    story.refused(90.0)
    story.now += 500.0
    story.metrics.take(LoadStarted(model="a"))
    story.now += 1.0
    story.loaded()
    assert story.value("time_to_route_stable_seconds_sum") == 1.0


def test_a_failed_load_is_counted_and_not_timed() -> None:
    story = Story()
    assert story.value("load_failures_total", kind="timeout") == 0.0, (
        "a series that begins with 1 never rises"
    )
    story.metrics.take(LoadStarted(model="a"))
    story.metrics.take(LoadFailed(model="a", reason="no", kind="timeout"))
    story.now += 900.0
    story.metrics.take(LoadStarted(model="a"))
    story.now += 2.0
    story.loaded()
    assert story.value("load_failures_total", kind="timeout") == 1.0
    assert story.value("load_duration_seconds_sum", model="a") == 2.0


def test_models_beyond_the_bound_share_one_label() -> None:
    story = Story(most_models=2)
    for model in ("a", "b", "c", "d"):
        story.metrics.take(LoadStarted(model=model))
        story.now += 1.0
        story.loaded(model)
    assert story.value("load_duration_seconds_count", model="a") == 1.0
    assert story.value("load_duration_seconds_count", model=OTHER) == 2.0
    assert story.value("load_duration_seconds_count", model="c") is None
