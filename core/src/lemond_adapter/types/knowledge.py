"""Knowledge has three values: known to be so, known not to be so, and not known.

`Known(value)` carries both of the first two (an empty tuple of models is a fact); `Unknown` says
since when and why we cannot tell. Nothing may treat `Unknown` as "not loaded": lemond's health
endpoint is silent for seconds during every eviction, in every release measured (10.5.1-11.7.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

T = TypeVar("T", covariant=True)


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """A fact, and when it was last confirmed (UTC)."""

    value: T
    as_of: datetime


@dataclass(frozen=True, slots=True)
class Unknown:
    """No current fact: since when (UTC), and why, in words an operator can act on."""

    since: datetime
    why: str


Knowledge = Known[T] | Unknown
