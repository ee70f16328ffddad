"""Builds the test class of a driver: every promise of a driver, checked on its corpus."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lemond_adapter.captures import Capture, Replay, read_capture, replay
from lemond_adapter.drivers import Driver, HealthListing, build_driver, message_of, select_driver
from lemond_adapter.drivers.versions import parse_release, serves
from lemond_adapter.testing import facts
from lemond_adapter.testing.adversary import matching_seconds
from lemond_adapter.truth.logentry import Live, read_frame
from lemond_adapter.types import MalformedPayload

SLOW_LINE = 20_000
SLOW_LIMIT_S = 0.05
"""A linear pattern reads 20,000 characters in well under a millisecond; a quadratic one needs seconds."""

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=15,
)
_KEYS = st.sampled_from(
    ["all_models_loaded", "version", "websocket_port", "max_models", "model_name", "backend_url", "pid"]
)
_BODY = st.dictionaries(_KEYS, _JSON | st.lists(st.dictionaries(_KEYS, _JSON, max_size=5), max_size=3))


def conformance(plugin: object, *, corpus: Path, releases: Sequence[str]) -> type:
    """The test class for a driver plugin and the captures of `releases` under `corpus`.

    A release without captures has no replay checks: say in the driver's README that it is unrecorded.
    """
    driver = build_driver(plugin, name=getattr(plugin, "__name__", "plugin"))
    captures = [path for release in releases for path in sorted((corpus / release).glob("*.jsonl"))]

    class Conformance(_Always, *([_OnCaptures] if captures else [])):  # type: ignore[misc]
        pass

    Conformance.driver = driver
    Conformance.releases = list(releases)
    Conformance.captures = captures
    return Conformance


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives each check of `_OnCaptures` every capture. A class that `conformance` made calls it."""
    if "path" in metafunc.fixturenames:
        captures: list[Path] = getattr(metafunc.cls, "captures", [])
        metafunc.parametrize("path", captures, ids=[f"{p.parent.name}/{p.stem}" for p in captures])


class _Always:
    """What holds without a recording."""

    driver: Driver
    releases: list[str]
    captures: list[Path]

    @staticmethod
    def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
        pytest_generate_tests(metafunc)

    def test_it_serves_a_bounded_range_with_its_releases(self) -> None:
        info = self.driver.info
        assert any(clause.operator in ("<", "<=", "==", "~=") for clause in info.serves), "no upper bound"
        for release in [*self.releases, *info.recorded]:
            assert serves(info.serves, parse_release(release)), release

    def test_the_version_probe_selects_it(self) -> None:
        for release in self.releases:
            selection = select_driver(release, [self.driver])
            assert (selection.driver.name, selection.match) == (self.driver.name, "exact")

    def test_the_recorded_releases_have_captures(self) -> None:
        assert set(self.driver.info.recorded) <= {path.parent.name for path in self.captures}

    def test_traits_are_given(self) -> None:
        assert self.driver.gives_traits, "lemond_traits() is missing: the cautious defaults would be used"

    def test_rules_are_anchored(self) -> None:
        for rule in self.driver.matcher.rules:
            assert rule.pattern.pattern.startswith("^"), rule.name
            assert rule.pattern.pattern.endswith("$"), rule.name

    def test_rules_are_linear(self) -> None:
        for rule in self.driver.matcher.rules:
            assert matching_seconds(rule, SLOW_LINE) < SLOW_LIMIT_S, rule.name

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(body=_JSON | _BODY)
    def test_malformed_health_is_a_typed_error(self, body: object) -> None:
        try:
            listing = self.driver.parse_health(body)
        except MalformedPayload:
            return
        assert isinstance(listing, HealthListing)

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(text=st.text(max_size=200))
    def test_any_line_is_survived(self, text: str) -> None:
        self.driver.matcher.match_line(text)
        self.driver.matcher.looks_like_lifecycle("Router", text)
        assert self.driver.public_name(text) or not text

    def test_names_round_trip(self) -> None:
        for prefix in ("", "user.", "extra.", "builtin."):
            assert self.driver.public_name(f"{prefix}Some-Model.Q4") == "Some-Model.Q4"
        assert self.driver.public_name("user.x", ["user.x", "x"]) == "user.x"


