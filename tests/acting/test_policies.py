"""The policies as pure functions: one table a rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lemond_adapter.acting.admission import MakeRoom, Newcomer, Refused, Room, Wait, admit
from lemond_adapter.acting.idle import idle_deadline, overdue
from lemond_adapter.acting.preflight import objection
from lemond_adapter.acting.residents import Resident
from lemond_adapter.acting.restarts import GiveUp, Restart, RestartBudget
from lemond_adapter.acting.restore import Lost, restore_order
from lemond_adapter.acting.touch import touch_due

ONE = {"llm": 1, "embedding": 1}
TWO = {"llm": 2, "embedding": 2}
NEW = Newcomer("new")


def r(model: str, **more: object) -> Resident:
    return Resident(model, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("residents", "limits", "verdict"),
    [
        ([], ONE, Room()),
        ([r("a", type="embedding")], ONE, Room()),
        ([r("a")], {"llm": -1}, Room()),
        ([r("a")], {}, Room()),
        ([r("a")], TWO, Room()),
        ([r("new")], ONE, Room()),
        ([r("a", unmetered=True)], ONE, Room()),
        ([r("a")], ONE, MakeRoom(("a",))),
        ([r("a", leases=3)], ONE, MakeRoom(("a",))),
        ([r("a", used_at=5), r("b", used_at=3)], TWO, MakeRoom(("b",))),
        ([r("a", used_at=5), r("b", used_at=3, leases=1)], TWO, MakeRoom(("a",))),
        ([r("a", used_at=5), r("b", used_at=3, busy=True)], TWO, MakeRoom(("a",))),
        ([r("a", used_at=5), r("b", used_at=3, pinned=True)], TWO, MakeRoom(("a",))),
        ([r("a", used_at=5), r("b", used_at=3, priority=1)], TWO, MakeRoom(("a",))),
        ([r("a", used_at=5, dead=True), r("b", used_at=3)], TWO, MakeRoom(("a",))),
        # The table is over its limit already: two go.
        ([r("a", used_at=1), r("b", used_at=2), r("c", used_at=3)], TWO, MakeRoom(("a", "b"))),
    ],
)
def test_admission(residents: list[Resident], limits: dict[str, int], verdict: object) -> None:
    assert admit(NEW, residents, limits, now=100.0) == verdict


def test_admission_refuses_with_a_reason() -> None:
    refused = admit(NEW, [r("a", pinned=True)], ONE, now=0.0)
    assert isinstance(refused, Refused)
    assert "pinned: a" in refused.why
    assert isinstance(admit(NEW, [r("a")], ONE, now=0.0, may_evict=False), Refused)
    assert isinstance(admit(NEW, [r("a")], ONE, now=0.0, protected={"a"}), Refused)
    # A dead one may always go.
    assert admit(NEW, [r("a", dead=True)], ONE, now=0.0, may_evict=False) == MakeRoom(("a",))


def test_admission_waits() -> None:
    assert isinstance(admit(NEW, [r("a", loading=True)], ONE, now=0.0), Wait)
    # Loaded for a client that has not come back yet.
    waits = admit(NEW, [r("a", untried_until=12.0)], ONE, now=5.0)
    assert isinstance(waits, Wait)
    assert waits.until == 12.0
    assert admit(NEW, [r("a", untried_until=12.0)], ONE, now=12.5) == MakeRoom(("a",))


@pytest.mark.parametrize(
    ("recipe", "device", "goes"),
    [
        ("flm", "npu", ("whisper", "ryzen")),
        ("ryzenai-llm", "npu", ("flm-embed", "whisper", "ryzen")),
        ("whispercpp", "npu", ("flm-embed", "whisper", "ryzen")),
        ("whispercpp", "cpu", ()),
        ("llamacpp", "gpu", ()),
    ],
)
def test_the_npu_is_shared_as_lemond_shares_it(recipe: str, device: str, goes: tuple[str, ...]) -> None:
    residents = [
        r("flm-embed", type="embedding", recipe="flm", device="npu"),
        r("whisper", type="transcription", recipe="whispercpp", device="npu"),
        r("ryzen", type="llm", recipe="ryzenai-llm", device="npu"),
        r("on-gpu", type="llm", recipe="llamacpp", device="gpu"),
    ]
    verdict = admit(Newcomer("new", "image", recipe, device), residents, {"llm": -1}, now=0.0)
    assert verdict == (MakeRoom(goes) if goes else Room())


IDLE = r("a", used_at=100.0, idle_limit_s=30.0)


@pytest.mark.parametrize(
    ("resident", "deadline"),
    [
        (IDLE, 130.0),
        (replace(IDLE, idle_limit_s=0.0), None),
        (replace(IDLE, leases=1), None),
        (replace(IDLE, busy=True), None),
        (replace(IDLE, pinned=True), None),
        (replace(IDLE, leaving=True), None),
        (replace(IDLE, loading=True), None),
        (replace(IDLE, dead=True), None),
    ],
)
def test_idle_deadlines(resident: Resident, deadline: float | None) -> None:
    assert idle_deadline(resident) == deadline


def test_the_longest_unused_goes_first() -> None:
    late = [replace(IDLE, model="b", used_at=90.0), IDLE, replace(IDLE, model="c", used_at=140.0)]
    assert [one.model for one in overdue(late, now=135.0)] == ["b", "a"]


def test_the_restart_budget() -> None:
    budget = RestartBudget(max_restarts=3, backoff_s=1.0, refill_s=100.0)
    assert budget.died("a", 10.0) == Restart(10.0, 1)
    assert budget.died("a", 11.0) == Restart(12.0, 2)
    assert budget.died("a", 13.0) == Restart(15.0, 3)
    assert budget.died("a", 16.0) == GiveUp(116.0, 4)
    assert budget.died("b", 16.0) == Restart(16.0, 1)  # each for itself
    assert budget.died("a", 116.0) == Restart(116.0, 1)  # quiet for long enough
    budget.whole("a")
    assert budget.died("a", 117.0) == Restart(117.0, 1)
    assert RestartBudget(0, 1.0, 100.0).died("a", 1.0) == GiveUp(101.0, 1)


def test_the_backoff_has_a_ceiling() -> None:
    budget = RestartBudget(max_restarts=50, backoff_s=1.0, refill_s=1e9)
    pauses = [budget.died("a", 0.0) for _ in range(20)]
    assert pauses[-1] == Restart(60.0, 20)


def lost(model: str, **more: object) -> Lost:
    fields = {"type": "llm", "reason": "load_failure_cascade", "at": 0.0, "used_at": 0.0, **more}
    return Lost(model, **fields)  # type: ignore[arg-type]


def test_the_order_of_restoring() -> None:
    gone = [
        lost("old", used_at=1.0),
        lost("new", used_at=9.0),
        lost("busy", used_at=2.0, in_use=True),
        lost("pinned", pinned=True),
        lost("important", priority=5),
    ]
    order = restore_order(gone, [], {"llm": -1})
    assert order == ["pinned", "busy", "important", "new", "old"]
    # No more than there is room for; what is back already, or was the cause, stays out.
    assert restore_order(gone, [r("new")], {"llm": 3}, without={"important"}) == ["pinned", "busy"]


def test_touch() -> None:
    residents = [r("busy", leases=2, used_at=50.0), r("quiet", used_at=10.0)]
    lemonds, used = {"busy": 1.0, "quiet": 2.0}, {"busy": 50.0}
    assert touch_due(residents, TWO, lemonds, used) == "busy"
    assert touch_due(residents, {"llm": 3}, lemonds, used) is None  # there is room: nobody is evicted
    assert touch_due(residents, TWO, {"busy": 3.0, "quiet": 2.0}, used) is None  # lemond agrees
    assert touch_due(residents[:1], ONE, lemonds, used) is None  # nothing to choose from


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ("--parallel 2 --flash-attn on", None),
        ("", None),
        ("--parallel 2 --port 9000", "--port"),
        ("--ctx-size=8192 -ngl 5", "--ctx-size, -ngl"),
        ('--alias "unfinished', "No closing quotation"),
    ],
)
def test_flags_that_would_cost_every_model_are_not_sent(args: str, named: str | None) -> None:
    why = objection({"llamacpp_args": args, "ctx_size": 8192})
    assert (why is None) == (named is None)
    assert named is None or named in str(why)
    assert objection({"ctx_size": 8192}) is None
