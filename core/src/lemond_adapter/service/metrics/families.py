"""Every metric by name, kind, labels and meaning. The reference in the docs is made from this table, and
nothing is exposed that is not in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

PREFIX = "lemond_adapter_"

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `name` is without prefix and, for counters, without `_total`. Durations in seconds."""

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exposed(self) -> str:
        """Its full name, as in a query; a histogram's series add `_bucket`, `_sum`, `_count`."""
        return PREFIX + self.name + ("_total" if self.kind == "counter" else "")

    def counter(self, registry: CollectorRegistry) -> Counter:
        """Counts from here on."""
        return Counter(PREFIX + self.name, self.text, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        """Observes from here on."""
        return Histogram(PREFIX + self.name, self.text, self.labels, registry=registry, buckets=self.buckets)

    def reading(self) -> CounterMetricFamily | GaugeMetricFamily:
        """An empty family for values that are read when they are asked for."""
        made = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        return made(PREFIX + self.name, self.text, labels=self.labels)


_LOAD = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0, 600.0)
_ANSWER = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_RATE = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0, 120.0, 200.0, 400.0, 800.0)
_RETRY_AFTER = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 45.0, 59.0)

# What becomes of loads and routes, from slot events.

TIME_TO_ROUTE_STABLE = Family(
    "time_to_route_stable_seconds",
    "histogram",
    "From the first sign that a model without a route is wanted (a refused request, a load that began) to "
    "its route. A load that fails ends the measurement; it is counted in load_failures.",
    buckets=_LOAD,
)
EVICTION_RECOVERY = Family(
    "eviction_recovery_seconds",
    "histogram",
    "From the moment a lost model is wanted again (at the earliest its loss) to its next route. `reason` is "
    "crash, or the reason of the eviction.",
    ("reason",),
    _LOAD,
)
LOAD_DURATION = Family(
    "load_duration_seconds",
    "histogram",
    "From the start of a load, whoever asked for it, to the model's route.",
    ("model",),
    _LOAD,
)
LOAD_FAILURES = Family(
    "load_failures", "counter", "Loads that ended without a model, by the kind of failure.", ("kind",)
)
EVICTIONS = Family(
    "evictions",
    "counter",
    "Models that went away. `by` is adapter for our own unloads, else lemond.",
    ("reason", "by"),
)
CRASHES = Family("process_crashes", "counter", "Children that ended without an eviction.", ("model",))
PORT_CHANGES = Family("port_changes", "counter", "Loaded models that were found at another port or process.")
LEMOND_STARTS = Family("lemond_starts", "counter", "Lemonds met: the first one, and each restart seen.")
LEMOND_LOSSES = Family("lemond_losses", "counter", "Times that lemond stopped answering.")
RESYNCS = Family(
    "resyncs",
    "counter",
    "Comparisons of our view with lemond's listing that were due, by reason.",
    ("reason",),
)
RESYNC_CHANGES = Family(
    "resync_changes", "counter", "Things that such a comparison found different.", ("reason",)
)

DECISIONS = Family(
    "decisions",
    "counter",
    "Notes of the journal by kind, e.g. slot.evicted_by_idle_policy: what was done unasked, and why.",
    ("kind",),
)

# What becomes of requests, from the data plane.

REQUESTS = Family(
    "requests",
    "counter",
    "Data-plane requests. `outcome` is served, interrupted (cut in the middle of the answer), client_gone, "
    "or the code of the refusal, e.g. slot.loading.",
    ("slot", "outcome"),
)
REQUEST_DURATION = Family(
    "request_duration_seconds", "histogram", "Served requests, from head to last byte.", ("slot",), _ANSWER
)
TTFT = Family(
    "ttft_seconds",
    "histogram",
    "Streamed requests, from the request's head to the first byte of the answer; time held included.",
    ("slot",),
    _ANSWER,
)
TOKENS_PER_SECOND = Family(
    "output_tokens_per_second",
    "histogram",
    "Data events a second of streamed answers behind the first one: for chat about one a token.",
    ("slot",),
    _RATE,
)
RETRY_AFTER = Family(
    "retry_after_seconds",
    "histogram",
    "The Retry-After that 503 answers gave, by code of the refusal.",
    ("code",),
    _RETRY_AFTER,
)
HOLDS = Family(
    "hold_seconds",
    "histogram",
    "How long requests were held for a route (Prefer: wait, hold_s), by what became of them.",
    ("outcome",),
    _ANSWER,
)
UPSTREAM_UNAVAILABLE = Family(
    "upstream_unavailable", "counter", "Data-plane answers 502 or 504. Must stay 0."
)

