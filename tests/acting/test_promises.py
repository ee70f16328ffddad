"""Clients that were told to come back."""

from __future__ import annotations

from lemond_adapter.acting.promises import LATE_S, LONGEST_WAIT_S, Promises


def test_a_model_is_kept_for_all_who_were_told_to_return_and_no_longer() -> None:
    now = [100.0]
    promises = Promises(lambda: now[0])
    promises.made("a", 3.0)
    promises.made("a", 5.0)
    assert promises.until("a") == 105.0 + LATE_S
    promises.kept("a")
    assert promises.until("a") == 105.0 + LATE_S  # the other one is still expected
    promises.kept("a")
    promises.kept("a")
    assert promises.until("a") == promises.until("b") == 0.0


def test_who_does_not_return_is_forgotten() -> None:
    now = [0.0]
    promises = Promises(lambda: now[0])
    promises.made("a", 600.0)
    assert promises.until("a") == LONGEST_WAIT_S + LATE_S
    now[0] = LONGEST_WAIT_S + LATE_S
    assert promises.until("a") == 0.0
