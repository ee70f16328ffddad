"""The journal: bounded, never in the way, readable after anything."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lemond_adapter.journal import Journal, Query
from lemond_adapter.types import ModelLoaded, SlotEvent

DAY = 86_400.0


def event(seq: int, model: str = "tiny-a", at: datetime | None = None) -> SlotEvent:
    return ModelLoaded(seq=seq, at=at or datetime.now(UTC), model=model, slot="primary", port=8001, pid=seq)


def opened(path: Path | None, most_rows: int = 100_000, oldest_s: float = DAY) -> Journal:
    return Journal(path, most_rows=most_rows, oldest_s=oldest_s)


async def seqs(journal: Journal, **asked: Any) -> list[int]:
    return [row["seq"] for row in await journal.events(Query(**{"limit": 1000, **asked}))]


async def test_what_was_given_is_there_again(tmp_path: Path) -> None:
    journal = opened(tmp_path / "deep" / "journal.sqlite")
    for number in range(1, 6):
        journal.event(event(number, "tiny-a" if number % 2 else "tiny-b"))
    assert await seqs(journal) == [1, 2, 3, 4, 5]  # also before it is on disk
    assert await seqs(journal, since=2, limit=2) == [4, 5]
    assert await seqs(journal, model="tiny-b") == [2, 4]
    assert await seqs(journal, slot="primary", limit=1) == [5]
    assert await seqs(journal, type="model_evicted") == []
    journal.load_time("tiny-a", 1.5)
    journal.close()
    again = opened(tmp_path / "deep" / "journal.sqlite")
    assert await seqs(again) == [1, 2, 3, 4, 5]
    assert again.load_times() == [("tiny-a", 1.5)]
    # This run's seqs cannot meet those that a killed run gave out.
    assert again.seq_after > 5 + 1000
    again.close()


async def test_it_is_bounded_by_rows_and_age(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = opened(path, most_rows=100)
    old = datetime(2020, 1, 1, tzinfo=UTC)
    journal.event(event(1, at=old))
    for number in range(2, 3000):
        journal.event(event(number))
    await journal.events(Query())  # written, and trimmed on the way
    journal.close()
    again = opened(path, most_rows=100)
    assert await seqs(again) == list(range(2900, 3000))
    again.close()
    assert path.stat().st_size < 4_000_000


@pytest.mark.parametrize(
    "content",
    [b"", b"SQLite format 3\0" + b"garbage" * 500, b"not a database at all" * 100, os.urandom(5000)],
)
async def test_a_broken_file_is_set_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(content)
    journal = opened(path)
    journal.event(event(7))
    assert await seqs(journal) == [7]
    journal.close()
    kept = [file for file in tmp_path.iterdir() if "unusable" in file.name]
    assert bool(kept) == bool(content)  # an empty file is an empty database
    assert all(file.read_bytes() == content for file in kept)


async def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE events (name TEXT)")
    foreign.execute("INSERT INTO events VALUES ('theirs')")
    foreign.commit()
    foreign.close()
    journal = opened(path)
    journal.event(event(1))
    assert await seqs(journal) == [1]
    journal.close()
    (kept,) = [file for file in tmp_path.iterdir() if "unusable" in file.name]
    with sqlite3.connect(kept) as theirs:
        assert theirs.execute("SELECT name FROM events").fetchall() == [("theirs",)]


async def test_a_file_that_breaks_while_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = opened(path)
    for number in range(1, 2000):
        journal.event(event(number))
    await journal.events(Query())
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    for number in range(2000, 2010):
        journal.event(event(number))
        await journal.events(Query())
    journal.close()
    again = opened(path)
    again.event(event(5000))
    assert 5000 in await seqs(again)
    again.close()


async def test_a_second_service_does_not_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    first, second = opened(path), opened(path)
    second.event(event(1))
    assert await seqs(second) == [1]
    assert await seqs(first) == []
    assert "another lemond-adapter" in str(second.status().problem)
    first.close()
    second.close()


FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
from lemond_adapter.journal import Journal, Query
sys.path.insert(0, sys.argv[2])
from test_journal import event
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
journal = Journal(Path(sys.argv[1]), most_rows=100_000, oldest_s=86_400)
for number in range(1, 5000):
    journal.event(event(number))
asyncio.run(journal.events(Query()))
print("problem:", journal.status().problem)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
found = asyncio.run(journal.events(Query(limit=10_000)))
print("after:", journal.status().problem, len(found), journal.status().lost)
journal.close()
"""


def test_a_full_disk_costs_nothing_once_there_is_room_again(tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    command = [sys.executable, "-c", FULL, str(tmp_path / "journal.sqlite"), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    full, after = done.stdout.splitlines()
    assert full != "problem: None"
    assert after == "after: None 4999 0"


WRITER = """
import sys, time
from pathlib import Path
from lemond_adapter.journal import Journal
sys.path.insert(0, sys.argv[2])
from test_journal import event
journal = Journal(Path(sys.argv[1]), most_rows=100_000, oldest_s=86_400)
seq = journal.seq_after
while True:
    for _ in range(20):
        seq += 1
        journal.event(event(seq))
    print(seq, time.time(), flush=True)
    time.sleep(0.01)
"""


@pytest.mark.slow
async def test_killed_at_any_moment_at_most_the_last_second_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    command = [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent)]
    for round_ in range(50):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            given = [writer.stdout.readline().split() for _ in range(40 + round_ * 3)]
            writer.send_signal(signal.SIGKILL)
            given += [line.split() for line in writer.stdout.read().splitlines() if line.count(" ") == 1]
        killed_at = float(given[-1][1])
        journal = opened(path)
        last = journal.last_seq
        found = await seqs(journal, limit=50, since=last - 20)
        assert found == list(range(last - 19, last + 1))
        due = [int(seq) for seq, at in given if float(at) < killed_at - 1.0]
        assert not due or last >= due[-1]
        journal.close()