class _OnCaptures:
    """What a recording proves."""

    driver: Driver

    def _play(self, path: Path) -> tuple[Capture, Replay]:
        capture = read_capture(path)
        return capture, replay(capture, self.driver)

    def test_loads_replay_with_model_port_pid_and_order(self, path: Path) -> None:
        capture, result = self._play(path)
        routable = facts.listed_pids(capture)
        expected = [(s.model, s.port, s.pid) for s in facts.spawned(capture) if s.pid in routable]
        loads = [(e.model, _of(e, "port"), _of(e, "pid")) for e in result.events if e.type == "model_loaded"]
        assert loads == expected

    def test_every_process_was_seen_to_start(self, path: Path) -> None:
        capture, result = self._play(path)
        if self.driver.matcher.rules:
            started = {_of(event, "pid") for event in result.events if event.type == "process_spawned"}
            assert {spawn.pid for spawn in facts.spawned(capture)} <= started

    def test_evictions_have_a_reason(self, path: Path) -> None:
        _, result = self._play(path)
        evictions = [event for event in result.events if event.type == "model_evicted"]
        assert all(_of(event, "reason") != "unknown" for event in evictions)

    def test_every_end_has_one_event(self, path: Path) -> None:
        """What was routed and is not at the end was evicted or crashed, each once."""
        capture, result = self._play(path)
        loads: list[str | None] = []
        gone: list[str | None] = []
        for event in result.events:
            if event.type == "model_loaded":
                loads.append(event.model)
            elif event.type in ("model_evicted", "process_crashed") and event.model in loads:
                gone.append(event.model)
                loads.remove(event.model)
        assert sorted(map(str, loads)) == sorted(facts.final(capture))

    def test_crashes_are_told_once_and_at_once(self, path: Path) -> None:
        capture, result = self._play(path)
        crashes = [_of(event, "pid") for event in result.events if event.type == "process_crashed"]
        assert crashes == facts.killed(capture)

    def test_failures_carry_lemonds_text(self, path: Path) -> None:
        capture, result = self._play(path)
        told = [_of(event, "reason") for event in result.events if event.type == "load_failed"]
        assert told == facts.refused(capture)

    def test_the_end_is_what_health_and_processes_say(self, path: Path) -> None:
        capture, result = self._play(path)
        routes = {model: (route.port, route.pid) for model, route in result.final_routes.items()}
        assert routes == facts.final(capture)

    def test_no_route_to_a_dead_process(self, path: Path) -> None:
        capture, result = self._play(path)
        ends = facts.ends(capture)
        for t, routes in result.routes:
            for route in routes.values():
                assert route.pid is None or t <= ends.get(route.pid, float("inf")), (t, route)

    def test_no_lifecycle_line_is_unknown(self, path: Path) -> None:
        _, result = self._play(path)
        assert not result.unknown_lines, dict(result.unknown_lines)
        assert not result.complaints

    def test_the_log_alone_makes_no_route(self, path: Path) -> None:
        capture = read_capture(path)
        blind = Capture(
            capture.path, capture.meta, tuple(line for line in capture.lines if line.kind != "health")
        )
        result = replay(blind, self.driver)
        assert not any(routes for _, routes in result.routes)
        assert "model_loaded" not in {event.type for event in result.events}

    def test_unknown_keys_survive(self, path: Path) -> None:
        for line in read_capture(path).lines:
            if line.kind != "health":
                continue
            plain = self.driver.parse_health(line.data["body"])
            assert not plain.unknown_keys, sorted(plain.unknown_keys)
            body = copy.deepcopy(line.data["body"])
            body["a_key_of_tomorrow"] = {"x": [1]}
            for entry in body["all_models_loaded"]:
                entry["another"] = None
            extended = self.driver.parse_health(body)
            assert [m.model for m in extended.models] == [m.model for m in plain.models]
            assert "a_key_of_tomorrow" in extended.unknown_keys

    def test_speed_is_reported(self, path: Path, record_property: Any) -> None:
        lines = _lines(read_capture(path))
        began = time.perf_counter()
        for line in lines:
            self.driver.matcher.match_line(line)
        record_property("lines_per_second", round(len(lines) / (time.perf_counter() - began)))
        assert [line for line in lines if self.driver.matcher.match(message_of(line)) is not None]


def _of(event: object, name: str) -> Any:
    return getattr(event, name)


def _lines(capture: Capture) -> list[str]:
    found = []
    for line in capture.lines:
        if line.kind == "ws":
            frame = read_frame(line.data["frame"])
            if isinstance(frame, Live):
                found.append(frame.entry.line)
    return found
