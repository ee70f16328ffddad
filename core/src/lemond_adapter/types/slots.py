"""A slot: a name that clients use for a model, with what the operator wants for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SlotSpec:
    """One configured slot.

    `options` are sent with every `/v1/load` of ours; None means: those lemond last showed, where the
    release allows that, else lemond's defaults. `hold_s` is how long a request may wait for the route
    by default, in seconds.
    """

    name: str
    model: str
    aliases: tuple[str, ...] = ()
    type: str = "llm"
    backend: str = ""
    enabled: bool = True
    options: Mapping[str, Any] | None = None
    idle_timeout_s: float | None = None
    hold_s: float | None = None
    pinned: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
