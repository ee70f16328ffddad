"""The ledger under any order of listings, hints and process ends."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lemond_adapter.drivers import HealthListing
from lemond_adapter.truth.hints import Hint, HintKind
from lemond_adapter.truth.ledger import BLIND_GRACE_S, STORY_GRACE_S, Ledger
from lemond_adapter.truth.record import Ending
from lemond_adapter.types import LoadedModel, RouteInfo, SlotEvent
from lemond_adapter.types.events import UNSTAMPED


class Rig:
    """A ledger with a clock and a process table of the test's own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.dead: set[int] = set()
        self.ledger = Ledger(clock=lambda: self.now, alive=self._alive, make_route=self._route)
        self.ledger.log_attached = True

    def _alive(self, entry: LoadedModel) -> bool | None:
        return entry.pid not in self.dead

    def _route(self, entry: LoadedModel, generation: int) -> RouteInfo | None:
        assert entry.base_url is not None
        assert entry.port is not None
        return RouteInfo(
            None, entry.model, entry.base_url, entry.port, entry.pid, "child", generation, UNSTAMPED
        )

    def list(self, *models: tuple[str, int, int]) -> list[SlotEvent]:
        entries = tuple(LoadedModel(m, f"http://127.0.0.1:{port}", port, pid) for m, port, pid in models)
        return self.ledger.apply_listing(HealthListing("10.7.0", entries), self.ledger.begin_listing())

    def hint(self, kind: HintKind, model: str, **more: Any) -> list[SlotEvent]:
        return self.ledger.hint(Hint(kind, model, **more))

    def end(self, pid: int, *, graceful: bool = False, lemond: bool | None = True) -> list[SlotEvent]:
        self.dead.add(pid)
        return self.ledger.process_ended(pid, Ending("signal 9", graceful), lemond_alive=lemond)


def kinds(events: list[SlotEvent]) -> list[str]:
    return [event.type for event in events]


def test_only_a_listing_makes_a_route() -> None:
    rig = Rig()
    rig.hint(HintKind.STARTING, "a")
    rig.hint(HintKind.SPAWNED, "a", pid=10)
    assert rig.hint(HintKind.LOADED, "a", pid=10) == []
    assert rig.ledger.routes == {}
    assert rig.ledger.wants_listing
    assert kinds(rig.list(("a", 8001, 10))) == ["model_loaded"]
    assert rig.ledger.routes["a"].pid == 10


def test_an_old_listing_cannot_restore_what_a_hint_withdrew() -> None:
    rig = Rig()
    rig.list(("a", 8001, 10))
    token = rig.ledger.begin_listing()
    rig.hint(HintKind.EVICTING, "a", reason="lru")
    entry = LoadedModel("a", "http://127.0.0.1:8001", 8001, 10)
    rig.ledger.apply_listing(HealthListing("10.7.0", (entry,)), token)
    assert rig.ledger.routes == {}


def test_a_wrong_hint_is_outvoted_by_two_listings_under_the_same_generation() -> None:
    rig = Rig()
    rig.list(("a", 8001, 10))
    rig.hint(HintKind.EVICTING, "a", reason="lru")
    assert rig.list(("a", 8001, 10)) == []
    assert kinds(rig.list(("a", 8001, 10))) == ["model_loaded"]
    assert rig.ledger.routes["a"].generation == 1


def test_a_deferred_eviction_is_taken_back_at_once() -> None:
    rig = Rig()
    rig.list(("a", 8001, 10))
    rig.hint(HintKind.EVICTING, "a", reason="lru")
    rig.hint(HintKind.KEPT, "a")
    assert kinds(rig.list(("a", 8001, 10))) == ["model_loaded"]


def test_a_graceful_end_waits_for_its_story() -> None:
    rig = Rig()
    rig.list(("a", 8001, 10))
    assert rig.end(10, graceful=True) == []
    assert rig.ledger.routes == {}
    assert kinds(rig.hint(HintKind.EVICTING, "a", reason="lru")) == ["eviction_started"]
    events = rig.hint(HintKind.EVICTED, "a", reason="lru")
    assert [(e.type, e.reason) for e in events] == [("model_evicted", "lru")]  # type: ignore[attr-defined]