# What is so at the moment of the scrape.

LEMOND_REACHABLE = Family("lemond_reachable", "gauge", "1 if lemond answered when it was last asked.")
KNOWLEDGE_AGE = Family(
    "knowledge_unknown_seconds", "gauge", "For how long lemond has been silent; 0 while it answers."
)
LAST_LISTING = Family(
    "last_listing_timestamp_seconds", "gauge", "Unix time of the last answer of /v1/health that was taken."
)
DRIVER = Family(
    "driver_info",
    "gauge",
    "1; the driver in use, how it fits (exact, nearest, generic) and lemond's version.",
    ("driver", "match", "version"),
)
BUILD = Family("build_info", "gauge", "1; the version of lemond-adapter.", ("version",))
CONTROL_REQUESTS = Family("control_requests", "counter", "Requests sent to lemond.", ("call",))
CONTROL_RATE = Family(
    "control_requests_last_minute", "gauge", "Of these, in the last 60 s; at most 4 in steady state."
)
WATCH_CONNECTED = Family(
    "watch_connected",
    "gauge",
    "1 while lemond tells of changes: its log stream, or its native events, are open.",
)
STREAM_CONNECTED = Family("log_stream_connected", "gauge", "1 while the log stream is open.")
STREAM_RECONNECTS = Family("log_stream_reconnects", "counter", "Log streams opened after the first one.")
STREAM_GAPS = Family("log_stream_gaps", "counter", "Holes in the seq of lemond's log.")
STREAM_MALFORMED = Family("log_stream_malformed_frames", "counter", "Frames that could not be read.")
LISTINGS = Family("listings", "counter", "Answers of /v1/health that were taken.")
UNKNOWN_LINES = Family(
    "unknown_lifecycle_lines", "counter", "Log lines that look like lifecycle and that no rule knew."
)
UNKNOWN_KEYS = Family("unknown_health_keys", "gauge", "Keys in health that the driver does not know.")
MISMATCHES = Family(
    "identity_mismatches_prevented", "counter", "Listed ports found to be another process's; not routed."
)
REFUSED_IDENTITIES = Family(
    "identity_connections_refused",
    "counter",
    "Connections thrown away before a byte was sent: what answered was not the route's process.",
)
PORT_SHARED = Family("lemond_port_shared", "gauge", "1 while two lemonds answer on one port.")
PIDS_VISIBLE = Family(
    "pids_visible",
    "gauge",
    "1 if the children are visible as processes, 0 if not; absent until a child was seen.",
)
WATCHED = Family("processes_watched", "gauge", "Processes whose end would be known at once.")
BROKEN_DRIVERS = Family("broken_drivers", "gauge", "Installed driver wheels that cannot be used.")
IN_FLIGHT = Family("requests_in_flight", "gauge", "Requests being served.")
SLOT_IN_FLIGHT = Family("slot_in_flight", "gauge", "Requests being served, by slot.", ("slot",))
SLOT_HELD = Family("slot_held", "gauge", "Requests held until their model has a route, by slot.", ("slot",))
SLOT_QUEUED = Family(
    "slot_queued", "gauge", "Requests that wait because the slot runs max_in_flight of them.", ("slot",)
)
CLIENT_CONNECTIONS = Family("client_connections", "gauge", "Connections of clients to the data plane.")
CHILD_CONNECTIONS = Family(
    "child_connections", "gauge", "Connections to children: all that are open, and those idle.", ("state",)
)
SLOT_STATE = Family(
    "slot_state",
    "gauge",
    "1 for the state a slot is in, 0 for the others. A model that no slot names is a slot of its own.",
    ("slot", "state"),
)
ROUTES = Family("routes", "gauge", "Models with a route.")
LOADS_PENDING = Family("loads_pending", "gauge", "Loads of ours, running or waiting for their turn.")
EVENTS = Family("events", "counter", "Slot events published.")
SUBSCRIBERS = Family("event_subscribers", "gauge", "Clients of the event stream.")

FAMILIES: tuple[Family, ...] = tuple(
    value for value in globals().copy().values() if isinstance(value, Family)
)
"""All of them, in the order above."""
