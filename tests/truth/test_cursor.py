"""The log cursor: resumes with overlap, notices restarts, never loses order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lemond_adapter.truth.cursor import Continuity, LogCursor
from lemond_adapter.truth.logentry import LogEntry, Snapshot


def entry(seq: int, boot: int = 0) -> LogEntry:
    return LogEntry(seq, f"line {seq} of boot {boot}")


def snapshot(*seqs: int, boot: int = 0) -> Snapshot:
    return Snapshot(tuple(entry(seq, boot) for seq in seqs))


def test_first_connection_asks_for_everything() -> None:
    cursor = LogCursor()
    assert cursor.begin() is None
    opening = cursor.snapshot(snapshot(1, 2, 3))
    assert opening.continuity is Continuity.FIRST
    assert [e.seq for e in opening.entries] == [1, 2, 3]


def test_entries_before_the_snapshot_are_merged_in_order() -> None:
    cursor = LogCursor()
    cursor.begin()
    assert cursor.live(entry(4)) == ()
    assert cursor.live(entry(5)) == ()
    opening = cursor.snapshot(snapshot(1, 2, 3, 4))
    assert [e.seq for e in opening.entries] == [1, 2, 3, 4, 5]


def test_resume_asks_for_one_of_overlap_and_goes_on() -> None:
    cursor = LogCursor()
    cursor.begin()
    cursor.snapshot(snapshot(1, 2, 3))
    assert cursor.begin() == 2
    opening = cursor.snapshot(snapshot(3, 4, 5))
    assert opening.continuity is Continuity.CONTINUED
    assert [e.seq for e in opening.entries] == [4, 5]


def test_a_restart_is_seen_though_seq_fits() -> None:
    cursor = LogCursor()
    cursor.begin()
    cursor.snapshot(snapshot(1, 2, 3))
    cursor.begin()
    assert cursor.snapshot(snapshot(3, 4, boot=1)).continuity is Continuity.BROKEN
    assert cursor.begin() is None
    assert cursor.snapshot(snapshot(1, 2, 3, 4, boot=1)).continuity is Continuity.FIRST


def test_a_restart_is_seen_when_the_new_log_is_shorter() -> None:
    cursor = LogCursor()
    cursor.begin()
    cursor.snapshot(snapshot(1, 2, 3))
    cursor.begin()
    assert cursor.snapshot(snapshot()).continuity is Continuity.BROKEN


def test_duplicates_are_counted_and_dropped_and_gaps_counted() -> None:
    cursor = LogCursor()
    cursor.begin()
    cursor.snapshot(snapshot(1))
    assert [e.seq for e in cursor.live(entry(2))] == [2]
    assert cursor.live(entry(2)) == ()
    assert [e.seq for e in cursor.live(entry(9))] == [9]
    assert (cursor.duplicates, cursor.gaps) == (1, 1)


@given(
    total=st.integers(1, 40),
    retained=st.integers(1, 50),
    cuts=st.lists(st.integers(1, 40), max_size=4),
    copies=st.integers(1, 3),
)
def test_whatever_the_cuts_each_entry_comes_once_and_in_order(
    total: int, retained: int, cuts: list[int], copies: int
) -> None:
    """One lemond, connections cut at arbitrary points, every live entry delivered several times."""
    cursor = LogCursor()
    taken: list[int] = []
    position = 0
    for end in [*sorted({cut for cut in cuts if cut < total}), total]:
        after = cursor.begin() or 0
        first = max(1, position - retained + 1)
        opening = cursor.snapshot(snapshot(*[s for s in range(first, position + 1) if s > after]))
        assert opening.continuity is not Continuity.BROKEN or position == 0
        taken += [e.seq for e in opening.entries]
        for seq in range(position + 1, end + 1):
            for _ in range(copies):
                taken += [e.seq for e in cursor.live(entry(seq))]
        position = end
    assert taken == sorted(set(taken))
    assert taken == list(range(taken[0], total + 1))