def test_a_graceful_end_without_a_story_is_a_crash() -> None:
    rig = Rig()
    rig.list(("a", 8001, 10))
    rig.end(10, graceful=True)
    rig.now += STORY_GRACE_S + 0.01
    assert kinds(rig.ledger.expire()) == ["process_crashed"]
    assert rig.ledger.next_deadline() is None


def test_without_a_log_the_listing_decides() -> None:
    rig = Rig()
    rig.ledger.log_attached = False
    rig.list(("a", 8001, 10))
    rig.end(10, graceful=True)
    rig.now += BLIND_GRACE_S - 0.01
    assert rig.ledger.expire() == []
    assert kinds(rig.list()) == ["model_evicted"]


def test_children_that_go_with_lemond_are_not_crashes() -> None:
    rig = Rig()
    rig.list(("a", 8001, 10))
    events = rig.end(10, graceful=True, lemond=False)
    assert [(e.type, e.reason) for e in events] == [("model_evicted", "shutdown")]  # type: ignore[attr-defined]


def test_a_dead_child_that_lemond_lists_is_told_once_and_needs_an_unload() -> None:
    rig = Rig()
    rig.dead.add(10)
    assert kinds(rig.list(("a", 8001, 10))) == ["process_crashed"]
    assert rig.list(("a", 8001, 10)) == []
    assert rig.ledger.records["a"].needs_unload
    assert rig.ledger.routes == {}


def test_another_port_without_a_story_grows_the_generation() -> None:
    rig = Rig()
    rig.list(("a", 8001, 10))
    assert kinds(rig.list(("a", 8002, 11))) == ["port_changed"]
    assert rig.ledger.routes["a"].generation == 2


MODELS = st.sampled_from(["a", "b", "c"])


class AnyHistory(RuleBasedStateMachine):
    """A world of processes and a lemond that lists them; hints that may be true, late, lost or lies."""

    @initialize()
    def begin(self) -> None:
        self.rig = Rig()
        self.pids = iter(range(100, 100_000))
        self.world: dict[str, tuple[int, int]] = {}
        self.events: list[SlotEvent] = []
        self.generations: dict[str, int] = {}

    @rule(model=MODELS, port=st.integers(8001, 8004))
    def lemond_loads(self, model: str, port: int) -> None:
        if port not in [taken for taken, _ in self.world.values()]:
            self._stop(model)
            self.world[model] = (port, next(self.pids))

    @rule(model=MODELS)
    def lemond_unloads(self, model: str) -> None:
        self._stop(model)
        self.world.pop(model, None)

    @rule(model=MODELS)
    def child_is_killed_and_stays_listed(self, model: str) -> None:
        if model in self.world:
            self.events += self.rig.end(self.world[model][1])

    @rule()
    def listing(self) -> None:
        self.events += self.rig.list(*((m, port, pid) for m, (port, pid) in self.world.items()))

    @rule(model=MODELS, kind=st.sampled_from(list(HintKind)), pid=st.integers(1, 200))
    def any_hint(self, model: str, kind: HintKind, pid: int) -> None:
        alive = {p for _, p in self.world.values()} - self.rig.dead
        if kind is not HintKind.DEAD or pid not in alive:
            self.events += self.rig.hint(kind, model, pid=pid, reason="lru")

    @rule(seconds=st.sampled_from([0.1, 1.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.rig.now += seconds
        self.events += self.rig.ledger.expire()

    def _stop(self, model: str) -> None:
        if model in self.world:
            self.events += self.rig.end(self.world[model][1], graceful=True)

    @invariant()
    def no_route_to_a_dead_process(self) -> None:
        if hasattr(self, "rig"):
            assert not {route.pid for route in self.rig.ledger.routes.values()} & self.rig.dead

    @invariant()
    def generations_never_shrink(self) -> None:
        if hasattr(self, "rig"):
            for model, route in self.rig.ledger.routes.items():
                assert route.generation >= self.generations.get(model, 0)
                self.generations[model] = route.generation

    def teardown(self) -> None:
        """G4: whatever was said, a few listings later the view is what lemond lists and what lives."""
        if not hasattr(self, "rig"):
            return
        self.rig.now += 100.0
        self.rig.ledger.expire()
        for _ in range(3):
            self.listing()
        alive = {m: pid for m, (_, pid) in self.world.items() if pid not in self.rig.dead}
        assert {m: route.pid for m, route in self.rig.ledger.routes.items()} == alive


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
