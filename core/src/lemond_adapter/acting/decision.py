"""What to answer for a model without a route. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """The answer, and whether a load is to be asked for."""

    UNAVAILABLE = "lemond cannot be asked, and nothing that lives can serve"
    NOT_FOUND = "nobody knows the model"
    FAILED = "its load failed; the pause after that lasts"
    WAIT = "lemond is loading it already"
    LOAD = "it is known and not loaded"


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of a model that has no route.

    `known`: a slot, the ledger or lemond's catalogue has it; None when that cannot be told now.
    """

    reachable: bool
    known: bool | None
    failed: bool
    lemond_busy: bool


def decide(situation: Situation) -> Verdict:
    """Unknown is never "not found", and a load is never repeated blindly."""
    if not situation.reachable or situation.known is None:
        return Verdict.UNAVAILABLE
    if not situation.known:
        return Verdict.NOT_FOUND
    if situation.failed:
        return Verdict.FAILED
    if situation.lemond_busy:
        return Verdict.WAIT
    return Verdict.LOAD
