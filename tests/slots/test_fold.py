"""Slot state is a fold: any events, in any order, again and again, give what the reference gives."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lemond_adapter.slots.fold import View, fold
from lemond_adapter.types import (
    ROUTABLE_STATES,
    EvictionStarted,
    LemondLost,
    LemondStarted,
    LoadFailed,
    LoadStarted,
    ModelEvicted,
    ModelLoaded,
    PortChanged,
    ProcessCrashed,
    ProcessSpawned,
    PullFinished,
    PullProgress,
    PullStarted,
    Resynced,
    SlotEvent,
)

from .reference import of_model, stale

MODELS = ("a", "b")
seqs = st.integers(1, 40)
models = st.sampled_from(MODELS)
pids = st.integers(100, 105)
ports = st.integers(8001, 8004)

events = st.one_of(
    st.builds(PullStarted, seq=seqs, model=models),
    st.builds(PullProgress, seq=seqs, model=models, percent=st.floats(0, 100)),
    st.builds(PullFinished, seq=seqs, model=models, ok=st.booleans()),
    st.builds(LoadStarted, seq=seqs, model=models),
    st.builds(ProcessSpawned, seq=seqs, model=models, pid=pids),
    st.builds(ModelLoaded, seq=seqs, model=models, port=ports, pid=pids),
    st.builds(
        PortChanged, seq=seqs, model=models, old_port=ports, new_port=ports, pid=st.one_of(st.none(), pids)
    ),
    st.builds(LoadFailed, seq=seqs, model=models, reason=st.just("it would not")),
    st.builds(EvictionStarted, seq=seqs, model=models),
    st.builds(ModelEvicted, seq=seqs, model=models),
    st.builds(ProcessCrashed, seq=seqs, model=models, pid=pids),
    st.builds(
        LemondStarted,
        seq=seqs,
        version=st.just("10.7.0"),
        driver=st.just("lemond-10.7"),
        driver_match=st.just("exact"),
    ),
    st.builds(LemondLost, seq=seqs, reason=st.just("silent")),
    st.builds(Resynced, seq=seqs, reason=st.just("reconnect")),
)


def folded(history: list[SlotEvent]) -> View:
    view = View()
    for event in history:
        view = fold(view, event)
    return view


def check(view: View, history: list[SlotEvent]) -> None:
    assert view.stale == stale(history)
    for model in MODELS:
        seen = view.models.get(model)
        wanted = of_model(history, model)
        if seen is None:
            assert wanted["state"] == "offline"
            continue
        got = {key: getattr(seen, key) for key in ("port", "pid", "generation", "loads")}
        assert {"state": seen.state.value, **got} == wanted


@given(st.lists(events, max_size=60))
@settings(max_examples=600, deadline=None)
def test_any_sequence_gives_what_the_reference_gives(history: list[SlotEvent]) -> None:
    check(folded(history), history)


@given(st.lists(events, max_size=40), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_order_and_repetition_on_the_way_change_nothing(history: list[SlotEvent], order: object) -> None:
    # As they happened: each seq once, in order.
    happened = list({event.seq: event for event in history}.values())
    happened.sort(key=lambda event: event.seq)
    # As they may arrive at somebody who resumes: pieces again, never out of order across the whole.
    arrived: list[SlotEvent] = []
    for index, event in enumerate(happened):
        arrived.append(event)
        back = order.randrange(0, index + 1) if index % 3 == 0 else index  # type: ignore[attr-defined]
        arrived += happened[back : index + 1]
    assert folded(arrived) == folded(happened)


class Machine(RuleBasedStateMachine):
    """Events one by one: what must hold holds after each."""

    def __init__(self) -> None:
        super().__init__()
        self.view = View()
        self.history: list[SlotEvent] = []
        self.generations = dict.fromkeys(MODELS, 0)
        self.gone: dict[str, set[int]] = {model: set() for model in MODELS}

    @rule(event=events, step=st.integers(1, 3))
    def happens(self, event: SlotEvent, step: int) -> None:
        event = event.model_copy(update={"seq": self.view.seq + step})
        before = self.view.models.get(event.model or "")
        self.view = fold(self.view, event)
        self.history.append(event)
        if event.model is None:
            return
        gone = self.gone[event.model]
        if isinstance(event, ModelEvicted | ProcessCrashed) and before is not None and before.pid:
            gone.add(before.pid)
        if isinstance(event, ModelLoaded | ProcessSpawned | PortChanged):
            gone.discard(event.pid or 0)

    @rule(event=events)
    def comes_too_late(self, event: SlotEvent) -> None:
        event = event.model_copy(update={"seq": max(1, self.view.seq)})
        before = self.view
        if before.seq:
            assert fold(before, event) is before

    @invariant()
    def as_the_reference(self) -> None:
        check(self.view, self.history)

    @invariant()
    def no_route_in_a_state_that_has_none(self) -> None:
        for seen in self.view.models.values():
            if seen.state not in ROUTABLE_STATES and seen.state.value != "unloading":
                assert seen.port is None

    @invariant()
    def a_pid_that_went_is_not_shown_as_running(self) -> None:
        for model, seen in self.view.models.items():
            assert seen.pid is None or seen.pid not in self.gone[model]

    @invariant()
    def generations_only_grow(self) -> None:
        for model, seen in self.view.models.items():
            assert seen.generation >= self.generations[model]
            self.generations[model] = seen.generation


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
