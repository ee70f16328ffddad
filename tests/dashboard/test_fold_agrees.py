"""The page folds events as the service does: the same events, the same states (T7)."""

from __future__ import annotations

import json
import random
from typing import Any

from lemond_adapter.slots.fold import View, fold
from lemond_adapter.types import (
    EvictionStarted,
    LemondLost,
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
    encode_event,
)

FOLD = """
const [events, done] = arguments;
import("/dashboard/fold.js").then(({ emptyView, fold }) => {
  const view = emptyView();
  done(events.map((event) => {
    fold(view, event);
    const models = [...view.models.values()];
    return [view.stale, view.seq, models.map((m) =>
      [m.model, m.state, m.port, m.pid, m.generation, m.loads, m.message])];
  }));
}, (problem) => done(String(problem)));
"""


def any_event(dice: random.Random, seq: int) -> SlotEvent:
    model, pid, port = (
        dice.choice(["a", "b", "ü<c>"]),
        dice.choice([5, 6217, 70000]),
        dice.choice([8001, 8002]),
    )
    event: SlotEvent = dice.choice(
        [
            PullStarted(model=model),
            PullProgress(model=model, percent=dice.choice([0.0, 33.4, 99.6, 100.0])),
            PullFinished(model=model, ok=dice.random() < 0.5, reason="disk full"),
            LoadStarted(model=model),
            ProcessSpawned(model=model, pid=pid),
            ModelLoaded(model=model, port=port, pid=dice.choice([pid, None])),
            PortChanged(model=model, old_port=8001, new_port=port, pid=pid),
            LoadFailed(model=model, reason="no such file", kind="not_found"),
            EvictionStarted(model=model, reason=dice.choice(["lru", "idle", "unknown"])),
            ModelEvicted(model=model, reason=dice.choice(["lru", "idle", "unknown"])),
            ProcessCrashed(model=model, pid=pid, exit=dice.choice([None, "signal 9"])),
            LemondLost(reason="silent"),
            Resynced(reason="heartbeat"),
        ]
    )
    return event.model_copy(update={"seq": seq})


async def test_the_page_folds_as_the_service_does(scripts: Any) -> None:
    dice = random.Random(20260602)
    # Some events come twice, or late: they change nothing.
    events = [any_event(dice, seq if dice.random() > 0.1 else max(1, seq - 3)) for seq in range(1, 801)]
    view, expected = View(), []
    for event in events:
        view = fold(view, event)
        models = [
            [m.model, m.state.value, m.port, m.pid, m.generation, m.loads, m.message]
            for m in view.models.values()
        ]
        expected.append([view.stale, view.seq, models])
    found = await scripts(FOLD, [json.loads(encode_event(event)) for event in events])
    assert found == expected
