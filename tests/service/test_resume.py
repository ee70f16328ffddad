"""Resuming behind more events than are held in memory: from the journal, whole, or by a snapshot."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lemond_adapter.journal import Journal
from lemond_adapter.service.sse import stream
from lemond_adapter.truth.hub import EventHub
from lemond_adapter.types import ModelEvicted

TOTAL = 1300


@pytest.fixture
def history() -> Any:
    hub = EventHub(ring=20, after=10_050)
    journal = Journal(None, most_rows=100_000, oldest_s=86_400)
    journal.epoch = hub.epoch
    hub.observers.append(journal.event)
    for number in range(TOTAL):
        hub.publish(ModelEvicted(model=f"m{number}"))
    yield hub, journal
    journal.close()


async def first(hub: EventHub, journal: Journal | None, since: int, count: int) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    past = journal.following if journal else None
    async for piece in stream(hub, lambda: {"seq": hub.seq}, since, past=past):
        for frame in piece.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in frame.splitlines() if line)
            if fields:
                assert fields["id"] == f"{hub.epoch}:{json.loads(fields['data'])['seq']}"
                found.append((fields["event"], json.loads(fields["data"])["seq"]))
        if len(found) >= count:
            return found[:count]
    raise AssertionError("the stream ended")


async def test_all_of_it_comes_from_the_journal(history: Any) -> None:
    hub, journal = history
    found = await first(hub, journal, hub.first, TOTAL)
    assert found == [("model_evicted", hub.first + 1 + number) for number in range(TOTAL)]
    found = await first(hub, journal, hub.first + 700, 600)
    assert [seq for _, seq in found] == list(range(hub.first + 701, hub.first + 1301))


async def test_where_the_journal_has_a_hole_a_snapshot_says_so(history: Any) -> None:
    hub, journal = history
    await journal.following(hub.first, 1)  # all is written
    journal._store._db.execute("DELETE FROM events WHERE seq = ?", (hub.first + 800,))
    found = await first(hub, journal, hub.first + 700, 1)
    assert found == [("snapshot", hub.seq)]


@pytest.mark.parametrize("since", [0, 41, 10_049, 10_050 + TOTAL + 1])
async def test_seqs_that_are_not_of_this_run_get_a_snapshot(history: Any, since: int) -> None:
    hub, journal = history
    assert await first(hub, journal, since, 1) == [("snapshot", hub.seq)]
    assert await first(hub, None, hub.first, 1) == [("snapshot", hub.seq)]
