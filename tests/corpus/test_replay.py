"""Every capture, beyond what each driver's conformance run checks: the reasons of its evictions, other
releases' drivers, no driver at all, and a log as two threads of lemond's would garble it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.version import Version

from lemond_adapter.captures import Capture, Replay, read_capture, replay
from lemond_adapter.drivers import generic_driver, installed_drivers, select_driver
from lemond_adapter.testing import facts

CORPUS = Path(__file__).parents[2] / "corpus"
CAPTURES = sorted(CORPUS.glob("*/*.jsonl"))
INSTALLED = installed_drivers()

Evictions = list[tuple[str, str]]


def evictions_of(scenario: str, release: Version) -> Evictions:
    """What lemond evicted, and why, as the scenario drove it on that release."""
    watchdog, repeats_reload = release >= Version("10.8"), Version("10.8") <= release < Version("11.7")
    match scenario:
        case "load_chat_unload":
            # A repeated load of a model with an automatic context size reloads it.
            reloads: Evictions = [("tiny-a", "reload")] * (2 if repeats_reload else 1)
            return [*reloads, ("tiny-a", "manual")]
        case "lru_eviction":
            lru: Evictions = [("tiny-a", "lru"), ("tiny-b", "lru")]
            if release < Version("10.7"):
                # The chat with the bare name fails to load the model, so it evicts nobody.
                return [*lru, ("tiny-embed", "manual"), ("tiny-c", "manual")]
            return [*lru, ("tiny-c", "lru"), ("tiny-embed", "manual"), ("tiny-a", "manual")]
        case "crash" if watchdog:
            # The load after the crash is a real one, so there is something to unload.
            reload: Evictions = [("tiny-a", "reload")] if repeats_reload else []
            return [*reload, ("tiny-a", "manual")]
        case "load_failure_cascade":
            return [("tiny-a", "load_failure_cascade"), ("tiny-embed", "load_failure_cascade")]
        case "port_drift":
            return [("tiny-a", "manual")]
    return []


def scenario(capture: Capture) -> str:
    return str(capture.meta["scenario"])


def final_routes(result: Replay) -> dict[str, tuple[int, int | None]]:
    return {model: (route.port, route.pid) for model, route in result.final_routes.items()}


def played(path: Path) -> tuple[Capture, Replay]:
    capture = read_capture(path)
    selection = select_driver(capture.release, INSTALLED.drivers)
    assert selection.match == "exact"
    return capture, replay(capture, selection.driver)


@pytest.mark.parametrize("path", CAPTURES, ids=lambda p: f"{p.parent.name}/{p.stem}")
class TestCapture:
    def test_evictions_have_their_reason(self, path: Path) -> None:
        capture, result = played(path)
        evictions = [(e.model, e.reason) for e in result.events if e.type == "model_evicted"]  # type: ignore[attr-defined]
        assert evictions == evictions_of(scenario(capture), Version(str(capture.release)))

    def test_generic_reaches_the_same_end_without_any_rule(self, path: Path) -> None:
        capture = read_capture(path)
        result = replay(capture, generic_driver())
        assert final_routes(result) == facts.final(capture)
        assert_no_dead_routes(capture, result)

    def test_another_releases_driver_never_makes_a_wrong_route(self, path: Path) -> None:
        capture = read_capture(path)
        for driver in INSTALLED.drivers:
            if driver.info.channel == "log":
                result = replay(capture, driver)
                assert final_routes(result) == facts.final(capture), driver.name
                assert_no_dead_routes(capture, result)
                assert_routes_were_listed(capture, result)

    @settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(seed=st.integers(0, 2**32 - 1))
    def test_shuffled_tags_and_severities_change_nothing_that_matters(self, path: Path, seed: int) -> None:
        capture = read_capture(path)
        own = select_driver(capture.release, INSTALLED.drivers).driver
        result = replay(scrambled(capture, random.Random(seed)), own)
        assert final_routes(result) == facts.final(capture)
        assert_no_dead_routes(capture, result)
        assert_routes_were_listed(capture, result)


def assert_no_dead_routes(capture: Capture, result: Replay) -> None:
    ends = facts.ends(capture)
    for t, routes in result.routes:
        for route in routes.values():
            assert route.pid is None or t <= ends.get(route.pid, float("inf")), (t, route)


def assert_routes_were_listed(capture: Capture, result: Replay) -> None:
    listed = {(entry["model_name"], entry["pid"]) for listing in facts.listings(capture) for entry in listing}
    for _, routes in result.routes:
        assert {(route.model, route.pid) for route in routes.values()} <= listed


def scrambled(capture: Capture, rng: random.Random) -> Capture:
    """As aixlog does it when two threads log at once: tags and severities swapped, some lines lost."""
    lines = list(capture.lines)
    entries: list[tuple[int, dict[str, Any]]] = []
    for index, line in enumerate(lines):
        if line.kind == "ws":
            frame = line.data["frame"]
            frame = json.loads(frame) if isinstance(frame, str) else frame
            if frame["type"] == "logs.entry":
                entries.append((index, frame))
    heads = [(f["entry"]["severity"], f["entry"]["tag"]) for _, f in entries]
    rng.shuffle(heads)
    lost = {index for index, _ in entries if rng.random() < 0.1}
    for (index, frame), (severity, tag) in zip(entries, heads, strict=True):
        lines[index] = _rewritten(lines[index], frame, severity, tag)
    return replace(capture, lines=tuple(line for index, line in enumerate(lines) if index not in lost))


def _rewritten(line: Any, frame: dict[str, Any], severity: str, tag: str) -> Any:
    entry = dict(frame["entry"])
    old = f"[{entry['severity']}] ({entry['tag']}) "
    entry["line"] = entry["line"].replace(old, f"[{severity}] ({tag}) ", 1)
    entry["severity"], entry["tag"] = severity, tag
    return replace(line, data={**line.data, "frame": {**frame, "entry": entry}})


def test_the_corpus_is_there() -> None:
    releases: Sequence[str] = sorted({path.parent.name for path in CAPTURES})
    assert releases == ["10.10.0", "10.5.1", "10.6.0", "10.7.0", "10.8.1", "11.0.0", "11.7.0"]
    assert {path.parent.name for path in CAPTURES if path.stem.endswith(".debug")} == {
        "10.5.1",
        "10.6.0",
        "10.7.0",
        "11.7.0",
    }
    for driver in INSTALLED.drivers:
        assert set(driver.info.recorded) <= set(releases), driver.name
