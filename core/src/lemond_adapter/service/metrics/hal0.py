"""The gauges that hal0's dashboards and alerts read, under hal0's own names, from what is known here."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lemond_adapter.adapter import LemondAdapter
from lemond_adapter.dispatch.traffic import Flight
from lemond_adapter.service.metrics.labels import OTHER, Bounded

PREFIX = "hal0_lemonade_"

NAMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ttft_seconds": ("Time to first byte of the last streamed request.", ("source",)),
    "decode_tokens_per_second": ("Data events a second of the last streamed request.", ("source",)),
    "models_loaded": ("1 for each model that is loaded.", ("model_name",)),
    "max_models": ("How many models of a type lemond keeps loaded; -1 = unlimited.", ("type",)),
    "metrics_last_scrape_seconds": ("Unix time of the last answer of lemond's health.", ()),
}

LEFT_OUT = (
    "prompt_tokens",
    "input_tokens",
    "decode_tokens",
    "kv_occupancy_ratio",
    "flm_decode_tokens_per_second",
    "flm_prefill_tokens_per_second",
    "flm_ttft_seconds",
    "flm_decode_duration_seconds",
)
"""Token counts are in bodies, which are not read; the rest are FLM's own numbers."""

_LAST = ["last_request"]


class Hal0Collector(Collector):
    """Also an observer of traffic: hal0 shows the last request's figures."""

    def __init__(self, adapter: LemondAdapter, models: Bounded) -> None:
        self._adapter = adapter
        self._models = models
        self._ttft: float | None = None
        self._rate: float | None = None

    def take(self, flight: Flight) -> None:
        """A request has ended."""
        if flight.streamed and flight.ttft_s is not None:
            self._ttft = flight.ttft_s
        if flight.events_per_s is not None:
            self._rate = flight.events_per_s

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        if self._ttft is not None:
            yield _gauge("ttft_seconds", [(_LAST, self._ttft)])
        if self._rate is not None:
            yield _gauge("decode_tokens_per_second", [(_LAST, self._rate)])
        truth = self._adapter.truth
        # Two samples under one name would spoil the whole scrape: "other" is told once.
        names = dict.fromkeys(self._models(model.model) for model in truth.ledger.loaded())
        yield _gauge("models_loaded", [([name], 1.0) for name in names if name != OTHER])
        if truth.listing is not None:
            limits = truth.listing.max_models
            yield _gauge("max_models", [([kind], float(most)) for kind, most in limits.items()])
        if truth.listed_at is not None:
            yield _gauge("metrics_last_scrape_seconds", [([], truth.listed_at.timestamp())])


def _gauge(name: str, samples: list[tuple[list[str], float]]) -> Metric:
    text, labels = NAMES[name]
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family
