"""The restart budget: deaths in a row, the pause before the next try, when to give up. Sans-IO."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_BACKOFF_S = 60.0


@dataclass(slots=True)
class Streak:
    """Deaths of one model since it last proved that it works."""

    deaths: int
    last_at: float


@dataclass(frozen=True, slots=True)
class Restart:
    """Try again, not before `at`."""

    at: float
    deaths: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The budget is used up until `until`, unless somebody acts."""

    until: float
    deaths: int


class RestartBudget:
    """Per model. A served request, a load by hand or enough quiet makes the budget whole again."""

    def __init__(self, max_restarts: int, backoff_s: float, refill_s: float) -> None:
        self.max_restarts = max_restarts
        self.backoff_s = backoff_s
        self.refill_s = refill_s
        self._streaks: dict[str, Streak] = {}

    def died(self, model: str, now: float) -> Restart | GiveUp:
        """Its process died at `now`. The first restart is immediate."""
        streak = self._streaks.get(model)
        if streak is None or now - streak.last_at >= self.refill_s:
            streak = self._streaks[model] = Streak(0, now)
        streak.deaths += 1
        streak.last_at = now
        if streak.deaths > self.max_restarts:
            return GiveUp(now + self.refill_s, streak.deaths)
        pause = 0.0 if streak.deaths == 1 else self.backoff_s * 2.0 ** (streak.deaths - 2)
        return Restart(now + min(pause, LONGEST_BACKOFF_S), streak.deaths)

    def whole(self, model: str) -> None:
        """It served a request, or somebody acted: earlier deaths no longer count."""
        self._streaks.pop(model, None)

    def deaths(self, model: str) -> int:
        """In a row, so far."""
        streak = self._streaks.get(model)
        return streak.deaths if streak else 0
